"""A made-up CUDA driver: pycuda.driver and libcuda as far as posepipe uses them, with a memory of its own and a log of what was called."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Error(Exception):
    """pycuda.driver.Error."""


class OutOfMemory(Error):
    """pycuda.driver.MemoryError."""


class Library:
    """libcuda: stream capture."""

    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver
        self.capturing: list[Callable[[], None]] | None = None
        self.graphs: list[list[Callable[[], None]]] = []
        self.refuses: set[str] = set()

    def cuStreamBeginCapture_v2(self, stream: Any, mode: int) -> int:
        self._driver.log.append(("begin_capture", mode))
        if "begin" in self.refuses:
            return 900
        self.capturing = []
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        assert self.capturing is not None
        self.graphs.append(self.capturing)
        self.capturing = None
        graph._obj.value = len(self.graphs)
        return 0

    def cuGraphInstantiateWithFlags(self, ready: Any, graph: Any, flags: Any) -> int:
        ready._obj.value = graph.value
        return 0

    def cuGraphDestroy(self, graph: ctypes.c_void_p) -> int:
        return 0

    def cuGraphExecDestroy(self, graph: ctypes.c_void_p) -> int:
        self._driver.log.append(("graph_destroy", graph.value))
        return 0

    def cuGraphLaunch(self, graph: ctypes.c_void_p, stream: Any) -> int:
        self._driver.log.append(("graph_launch", graph.value))
        if "launch" in self.refuses:
            return 719
        assert graph.value is not None
        for work in self.graphs[graph.value - 1]:
            work()
        return 0


class FakeDriver:
    """pycuda.driver with `room` bytes. memory: address -> bytes; live: addresses not freed; log: (what, size)."""

    Error, MemoryError = Error, OutOfMemory

    def __init__(self, *, room: int = 1 << 30, capability: tuple[int, int] = (8, 9), devices: int = 1) -> None:
        self.room, self.devices, self.capability = room, devices, capability
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.live: set[int] = set()
        self.log: list[tuple[str, Any]] = []
        self.launches: list[tuple[Any, Any, Any, Any]] = []
        self.depth = 0
        self.gone = False
        self.library = Library(self)
        self._next = 1 << 20
        driver = self

        class Device:
            count = staticmethod(lambda: driver.devices)

            def __init__(self, index: int) -> None:
                self.index = index

            name = staticmethod(lambda: "Made Up 9000")
            compute_capability = staticmethod(lambda: driver.capability)

            def retain_primary_context(self) -> Context:
                return Context()

        class Context:
            @staticmethod
            def push() -> None:
                if driver.gone:
                    raise Error("cuCtxPushCurrent failed: device is lost")
                driver.depth += 1

            @staticmethod
            def pop() -> None:
                driver.depth -= 1

        class Stream:
            handle = 77

            def __init__(self, flags: int) -> None:
                assert flags == 1, "the default stream would wait for others"

            def synchronize(self) -> None:
                assert driver.depth, "no context"

        class Event:
            def __init__(self, flags: int) -> None:
                self.recorded = False

            def record(self, stream: Any) -> None:
                assert driver.library.capturing is None
                self.recorded = True

            def synchronize(self) -> None:
                assert self.recorded, "waits for what was never queued"
                driver.log.append(("wait", 0))

        self.Device, self.Context, self.Stream, self.Event = Device, Context, Stream, Event

    def used(self) -> int:
        return sum(len(self.memory[a]) for a in self.live)

    def mem_alloc(self, size: int) -> Any:
        assert self.depth, "no context"
        if self.used() + size > self.room:
            raise OutOfMemory("cuMemAlloc failed: out of memory")
        address = self._next
        self._next += (size + 511) // 256 * 256
        self.memory[address] = np.zeros(size, np.uint8)
        self.live.add(address)
        self.log.append(("alloc", size))
        driver = self

        class Allocation:
            __int__ = __index__ = lambda self: address

            def free(self) -> None:
                assert driver.depth, "no context"
                driver.live.remove(address)

        return Allocation()

    def pagelocked_empty(self, shape: Any, dtype: Any) -> NDArray[Any]:
        assert self.depth, "no context"
        return np.zeros(shape, dtype)

    def _work(self, work: Callable[[], None]) -> None:
        if self.library.capturing is not None:
            self.library.capturing.append(work)
        else:
            work()

    def memcpy_htod(self, to: Any, source: NDArray[Any]) -> None:
        self.memory[int(to)][: source.nbytes] = source.view(np.uint8).ravel()

    def memcpy_htod_async(self, to: Any, source: NDArray[Any], stream: Any) -> None:
        assert source.flags.c_contiguous
        assert int(to) in self.live
        self.log.append(("htod_async", source.nbytes))
        self._work(lambda: self.memcpy_htod(to, source))

    def memcpy_dtoh_async(self, to: NDArray[Any], source: Any, stream: Any) -> None:
        assert to.flags.c_contiguous
        assert int(source) in self.live
        self.log.append(("dtoh_async", to.nbytes))

        def work() -> None:
            to.view(np.uint8).reshape(-1)[:] = self.memory[int(source)][: to.nbytes]

        self._work(work)

    def module_from_buffer(self, code: bytes) -> Any:
        driver = self

        class Module:
            @staticmethod
            def get_function(name: str) -> Any:
                def launch(*arguments: Any, block: Any, grid: Any, stream: Any) -> None:
                    assert driver.depth, "no context"
                    driver.launches.append((tuple(int(a) for a in arguments), grid, block, stream))

                return launch

        return Module()
