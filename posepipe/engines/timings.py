"""Which runtime is faster for a network on this processor, or on a GPU: measured once, and kept.

Kept in `timings.json` beside the builds, by network (SHA-256), processor or GPU, versions of the runtimes and precision. A file that is
damaged or cannot be written costs nothing but the time to measure again. Not run on a device for this release.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..pipeline.errors import EngineError
from . import cache, runtimes
from .assets import find
from .convert import network_of
from .device import driver, processor
from .engine import Engine, EngineOptions, RuntimeName, TensorSpec
from .files import write_whole
from .verdicts import heed

BATCH = 4
_ROUNDS, _FEWEST, _SPEND_S = 6, 2, 0.4
_MARGIN = 1.1  # a runtime must be a tenth faster to be taken instead of the one that is usually faster
_LOG = logging.getLogger("posepipe")


class Timing(msgspec.Struct, frozen=True):
    """What one runtime needed: the precision that it took, and ms a picture."""

    precision: str
    ms: float


class NoneOpens(EngineError):
    """None of the runtimes opens and runs the network. refusals: the words of each; the first's are this error's own."""

    def __init__(self, refusals: Mapping[RuntimeName, EngineError]) -> None:
        first = next(iter(refusals.values()))
        super().__init__(first.what, where=first.where, hint=first.hint)
        self.refusals = {name: e.what for name, e in refusals.items()}


@dataclass(frozen=True, slots=True)
class _Times:
    """What was measured, by runtime; empty when it cannot be, with the reason. only: the one runtime that can run the network. why: also
    which of them cannot, beside what was measured."""

    found: Mapping[str, Timing]
    why: str = ""
    only: RuntimeName | None = None


def fastest(path: Path, options: EngineOptions, versions: Mapping[RuntimeName, str], *, gpu: str = "") -> tuple[RuntimeName, str]:
    """The fastest of these runtimes (name -> version, the usually faster first) for a network here, and why. gpu: the one that they use.

    Measures when nothing is kept: a few runs in turns at batch 4 with random pictures, of each the fastest, which a machine that is
    busy with other things spoils last. Raises NoneOpens when none of them can open and run the network.
    """
    usual = next(iter(versions))
    times = measured(path, options, versions, gpu=gpu)
    if times.only is not None:
        return times.only, f"auto: {times.only} is the only one that runs it ({times.why})"
    if not times.found:
        return usual, f"auto: {usual} is {'the first choice' if gpu else 'usually the faster'} ({times.why})"
    best = min(times.found, key=lambda name: times.found[name].ms * (1.0 if name == usual else _MARGIN))
    said = [f"{name} {times.found[name].precision} {times.found[name].ms:.1f}" for name in sorted(times.found, key=lambda n: n != best)]
    said[0] += " ms a picture"
    where = f"on {gpu}" if gpu else "here"
    return next(n for n in versions if n == best), f"auto: {', '.join(said)} {where}{f'; {times.why}' if times.why else ''}"


def measured(path: Path, options: EngineOptions, versions: Mapping[RuntimeName, str], *, gpu: str = "") -> _Times:
    """The kept times of these runtimes for this network, measured now when there are none."""
    key = _key(path, options, versions, gpu)
    if (found := _kept().get(key)) is not None:
        return _Times(found)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(cache.NoLock):  # two that measure at once would measure each other
            held.enter_context(cache.alone("timings"))
        if (found := _kept().get(key)) is not None:
            return _Times(found)
        times, complete = _measure(path, options, list(versions))
        if times.found and complete:
            _keep(key, times.found)
    return times


def _key(path: Path, options: EngineOptions, versions: Mapping[RuntimeName, str], gpu: str) -> str:
    taken = [(name, version, _precision(path, options, name, version)) for name, version in sorted(versions.items())]
    facts = [cache.sha256_of(path), f"{gpu}, CUDA {driver().version}" if gpu else processor(), taken, options.threads]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def _precision(path: Path, options: EngineOptions, name: str, version: str) -> str:
    """What the options come to with the verdicts on this machine, which change what auto takes."""
    try:
        return heed(path, options, runtime=name, version=version, reason="")[0].precision
    except EngineError:
        return "refused"


def _measure(path: Path, options: EngineOptions, names: Sequence[RuntimeName]) -> tuple[_Times, bool]:
    """Times of those that can open and run the network, and whether all can."""
    opened: dict[RuntimeName, Engine] = {}
    refusals: dict[RuntimeName, EngineError] = {}
    try:
        for name in names:
            try:
                opened[name] = runtimes.open_with(name, path, options, "measured")
            except EngineError as e:
                refusals[name] = e
        inputs = random_inputs(_sized(path, next(iter(opened.values())).inputs), BATCH) if opened else None
        for name in list(opened):
            try:
                if inputs is not None:
                    opened[name](inputs)
            except EngineError as e:
                refusals[name] = e
                opened.pop(name).close()
        if not opened:
            raise NoneOpens(refusals)
        why = "; ".join(f"{name} refuses it: {e.what}" for name, e in refusals.items())
        if len(opened) == 1:
            return _Times({}, why, next(iter(opened))), False
        if inputs is None:
            return _Times({}, "its inputs have no fixed size, so nothing was measured"), False
        calls = {name: (lambda e=engine: e(inputs)) for name, engine in opened.items()}
        best = least_ms(calls)
        count = len(next(iter(inputs.values())))
        return _Times({n: Timing(e.precision, round(best[n] / count, 3)) for n, e in opened.items()}, why), not refusals
    finally:
        for engine in opened.values():
            engine.close()


def _sized(path: Path, specs: Sequence[TensorSpec]) -> Sequence[TensorSpec]:
    """The inputs of a network, of the size that its card states where its file leaves one open."""
    if all(min(s.shape[1:], default=1) > 0 for s in specs) or not (name := network_of(path)):
        return specs
    stated = find(name).input_shapes
    return [replace(s, shape=(*s.shape[:1], *stated[s.name][1:])) if s.name in stated else s for s in specs]


def least_ms(calls: Mapping[Any, Callable[[], object]], *, now_s: Callable[[], float] = time.perf_counter) -> dict[Any, float]:
    """The fastest of a few calls of each, ms; taken in turns, so that what else the machine does meets all alike."""
    for call in calls.values():
        call()
    best = dict.fromkeys(calls, float("inf"))
    begun = now_s()
    for turn in range(_ROUNDS):
        for name, call in calls.items():
            start = now_s()
            call()
            best[name] = min(best[name], (now_s() - start) * 1e3)
        if turn + 1 >= _FEWEST and now_s() - begun > _SPEND_S:
            break
    return best


def random_inputs(specs: Sequence[TensorSpec], batch: int) -> dict[str, NDArray[Any]] | None:
    """Random pictures for these inputs, as many as the batch says where it is free; None when another dimension is free too."""
    rng = np.random.default_rng(0)
    made: dict[str, NDArray[Any]] = {}
    for spec in specs:
        shape = tuple(batch if i == 0 and n < 0 else n for i, n in enumerate(spec.shape))
        if min(shape, default=-1) < 0:
            return None
        made[spec.name] = (
            rng.integers(0, 256, shape).astype(spec.dtype) if spec.dtype.kind in "iu" else rng.random(shape).astype(spec.dtype)
        )
    return made


def _file() -> Path:
    return cache.folder() / "timings.json"


def _kept() -> dict[str, dict[str, Timing]]:
    try:
        return msgspec.json.decode(_file().read_bytes(), type=dict[str, dict[str, Timing]])
    except (OSError, msgspec.DecodeError):  # a file of another kind is measured anew, like one that is not there
        return {}


def _keep(key: str, times: Mapping[str, Timing]) -> None:
    try:
        write_whole(_file(), msgspec.json.format(msgspec.json.encode({**_kept(), key: dict(times)})))
    except OSError as e:
        _LOG.warning("%s: what was measured cannot be kept, so it is measured at every start: %s", _file(), e.strerror or e)
