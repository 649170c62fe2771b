"""ONNX Runtime on the CPU."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
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
from .device import cores
from .engine import OTHERWISE, Arrays, Engine, EngineOptions, Precision, TensorSpec

_LARGE = 1 << 16
"""Bytes of a picture or volume from which on a batch is run item by item. Other networks are mostly weights, which a batch reads once."""
_DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64}


class OnnxruntimeEngine(Engine):
    """One session, which runs for several threads at once: instances share its threads.

    precision auto is fp32, the only one that its CPU kernels have for these networks; fp16 and int8 are what the file says.

    Of a batch with as many pictures for every thread each thread runs one after the other by itself, with the same answers to the last bit: what one
    picture makes in a layer is mostly still in the processor's cache when the next layer reads it, what four make is not, and threads that work on one
    picture together wait for each other at every layer. Other batches are run whole, by all threads.
    """

    def __init__(self, path: Path, options: EngineOptions, reason: str) -> None:
        threads, self.instances, self._path = options.threads or cores(), options.instances, path
        if options.precision == "bf16":
            raise EngineError("ONNX Runtime has no bf16 on a CPU", where=str(path), hint="write `precision: auto`, or `runtime: openvino`")
        self._whole = self._session(options.threads)
        self.inputs = tuple(_spec(t, path) for t in self._whole.get_inputs())
        self.outputs = tuple(_spec(t, path) for t in self._whole.get_outputs())
        done: Precision = "fp32" if options.precision == "auto" else options.precision
        self.runtime, self.precision, self.device, self.reason = "onnxruntime", done, "CPU", reason
        self._names = [s.name for s in self.outputs]
        divisible = all(s.shape and s.shape[0] < 0 and min(s.shape[1:], default=0) >= 0 for s in (*self.inputs, *self.outputs))
        large = divisible and any(len(s.shape) > 3 and math.prod(s.shape[1:]) * s.dtype.itemsize >= _LARGE for s in self.inputs)
        # Its runs are one thread's each. At once and not when a batch first wants it: the file may be gone by then.
        single = self._whole if not large or threads == 1 else self._session(1)
        self._items = [_Items(single, self.outputs, max(1, threads // self.instances)) for _ in range(self.instances if large else 0)]

    def _session(self, threads: int) -> Any:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        # Threads that spin while idle would take the cores of the cameras' decoders.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3
        try:
            return ort.InferenceSession(self._path, settings, providers=["CPUExecutionProvider"])
        except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoModel, NotImplemented) as e:
            raise EngineError(f"not a network that ONNX Runtime can load: {_gist(e)}", where=str(self._path), hint=OTHERWISE) from e

    def _run(self, inputs: Arrays, instance: int) -> dict[str, NDArray[Any]]:
        batch = len(next(iter(inputs.values())))
        try:
            if self._items and batch > 1 and batch % self._items[instance].threads == 0:
                return self._items[instance].run(inputs)
            return dict(zip(self._names, self._whole.run(self._names, dict(inputs)), strict=True))
        except (EPFail, Fail, InvalidArgument, NotImplemented, RuntimeException, RuntimeError) as e:  # the last: of runs with a binding
            raise self._failed(_gist(e), str(self._path)) from e

    def _close(self) -> None:
        for items in self._items:
            items.close()
        self._whole = None
        self._items = []


class _Items:
    """Runs a batch item by item, on several threads, into arrays of its own, which grow to the largest batch."""

    def __init__(self, session: Any, outputs: tuple[TensorSpec, ...], threads: int) -> None:
        self.threads, self._session, self._bindings = threads, session, [session.io_binding() for _ in range(threads)]
        self._others = ThreadPoolExecutor(threads - 1, thread_name_prefix="posepipe:items") if threads > 1 else None
        self._outputs = {s.name: np.empty((0, *s.shape[1:]), s.dtype) for s in outputs}

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        whole = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        batch = len(next(iter(whole.values())))
        if any(len(array) < batch for array in self._outputs.values()):
            self._outputs = {name: np.empty((batch, *array.shape[1:]), array.dtype) for name, array in self._outputs.items()}
        turn = iter(range(batch))  # each thread takes the next item when it is done with its last
        others = [self._others.submit(self._take, b, whole, turn) for b in self._bindings[1:]] if self._others else []
        try:
            self._take(self._bindings[0], whole, turn)
        finally:
            wait(others)  # also when one fails: they write into what the next run writes into
        for other in others:
            other.result()
        return {name: array[:batch] for name, array in self._outputs.items()}

    def _take(self, binding: Any, whole: Arrays, turn: Iterator[int]) -> None:
        for i in turn:
            for name, array in whole.items():
                binding.bind_input(name, "cpu", 0, array.dtype, (1, *array.shape[1:]), array[i:].ctypes.data)
            for name, array in self._outputs.items():
                binding.bind_output(name, "cpu", 0, array.dtype, (1, *array.shape[1:]), array[i:].ctypes.data)
            self._session.run_with_iobinding(binding)

    def close(self) -> None:
        if self._others:
            self._others.shutdown()


def _gist(e: Exception) -> str:
    """What it says, without its code, the file again and the place in its own source."""
    return (
        re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed: ?)?(/\S+:\d+ [^)]*\) ?)?", "", str(e)).strip()
        or "no reason given"
    )


def _spec(tensor: Any, path: Path) -> TensorSpec:
    if tensor.type not in _DTYPES:
        what = f"{tensor.name!r} is a {tensor.type}, posepipe hands over {', '.join(_DTYPES)} with ONNX Runtime"
        raise EngineError(what, where=str(path), hint="export it with float32 inputs and outputs, or name another runtime")
    return TensorSpec(tensor.name, tuple(n if isinstance(n, int) else -1 for n in tensor.shape), np.dtype(_DTYPES[tensor.type]))
