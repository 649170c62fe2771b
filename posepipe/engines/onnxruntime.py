"""ONNX Runtime on the CPU."""

from __future__ import annotations

import math
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

_LARGE = 1 << 16
"""Bytes of a picture or volume from which on a batch is run item by item. Other networks are mostly weights, which a batch reads once."""
_DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64}


class OnnxruntimeEngine(Engine):
    """One session, which runs for several threads at once: instances share its threads.

    precision auto is fp32, the only one that its CPU kernels have for these networks; fp16 and int8 are what the file says.

    With one thread a batch of pictures is run one after the other, with the same answers to the last bit: what one picture makes in a layer
    is mostly still in the processor's cache when the next layer reads it, what four make is not.
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
        divisible = all(s.shape and s.shape[0] < 0 and min(s.shape[1:], default=0) >= 0 for s in (*self.inputs, *self.outputs))
        large = divisible and any(len(s.shape) > 3 and math.prod(s.shape[1:]) * s.dtype.itemsize >= _LARGE for s in self.inputs)
        self._items: list[_Items] = [_Items(self._session, self.outputs) for _ in range(self.instances if threads == 1 and large else 0)]

    def _run(self, inputs: Arrays, instance: int) -> dict[str, NDArray[Any]]:
        try:
            if self._items and len(next(iter(inputs.values()))) > 1:
                return self._items[instance].run(inputs)
            return dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))
        except (EPFail, Fail, InvalidArgument, NotImplemented, RuntimeException, RuntimeError) as e:  # the last: of runs with a binding
            raise self._failed(str(e), self._where) from e

    def _close(self) -> None:
        self._session = None
        self._items = []


class _Items:
    """Runs a batch item by item into arrays of its own, which grow to the largest batch."""

    def __init__(self, session: Any, outputs: tuple[TensorSpec, ...]) -> None:
        self._session, self._binding = session, session.io_binding()
        self._outputs = {s.name: np.empty((0, *s.shape[1:]), s.dtype) for s in outputs}

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        whole = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        batch = len(next(iter(whole.values())))
        if any(len(array) < batch for array in self._outputs.values()):
            self._outputs = {name: np.empty((batch, *array.shape[1:]), array.dtype) for name, array in self._outputs.items()}
        for i in range(batch):
            for name, array in whole.items():
                self._binding.bind_input(name, "cpu", 0, array.dtype, (1, *array.shape[1:]), array[i:].ctypes.data)
            for name, array in self._outputs.items():
                self._binding.bind_output(name, "cpu", 0, array.dtype, (1, *array.shape[1:]), array[i:].ctypes.data)
            self._session.run_with_iobinding(self._binding)
        return {name: array[:batch] for name, array in self._outputs.items()}


def _spec(tensor: Any) -> TensorSpec:
    if tensor.type not in _DTYPES:
        raise EngineError(f"{tensor.name!r} is a {tensor.type}, posepipe hands over {', '.join(_DTYPES)}")
    return TensorSpec(tensor.name, tuple(n if isinstance(n, int) else -1 for n in tensor.shape), np.dtype(_DTYPES[tensor.type]))
