"""One NVIDIA GPU: memory, streams, events and kernels through pycuda, CUDA graphs through the driver itself.

Not run on a device for this release: written from the documentation of the CUDA driver API and pycuda 2026.1, exercised with a made-up
driver. pycuda.driver does not import where the NVIDIA driver is missing, so it is imported when a GPU is opened, not before.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib
import importlib.util
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..pipeline.errors import EngineError
from . import device as machine

HINT_GONE = "see what `nvidia-smi` and the kernel's log say; run again when the GPU answers, or with `device: cpu`"
_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating memory
_BLOCKING_SYNC, _NO_TIMING = 1, 2  # CU_EVENT_BLOCKING_SYNC (sleep, do not spin: decoders need the core), CU_EVENT_DISABLE_TIMING
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: not ordered against the default stream


class OutOfDeviceMemory(EngineError):
    """The GPU has no room for what was asked for."""


def index_of(device: str) -> int:
    """`cuda:1` -> 1; `cuda` and `auto` -> 0."""
    return int(device.partition(":")[2] or 0)


def load_driver() -> tuple[Any, Any]:
    """(pycuda.driver, initialised; libcuda). EngineError, with what to do, where there is no driver, no GPU or no pycuda."""
    if why := machine.driver().why:
        raise EngineError(f"no GPU can be used: {why}", hint="install NVIDIA's driver, or write `device: cpu`")
    if importlib.util.find_spec("pycuda") is None:
        raise EngineError(
            "the GPU cannot be used: pycuda is not installed", hint="pip install posepipe[tensorrt] (it needs CUDA's headers)"
        )
    try:
        driver = importlib.import_module("pycuda.driver")
    except ImportError as e:
        raise EngineError(
            f"the GPU cannot be used: pycuda does not load: {e}", hint="build pycuda again: pip install --force-reinstall pycuda"
        ) from e
    driver.init()
    return driver, ctypes.CDLL("libcuda.so.1")


@functools.cache
def gpu(index: int) -> Cuda:
    """The GPU of that index, opened once and for the life of the process: arrays in pinned memory outlive the engine that made them."""
    found = Cuda(index)
    # Left to itself, pycuda 2026.1 ends a primary context by the call for others.
    atexit.register(found.close)
    return found


class Cuda:
    """A GPU that is entered (`with cuda:`) around every use, by any thread. It is the primary context: torch in the same process shares it.

    name: as the driver has it. capability: as compilers name it, such as sm89. What goes wrong inside is raised at the end of the block:
    OutOfDeviceMemory, or EngineError for a GPU or a driver that stopped working.
    """

    def __init__(self, index: int = 0, *, driver: Any = None, library: Any = None) -> None:
        """driver, library: pycuda.driver and libcuda, or what stands for them. EngineError when there is no GPU of that index."""
        if driver is None:
            driver, library = load_driver()
        count = driver.Device.count()
        if index >= count:
            hint = f"write a device from cuda:0 to cuda:{count - 1}" if count > 1 else "write `device: cuda`"
            raise EngineError(f"there is no GPU cuda:{index}, the driver gives {count}", hint=hint)
        self._driver, self._library = driver, library
        found = driver.Device(index)
        self.name: str = found.name()
        major, minor = found.compute_capability()
        self.capability = f"sm{major}{minor}"
        try:
            self._context: Any = found.retain_primary_context()
        except driver.Error as e:
            raise self._told(e) from e

    def __enter__(self) -> Self:
        try:
            self._context.push()
        except self._driver.Error as e:
            raise self._told(e) from e
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._driver.Context.pop()
        except self._driver.Error as e:
            if error is None:
                raise self._told(e) from e
        if isinstance(error, self._driver.Error):
            raise self._told(error) from error

    def _told(self, error: BaseException) -> EngineError:
        if isinstance(error, self._driver.MemoryError):
            return OutOfDeviceMemory(
                f"the memory of {self.name} is full: {error}", hint="end other programs on the GPU, or lower max_batch"
            )
        return EngineError(f"{getattr(self, 'name', 'the GPU')} or its driver stopped working: {error}", where="cuda", hint=HINT_GONE)

    def buffer(self, size: int) -> Any:
        """Device memory of `size` bytes: int() is its address, free() gives it back."""
        return self._driver.mem_alloc(max(1, size))

    def hold(self, content: NDArray[np.uint8]) -> Any:
        """Device memory with these bytes."""
        held = self.buffer(content.nbytes)
        self._driver.memcpy_htod(held, content)
        return held

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Memory of the processor that the GPU copies from and to by itself."""
        found: NDArray[Any] = self._driver.pagelocked_empty(shape, dtype)
        return found

    def stream(self) -> Any:
        """A queue of work."""
        return self._driver.Stream(_NON_BLOCKING)

    def event(self) -> Any:
        """A mark in a queue; waiting for it sleeps."""
        return self._driver.Event(_BLOCKING_SYNC | _NO_TIMING)

    def upload(self, to: Any, source: NDArray[Any], stream: Any) -> None:
        """Queue a copy to device memory; source is pinned and contiguous."""
        self._driver.memcpy_htod_async(to, source, stream)

    def download(self, to: NDArray[Any], source: Any, stream: Any) -> None:
        """Queue a copy from device memory; `to` is pinned and contiguous."""
        self._driver.memcpy_dtoh_async(to, source, stream)

    def function(self, code: bytes, name: str) -> Any:
        """A kernel of compiled code (cubin or PTX), to be called with numpy scalars, block=, grid= and stream=."""
        return self._driver.module_from_buffer(code).get_function(name)

    def capture(self, stream: Any, work: Callable[[], bool]) -> Graph | None:
        """What `work` queues on a stream, as one thing to launch; nothing runs meanwhile. None when it returns False or cannot be captured.

        pycuda 2026.1 has no graphs: these are calls of the driver's C interface.
        """
        call = functools.partial(_call, self._library)
        handle, graph, ready = ctypes.c_void_p(stream.handle), ctypes.c_void_p(), ctypes.c_void_p()
        if call("cuStreamBeginCapture_v2", handle, _CAPTURE_THREAD_LOCAL):
            return None
        whole = False
        try:
            whole = work()
        finally:
            # A stream left in capture mode would be of no use to anyone.
            whole = not call("cuStreamEndCapture", handle, ctypes.byref(graph)) and whole
        try:
            if whole and not call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0)):
                return Graph(self._library, ready)
        finally:
            if graph:
                call("cuGraphDestroy", graph)
        return None

    def close(self) -> None:
        """Give the context back, at the end of the process; memory that is still held goes with it."""
        self._context.detach()


class Graph:
    """Captured work of one stream."""

    def __init__(self, library: Any, ready: ctypes.c_void_p) -> None:
        self._library, self._ready = library, ready

    def launch(self, stream: Any) -> None:
        """Queue the work again. EngineError when the driver refuses."""
        if code := _call(self._library, "cuGraphLaunch", self._ready, ctypes.c_void_p(stream.handle)):
            raise EngineError(f"the GPU or its driver stopped working: cuGraphLaunch gives error {code}", where="cuda", hint=HINT_GONE)

    def close(self) -> None:
        """Free it. It must not be under way."""
        _call(self._library, "cuGraphExecDestroy", self._ready)


def _call(library: Any, name: str, *arguments: Any) -> int:
    return int(getattr(library, name)(*arguments))
