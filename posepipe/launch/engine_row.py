"""One line of `posepipe bench --engine`, measured in a process of its own so that its memory is its own.

    python -m posepipe.launch.engine_row '{"path": ..., "runtime": ..., ...}'

prints one JSON object: the line, or {"error": ..., "hint": ...}.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray

from posepipe.engines.bare import bare
from posepipe.engines.convert import for_precision
from posepipe.engines.engine import Engine, EngineOptions, TensorSpec
from posepipe.engines.runtimes import choose, opener
from posepipe.pipeline.errors import EngineError, PosepipeError

_WARM, _LEAST = 3, 10


class Task(msgspec.Struct, frozen=True):
    """What to measure. shapes: of every input, -1 for the batch."""

    path: str
    runtime: str
    precision: str
    batch: int
    threads: int
    seconds: float
    shapes: dict[str, tuple[int, ...]]


def measure(task: Task) -> dict[str, Any]:
    """Open, run for `seconds` in turns with the bare runtime, and say what that took.

    ms: median of a call; cpu_ms: mean processor time of a call, all threads; fps: items a second; peak_mb: memory that opening and running
    added, MB; plain_ms: medians of the bare runtime's ways; overhead: lower quartile of our calls by that of the best way's, less 1 (None
    without one).
    Raises EngineError, also for a network whose batch is another one.
    """
    path = Path(task.path)
    before = psutil.Process().memory_info().rss
    options = msgspec.convert(
        {"runtime": task.runtime, "precision": task.precision, "threads": task.threads, "max_batch": max(16, task.batch)}, EngineOptions
    )
    opening = time.perf_counter()
    name, _ = choose(options, path)
    with opener(name)(for_precision(path, runtime=name, precision=options.precision), options, "measured") as engine:
        open_s = time.perf_counter() - opening
        inputs = _inputs(engine, task)
        for _ in range(_WARM):
            engine(inputs)
        peak = _peak() - before
        file = for_precision(path, runtime=engine.runtime, precision=engine.precision)
        ways = bare(engine.runtime, file, precision=engine.precision, threads=task.threads, batch=task.batch)
        figures = in_turns(lambda: engine(inputs), {name: _bound(call, inputs) for name, call in ways.items()}, task.seconds)
        runtime, precision = engine.runtime, engine.precision
    row = {"runtime": runtime, "precision": precision, "batch": task.batch, **figures}
    return {**row, "fps": round(1e3 * task.batch / figures["ms"], 1), "peak_mb": round(peak / 1e6, 1), "open_s": round(open_s, 2)}


def _bound(call: Callable[[Any], object], inputs: Mapping[str, Any]) -> Callable[[], object]:
    return lambda: call(inputs)


def in_turns(ours: Callable[[], object], plain: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Any]:
    """Call all in turns, each first equally often, so that what else the machine does falls on all alike."""
    calls = {"": ours, **plain}
    names = list(calls)
    walls: dict[str, list[float]] = {name: [] for name in names}
    for call in plain.values():
        for _ in range(_WARM):
            call()
    cpu_s, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end or len(walls[""]) < _LEAST:
        for name in names:
            cpu, start = time.process_time(), time.perf_counter()
            calls[name]()
            walls[name].append(time.perf_counter() - start)
            cpu_s += time.process_time() - cpu if name == "" else 0.0
        names.append(names.pop(0))
    ms = {name: float(np.median(w)) * 1e3 for name, w in walls.items()}
    # What else the machine does only ever adds: the faster calls compare what is ours.
    quick = {name: float(np.percentile(w, 25)) for name, w in walls.items()}
    best = min(plain, key=lambda name: quick[name], default=None)
    ratio = None if best is None else quick[""] / quick[best] - 1
    return {
        "ms": round(ms[""], 3),
        "cpu_ms": round(cpu_s / len(walls[""]) * 1e3, 3),
        "overhead": None if ratio is None else round(ratio, 4),
        "plain_ms": {name: round(ms[name], 3) for name in plain},
    }


def _inputs(engine: Engine, task: Task) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {spec.name: _random(rng, spec, task) for spec in engine.inputs}


def _random(rng: np.random.Generator, spec: TensorSpec, task: Task) -> NDArray[Any]:
    wanted = task.shapes.get(spec.name, spec.shape)
    if not wanted or wanted[0] not in (-1, task.batch) or spec.shape[0] not in (-1, task.batch):
        fixed = spec.shape[0] if spec.shape and spec.shape[0] >= 0 else 1
        raise EngineError(f"the batch of this network is always {fixed}", where=task.path, hint=f"measure it with --batch {fixed}")
    if min(wanted[1:], default=1) < 0:
        raise EngineError(f"{spec} may have any size, so there is none to measure", where=task.path, hint="fix its sizes in the file")
    shape = (task.batch, *wanted[1:])
    if np.issubdtype(spec.dtype, np.integer):
        return rng.integers(0, 256 if spec.dtype != np.int8 else 128, shape).astype(spec.dtype)
    return rng.random(shape).astype(spec.dtype)


def _peak() -> int:
    """The most memory that this process has had, bytes; where the system does not say, what it has now."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        return int(psutil.Process().memory_info().rss)


def main() -> None:
    try:
        row = measure(msgspec.json.decode(sys.argv[1], type=Task))
    except PosepipeError as e:
        row = {"error": e.what, "hint": e.hint}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
