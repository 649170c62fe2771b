"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino as ov
from numpy.typing import NDArray

from ..pipeline.errors import EngineError
from .engine import Arrays, Engine, Precision, TensorSpec


class OpenvinoEngine(Engine):
    """One request of one compiled network, set for latency.

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
            self._compiled: Any = core.compile_model(model, "CPU", settings)
        except RuntimeError as e:
            raise EngineError(f"not a network that OpenVINO can load: {_gist(e)}", where=str(path)) from e
        self._request: Any = self._compiled.create_infer_request()
        done: Precision = "bf16" if bf16 else "fp32"
        why = (
            f"precision {precision}: this processor {'has' if native else 'lacks'} native bf16"
            if precision == "auto"
            else "precision asked for"
        )
        self.runtime, self.precision, self.device, self.reason = "openvino", done, "CPU", f"{reason}; {why}"

    def _run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        found = self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        return {spec.name: found[i] for i, spec in enumerate(self.outputs)}

    def close(self) -> None:
        self._request = self._compiled = None


def _spec(port: Any) -> TensorSpec:
    shape = tuple(d.get_length() if d.is_static else -1 for d in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), shape, port.get_element_type().to_dtype())


def _gist(e: Exception) -> str:
    """OpenVINO puts the places in its own source first and the reason last."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
