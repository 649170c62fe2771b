"""People seen by one camera, many at a time: what the lifter is trained and judged on. No picture is involved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64
from posepipe.pipeline.skeleton import COCO17

from .posebank import Track
from .project import project, undistort
from .rig import Rig
from .samples import Sampler
from .sides import mirror_of
from .single import FEWEST, Looks, looks

_MIRROR, _BODY = mirror_of(COCO17), np.array(COCO17.body)
_HIPS = [COCO17.index("left_hip"), COCO17.index("right_hip")]
_MIN_CONF, _SIGMA = 0.2, 0.012  # as lift.algebraic has them


@dataclass(frozen=True, slots=True)
class Views:
    """N views. truth_m [N,17,3] world; uv_px [N,17,2]; rays [N,17,2] without distortion; conf [N,17], 0: not seen; camera_from_world [N,3,4];
    ray_rad [N]: one standard deviation of a certain key point, as an angle."""

    truth_m: F64
    uv_px: F64
    rays: F64
    conf: F64
    camera_from_world: F64
    ray_rad: F64

    def looks(self) -> Looks:
        """As the network gets them."""
        return looks(self.rays, self.conf, self.camera_from_world)

    def where(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Views:
        """Some of them."""
        return Views(*(getattr(self, name)[rows] for name in ("truth_m", "uv_px", "rays", "conf", "camera_from_world", "ray_rad")))

    @staticmethod
    def joined(parts: Sequence[Views]) -> Views:
        """All of several."""
        names = ("truth_m", "uv_px", "rays", "conf", "camera_from_world", "ray_rad")
        return Views(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class TrueViews:
    """Views without a detector's errors: the joints that are inside the picture, exactly where they are. Deterministic by `seed`."""

    def __init__(self, tracks: Sequence[Track], rigs: Sequence[Rig], *, seed: int) -> None:
        self._poses_m = np.concatenate([t.coco17_m for t in tracks])
        self._rigs, self._rng = rigs, np.random.default_rng(seed)

    def draw(self, people: int) -> Views:
        """The views that the cameras of one rig have of so many people; those who are not in a picture are left out."""
        rng, rig = self._rng, self._rigs[int(self._rng.integers(len(self._rigs)))]
        truth_m = _placed(rng, self._poses_m[rng.integers(len(self._poses_m), size=people)].astype(np.float64))
        seen = project(rig, truth_m.reshape(-1, 3))
        views = len(rig)
        uv_px = seen.uv_px.reshape(views, people, -1, 2).transpose(1, 0, 2, 3)
        inside = seen.visible.reshape(views, people, -1).transpose(1, 0, 2)
        drawn = Views(
            np.repeat(truth_m, views, axis=0),
            uv_px.reshape(people * views, -1, 2),
            undistort(rig, uv_px).reshape(people * views, -1, 2),
            inside.reshape(people * views, -1).astype(np.float64),
            np.tile(rig.camera_from_world, (people, 1, 1)),
            np.full(people * views, 1e-3),
        )
        return drawn.where(np.count_nonzero(drawn.conf[:, _BODY] > 0, axis=1) >= FEWEST)


def seen_views(sampler: Sampler, count: int, *, tell: Callable[[str], None] = lambda line: None) -> Views:
    """At least `count` views through a detector's errors (`synthetic_noise`), several of every person that is drawn."""
    parts: list[Views] = []
    found = told = 0
    while found < count:
        seen = sampler.draw()
        rays = undistort(seen.rig, seen.uv_px[None])[0]
        conf = np.where((seen.conf >= _MIN_CONF) & np.isfinite(rays[..., 0]), seen.conf, 0).astype(np.float64)
        rows = np.flatnonzero(np.count_nonzero(conf[:, _BODY] > 0, axis=1) >= FEWEST)
        angle = _SIGMA * seen.rois[rows, 2] / seen.rig.focal_px[rows].mean(axis=1)
        truth_m = np.repeat(seen.truth_m[None], len(rows), axis=0)
        parts.append(Views(truth_m, seen.uv_px[rows].astype(np.float64), rays[rows], conf[rows], seen.rig.camera_from_world[rows], angle))
        found += len(rows)
        if found - told >= 20_000:
            told = found
            tell(f"{found} of {count} views")
    return Views.joined(parts)


def mirrored(view: F32, target: F32) -> tuple[F32, F32]:
    """Inputs [N,54] and targets [N,17,3] of the same people in a mirror."""
    count = len(_MIRROR)
    turned = view.copy()
    for part in range(3):
        turned[:, part * count : (part + 1) * count] = view[:, part * count : (part + 1) * count][:, _MIRROR]
    turned[:, :count] *= -1
    return turned, target[:, _MIRROR] * np.array([-1, 1, 1], np.float32)


def _placed(rng: np.random.Generator, poses_m: F64) -> F64:
    """As `samples.place`, for many poses [N,17,3]."""
    count = len(poses_m)
    flip = rng.random(count) < 0.5
    poses_m[flip] = poses_m[flip][:, _MIRROR] * np.array([-1.0, 1.0, 1.0])
    poses_m[..., :2] -= poses_m[:, _HIPS, :2].mean(axis=1, keepdims=True)
    turn = rng.uniform(0, 2 * np.pi, count)
    c, s = np.cos(turn)[:, None], np.sin(turn)[:, None]
    x, y = poses_m[..., 0] * c - poses_m[..., 1] * s, poses_m[..., 0] * s + poses_m[..., 1] * c
    poses_m[..., 0], poses_m[..., 1] = x, y
    poses_m[..., :2] += rng.uniform(-1.2, 1.2, (count, 1, 2))
    return poses_m
