"""OpenVINO on the CPU."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ..pipeline.errors import EngineError
from .engine import Arrays, Engine, Precision, TensorSpec


class OpenvinoEngine(Engine):
    """One compiled network, set for latency. A batch is divided among the threads, each of which runs its share by itself.

    Threads that work on one picture together wait for each other at every layer, which costs a tenth of their time on two cores, and
    more where decoders keep taking one of the cores away. A batch of one is run by all threads.
    precision auto: bf16 where the processor multiplies it natively (AVX512-BF16 or AMX; OpenVINO says), else fp32.
    """

    def __init__(self, path: Path, *, precision: str, threads: int, reason: str) -> None:
        core = ov.Core()
        native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and not native:
            raise EngineError("this processor has no native bf16", where=str(path), hint="write `precision: auto` or `precision: fp32`")
        bf16 = precision == "bf16" or (precision == "auto" and native)
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "ENABLE_CPU_PINNING": False,  # other engines and the decoders share the cores
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core.read_model(path)
            # Names and shapes as the file has them: compiling merges tensors, and then a port may go by another one's name.
            self.inputs = tuple(_spec(p) for p in model.inputs)
            self.outputs = tuple(_spec(p) for p in model.outputs)
            self._whole: Any = core.compile_model(model, "CPU", settings)
        except RuntimeError as e:
            raise EngineError(f"not a network that OpenVINO can load: {_gist(e)}", where=str(path)) from e
        self._request: Any = self._whole.create_infer_request()
        self._core, self._model, self._settings = core, model, settings
        self._threads: int = self._whole.get_property("INFERENCE_NUM_THREADS")
        self._divided: dict[int, Any] = {}
        self._shares: dict[int, _Shares] = {}
        divisible = all(s.shape and s.shape[0] < 0 and min(s.shape[1:], default=0) >= 0 for s in (*self.inputs, *self.outputs))
        self._most = self._threads if divisible else 1
        done: Precision = "bf16" if bf16 else "fp32"
        why = (
            f"precision {precision}: this processor {'has' if native else 'lacks'} native bf16"
            if precision == "auto"
            else "precision asked for"
        )
        self.runtime, self.precision, self.device, self.reason = "openvino", done, "CPU", f"{reason}; {why}"

    def _run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        batch = len(next(iter(inputs.values())))
        if min(batch, self._most) == 1:
            found = self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
            return {spec.name: found[i] for i, spec in enumerate(self.outputs)}
        if batch not in self._shares:
            # Powers of two, so that a machine with many cores compiles few variants.
            parts = 1 << (min(batch, self._most).bit_length() - 1)
            if parts not in self._divided:
                streams = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": parts, "INFERENCE_NUM_THREADS": self._threads}
                self._divided[parts] = self._core.compile_model(self._model, "CPU", {**self._settings, **streams})
            self._shares[batch] = _Shares(self._divided[parts], self.outputs, batch, parts)
        return self._shares[batch].run(inputs)

    def close(self) -> None:
        self._request = self._whole = self._core = self._model = None
        self._divided, self._shares = {}, {}


class _Shares:
    """A batch of one size in parts, run at the same time; their outputs are slices of one array each."""

    def __init__(self, compiled: Any, outputs: tuple[TensorSpec, ...], batch: int, parts: int) -> None:
        bounds = [i * batch // parts for i in range(parts + 1)]
        self._slices = [slice(a, b) for a, b in pairwise(bounds)]
        self._requests: list[Any] = [compiled.create_infer_request() for _ in self._slices]
        self._outputs = {spec.name: np.empty((batch, *spec.shape[1:]), spec.dtype) for spec in outputs}
        for request, part in zip(self._requests, self._slices, strict=True):
            for i, array in enumerate(self._outputs.values()):
                request.set_output_tensor(i, ov.Tensor(array[part], shared_memory=True))

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        for request, part in zip(self._requests, self._slices, strict=True):
            request.start_async({name: array[part] for name, array in inputs.items()}, share_inputs=True)
        for request in self._requests:
            request.wait()
        return dict(self._outputs)


def _spec(port: Any) -> TensorSpec:
    shape = tuple(d.get_length() if d.is_static else -1 for d in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), shape, port.get_element_type().to_dtype())


def _gist(e: Exception) -> str:
    """OpenVINO puts the places in its own source first and the reason last."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
