"""Training batches, drawn by worker processes that keep the cores busy: batch k is the same whoever draws it and however many draw."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..calib.body import load_body
from ..calib.cube import cube_around
from ..calib.motion import read_motion
from ..calib.posebank import Track, bank
from ..calib.samples import Observed, Sampler, algebraic, random_rig, volume_of
from ..calib.synthetic_noise import Statistics, statistics
from ..calib.unproject import Cube
from ..pipeline.errors import PosepipeError, SourceError
from ..pipeline.packet import F32

if TYPE_CHECKING:
    from ..calib.rig import Rig

SIDE_M = 2.5
N = 32
_EVERY_FIFTH = 5
_OFTEN = 5
VIEWS = {4: 0.4, 3: 0.2, 2: 0.4}
ASTRAY_RAD = 0.004
"""Calibrations of studios are off by up to a hundredth of the picture; every batch has rigs of one quality."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One batch. volume [N,32,32,32,17] float16; target [N,17,3]: the truth in shares of the cube, NaN outside it."""

    volume: NDArray[np.float16]
    target: F32


def split(motion: Path, *, shapes: int, seed: int) -> tuple[list[Track], list[Track]]:
    """Tracks for training and tracks kept out of it, by recording: every fifth one in the order of their names, with bodies of their own.

    The same people may move in both: who they are, clips do not say. SourceError for a single recording.
    """
    clips = list(read_motion(motion).values())
    recordings = sorted({c.recording for c in clips})
    if len(recordings) < 2:
        what = f"there is one recording in it, {recordings[0]}, and one is kept out of the training to judge it by"
        raise SourceError(what, where=str(motion), hint="posepipe motion import FILE.bvh FILE.bvh ... --out DIR takes several")
    away = kept_out(recordings)
    body = load_body()
    return (
        bank([c for c in clips if c.recording not in away], body=body, shapes=shapes, seed=seed),
        bank([c for c in clips if c.recording in away], body=body, shapes=shapes, seed=seed + 1),
    )


def kept_out(recordings: Iterable[str]) -> set[str]:
    """The recordings that no training sees: every fifth in the order of their names."""
    return set(sorted(recordings)[::_EVERY_FIFTH])


def judged(sampler: Sampler) -> Observed:
    """The next observation of which triangulation finds some joint of the body: without one a studio has no place for a cube."""
    while True:
        seen = sampler.draw()
        if cube_around(algebraic(seen)[0].xyz_m[0]) is not None:
            return seen


def cubed(seen: Observed, rng: np.random.Generator | None = None) -> tuple[Cube, F32, F32]:
    """The cube around one observation, its volume and its target. rng: for training, the cube is also put a little wrong."""
    points, exchanged = algebraic(seen)
    cube = cube_around(points.xyz_m[0], side_m=SIDE_M)
    if cube is None:
        cube = Cube(seen.truth_m[11:13].mean(axis=0) + (rng.normal(0, 0.2, 3) if rng else 0), SIDE_M, 0.0)
    if rng is not None:
        cube = Cube(cube.centre_m + rng.normal(0, 0.06, 3), SIDE_M, cube.yaw_rad + rng.normal(0, 0.25))
    target = cube.shares(seen.truth_m)
    target[(np.abs(target) > 0.5).any(axis=1)] = np.nan
    return cube, volume_of(seen, cube, exchanged[0], n=N), target.astype(np.float32)


def hard() -> Statistics:
    """The noise of the shipped 2D network, with sides exchanged five times as often: what is rare has to be seen often enough to be learned,
    and there are people and cameras for whom it is not rare."""
    fitted = statistics()
    often = {name: min(1.0, _OFTEN * getattr(fitted.swaps, name)) for name in ("body", "legs", "arms")}
    return msgspec.structs.replace(fitted, swaps=msgspec.structs.replace(fitted.swaps, **often))


_tracks: list[Track] = []
_rigs: list[Rig] = []


def _begin(tracks: list[Track], seed: int) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    rng = np.random.default_rng(seed)
    _tracks[:], _rigs[:] = tracks, [random_rig(rng) for _ in range(500)]


def _leave_with_parent() -> None:
    """A training that is killed takes the processes with it that draw for it: they would wait for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _batch(seed: int, number: int, size: int) -> Drawn:
    rng = np.random.default_rng((seed, number, 1))
    sampler = Sampler(
        _tracks,
        seed=hash((seed, number)) % 2**32,
        rigs=_rigs,
        views=VIEWS,
        statistics=hard(),
        miscalibrated_rad=abs(rng.normal(0, ASTRAY_RAD)),
    )
    volumes, targets = np.empty((size, N, N, N, 17), np.float16), np.empty((size, 17, 3), np.float32)
    for k in range(size):
        _, volumes[k], targets[k] = cubed(sampler.draw(), rng)
    return Drawn(volumes, targets)


def batches(tracks: list[Track], *, seed: int, first: int, size: int, workers: int) -> Generator[Drawn, None, None]:
    """Batches number `first` and on, for ever, drawn ahead by worker processes. PosepipeError without workers, and when one is killed."""
    if workers < 1:
        raise PosepipeError(f"workers is {workers}", hint="at least one process draws samples")
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (tracks, seed))
    try:
        ahead: deque[Future[Drawn]] = deque(pool.submit(_batch, seed, first + k, size) for k in range(2 * workers + 1))
        number = first + len(ahead)
        while True:
            ahead.append(pool.submit(_batch, seed, number, size))
            number += 1
            yield ahead.popleft().result()
    except BrokenProcessPool as e:
        hint = "it may have run out of memory: fewer --workers; the same command goes on from the last checkpoint"
        raise PosepipeError("a process that draws samples was killed", hint=hint) from e
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
