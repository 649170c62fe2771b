"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoModel,
    NotImplemented,
    RuntimeException,
)

from ..pipeline.errors import EngineError
from .engine import Arrays, Engine, EngineOptions, Precision, TensorSpec

_DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64}


class OnnxruntimeEngine(Engine):
    """One session, which runs for several threads at once: instances share its threads and hold no memory of their own.

    precision auto is fp32, the only one that its CPU kernels have for these networks; fp16 and int8 are what the file says.
    """

    def __init__(self, path: Path, options: EngineOptions, reason: str) -> None:
        threads, self.instances, self._where = options.threads, options.instances, str(path)
        if options.precision == "bf16":
            raise EngineError("ONNX Runtime has no bf16 on a CPU", where=str(path), hint="write `precision: auto`, or `runtime: openvino`")
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        # Threads that spin while idle would take the cores of the cameras' decoders.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3
        try:
            self._session: Any = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoModel, NotImplemented) as e:
            raise EngineError(f"not a network that ONNX Runtime can load: {e}", where=str(path)) from e
        self.inputs = tuple(_spec(t) for t in self._session.get_inputs())
        self.outputs = tuple(_spec(t) for t in self._session.get_outputs())
        done: Precision = "fp32" if options.precision == "auto" else options.precision
        self.runtime, self.precision, self.device, self.reason = "onnxruntime", done, "CPU", reason
        self._names = [s.name for s in self.outputs]

    def _run(self, inputs: Arrays, instance: int) -> dict[str, NDArray[Any]]:
        try:
            return dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))
        except (EPFail, Fail, InvalidArgument, NotImplemented, RuntimeException) as e:
            raise self._failed(str(e), self._where) from e

    def _close(self) -> None:
        self._session = None


def _spec(tensor: Any) -> TensorSpec:
    if tensor.type not in _DTYPES:
        raise EngineError(f"{tensor.name!r} is a {tensor.type}, posepipe hands over {', '.join(_DTYPES)}")
    return TensorSpec(tensor.name, tuple(n if isinstance(n, int) else -1 for n in tensor.shape), np.dtype(_DTYPES[tensor.type]))
