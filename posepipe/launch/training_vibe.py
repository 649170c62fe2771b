"""`posepipe train vibe`: people drawn from motion, walking before random cameras, until the network tells motion from a detector's errors."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ..calib.body import Posed, load_body, rotations_of_6d
from ..calib.body_tables import tables
from ..calib.motion import read_motion
from ..calib.sides import mirror_of
from ..calib.track_samples import posed, resampled, watched
from ..pipeline.packet import F32, I64
from ..pipeline.skeleton import COCO17
from .drawing import hard, kept_out
from .training import can_train

if TYPE_CHECKING:
    from ..engines.models.vibe.train import Batch, Step

LENGTH = 100
_COUNT, _AHEAD = 32, 8
_BATCH, _JUDGED, _SHAPES = 48, 120, 3
_RATES, _CHANCES = (30.0, 60.0, 25.0, 20.0, 15.0), (0.5, 0.25, 0.1, 0.1, 0.05)
_OCCLUDED = 0.25
_CALM, _LEAST = 0.3, 0.25
"""The share of the windows whose errors are smaller than a detector's, and how small at least: with good cameras the truth is where they say."""
_APART, _APART_M, _MOST, _SURE_M, _KNOWN = 0.3, 0.02, 1.5, 0.004, 0.5
"""The share of the windows in which key points lie elsewhere than the body's, how far (standard deviation in each axis; up to so many times that for one
person), and the share that begin with somebody who is known already: how his key points lie then is known to within `_SURE_M`."""
_BENT_RAD, _BENT = 0.7, 0.6
"""How far limbs are bent in training, and in what share of the sequences: few people were recorded, and hardly with their arms up."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """S sequences of `LENGTH` instants. xyz_m and joints_m [S,L,17,3], sigma_m and conf [S,L,17], six [S,L,24,6], root_m [S,L,3], shape [S,16], fps [S]."""

    xyz_m: F32
    sigma_m: F32
    conf: F32
    joints_m: F32
    six: F32
    root_m: F32
    shape: F32
    fps: F32

    def __len__(self) -> int:
        return len(self.fps)

    @staticmethod
    def joined(parts: list[Sequences]) -> Sequences:
        """All of several."""
        return Sequences(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Sequences)))


_bodies: list[tuple[str, Posed, F32, float]] = []


def _begin(motion: Path, kept: bool, shapes: int, seed: int) -> None:
    clips = list(read_motion(motion).values())
    away = kept_out({c.recording for c in clips})
    _bodies[:] = posed([c for c in clips if (c.recording in away) == kept], shapes=shapes, seed=seed)


def _draw(
    seed: int, number: int, count: int, rates: tuple[float, ...], chances: tuple[float, ...], occlusion: float, harder: bool
) -> Sequences:
    rng = np.random.default_rng((seed, number))
    lengths = np.array([len(whole) / fps for _, whole, _, fps in _bodies])
    rows: list[list[F32]] = []
    while len(rows) < count:
        fps = float(rng.choice(rates, p=chances))
        name, whole, shape, recorded = _bodies[rng.choice(len(_bodies), p=lengths / lengths.sum())]
        if (LENGTH - 1) * recorded / fps > len(whole) - 1:
            continue
        bent = _BENT_RAD if harder and rng.random() < _BENT else 0.0
        motion = resampled(rng, name, whole, shape, recorded, fps=fps, count=LENGTH, bent_rad=bent)
        seen = watched(rng, motion.coco17_m, fps, occlusion=occlusion, statistics=hard() if harder and rng.random() < 0.3 else None)
        row = (seen.xyz_m, seen.sigma_m, seen.conf, motion.coco17_m, motion.six, motion.root_m, shape, np.float32(fps))
        rows.append([np.asarray(x, np.float32) for x in row])
    return Sequences(*(np.stack(column) for column in zip(*rows, strict=True)))


def sequences(motion: Path, *, kept: bool, count: int, seed: int, workers: int, console: Console | None = None) -> Sequences:
    """Sequences drawn from the recordings that are trained on, or (kept) from those kept out of it, which have 30 instants a second and no
    more errors than the detector makes."""
    size = 40
    how = ((30.0,), (1.0,), 0.0, False) if kept else (_RATES, _CHANCES, _OCCLUDED, True)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (motion, kept, 1 if kept else _SHAPES, seed)) as pool:
        jobs = [pool.submit(_draw, seed, k, min(size, count - k * size), *how) for k in range(-(-count // size))]
        parts = []
        for k, job in enumerate(jobs):
            parts.append(job.result())
            if console is not None and k % 10 == 9:
                console.print(f"{(k + 1) * size} of {count} sequences drawn")
    return Sequences.joined(parts)


def batches(drawn: Sequences, *, seed: int, size: int = _BATCH) -> Iterator[Batch]:
    """Windows of the sequences, with what happens to skeletons in a studio besides: joints that are lost for a while, sides or people exchanged for
    some instants, everybody unseen, a rate that halves."""
    from ..engines.models.vibe.train import Batch

    rng = np.random.default_rng(seed)
    long = _COUNT + _AHEAD
    while True:
        rows = rng.integers(len(drawn), size=size)
        steps = np.ones((size, long), np.int64)
        for n in np.flatnonzero(rng.random(size) < 0.15):
            steps[n, rng.integers(long) :] = 2
        at = np.cumsum(steps, axis=1) - 1
        at += rng.integers(0, np.maximum(LENGTH - at[:, -1:], 1), size=(size, 1))
        pick = rows[:, None], np.minimum(at, LENGTH - 1)
        xyz, sigma, conf = drawn.xyz_m[pick].copy(), drawn.sigma_m[pick].copy(), drawn.conf[pick].copy()
        truth = drawn.joints_m[pick]
        _calm(rng, xyz, truth, sigma)
        apart_m, moved = _apart(rng, drawn.six[pick])
        xyz, truth = xyz + moved, truth + moved
        _spoil(rng, xyz, sigma, conf)
        ahead = np.where(rng.random(size) < 0.6, 0, rng.integers(1, _AHEAD + 1, size))
        now = pick[0], pick[1][:, :_COUNT]
        xyz, sigma, conf, t_s = (_time_first(x) for x in (xyz, sigma, conf, at / drawn.fps[rows, None]))
        joints = _time_first(truth[:, :_COUNT])
        six, root = (_time_first(x[now]) for x in (drawn.six, drawn.root_m))
        told = apart_m + rng.normal(0, _SURE_M, apart_m.shape).astype(np.float32)
        yield Batch(xyz, sigma, conf, t_s, ahead, joints, six, root, drawn.shape[rows], told, rng.random(size) < _KNOWN)


def _time_first(x: NDArray[Any]) -> F32:
    return np.ascontiguousarray(x.swapaxes(0, 1), np.float32)


def _calm(rng: np.random.Generator, xyz: F32, truth: F32, sigma: F32) -> None:
    """Take part of the errors of some windows away: xyz and truth [N,L,17,3], sigma [N,L,17], which knows of it half of the time; in place."""
    people = len(xyz)
    share = np.where(rng.random(people) < _CALM, rng.uniform(_LEAST, 1.0, people), 1.0).astype(np.float32)[:, None, None]
    xyz -= (1 - share[..., None]) * (xyz - truth)
    sigma *= np.where(rng.random(people)[:, None, None] < 0.5, share, np.float32(1))


def _apart(rng: np.random.Generator, six: F32) -> tuple[F32, F32]:
    """How far people's key points lie from the body's in the frames of its bones [N,17,3], nothing for most, and in the world [N,L,17,3]; six [N,L,24,6]."""
    from ..engines.models.vibe.smooth import CARRIED_BY

    people = len(six)
    size_m = _APART_M * rng.uniform(0, _MOST, people) * (rng.random(people) < _APART)
    apart_m = (rng.normal(0, 1, (people, 17, 3)) * size_m[:, None, None]).astype(np.float32)
    frames = rotations_of_6d(six[:, :, list(CARRIED_BY)]).astype(np.float32)
    return apart_m, np.einsum("nlkij,nkj->nlki", frames, apart_m)


def _spoil(rng: np.random.Generator, xyz: F32, sigma: F32, conf: F32) -> None:
    """Arrays [N,L,17,...], in place."""
    people, long, joints = conf.shape
    mirror = mirror_of(COCO17)
    for n in range(people):
        if rng.random() < 0.5:
            for j in np.flatnonzero(rng.random(joints) < 0.2):
                begin, length = rng.integers(4, long), rng.integers(2, 16)
                conf[n, begin : begin + length, j] = 0
        if rng.random() < 0.1:
            begin = rng.integers(4, long)
            conf[n, begin : begin + rng.integers(2, 12)] = 0
        if rng.random() < 0.06:
            begin = rng.integers(4, long)
            part = slice(begin, begin + rng.integers(1, 4))
            xyz[n, part], sigma[n, part], conf[n, part] = xyz[n, part][:, mirror], sigma[n, part][:, mirror], conf[n, part][:, mirror]
        if rng.random() < 0.06:
            begin, other = rng.integers(4, long), rng.integers(people)
            part = slice(begin, begin + rng.integers(1, 4))
            shift = np.append(rng.normal(0, 0.7, 2), 0)
            if np.isfinite(xyz[n, part]).any() and np.isfinite(xyz[other, part]).any():
                middle = np.nanmean(xyz[n, part], axis=(0, 1)) - np.nanmean(xyz[other, part], axis=(0, 1))
                xyz[n, part] = xyz[other, part] + (middle * [1, 1, 0] + shift).astype(np.float32)
                sigma[n, part], conf[n, part] = sigma[other, part], conf[other, part]
    conf[~np.isfinite(xyz).all(axis=-1)] = 0


class Judge:
    """The error (mm) and acceleration error (mm per frame^2) of a step on sequences kept out of training, joints that triangulation found, as
    `tests/bench/bench_smoothers.py` has them; with 0 and 4 instants ahead, and inside gaps of 0.3 s in a fifth of the joints."""

    def __init__(self, drawn: Sequences, *, seed: int) -> None:
        self._drawn = drawn
        rng, length = np.random.default_rng(seed), 9
        self._gone = np.zeros(drawn.conf.shape, np.bool_)
        for s, j in np.argwhere(rng.random((len(drawn), 17)) < 0.2):
            begin = rng.integers(30, LENGTH - _AHEAD - length)
            self._gone[s, begin : begin + length, j] = True

    def __call__(self, step: Step, memory: int) -> dict[str, float]:
        scores: dict[str, float] = {}
        for ahead in (0, 4):
            error, bend, _ = self._run(step, memory, ahead, gaps=False)
            scores |= {f"error, {ahead} ahead": error, f"acceleration, {ahead} ahead": bend}
        return scores | {"in gaps": self._run(step, memory, 0, gaps=True)[2]}

    def _run(self, step: Step, memory: int, ahead: int, *, gaps: bool) -> tuple[float, float, float]:
        from ..engines.models.vibe.train import WARM_UP, Batch, windows

        d, people, count = self._drawn, len(self._drawn), LENGTH - _AHEAD
        conf = np.where(self._gone, 0, d.conf) if gaps else d.conf
        times = np.broadcast_to(np.arange(LENGTH) / d.fps[:, None], (people, LENGTH))
        later: I64 = np.full(people, ahead)
        xyz, sigma, conf, t_s = (_time_first(x) for x in (d.xyz_m, d.sigma_m, conf, times))
        joints, six, root = (_time_first(x[:, :count]) for x in (d.joints_m, d.six, d.root_m))
        nobody, as_they_are = np.zeros(people, np.bool_), np.zeros((people, 17, 3), np.float32)
        window, after = windows(Batch(xyz, sigma, conf, t_s, later, joints, six, root, d.shape, as_they_are, nobody))
        state = np.zeros((people, memory), np.float32)
        for _ in range(WARM_UP):
            state = step(state, window[0], after[0])[-1]
        given = []
        for k in range(count):
            out = step(state, window[k], after[k])
            given.append(out[0])
            state = out[-1]
        off = (np.stack(given) - joints) * 1e3
        found = np.asarray(np.isfinite(xyz[:count]).all(axis=-1))
        bend = np.linalg.norm(np.diff(off, 2, axis=0), axis=-1)
        three = found[:-2] & found[1:-1] & found[2:]
        away = np.linalg.norm(off, axis=-1)
        inside = found & self._gone.swapaxes(0, 1)[:count]
        return float(away[found].mean()), float(bend[three].mean()), float(away[inside].mean())


def vibe(
    motion: Path, out: Path, *, steps: int, minutes: float | None, count: int, workers: int, threads: int, seed: int, fresh: bool
) -> None:
    """Train the network of smooth.vibe on motion (docs/vibe.md) and write checkpoint, curves and smooth.onnx to `out`."""
    can_train(steps=steps, workers=workers, threads=threads, sequences=count)
    from ..engines.models.checkpoint import steps_done
    from ..engines.models.vibe.train import Plan, train

    console = Console()
    drawn = sequences(motion, kept=False, count=count, seed=seed, workers=workers, console=console)
    judge = Judge(sequences(motion, kept=True, count=_JUDGED, seed=seed + 1, workers=workers), seed=seed + 2)
    done = 0 if fresh else steps_done(out)
    path = train(
        batches(drawn, seed=seed + 7 * done), judge, out, Plan(steps), tables(load_body()), resume=not fresh, tell=console.print,
        seconds=60 * minutes if minutes else float("inf"), threads=threads,
    )  # fmt: skip
    console.print(f"written {path}")
