"""lift.algebraic: 2D key points of calibrated views become metric 3D skeletons by robust triangulation."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from posepipe.calib.project import undistort
from posepipe.calib.rig import Rig
from posepipe.calib.sides import facing_of, mirror_of, triangulate_sides
from posepipe.calib.triangulate import Triangulated
from posepipe.pipeline.errors import RigError
from posepipe.pipeline.node import Context, Node, NodeSettings
from posepipe.pipeline.packet import F32, I64, Packet, Poses, ViewPoses, readonly
from posepipe.pipeline.skeleton import skeleton


class LiftAlgebraic(Node):
    """Confidence-weighted, outlier-voting triangulation with any two or more views; per joint a standard deviation in metres.

    A view that takes the front of a person for the back (all joints on the wrong side) is set right before the vote.
    A person exists when `min_joints` body joints (shoulders to ankles) have a point. A new person within `same_person_m` of one
    who was lost less than `same_person_s` ago keeps that identity; identities are never used twice.
    """

    use = "lift.algebraic"
    needs_rig = True

    class Settings(NodeSettings, frozen=True):
        min_conf: Annotated[float, Meta(description="key points below this confidence are not seen", ge=0, lt=1)] = 0.2
        inlier: Annotated[
            float, Meta(description="a view further from the point than this does not count, as a share of its crop's side", gt=0, lt=1)
        ] = 0.05
        sigma: Annotated[float, Meta(description="noise of a certain key point, as a share of its crop's side", gt=0, lt=1)] = 0.012
        min_joints: Annotated[int, Meta(description="fewest body joints that make a person", ge=1, le=12)] = 4
        same_person_m: Annotated[float, Meta(description="how near a lost person must come back to be the same", gt=0)] = 1.0
        same_person_s: Annotated[float, Meta(description="how soon a lost person must come back to be the same", gt=0)] = 2.0

    settings: Settings

    def open(self, ctx: Context) -> None:
        if not isinstance(ctx.rig, Rig):
            raise RigError("the studio has no rig, so nothing can be triangulated", hint="add rig: FILE to the studio file (docs/rig.md)")
        self._rig = ctx.rig
        layout = skeleton(ctx.caps["views"].skeleton)
        self._body, self._mirror, self._facing = np.array(layout.body), mirror_of(layout), facing_of(layout)
        self._next_id = 0
        self._last_seen: dict[int, tuple[int, np.ndarray[tuple[int], np.dtype[np.float64]]]] = {}
        nothing = np.zeros((1, len(self._rig), len(layout.joints), 2), np.float32)
        self._triangulate(nothing, nothing[..., 0], np.ones((1, len(self._rig)), np.float32))  # compiles, or loads the compiled kernels

    def _triangulate(self, uv_px: F32, conf: F32, side_px: F32) -> Triangulated:
        side = side_px.astype(np.float64)
        limit_px, noise_px = self.settings.inlier * side, self.settings.sigma * side
        return triangulate_sides(self._rig, undistort(self._rig, uv_px), conf, mirror=self._mirror, inlier_px=limit_px, sigma_px=noise_px)[
            0
        ]

    def step(self, views: Packet[ViewPoses]) -> Poses:
        v, s = views.body, self.settings
        conf = np.where(v.conf >= s.min_conf, v.conf, np.float32(0))
        points = self._triangulate(v.uv_px, conf, np.maximum(v.side_px, 1))
        there = np.count_nonzero(points.conf[:, self._body] > 0, axis=1) >= s.min_joints
        return self._poses(v, points, np.flatnonzero(there), views.t_capture_ns)

    def _poses(self, v: ViewPoses, points: Triangulated, rows: I64, t_ns: int) -> Poses:
        xyz_m = points.xyz_m[rows]
        there = set(v.ids[rows].tolist())
        ids = np.array([self._identity(int(v.ids[row]), there, points.xyz_m[row], t_ns) for row in rows], np.int64)
        reproj_px = np.array([_median(points.residual_px[row][points.used[row]]) for row in rows], np.float32)
        arrays = (
            ids,
            xyz_m.astype(np.float32),
            points.conf[rows].astype(np.float32),
            np.where(points.conf[rows] > 0, points.sigma_m[rows], np.nan).astype(np.float32),
            reproj_px,
            points.used[rows].sum(axis=1, dtype=np.uint8),
        )
        for array in arrays:
            readonly(array)
        return Poses(v.cameras, v.skeleton, v.sync, "algebraic", *arrays)

    def _identity(self, known: int, there: set[int], xyz_m: np.ndarray[tuple[int, int], np.dtype[np.float64]], t_ns: int) -> int:
        body_m = xyz_m[self._body]
        centre_m = body_m[np.isfinite(body_m[:, 0])].mean(axis=0)
        if known < 0:
            known = self._lost_near(centre_m, there, t_ns)
        if known < 0:
            known, self._next_id = self._next_id, self._next_id + 1
        self._last_seen[known] = (t_ns, centre_m)
        return known

    def _lost_near(self, centre_m: np.ndarray[tuple[int], np.dtype[np.float64]], there: set[int], t_ns: int) -> int:
        """The identity of someone lost near here and not long ago (none of those who are `there`), -1 for nobody."""
        since_ns = t_ns - int(self.settings.same_person_s * 1e9)
        self._last_seen = {p: seen for p, seen in self._last_seen.items() if seen[0] >= since_ns}
        near = {p: float(np.linalg.norm(at - centre_m)) for p, (t, at) in self._last_seen.items() if t < t_ns and p not in there}
        best = min(near, key=lambda p: near[p], default=-1)
        return best if best >= 0 and near[best] <= self.settings.same_person_m else -1


def _median(residuals_px: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(np.median(residuals_px)) if residuals_px.size else 0.0
