"""Heatmaps as a 2D network would give them, without a picture: what a 3D network is trained on when there are no pictures of the rig.

The idea is VoxelPose's (Tu et al. 2020, 3.4): project known skeletons into calibrated cameras and paint heatmaps with the network's own mistakes.
Here these are fitted to a network (`noise.toml`). A peak is the logistic function of `logit - r^2 / 2`, r the distance in widths along its
two axes: that is the shape that BlazePose's heads give, flatter at the top and steeper at the foot than a Gaussian. Every joint of a view has a
difficulty, which makes errors larger, peaks lower and wider, and second peaks likelier; part of it is common to the view, and a hidden
joint has more. Errors have a part that belongs to the person and the viewing direction (in the picture a + b cos + c sin of the body's turn,
which is what an offset fixed in the body looks like from around it), a slow part and a part of every instant. Mistakes (sides exchanged
for the body, for legs, arms or single pairs; peaks elsewhere) are drawn with chances that last, so that they come in bursts.

Cell coordinates: cell k is at k, columns first, as the decoder `posepipe.engines.decoders.heatmaps` has them before it scales.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64
from posepipe.pipeline.skeleton import COCO17

from .synthetic_noise_kernel import advance, observe_views
from .synthetic_noise_stats import Statistics, shipped, statistics, tables

__all__ = ["Noise", "Seen", "Statistics", "observe", "observe_track", "statistics"]

Bools = NDArray[np.bool_]
_JOINTS = len(COCO17.joints)
_CHANCES = 6


@dataclass(frozen=True, slots=True)
class Seen:
    """What the network gives. maps [C,s,s,J] probabilities, rows first; peaks [C,J,2] cell coordinates (column, row), NaN without a peak;
    conf [C,J] 0..1, the highest cell of each map."""

    maps: F32
    peaks: F64
    conf: F64


class Noise:
    """One person in C views over time. Not for several threads at once; deterministic by the generator's seed."""

    def __init__(self, rng: np.random.Generator, cameras: int, *, stats: Statistics | None = None) -> None:
        """stats: None is `statistics()`, those of the shipped network."""
        self._rng, self.stats = rng, stats or shipped()
        self._tables = tables(self.stats)
        self._begun = False
        self._bias = rng.standard_normal((_JOINTS, 3, 2)) * self._tables[0][:, None, None, 0]
        self._state = tuple(
            np.zeros(n) for n in (cameras, (cameras, _JOINTS), (cameras, _JOINTS, 2), (cameras, 2), (cameras, _JOINTS, _CHANCES))
        )

    def step(
        self, uv: F64, hidden: Bools, *, dt_s: float = math.inf, size: int = 64, others: F64 | None = None, out: F32 | None = None
    ) -> Seen:
        """The next instant, `dt_s` after the last (inf: as if nothing had been before; the first always is).

        uv [C,17,2]: where the joints of coco17 are, cells of maps of `size`; NaN: not in this view. hidden [C,17]. others [C,K,17,2]:
        other people, NaN where there is nobody. out [C,size,size,17]: where the maps are written, float32; None: new memory.
        ValueError: another shape.
        """
        times = self.stats.times
        dt_s, self._begun = (dt_s if self._begun else math.inf), True
        forget = np.array([-math.expm1(-dt_s / t) for t in (times.difficulty_s, times.error_s, times.mistake_s)])
        cameras = len(self._state[0])
        maps = np.empty((cameras, size, size, _JOINTS), np.float32) if out is None else out
        people = np.empty((cameras, 0, _JOINTS, 2)) if others is None else np.ascontiguousarray(others, np.float64)
        where, unseen = np.ascontiguousarray(uv, np.float64), np.ascontiguousarray(hidden, np.bool_)
        _must_fit("uv", where, (cameras, _JOINTS, 2))
        _must_fit("hidden", unseen, (cameras, _JOINTS))
        _must_fit("others", people, (cameras, people.shape[1] if people.ndim > 1 else 0, _JOINTS, 2))
        _must_fit("out", maps, (cameras, size, size, _JOINTS))
        if maps.dtype != np.float32:
            raise ValueError(f"out is {maps.dtype}, not float32")
        peaks, conf = np.empty((cameras, _JOINTS, 2)), np.empty((cameras, _JOINTS))
        advance(self._rng, forget, *self._state)
        observe_views(self._rng, where, unseen, people, self._tables, self._bias, self._state, maps, peaks, conf)
        return Seen(maps, peaks, conf)


def observe(
    rng: np.random.Generator,
    uv: F64,
    hidden: Bools,
    *,
    size: int = 64,
    stats: Statistics | None = None,
    others: F64 | None = None,
    out: F32 | None = None,
) -> Seen:
    """One instant of one person in all views. Arguments as of `Noise` and `Noise.step`."""
    return Noise(rng, len(uv), stats=stats).step(uv, hidden, size=size, others=others, out=out)


def observe_track(
    rng: np.random.Generator, uv: F64, hidden: Bools, *, fps: float, size: int = 64, stats: Statistics | None = None
) -> tuple[F64, F64]:
    """Key points of one person over T instants: peaks [T,C,17,2] and conf [T,C,17], with errors and mistakes that last as the network's do.

    uv [T,C,17,2], hidden [T,C,17]: as of `Noise.step`. For the maps too, call `Noise.step` yourself.
    """
    noise = Noise(rng, uv.shape[1], stats=stats)
    out = np.empty((uv.shape[1], size, size, _JOINTS), np.float32)
    seen = [noise.step(*one, dt_s=1 / fps, size=size, out=out) for one in zip(uv, hidden, strict=True)]
    return np.array([s.peaks for s in seen]).reshape(uv.shape), np.array([s.conf for s in seen]).reshape(uv.shape[:3])


def _must_fit(name: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    """The kernel does not look: a wrong shape would read beyond the array."""
    if array.shape != shape:
        raise ValueError(f"{name} has shape {list(array.shape)}, not {list(shape)}")
