"""PyTorch, as the reference of what a network computes and for GPUs without TensorRT: the operators of an ONNX file, run one by one.

The networks' own operators are here, a few lines each; a file with another one is refused by the operator's name. (A converter, onnx2torch,
exists; it wants torchvision beside torch, and fixes neither precision nor device.)
CUDA, fp16 and CUDA graphs are written after PyTorch's documentation and were not run on a device for this release.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor

from ..pipeline.errors import EngineError
from .engine import Arrays, Engine, EngineOptions, Precision, TensorSpec

_LOG = logging.getLogger("posepipe.engines")
_FLOATS: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
}
_WARM_RUNS = 3

Run = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _Step:
    run: Run
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class TorchEngine(Engine):
    """One network. precision auto: fp32 on a processor, as the reference; fp16 on a GPU.

    On a GPU every batch size is captured once as a CUDA graph and replayed (batches above `max_batch` run without). When a GPU's memory is
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
        graph = _load(path)
        self._float = _FLOATS[precision]
        reader = _Reader(graph, self._device, self._float, str(path))
        self.inputs, self.outputs = reader.inputs, reader.outputs
        self._steps, self._constants = reader.steps, reader.tensors
        self._last = _last_uses(self._steps, [o.name for o in self.outputs])
        self._replays: list[dict[int, _Replay]] = [{} for _ in range(options.instances)]
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
                replays = self._replays[instance]
                if (replay := replays.get(batch)) is None:
                    replay = replays[batch] = _Replay(self._compute, {name: tensor.to(self._device) for name, tensor in given.items()})
                found = replay.run(given)  # another instance that is out of memory may have cleared what is kept since
        return {name: tensor.cpu().numpy() for name, tensor in found.items()}

    def _compute(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = {**self._constants, **{name: self._as_wanted(tensor) for name, tensor in inputs.items()}}
        for step, done in zip(self._steps, self._last, strict=True):
            result = step.run(*(values[name] if name else None for name in step.inputs))
            values.update(zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=True))
            for name in done:
                del values[name]
        return {spec.name: values[spec.name].to(_torch_dtype(spec.dtype)).contiguous() for spec in self.outputs}

    def _as_wanted(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._float) if tensor.is_floating_point() else tensor

    def _close(self) -> None:
        self._steps, self._constants, self._replays = [], {}, []


