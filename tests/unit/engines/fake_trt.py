"""A made-up TensorRT: a network that gives twice its input and the sum of every item, in the memory of a made-up GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from fake_gpu import FakeDriver
from numpy.typing import NDArray

ITEM = (2, 3)
SCRATCH = 1000  # bytes for every item of a batch


def save_network(path: Path, nodes: list[Any], *, dtype: int = onnx.TensorProto.FLOAT, shape: Any = ("n", *ITEM)) -> Path:
    """An ONNX file from `x` to `double`."""
    ends = [onnx.helper.make_tensor_value_info(n, t, shape) for n, t in (("x", dtype), ("double", onnx.TensorProto.FLOAT))]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    return path


class FakeTrt:
    """The module. contexts: made so far; errors: what the next contexts say instead of being made; log of calls in `driver.log`."""

    __version__ = "11.9"

    def __init__(self, driver: FakeDriver, *, rtx: bool = False, broken: int = 0) -> None:
        self.driver, self.rtx, self.broken = driver, rtx, broken
        self.contexts: list[Context] = []
        self.errors: list[str] = []
        self.refuses_to_run = ""
        self.kernels: list[bytes] = []
        self.configs: list[Any] = []
        self.logger: Any = None
        trt = self

        class ILogger:
            Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0, WARNING=2)

            def __init__(self) -> None:
                trt.logger = self

        class Runtime:
            def __init__(self, logger: Any) -> None:
                assert driver.depth, "TensorRT is touched before there is a GPU"

            def deserialize_cuda_engine(self, plan: bytes) -> Any:
                if trt.broken:
                    trt.broken -= 1
                    trt.logger.log(1, "engine is of another version")
                    return None
                return Engine(trt)

        self.ILogger, self.Runtime = ILogger, Runtime
        self.TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
        self.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="mine")
        self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
        self.nptype = lambda dtype: dtype

    def say(self, message: str) -> None:
        self.logger.log(1, message)


class Cache:
    """IRuntimeCache."""

    def __init__(self, trt: FakeTrt) -> None:
        self._trt, self.content = trt, b"kernels"

    def serialize(self) -> bytes:
        return self.content

    def deserialize(self, content: bytes) -> bool:
        assert self._trt.driver.depth, "no context"
        self._trt.kernels.append(content)
        self.content = content
        return True


class Config:
    """IRuntimeConfig."""

    def __init__(self, trt: FakeTrt) -> None:
        self._trt, self.strategy, self.cache, self.cuda_graph_strategy = trt, "", None, ""
        trt.configs.append(self)

    def create_runtime_cache(self) -> Cache:
        return Cache(self._trt)

    def set_runtime_cache(self, cache: Any) -> None:
        self.cache = cache

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy


class Engine:
    """ICudaEngine."""

    num_io_tensors = 3
    _names = ("x", "double", "sum")

    def __init__(self, trt: FakeTrt) -> None:
        self._trt = trt
        if trt.rtx:
            self.create_runtime_config = lambda: Config(trt)

    def get_tensor_name(self, i: int) -> str:
        return self._names[i]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "x" else "out"

    def get_tensor_dtype(self, name: str) -> Any:
        return np.float32 if name != "sum" else np.int32

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *ITEM) if name != "sum" else (-1,)

    def create_execution_context(self, how: Any) -> Context | None:
        assert (how.strategy if self._trt.rtx else how) == "mine"
        if self._trt.errors:
            self._trt.say(self._trt.errors.pop(0))
            return None
        self._trt.contexts.append(Context(self._trt))
        return self._trt.contexts[-1]


class Context:
    """IExecutionContext."""

    def __init__(self, trt: FakeTrt) -> None:
        self._trt, self.batch, self.runs = trt, 0, 0
        self.addresses: dict[str, int] = {}
        self.scratch = (0, 0)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "x"
        assert shape[1:] == ITEM
        self.batch = shape[0]
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.batch, *ITEM) if name != "sum" else (self.batch,)

    def update_device_memory_size_for_shapes(self) -> int:
        return SCRATCH * self.batch

    def set_device_memory(self, address: int, size: int) -> None:
        self.scratch = (address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        driver = self._trt.driver
        assert stream == 77
        assert set(self.addresses) == {"x", "double", "sum"}
        assert self.scratch[1] >= SCRATCH * self.batch
        assert {*self.addresses.values(), self.scratch[0]} <= driver.live
        if self._trt.refuses_to_run:
            self._trt.say(self._trt.refuses_to_run)
            return False
        driver.log.append(("execute", self.batch))

        def work() -> None:
            self.runs += 1
            count = self.batch * int(np.prod(ITEM))
            x: NDArray[np.float32] = driver.memory[self.addresses["x"]].view(np.float32)[:count].reshape(-1, *ITEM)
            driver.memory[self.addresses["double"]].view(np.float32)[:count] = 2 * x.ravel()
            driver.memory[self.addresses["sum"]].view(np.int32)[: self.batch] = x.sum(axis=(1, 2))

        driver._work(work)
        return True
