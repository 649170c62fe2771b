"""PyTorch, as the reference of what a network computes and for GPUs without TensorRT: the operators of an ONNX file, run one by one.

(A converter, onnx2torch, exists; it wants torchvision beside torch, and fixes neither precision nor device.)
CUDA, fp16 and CUDA graphs are written after PyTorch's documentation and were not run on a device for this release.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from torch import Tensor

from ..pipeline.errors import EngineError
from .bf16 import layers_of, wide_nodes
from .convert import stays_wide
from .engine import Arrays, Engine, EngineOptions, Precision
from .torch_reader import Reader, Step

_LOG = logging.getLogger("posepipe.engines")
_FLOATS: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_WARM_RUNS = 3


class TorchEngine(Engine):
    """One network. precision auto: fp32 on a processor, as the reference; fp16 on a GPU. In bf16 and fp16, what a conversion to float16 leaves in
    float32 (`convert.to_fp16`) is float32 here too: sums, exponentials, and what is behind the last layers with weights.

    On a GPU every batch size is captured once as a CUDA graph and replayed (batches above `max_batch` run without), and so is every other size that the
    file leaves open. When a GPU's memory is
    full, what was captured is freed and batches are halved from then on, with a warning. threads: of the whole process, which is how torch
    counts them; so is that fp32 on a GPU is float32, not TF32 (10 of 23 bits), which torch takes by itself. GPUs: not run on a device for this release.
    """

    def __init__(self, path: Path, options: EngineOptions, reason: str) -> None:
        self._device, self._where = _device(options.device, str(path)), str(path)
        gpu = self._device.type == "cuda"
        if options.precision == "int8":
            hint = "write `runtime: openvino` or `onnxruntime` for int8"
            raise EngineError("torch runs no int8 networks", where=str(path), hint=hint)
        if options.precision == "fp16" and not gpu:
            raise EngineError("fp16 on a processor is slower than fp32", where=str(path), hint="write `precision: bf16` or `auto`")
        precision: Precision = ("fp16" if gpu else "fp32") if options.precision == "auto" else options.precision
        if options.threads and not gpu:
            torch.set_num_threads(options.threads)
        if gpu and precision == "fp32":
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        model, wide = _load(path)
        if precision == "bf16":
            wide |= wide_nodes(model, frozenset(layers_of(path)), where=str(path))
        reader = Reader(model, wide, self._device, _FLOATS[precision], str(path))
        self.inputs, self.outputs = reader.inputs, reader.outputs
        self._steps, self._constants = reader.steps, reader.tensors
        self._last = _last_uses(self._steps, [o.name for o in self.outputs])
        self._replays: list[dict[tuple[tuple[int, ...], ...], _Replay]] = [{} for _ in range(options.instances)]
        self._most = options.max_batch if gpu else 0
        self._fits = 0
        self.runtime, self.precision, self.instances = "torch", precision, options.instances
        self.device = torch.cuda.get_device_name(self._device) if gpu else "CPU"
        self.reason = f"{reason}; precision {options.precision}: {'fp16 on a GPU, fp32 on a processor' if options.precision == 'auto' else 'asked for'}"

    def _run(self, inputs: Arrays, instance: int) -> dict[str, NDArray[Any]]:
        batch = len(next(iter(inputs.values())))
        share = min(batch, self._fits or batch)
        while (parts := self._parts(inputs, batch, share, instance)) is None:
            if share == 1:
                hint = "close what else uses the GPU, or take a smaller network or `precision: fp16`"
                raise EngineError("the GPU has no memory for a batch of one", where=self.device, hint=hint)
            share = self._fits = -(-share // 2)
            for replays in self._replays:
                replays.clear()
            torch.cuda.empty_cache()
            _LOG.warning("%s: out of memory: batches of %d are run %d at a time from now on", self.device, batch, share)
        return parts[0] if len(parts) == 1 else {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}

    def _parts(self, inputs: Arrays, batch: int, share: int, instance: int) -> list[dict[str, NDArray[Any]]] | None:
        """The batch in shares, None when memory is out. Nothing of the error is left then: it would hold what has to be freed."""
        try:
            return [self._share({n: a[i : i + share] for n, a in inputs.items()}, instance) for i in range(0, batch, share)]
        except torch.OutOfMemoryError:
            return None
        except RuntimeError as e:
            raise self._failed(str(e), self._where) from e

    @torch.inference_mode()
    def _share(self, inputs: Arrays, instance: int) -> dict[str, NDArray[Any]]:
        batch = len(next(iter(inputs.values())))
        given = {name: _tensor_of(array) for name, array in inputs.items()}
        if batch > self._most:
            found = self._compute({name: tensor.to(self._device) for name, tensor in given.items()})
        else:
            with torch.cuda.device(self._device):
                replays, sizes = self._replays[instance], tuple(inputs[spec.name].shape for spec in self.inputs)
                if (replay := replays.get(sizes)) is None:
                    replay = replays[sizes] = _Replay(self._compute, {name: tensor.to(self._device) for name, tensor in given.items()})
                found = replay.run(given)  # another instance that is out of memory may have cleared what is kept since
        return {name: tensor.cpu().numpy() for name, tensor in found.items()}

    def _compute(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = {**self._constants, **inputs}
        for step, done in zip(self._steps, self._last, strict=True):
            given = (_as(step.floats, values[name]) if name else None for name in step.inputs)
            result = step.run(*given, *(values[name] for name in step.like))
            values.update(zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=True))
            for name in done:
                del values[name]
        return {spec.name: values[spec.name].to(_torch_dtype(spec.dtype)).contiguous() for spec in self.outputs}

    def _close(self) -> None:
        self._steps, self._constants, self._replays = [], {}, []


class _Replay:
    """One shape of the inputs, captured as a CUDA graph: the same kernels on the same memory every time, without the interpreter in between.

    After PyTorch's notes on CUDA graphs (warm-up on a side stream, then capture). Not run on a device for this release.
    """

    def __init__(self, compute: Callable[[Mapping[str, Tensor]], dict[str, Tensor]], inputs: Mapping[str, Tensor]) -> None:
        self._inputs = dict(inputs)
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_RUNS):
                compute(self._inputs)
        self._stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Other engines of this process may go on while this one is captured.
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            self._outputs = compute(self._inputs)

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.cuda.stream(self._stream):
            for name, tensor in given.items():
                self._inputs[name].copy_(tensor, non_blocking=True)
            self._graph.replay()
        self._stream.synchronize()
        return self._outputs


def _device(wanted: str, where: str) -> torch.device:
    there = torch.cuda.is_available()
    if wanted == "cpu" or (wanted == "auto" and not there):
        return torch.device("cpu")
    if not there:
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no GPU"
        raise EngineError(f"device is {wanted}: {why}", where=where, hint="install torch for CUDA (pytorch.org), or write `device: cpu`")
    device = torch.device("cuda" if wanted == "auto" else wanted)
    if (device.index or 0) >= torch.cuda.device_count():
        raise EngineError(f"device is {wanted}: there are {torch.cuda.device_count()} GPUs", where=where, hint="the first is cuda:0")
    return device


def _as(floats: torch.dtype, tensor: Tensor) -> Tensor:
    return tensor.to(floats) if tensor.is_floating_point() else tensor


def _load(path: Path) -> tuple[onnx.ModelProto, Set[str]]:
    """The network with the shapes of its tensors, and the nodes that are float32 in every precision."""
    try:
        # Some files leave the shapes of their outputs out, and some compute sizes from shapes.
        model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError, OSError) as e:
        raise EngineError(f"not a network that torch can load: {str(e).strip().splitlines()[0]}", where=str(path)) from e
    for node in model.graph.node:  # which they are told by
        node.name = node.name or node.output[0]
    return model, stays_wide(model)


def _last_uses(steps: Sequence[Step], outputs: Sequence[str]) -> list[list[str]]:
    """For every step the values that nobody needs after it: freeing them keeps a large batch in memory."""
    later, found = set(outputs), []
    for step in reversed(steps):
        names = {n for n in (*step.inputs, *step.like, *step.outputs) if n} - later
        found.append(sorted(names))
        later |= names
    return found[::-1]


def _tensor_of(array: NDArray[Any]) -> Tensor:
    """torch warns of arrays that may only be read, although it only reads them here."""
    whole = np.ascontiguousarray(array)
    return torch.from_numpy(whole if whole.flags.writeable else whole.copy())


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
