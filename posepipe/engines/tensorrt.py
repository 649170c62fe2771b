"""TensorRT and TensorRT for RTX on an NVIDIA GPU. Not run on a device for this release: plans are built and checked, running them is
exercised with a made-up GPU.

The two modules differ in how they use CUDA graphs: TensorRT's runs are captured here, one graph per batch size; TensorRT for RTX compiles
kernels for a shape while it runs, and captures by itself when it is ready. What it compiled is kept like a build.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..pipeline.errors import EngineError
from . import cache
from .cuda import Graph, OutOfDeviceMemory, gpu, index_of
from .engine import Arrays, Engine, EngineOptions, TensorSpec
from .tensorrt_build import Told, build_plan, module_for, plan_key, settle, with_runtime

__all__ = ["Fill", "TensorrtEngine", "build_plan"]

Fill = Callable[[Mapping[str, int], Any, slice], None]
"""Queues what brings inputs to the device: their addresses by name, the stream, and which items of the batch."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class TensorrtEngine(Engine):
    """One plan on one GPU, built when it is not kept yet. Inputs go through pinned memory, outputs are views of it.

    When the GPU's memory is full, the batch is halved until there is room, and larger ones are run in parts; the log says so each time.
    """

    def __init__(
        self,
        path: Path,
        options: EngineOptions,
        reason: str,
        *,
        module: str = "",
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        """module: `tensorrt` or `tensorrt_rtx`, when the options leave it open. shapes: see `build_plan`."""
        options = with_runtime(options, module) if module else options
        name, self._trt = module_for(options)
        # Before anything of TensorRT's runtime is touched: without a driver that can end in a segmentation fault.
        self._cuda = gpu(index_of(options.device))
        self._where, self._told = str(path), Told(self._trt)
        chosen = settle(options, path)
        self._key = plan_key(path, options, chosen, self._cuda.capability, shapes)
        self._load(path, options, shapes, name)
        self.inputs, self.outputs = self._tensors("INPUT"), self._tensors("OUTPUT")
        self.runtime, self.precision, self.device = name, chosen.precision, self._cuda.name
        self.instances, self.reason = options.instances, f"{reason}; {chosen.why}"
        self._own_graphs = name == "tensorrt"
        with self._cuda:
            self._kernels = self._kernel_cache() if name == "tensorrt_rtx" else None
        # A network of a fixed batch cannot be run in parts.
        self._fixed = next((s.shape[0] for s in (*self.inputs, *self.outputs) if s.shape and s.shape[0] >= 0), None)
        self._most, self._lock = self._fixed or options.max_batch, threading.Lock()
        self._slots: list[_Slot | None] = [None] * self.instances
        for instance in range(self.instances):
            self._retrying(instance, lambda slot: None)

    def _load(self, path: Path, options: EngineOptions, shapes: Mapping[str, tuple[int, ...]] | None, name: str) -> None:
        with self._cuda:
            self._runtime: Any = self._trt.Runtime(self._told.logger)
            for again in (False, True):
                plan = build_plan(path, options=options, capability=self._cuda.capability, shapes=shapes, again=again)
                self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
                if self._engine is not None:
                    return
        raise EngineError(f"{name} cannot load its own build: {self._told.last()}", where=self._where, hint="run it with another runtime")

    def _run(self, inputs: Arrays, instance: int) -> dict[str, NDArray[Any]]:
        def fill(slot: _Slot, part: slice) -> None:
            for name, array in inputs.items():
                pinned = slot.host[name][: part.stop - part.start]
                np.copyto(pinned, array[part])
                self._cuda.upload(slot.device[name], pinned, slot.stream)

        return self._batch(len(next(iter(inputs.values()))), fill, instance)

    def run_filled(self, batch: int, fill: Fill, *, instance: int = 0) -> dict[str, NDArray[Any]]:
        """Run a batch whose inputs `fill` writes on the device itself, such as crops (`crop_cuda`): once for every part of the batch.

        The arrays that come back may be overwritten by the next call, as those of a call.
        """
        return self._batch(batch, lambda slot, part: fill(slot.addresses, slot.stream, part), instance)

    def _batch(self, batch: int, fill: Callable[[_Slot, slice], None], instance: int) -> dict[str, NDArray[Any]]:
        def run(slot: _Slot) -> dict[str, NDArray[Any]]:
            if batch <= slot.most:
                return slot.run(slice(0, batch), fill)
            parts = [slice(a, min(a + slot.most, batch)) for a in range(0, batch, slot.most)]
            found = [{n: a.copy() for n, a in slot.run(part, fill).items()} for part in parts]
            return {s.name: np.concatenate([f[s.name] for f in found]) for s in self.outputs}

        return self._retrying(instance, run)

    def _retrying(self, instance: int, work: Callable[[_Slot], T]) -> T:
        """`work` with an instance's memory, which is made smaller until it fits."""
        while True:
            slot = self._slots[instance]
            try:
                with self._cuda:
                    if slot is None:
                        slot = self._slots[instance] = _Slot(self, self._most)
                    return work(slot)
            except OutOfDeviceMemory as e:
                had = slot.most if slot is not None else self._most
                self._give_back(instance)
                if had == 1 or self._fixed is not None:
                    raise
                self._halve(had, e)

    def _halve(self, had: int, why: OutOfDeviceMemory) -> None:
        with self._lock:
            if had // 2 < self._most:  # another instance may have said it
                self._most = had // 2
                log.warning("%s: %s; batches are run in parts of at most %d", self._where, why.what, self._most)

    def _give_back(self, instance: int) -> None:
        slot, self._slots[instance] = self._slots[instance], None
        if slot is not None:
            with self._cuda:
                slot.close()

    def _close(self) -> None:
        try:
            for instance in range(self.instances):
                self._give_back(instance)
            with self._cuda:
                compiled = bytes(self._kernels.serialize()) if self._kernels is not None else b""
                self._kernels = self._engine = self._runtime = None
            if compiled and compiled != cache.find(self._kernel_key()):
                cache.build(self._kernel_key(), lambda: compiled, source=Path(self._where), again=True)
        except EngineError as e:
            # A GPU that is gone took its memory with it; closing after that must not hide what happened.
            log.warning("%s: %s", self._where, e.what)

    def _tensors(self, kind: str) -> tuple[TensorSpec, ...]:
        found = []
        for i in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(i)
            if self._engine.get_tensor_mode(name) == getattr(self._trt.TensorIOMode, kind):
                dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
                found.append(TensorSpec(name, tuple(self._engine.get_tensor_shape(name)), dtype))
        return tuple(found)

    def _kernel_key(self) -> cache.BuildKey:
        return dataclasses.replace(self._key, shapes=f"kernels of {self._key.shapes}")

    def _kernel_cache(self) -> Any:
        """What TensorRT for RTX compiled for this GPU in earlier runs."""
        kernels = self._engine.create_runtime_config().create_runtime_cache()
        if (kept := cache.find(self._kernel_key())) is not None and not kernels.deserialize(kept):
            log.info("%s: kernels of another driver or version are compiled anew", self._where)
        return kernels

    def context(self) -> Any:
        """An execution context whose memory is the caller's to give."""
        trt, engine = self._trt, self._engine
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._kernels is None:
            found = engine.create_execution_context(strategy)
        else:
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            config.set_runtime_cache(self._kernels)
            found = engine.create_execution_context(config)
        if found is None:
            raise self.failed("cannot be made ready")
        return found

    def failed(self, what: str) -> EngineError:
        """What TensorRT says, as the error that fits."""
        why = self._told.last()
        if "out of memory" in why.lower() or "outofmemory" in why.lower():
            return OutOfDeviceMemory(
                f"the memory of {self._cuda.name} is full: {why}", hint="end other programs on the GPU, or lower max_batch"
            )
        return EngineError(f"the network {what}: {why}", where=self._where, hint="run it with another runtime, and report it")


@dataclass(slots=True)
class _Sized:
    """An execution context for one batch size. TensorRT wants one of its own for every captured graph; they share their memory."""

    context: Any
    uses: int = 0
    graph: Graph | None = None


class _Slot:
    """The memory and the queue of one instance. Use with the GPU entered."""

    def __init__(self, engine: TensorrtEngine, most: int) -> None:
        self._engine, self._cuda, self.most = engine, engine._cuda, most
        self.stream, self._done = self._cuda.stream(), self._cuda.event()
        self.host: dict[str, NDArray[Any]] = {}
        self.device: dict[str, Any] = {}
        self._sized: dict[int, _Sized] = {}
        with contextlib.ExitStack() as undo:
            first = self._shaped(most)
            self._scratch_size = int(first.update_device_memory_size_for_shapes())
            self._scratch = self._cuda.buffer(self._scratch_size)
            undo.callback(self._scratch.free)
            for spec in (*engine.inputs, *engine.outputs):
                shape = tuple(first.get_tensor_shape(spec.name))
                if min(shape, default=1) < 0:
                    raise EngineError(
                        f"the size of {spec.name!r} depends on the picture, which TensorRT is not run with here", where=engine._where
                    )
                # Pinned memory goes when the last array that was handed out goes, not before.
                self.host[spec.name] = self._cuda.pinned(shape, spec.dtype)
                self.device[spec.name] = self._cuda.buffer(self.host[spec.name].nbytes)
                undo.callback(self.device[spec.name].free)
            self.addresses = {spec.name: int(self.device[spec.name]) for spec in engine.inputs}
            self._sized[most] = self._bound(first)
            self._owned = undo.pop_all()

    def run(self, part: slice, fill: Callable[[_Slot, slice], None]) -> dict[str, NDArray[Any]]:
        """One batch, from inputs to outputs in pinned memory."""
        batch = part.stop - part.start
        if batch not in self._sized:
            self._sized[batch] = self._bound(self._shaped(batch))
        sized = self._sized[batch]
        fill(self, part)
        sized.uses += 1
        if self._engine._own_graphs and sized.uses == 2:
            # The first run settles what TensorRT puts off until it knows the shape, which must not be captured.
            sized.graph = self._cuda.capture(self.stream, lambda: self._queue(sized.context, batch))
            if sized.graph is None:
                log.info("%s: runs of %d cannot be captured, they are queued one by one", self._engine._where, batch)
        if sized.graph is not None:
            sized.graph.launch(self.stream)
        elif not self._queue(sized.context, batch):
            raise self._engine.failed("cannot be run")
        self._done.record(self.stream)
        self._done.synchronize()
        return {s.name: self.host[s.name][:batch] for s in self._engine.outputs}

    def _queue(self, context: Any, batch: int) -> bool:
        if not context.execute_async_v3(self.stream.handle):
            return False
        for spec in self._engine.outputs:
            self._cuda.download(self.host[spec.name][:batch], self.device[spec.name], self.stream)
        return True

    def _shaped(self, batch: int) -> Any:
        context = self._engine.context()
        for spec in self._engine.inputs:
            if spec.shape and spec.shape[0] < 0 and not context.set_input_shape(spec.name, (batch, *spec.shape[1:])):
                raise self._engine.failed(f"does not take a batch of {batch}")
        return context

    def _bound(self, context: Any) -> _Sized:
        context.set_device_memory(int(self._scratch), self._scratch_size)
        for name, memory in self.device.items():
            if not context.set_tensor_address(name, int(memory)):
                raise self._engine.failed(f"does not take memory for {name!r}")
        return _Sized(context)

    def close(self) -> None:
        """Give back graphs, contexts and memory; wait for what is queued first."""
        self.stream.synchronize()
        for sized in self._sized.values():
            if sized.graph is not None:
                sized.graph.close()
        self._sized.clear()
        self._owned.close()
