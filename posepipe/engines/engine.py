"""An engine runs a network: named arrays in, named arrays out, the batch first. One file per runtime implements it.

A runtime is imported only by its own file, and that file only when an engine is opened.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Protocol, Self, get_args, get_origin

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ..pipeline.errors import EngineError, did_you_mean
from .assets import TensorCard
from .protobuf import must_be_onnx

RuntimeName = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch", "stub"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Arrays = Mapping[str, NDArray[Any]]
OTHERWISE = "name another runtime, or export the network anew: opset 17 suits all of them"


class EngineOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to run a network. `auto` takes what is fastest here; threads 0 lets the runtime choose.

    device: cpu, cuda, cuda:1, ...; auto takes a GPU that a runtime can use, else the processor. instances: how many runs may be under way
    at once (`Engine.submit`). max_batch: compiled engines take batches up to this.
    """

    runtime: Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch", "stub"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    device: Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    threads: Annotated[int, Meta(ge=0)] = 0
    instances: Annotated[int, Meta(ge=1, le=64)] = 1
    max_batch: Annotated[int, Meta(ge=1, le=1024)] = 16


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named array. -1 in `shape` is any number; the first is the batch."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        dims = ", ".join("any" if n < 0 else str(n) for n in self.shape)
        return f"{self.name} {self.dtype} [{dims}]"

    def admits(self, array: NDArray[Any]) -> bool:
        """True when the array has this number type and shape."""
        return array.dtype == self.dtype and fits(array.shape, self.shape)


def fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """True when every number of `shape` is the wanted one, where -1 wants any."""
    return len(shape) == len(wanted) and all(w < 0 or n == w for n, w in zip(shape, wanted, strict=True))


@dataclass(frozen=True, slots=True)
class Contract:
    """What a network takes and gives, as its card says."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, inputs: Mapping[str, TensorCard], outputs: Mapping[str, TensorCard]) -> Contract:
        """From the tables of a card."""
        tables = (inputs, outputs)
        a, b = (tuple(TensorSpec(n, t.shape, np.dtype(t.dtype)) for n, t in table.items()) for table in tables)
        return cls(a, b)


class Pending:
    """A run under way."""

    def __init__(self, run: Future[dict[str, NDArray[Any]]]) -> None:
        self._run = run

    def done(self) -> bool:
        """Whether `result` would return at once."""
        return self._run.done()

    def result(self) -> dict[str, NDArray[Any]]:
        """Wait for the outputs. They may be overwritten once as many runs as the engine has instances were submitted after this one."""
        return self._run.result()


class Engine(abc.ABC):
    """An opened network. Not for use by several threads at once: open one each.

    inputs, outputs: the named arrays. runtime, precision, device: what it runs on in fact. reason: why this runtime and precision.
    instances: how many runs can be under way at once.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    runtime: str
    precision: Precision
    device: str
    reason: str
    instances: int = 1
    _queues: tuple[ThreadPoolExecutor, ...] = ()
    _turn: int = 0

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the network once. The arrays that come back may be overwritten by the next call: copy what is kept.

        Raises EngineError, which states wanted and given, when a name, a shape or a number type is not what the network takes; and with
        the runtime's words when it cannot be run.
        """
        self._check(inputs)
        if self._queues:
            return self._queues[0].submit(self._run, inputs, 0).result()
        return self._run(inputs, 0)

    def submit(self, inputs: Arrays) -> Pending:
        """Start a run and return; the inputs must not be changed before it is done. Runs are spread over the instances in turn, and one
        whose instance is busy waits for it. Raises EngineError as a call does; what goes wrong in the run itself is raised by `result`.
        """
        self._check(inputs)
        if not self._queues:  # one thread each: the runs of an instance share its buffers, so they must not overtake each other
            self._queues = tuple(ThreadPoolExecutor(1, thread_name_prefix=f"posepipe:engine{i}") for i in range(self.instances))
        instance, self._turn = self._turn, (self._turn + 1) % self.instances
        return Pending(self._queues[instance].submit(self._run, inputs, instance))

    @abc.abstractmethod
    def _run(self, inputs: Arrays, instance: int) -> dict[str, NDArray[Any]]:
        """Run the network on one of the instances, 0 to `instances` - 1; different ones at once by different threads."""

    @staticmethod
    def _failed(why: str, where: str) -> EngineError:
        """What a runtime says of a run that failed."""
        return EngineError(f"the network cannot be run: {why}", where=where, hint="run it with another runtime, and report it")

    def close(self) -> None:
        """Wait for the runs under way, and give back memory and threads. The engine cannot be called afterwards."""
        for queue in self._queues:
            queue.shutdown()
        self._queues = ()
        self._close()

    @abc.abstractmethod
    def _close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _check(self, inputs: Arrays) -> None:
        if len(inputs) == len(self.inputs):
            batch = -1
            for spec in self.inputs:
                array = inputs.get(spec.name)
                if array is None or not spec.admits(array) or (batch >= 0 and len(array) != batch) or not len(array):
                    break
                batch = len(array)
            else:
                return
        wanted = "; ".join(str(s) for s in self.inputs)
        given = "; ".join(f"{n} {a.dtype} {list(a.shape)}" for n, a in inputs.items()) or "nothing"
        raise EngineError(f"the network takes {wanted}; given was {given}", where=self.runtime)


_PLANS = ("tensorrt", "tensorrt_rtx")


def for_small(options: EngineOptions) -> EngineOptions:
    """The options for a network of up to some million numbers: on the processor, also where the studio's networks run on a GPU, since what goes in is
    counted there and what comes out is waited for there; on one thread, since every layer would wait longer for a second one than it saves (tens of
    milliseconds where the processors are busy); in float32; and no stub."""
    runtime: Any = "auto" if options.runtime in ("stub", *_PLANS) else options.runtime
    return msgspec.structs.replace(options, runtime=runtime, device="cpu", precision="fp32", threads=1)


def open_small(path: Path, options: EngineOptions, *, contract: Contract) -> Engine:
    """Open such a network, as `open_engine` does. The engine's reason says so where a GPU was meant."""
    from . import device

    engine = open_engine(path, for_small(options), contract=contract)
    if options.device != "cpu" and (options.runtime in _PLANS or options.device != "auto" or device.driver().gpus):
        engine.reason = f"on the processor by rule: it is small; {engine.reason}"
    return engine


