"""An engine runs a network: named arrays in, named arrays out, the batch first. One file per runtime implements it.

A runtime is imported only by its own file, and that file only when an engine is opened.
"""

from __future__ import annotations

import abc
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..pipeline.errors import EngineError, did_you_mean
from .assets import TensorCard

RuntimeName = Literal["onnxruntime", "openvino", "stub"]
Precision = Literal["fp32", "bf16"]
Arrays = Mapping[str, NDArray[Any]]


class EngineOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to run a network. `auto` takes what is fastest here; threads 0 lets the runtime choose."""

    runtime: Literal["auto", "onnxruntime", "openvino", "stub"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int = 0


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


class Engine(abc.ABC):
    """An opened network. Not for use by several threads at once: open one each.

    inputs, outputs: the named arrays. runtime, precision, device: what it runs on in fact. reason: why this runtime and precision.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    runtime: str
    precision: Precision
    device: str
    reason: str

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the network once. The arrays that come back may be overwritten by the next call: copy what is kept.

        Raises EngineError, which states wanted and given, when a name, a shape or a number type is not what the network takes.
        """
        self._check(inputs)
        return self._run(inputs)

    @abc.abstractmethod
    def _run(self, inputs: Arrays) -> dict[str, NDArray[Any]]: ...

    @abc.abstractmethod
    def close(self) -> None:
        """Give back memory and threads. The engine cannot be called afterwards."""

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


def open_engine(path: Path, options: EngineOptions, *, contract: Contract | None = None, answers: Arrays | None = None) -> Engine:
    """Open an ONNX file with the runtime that the options name (`auto`: OpenVINO where it is installed, else ONNX Runtime).

    contract: what the network must take and give; one that differs is refused. answers: what the runtime `stub` gives, one item
    of every output; it reads no file. Raises EngineError: no such file, not a network, runtime not installed, contract not met.
    """
    runtime, reason = _choose(options)
    where = str(path)
    if runtime == "stub":
        from .stub import StubEngine

        if contract is None or answers is None:
            raise EngineError("the runtime stub needs a contract and answers", where=where, hint="use it with a network that has a card")
        return StubEngine(contract, answers)
    if not path.is_file():
        raise EngineError("there is no such network file", where=where, hint="`posepipe pull` lists the networks that it fetches")
    engine = _open(runtime, path, options, reason)
    if contract is not None:
        try:
            _must_agree(engine, contract, where)
        except EngineError:
            engine.close()
            raise
    return engine


def _open(runtime: RuntimeName, path: Path, options: EngineOptions, reason: str) -> Engine:
    if runtime == "openvino":
        from .openvino import OpenvinoEngine

        return OpenvinoEngine(path, precision=options.precision, threads=options.threads, reason=reason)
    from .onnxruntime import OnnxruntimeEngine

    return OnnxruntimeEngine(path, precision=options.precision, threads=options.threads, reason=reason)


def _choose(options: EngineOptions) -> tuple[RuntimeName, str]:
    if options.threads < 0:
        raise EngineError(f"threads is {options.threads}", hint="0 lets the runtime choose, 1 and more are taken as they are")
    if options.runtime == "stub":
        return "stub", "asked for"
    usable = {r.name: r for r in runtimes() if r.usable}
    if options.runtime == "auto":
        if "openvino" in usable:
            return "openvino", "auto: the fastest that is installed for this processor"
        if "onnxruntime" in usable:
            return "onnxruntime", "auto: OpenVINO is not installed (`pip install posepipe[openvino]` is up to twice as fast)"
        raise EngineError("no inference runtime is installed", hint="pip install onnxruntime, or posepipe[openvino]")
    if options.runtime not in usable:
        hint = f"pip install {options.runtime}, or write `runtime: auto`"
        raise EngineError(f"the runtime {options.runtime} is not installed", hint=hint)
    return options.runtime, "asked for"


def _must_agree(engine: Engine, contract: Contract, where: str) -> None:
    for kind, have, want in (("input", engine.inputs, contract.inputs), ("output", engine.outputs, contract.outputs)):
        by_name = {s.name: s for s in have}
        for spec in want:
            if spec.name not in by_name:
                raise EngineError(f"the network has no {kind} {spec.name!r}", where=where, hint=did_you_mean(spec.name, by_name))
            if (found := by_name[spec.name]).dtype != spec.dtype or not fits(found.shape, spec.shape):
                raise EngineError(
                    f"the {kind} should be {spec}, the network has {found}", where=where, hint="this is not the network of that card"
                )


@dataclass(frozen=True, slots=True)
class Runtime:
    """One runtime, for `posepipe doctor`. why: empty when usable."""

    name: str
    usable: bool
    version: str
    why: str


def runtimes() -> list[Runtime]:
    """All runtimes that posepipe knows of, whether they can be used here, and if not why. Imports none of them."""
    return [
        _installed("openvino", "pip install posepipe[openvino]"),
        _installed("onnxruntime", "pip install onnxruntime"),
        Runtime("stub", True, "", ""),
        Runtime("tensorrt", False, "", "not built yet in this release"),
        Runtime("torch", False, "", "not built yet in this release"),
    ]


def _installed(name: str, how: str) -> Runtime:
    if importlib.util.find_spec(name) is None:
        return Runtime(name, False, "", f"not installed: {how}")
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown version"
    return Runtime(name, True, version, "")
