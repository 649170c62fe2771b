"""People whom one view shows: which view, what a lifter makes of it, and where in the room that stands."""

from __future__ import annotations

import numpy as np

from posepipe.calib.project import undistort
from posepipe.calib.rig import Rig
from posepipe.calib.single import DEPTH, FEWEST, OWN, looks, size_of, stand
from posepipe.calib.single_kernel import write_down
from posepipe.calib.triangulate import Triangulated
from posepipe.engines.engine import EngineOptions
from posepipe.engines.lifter import LifterNetwork
from posepipe.pipeline.packet import F32, F64, I64, ViewPoses
from posepipe.pipeline.skeleton import COCO17, Skeleton

from ._lift_maps import coco17_in

_STAY = 1.25
"""Another view must show so many times as much of a person to be taken instead."""
_BATCH = 4
_BODY = np.array(COCO17.body)


class SingleView:
    """An opened lifter with the views that it looks at. engine: what runs it."""

    def __init__(self, name: str, options: EngineOptions, rig: Rig, layout: Skeleton, *, sigma: float) -> None:
        """sigma: noise of a certain key point, a share of its crop's side. EngineError, PullError as `LifterNetwork`."""
        self._network = LifterNetwork(name, options, batch=_BATCH)
        self.engine = self._network.engine
        self._rig, self._sigma, self._joints = rig, sigma, np.array(coco17_in(layout), np.int64)
        self._view: dict[int, int] = {}
        self._coco = np.zeros(len(layout.joints), np.int64)
        self._coco[self._joints] = np.arange(len(self._joints))
        self._focal_px = rig.focal_px.mean(axis=1)
        self._warm()

    def lift(self, v: ViewPoses, conf: F32, rows: I64, *, limbs: I64 | None = None, known_m: F64 | None = None) -> Triangulated:
        """The joints of all people, of whom those in `rows` are lifted, each from the view that shows most of the body; conf 0 for all others
        and for whom no view shows enough. conf [P,C,J]: of what is seen, else 0. `used` is the one view where it shows the joint.

        limbs [L,2], known_m [len(rows),L]: how long these limbs of the people are known to be (NaN: not known), for the size of their skeletons.
        """
        people, views, joints = conf.shape
        points = _nothing(people, views, joints)
        shown = conf[:, :, self._joints]
        body = shown[:, :, _BODY]
        score = np.where(np.count_nonzero(body > 0, axis=2) >= FEWEST, body.sum(axis=2), 0)
        chosen = [(row, self._choose(int(v.ids[row]), score[row])) for row in rows]
        chosen = [(row, view) for row, view in chosen if view >= 0]
        if not chosen:
            return points
        at, by = np.array(chosen, np.int64).T
        one = np.arange(len(at))
        uv_px = np.full((len(at), views, len(self._joints), 2), np.nan)  # views that are not looked at cost nothing
        uv_px[one, by] = v.uv_px[at, by][:, self._joints]
        rays = undistort(self._rig, uv_px)[one, by]
        look = looks(rays, shown[at, by], self._rig.camera_from_world[by])
        xyz, spread = self._network(look.inputs)
        angle = self._sigma * np.maximum(v.side_px[at, by].astype(np.float64), 1.0) / self._focal_px[by]
        size = np.ones(len(at))
        if limbs is not None and known_m is not None:
            a, b = self._coco[limbs.T]
            which = np.searchsorted(rows, at)
            size = size_of(known_m[which], np.linalg.norm(xyz[:, a] - xyz[:, b], axis=2).astype(np.float64))
        depth = np.where(size == 1, DEPTH, OWN)
        placed, sigma = stand(look, xyz * size[:, None, None], spread, ray_rad=angle, depth=depth)
        there = np.flatnonzero(np.isfinite(placed[:, 0, 0]))
        self._write(points, at[there], by[there], placed[there], sigma[there], look.conf[there], rays[there])
        return points

    def _warm(self) -> None:
        """Compile what the first person would otherwise wait for, or load it."""
        views, joints = len(self._rig), len(self._joints)
        rays = undistort(self._rig, np.zeros((1, views, joints, 2)))[:, 0]
        look = looks(rays, np.ones((1, joints)), self._rig.camera_from_world[:1])
        placed, sigma = stand(look, np.zeros((1, joints, 3)), np.ones((1, joints)), ray_rad=np.ones(1))
        first = np.zeros(1, np.int64)
        self._write(_nothing(1, views, len(self._coco)), first, first, placed, sigma, look.conf, rays)

    def close(self) -> None:
        """Close the network."""
        self._network.close()

    def _choose(self, person: int, score: F32) -> int:
        """The view with the highest score [C], how much of a person it shows; the one of before, unless another is much better. -1: none shows enough."""
        best = int(score.argmax())
        if not score[best] > 0:
            return -1
        before = self._view.get(person, best) if person >= 0 else best
        view = before if score[best] < _STAY * score[before] else best
        if person >= 0:
            self._view = {**dict(list(self._view.items())[-15:]), person: view}
        return view

    def _write(self, points: Triangulated, at: I64, by: I64, placed: F64, sigma: F64, conf: F64, rays: F64) -> None:
        """conf of a joint that is not seen: a third of the mean of those that are, as much as a guess is worth beside them."""
        write_down(
            at, by, self._joints, placed, sigma, conf, rays, self._rig.camera_from_world, self._rig.focal_px,
            points.xyz_m, points.conf, points.sigma_m, points.residual_px, points.used,
        )  # fmt: skip


def _nothing(people: int, views: int, joints: int) -> Triangulated:
    return Triangulated(
        np.full((people, joints, 3), np.nan), np.zeros((people, joints)), np.full((people, joints), np.inf),
        np.full((people, views, joints), np.nan), np.zeros((people, views, joints), np.bool_),
    )  # fmt: skip