def open_engine(path: Path, options: EngineOptions, *, contract: Contract | None = None, answers: Arrays | None = None) -> Engine:
    """Open an ONNX file with the runtime that the options name (`auto`: see `posepipe.engines.runtimes.open_chosen`).

    contract: what the network must take and give; one that differs is refused. answers: what the runtime `stub` gives, one item
    of every output; it reads no file. Raises EngineError: no such file, not a network, runtime not installed, contract not met.
    """
    from . import runtimes

    where = str(path)
    _must_be_options(options)
    if options.runtime == "stub":
        from .stub import StubEngine

        if contract is None or answers is None:
            raise EngineError("the runtime stub needs a contract and answers", where=where, hint="use it with a network that has a card")
        return StubEngine(contract, answers)
    if not path.is_file():
        raise EngineError("there is no such network file", where=where, hint="`posepipe pull` lists the networks that it fetches")
    must_be_onnx(path)
    engine = runtimes.open_chosen(path, options)
    if contract is not None:
        try:
            must_agree(engine, contract, where)
        except EngineError:
            engine.close()
            raise
    return engine


def _must_be_options(options: EngineOptions) -> None:
    """Refuse what a studio file could not say: a struct that is made in Python is not looked at by msgspec."""
    for field in msgspec.structs.fields(EngineOptions):
        value = getattr(options, field.name)
        try:
            msgspec.convert(value, field.type)
        except msgspec.ValidationError as e:
            hint = did_you_mean(str(value), get_args(field.type)) if get_origin(field.type) is Literal else ""
            raise EngineError(f"{field.name} is {value!r}: {e}", where="engine options", hint=hint) from None


class HasEnds(Protocol):
    """What has the named arrays of a network: an opened engine, or what is known of one that opens on another machine."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...


def must_agree(found: HasEnds, contract: Contract, where: str) -> None:
    """Raises EngineError, which states wanted and found, where a network takes or gives something else than its card says."""
    for kind, have, want in (("input", found.inputs, contract.inputs), ("output", found.outputs, contract.outputs)):
        by_name = {s.name: s for s in have}
        for spec in want:
            if spec.name not in by_name:
                raise EngineError(f"the network has no {kind} {spec.name!r}", where=where, hint=did_you_mean(spec.name, by_name))
            if (has := by_name[spec.name]).dtype != spec.dtype or not fits(has.shape, spec.shape):
                raise EngineError(
                    f"the {kind} should be {spec}, the network has {has}", where=where, hint="this is not the network of that card"
                )