class _Replay:
    """One batch size, captured as a CUDA graph: the same kernels on the same memory every time, without the interpreter in between.

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


def _load(path: Path) -> onnx.GraphProto:
    try:
        model = onnx.shape_inference.infer_shapes(onnx.load(path))  # some files leave the shapes of their outputs out
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError, OSError) as e:
        raise EngineError(f"not a network that torch can load: {str(e).strip().splitlines()[0]}", where=str(path)) from e
    graph: onnx.GraphProto = model.graph
    return graph


def _last_uses(steps: Sequence[_Step], outputs: Sequence[str]) -> list[list[str]]:
    """For every step the values that nobody needs after it: freeing them keeps a large batch in memory."""
    later, found = set(outputs), []
    for step in reversed(steps):
        names = {n for n in (*step.inputs, *step.outputs) if n} - later
        found.append(sorted(names))
        later |= names
    return found[::-1]


def _tensor_of(array: NDArray[Any]) -> Tensor:
    """torch warns of arrays that may only be read, although it only reads them here."""
    whole = np.ascontiguousarray(array)
    return torch.from_numpy(whole if whole.flags.writeable else whole.copy())


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


class _Reader:
    """A graph's nodes as steps. tensors: its constants on the device. Raises EngineError for what is not known here, by its name."""

    def __init__(self, graph: onnx.GraphProto, device: torch.device, floats: torch.dtype, where: str) -> None:
        self._where, self._float, self._device = where, floats, device
        self.constants: dict[str, NDArray[Any]] = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.inputs = tuple(self._spec(v) for v in graph.input if v.name not in self.constants)
        self.outputs = tuple(self._spec(v) for v in graph.output)
        self.steps: list[_Step] = []
        for node in graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant" and "value" in attributes:
                self.constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
                continue
            make = getattr(self, f"_{node.op_type.lower()}", None) if node.domain in ("", "ai.onnx") else None
            if node.op_type not in OPERATORS or make is None:
                raise self._refuse(node, "is not known here")
            self.steps.append(_Step(make(node, attributes), tuple(node.input), tuple(o for o in node.output if o)))
        used = {name for step in self.steps for name in step.inputs} | {o.name for o in self.outputs}
        self.tensors = {name: self._tensor(array) for name, array in self.constants.items() if name in used}

    def _spec(self, value: onnx.ValueInfoProto) -> TensorSpec:
        tensor = value.type.tensor_type
        return TensorSpec(
            value.name,
            tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim),
            np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
        )

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.array(array))
        tensor = tensor.to(self._device, self._float if tensor.is_floating_point() else tensor.dtype)
        # What tensor cores multiply without rearranging it first.
        return tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 and self._device.type == "cuda" else tensor

    def _refuse(self, node: NodeProto, why: str) -> EngineError:
        hint = "write `runtime: auto`; torch runs the operators of the networks that posepipe has cards for"
        return EngineError(f"the operator {node.op_type} of node {node.name or node.output[0]!r} {why}", where=self._where, hint=hint)

    def _known(self, node: NodeProto, at: int) -> list[Any] | None:
        """An input that says how, not what: it has to be a constant. None where there is none."""
        if at >= len(node.input) or not node.input[at]:
            return None
        if node.input[at] not in self.constants:
            raise self._refuse(node, f"has a computed {node.input[at]!r}, where torch needs a constant")
        values: list[Any] = self.constants[node.input[at]].ravel().tolist()
        return values

    # one operator each -------------------------------------------------------------------------------------------------------

    def _conv(self, node: NodeProto, a: dict[str, Any]) -> Run:
        if a.get("auto_pad", b"NOTSET") != b"NOTSET":
            raise self._refuse(node, f"with auto_pad {a['auto_pad'].decode()} is not known here")
        n = len(a.get("pads", [0] * 4)) // 2
        before, after = a.get("pads", [0] * 4)[:n], a.get("pads", [0] * 4)[n:]
        how = {"stride": a.get("strides", 1), "dilation": a.get("dilations", 1), "groups": a.get("group", 1)}
        function: Run = F.conv2d if n == 2 else F.conv1d
        if before == after:
            return lambda x, w, b=None: function(x, w, b, padding=before, **how)
        sides = [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair]  # torch has the last axis first
        return lambda x, w, b=None: function(F.pad(x, sides), w, b, **how)

    def _maxpool(self, node: NodeProto, a: dict[str, Any]) -> Run:
        pads = a.get("pads", [0] * 4)
        if pads[:2] != pads[2:] or a.get("auto_pad", b"NOTSET") != b"NOTSET" or a.get("ceil_mode", 0) or len(node.output) > 1:
            raise self._refuse(node, f"with {a} is not known here")
        how = {"stride": a.get("strides", 1), "padding": pads[:2], "dilation": a.get("dilations", 1)}
        return lambda x: F.max_pool2d(x, a["kernel_shape"], **how)

    def _resize(self, node: NodeProto, a: dict[str, Any]) -> Run:
        mode, place = a.get("mode", b"nearest").decode(), a.get("coordinate_transformation_mode", b"half_pixel").decode()
        if (mode, place) == ("linear", "half_pixel"):
            how: dict[str, Any] = {"mode": "bilinear", "align_corners": False}
        elif (mode, place, a.get("nearest_mode", b"")) == ("nearest", "asymmetric", b"floor"):
            how = {"mode": "nearest"}
        else:
            raise self._refuse(node, f"with {mode}, {place} is not known here")
        scales, sizes = self._known(node, 2), self._known(node, 3)
        if sizes:
            return lambda x, *_: F.interpolate(x, size=[int(n) for n in sizes[2:]], **how)
        if not scales or len(scales) != 4 or scales[:2] != [1, 1]:
            raise self._refuse(node, f"with the scales {scales} is not known here")
        return lambda x, *_: F.interpolate(x, size=[int(n * s + 1e-6) for n, s in zip(x.shape[2:], scales[2:], strict=True)], **how)

    def _clip(self, node: NodeProto, _: dict[str, Any]) -> Run:
        low, high = ((self._known(node, k) or [None])[0] for k in (1, 2))
        return lambda x, *_: torch.clamp(x, low, high)

    def _cast(self, node: NodeProto, a: dict[str, Any]) -> Run:
        to = _DTYPES.get(a["to"])
        if to is None:
            raise self._refuse(node, f"to type {a['to']} is not known here")
        return lambda x: x.to(self._float if to.is_floating_point else to)

    def _reshape(self, node: NodeProto, _: dict[str, Any]) -> Run:
        shape = self._known(node, 1) or []
        return lambda x, _: x.reshape([x.shape[k] if n == 0 else n for k, n in enumerate(shape)])

    def _split(self, node: NodeProto, a: dict[str, Any]) -> Run:
        sizes, axis, count = self._known(node, 1) or a.get("split"), a.get("axis", 0), len(node.output)
        if sizes:
            return lambda x, *_: torch.split(x, sizes, axis)
        return lambda x, *_: torch.split(x, -(-x.shape[axis] // count), axis)

    def _slice(self, node: NodeProto, _: dict[str, Any]) -> Run:
        starts, ends = self._known(node, 1) or [], self._known(node, 2) or []
        axes, steps = self._known(node, 3) or list(range(len(starts))), self._known(node, 4) or [1] * len(starts)
        if min(steps) < 1:
            raise self._refuse(node, f"with the steps {steps} is not known here")

        def run(x: Tensor, *_: Any) -> Tensor:
            where = [slice(None)] * x.dim()
            for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
                where[axis] = slice(start, end, step)
            return x[tuple(where)]

        return run

    def _depthtospace(self, node: NodeProto, a: dict[str, Any]) -> Run:
        size = a["blocksize"]
        if a.get("mode", b"DCR") == b"CRD":
            return lambda x: F.pixel_shuffle(x, size)

        def run(x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            return x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // size**2, h * size, w * size)

        return run

    def _gathernd(self, node: NodeProto, a: dict[str, Any]) -> Run:
        if a.get("batch_dims", 0):
            raise self._refuse(node, "with batch_dims is not known here")
        return lambda x, at: x[tuple(at.movedim(-1, 0).long())]

    def _argmax(self, node: NodeProto, a: dict[str, Any]) -> Run:
        if a.get("select_last_index", 0):
            raise self._refuse(node, "with select_last_index is not known here")
        return lambda x: torch.argmax(x, a.get("axis", 0), bool(a.get("keepdims", 1)))

    def _unsqueeze(self, node: NodeProto, a: dict[str, Any]) -> Run:
        axes = self._known(node, 1) or a["axes"]

        def run(x: Tensor, *_: Any) -> Tensor:
            full = x.dim() + len(axes)
            for axis in sorted(n % full for n in axes):
                x = x.unsqueeze(axis)
            return x

        return run

    def _squeeze(self, node: NodeProto, a: dict[str, Any]) -> Run:
        axes = self._known(node, 1) or a.get("axes")
        return lambda x, *_: x.squeeze(tuple(axes)) if axes else x.squeeze()

    def _transpose(self, _: NodeProto, a: dict[str, Any]) -> Run:
        return lambda x: x.permute(a.get("perm", range(x.dim())[::-1]))

    def _concat(self, _: NodeProto, a: dict[str, Any]) -> Run:
        return lambda *parts: torch.cat(parts, a["axis"])

    def _div(self, _: NodeProto, a: dict[str, Any]) -> Run:
        return lambda x, y: x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")

    def _prelu(self, _: NodeProto, a: dict[str, Any]) -> Run:
        return lambda x, slope: torch.where(x < 0, slope * x, x)

    def _elu(self, _: NodeProto, a: dict[str, Any]) -> Run:
        return lambda x: F.elu(x, a.get("alpha", 1.0))

    def _plain(self, node: NodeProto, _: dict[str, Any]) -> Run:
        return _PLAIN[node.op_type]

    _add = _sub = _mul = _relu = _sigmoid = _sqrt = _exp = _identity = _plain


_PLAIN: dict[str, Run] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sqrt": torch.sqrt,
    "Exp": torch.exp,
    "Identity": lambda x: x,
}
OPERATORS = frozenset(_PLAIN) | {
    *("Conv", "MaxPool", "Resize", "Clip", "Cast", "Reshape", "Split", "Slice", "DepthToSpace", "GatherND", "ArgMax", "Unsqueeze"),
    *("Squeeze", "Transpose", "Concat", "Div", "PRelu", "Elu"),
}
"""What a network may consist of to be run here."""
