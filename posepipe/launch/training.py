"""`posepipe train triangulation`: people drawn from motion, seen by random cameras, until the volumetric network knows bodies."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from rich.console import Console

from ..calib.posebank import Track
from ..calib.samples import Sampler, algebraic, random_rig
from ..calib.unproject import Cube
from ..pipeline.errors import EngineError, PosepipeError
from ..pipeline.packet import F32, F64
from .drawing import N, batches, cubed, judged, split

_BATCH = 8
_JUDGED = 96
_MEASURED = 400
_SHAPES = 6


class Judge:
    """Samples kept out of training (their clips, bodies and cameras), and the errors of a network on them beside triangulation's.

    Called with a function from volumes to (positions, spread), it gives mean errors in mm by name. Joints that triangulation does not
    find at all count for neither.
    """

    def __init__(self, tracks: list[Track], *, seed: int, count: int, views: tuple[int, ...] = (4, 2)) -> None:
        self._volumes: dict[int, np.ndarray[tuple[int, ...], np.dtype[np.float16]]] = {}
        self._cases: dict[int, list[tuple[Cube, F64, F64]]] = {}
        rng = np.random.default_rng(seed)
        rigs = [random_rig(rng) for _ in range(60)]
        for wanted in views:
            sampler = Sampler(tracks, seed=seed + wanted, rigs=rigs, views={wanted: 1.0})
            self._volumes[wanted], self._cases[wanted] = np.empty((count, N, N, N, 17), np.float16), []
            for k in range(count):
                seen = judged(sampler)
                cube, self._volumes[wanted][k], _ = cubed(seen)
                self._cases[wanted].append((cube, seen.truth_m, algebraic(seen)[0].xyz_m[0]))

    def __call__(self, run: Callable[[F32], tuple[F32, F32]]) -> dict[str, float]:
        scores: dict[str, float] = {}
        for wanted, cases in self._cases.items():
            ours, theirs = [], []
            for k, (cube, truth_m, rival_m) in enumerate(cases):
                xyz, _ = run(self._volumes[wanted][k : k + 1].astype(np.float32))
                both = np.isfinite(rival_m[:, 0])
                ours.append(np.linalg.norm(cube.world(xyz[0]) - truth_m, axis=1)[both])
                theirs.append(np.linalg.norm(rival_m - truth_m, axis=1)[both])
            mine, rival = np.concatenate(ours) * 1000, np.concatenate(theirs) * 1000
            scores |= {f"{wanted} views": float(mine.mean()), f"{wanted} views p95": float(np.percentile(mine, 95))}
            scores |= {f"triangulated {wanted}": float(rival.mean()), f"triangulated {wanted} p95": float(np.percentile(rival, 95))}
        return scores


def spread_factors(tracks: list[Track], *, seed: int, count: int) -> Callable[[Callable[[F32], tuple[F32, F32]]], F32]:
    """Measures, on samples of these tracks, by what [17] a network's spread has to be multiplied to be one standard deviation per axis.

    By the error that nine of ten stay below: a joint taken for another one does not make all the others look uncertain, yet the prior that this
    becomes in the fine step leaves room for what the network now and then gets wrong. In three dimensions nine of ten squared errors of a normal distribution lie below 6.251 variances.
    """

    def measure(run: Callable[[F32], tuple[F32, F32]]) -> F32:
        rng = np.random.default_rng(seed)
        sampler = Sampler(tracks, seed=seed, rigs=[random_rig(rng) for _ in range(100)])
        ratios = []
        for _ in range(count):
            seen = judged(sampler)
            _, volume, target = cubed(seen)
            xyz, spread = run(volume[None])
            ratios.append(((xyz[0] - target) ** 2).sum(axis=1) / spread[0] ** 2)
        factors: F32 = np.sqrt(np.nanquantile(np.stack(ratios), 0.9, axis=0) / 6.251).astype(np.float32)
        return factors

    return measure


def can_train(**counts: int) -> None:
    """Refuse what would only fail after minutes: EngineError where torch, or matplotlib for the curves, is missing; PosepipeError for a count
    below 1 (by the name of its option)."""
    for package in ("torch", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise EngineError(f"training needs {package}, which is not installed", hint="pip install 'posepipe[train]'")
    for name, count in counts.items():
        if count < 1:
            raise PosepipeError(f"--{name} is {count}", hint="it is a whole number of at least 1")


def triangulation(
    motion: Path, out: Path, *, steps: int, minutes: float | None, workers: int, threads: int, seed: int, fresh: bool
) -> None:
    """Train the slim volumetric network on motion (docs/triangulation.md) and write checkpoint, curves and slim.onnx to `out`."""
    can_train(steps=steps, workers=workers, threads=threads)
    from ..engines.models.checkpoint import steps_done
    from ..engines.models.triangulation.train import Batch, Plan, train

    console = Console()
    trained, kept_out = split(motion, shapes=_SHAPES, seed=seed)
    console.print(f"{len(trained)} tracks to train on, {len(kept_out)} kept out of it")
    judge = Judge(kept_out, seed=seed + 1, count=_JUDGED)
    plan = Plan(steps=steps)
    drawn = batches(trained, seed=seed, first=0 if fresh else steps_done(out), size=_BATCH, workers=workers)

    def feed() -> Iterator[Batch]:
        for one in drawn:
            yield Batch(one.volume.astype(np.float32), one.target)

    widen = spread_factors(trained, seed=seed + 2, count=_MEASURED)
    with closing(drawn):
        path = train(
            feed(),
            judge,
            out,
            plan,
            widen=widen,
            resume=not fresh,
            tell=console.print,
            seconds=60 * minutes if minutes else float("inf"),
            threads=threads,
        )
    console.print(f"written {path}")
