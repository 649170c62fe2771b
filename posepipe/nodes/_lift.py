"""What the lifting nodes share: their settings, robust triangulation, who is who, and the packet that comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from posepipe.calib.project import undistort
from posepipe.calib.rig import Rig
from posepipe.calib.sides import Bools, facing_of, mirror_of, triangulate_sides
from posepipe.calib.triangulate import Triangulated
from posepipe.engines.engine import EngineOptions
from posepipe.pipeline.errors import EngineError, RigError
from posepipe.pipeline.node import Context, NodeSettings
from posepipe.pipeline.packet import F32, F64, I64, Poses, Tier, ViewPoses, readonly
from posepipe.pipeline.skeleton import Skeleton, skeleton

if TYPE_CHECKING:
    from ._lift_weights import LearnedWeights


class LiftSettings(NodeSettings, frozen=True):
    min_conf: Annotated[float, Meta(description="key points below this confidence are not seen", ge=0, lt=1)] = 0.2
    inlier: Annotated[
        float, Meta(description="a view further from the point than this does not count, as a share of its crop's side", gt=0, lt=1)
    ] = 0.05
    sigma: Annotated[float, Meta(description="noise of a certain key point, as a share of its crop's side", gt=0, lt=1)] = 0.012
    min_joints: Annotated[int, Meta(description="fewest body joints that make a person", ge=1, le=12)] = 4
    same_person_m: Annotated[float, Meta(description="how near a lost person must come back to be the same", gt=0)] = 1.0
    same_person_s: Annotated[float, Meta(description="how soon a lost person must come back to be the same", gt=0)] = 2.0
    weights: Annotated[
        Literal["peaks", "triangulation.confidence"],
        Meta(description="how far a view is believed: by the heights of its peaks, or by a network that looks at its heatmaps"),
    ] = "peaks"


def engine_options(ctx: Context) -> EngineOptions:
    """`engines:` of the studio file; EngineError for what is none."""
    try:
        return msgspec.convert(ctx.engines, EngineOptions)
    except msgspec.ValidationError as e:
        raise EngineError(f"engines: {e}", hint="correct engines: in the studio file") from e


def rig_of(ctx: Context) -> Rig:
    """The studio's rig; RigError when it has none."""
    if not isinstance(ctx.rig, Rig):
        raise RigError("the studio has no rig, so nothing can be triangulated", hint="add rig: FILE to the studio file (docs/rig.md)")
    return ctx.rig


class Algebraic:
    """Triangulation of the key points of one studio, with the identities of its people."""

    def __init__(self, ctx: Context, settings: LiftSettings) -> None:
        """Compiles, or loads the compiled kernels. RigError in a studio without a rig."""
        self.rig, self.settings = rig_of(ctx), settings
        self.layout: Skeleton = skeleton(ctx.caps["views"].skeleton)
        self.body = np.array(self.layout.body)
        self._mirror, self._facing = mirror_of(self.layout), facing_of(self.layout)
        self._next_id = 0
        self._last_seen: dict[int, tuple[int, F64]] = {}
        self._weights: LearnedWeights | None = None
        if settings.weights != "peaks":
            from ._lift_weights import LearnedWeights

            self._weights = LearnedWeights(engine_options(ctx), self.layout)
        views, joints = len(self.rig), len(self.layout.joints)
        nothing = np.zeros((1, views, joints, 2), np.float32)
        maps = np.zeros((1, views, 64, 64, 17), np.float32)
        readonly(maps)  # as those of packets are: kernels are compiled for one or the other
        self._points(nothing, nothing[..., 0] + np.float32(0.5), np.ones((1, views), np.float32), maps)

    @property
    def runs_on(self) -> str:
        """What learned weights are computed on; empty without them."""
        if self._weights is None:
            return ""
        engine = self._weights.engine
        return f"{self.settings.weights} on {engine.runtime} {engine.precision} ({engine.device})"

    @property
    def learned(self) -> bool:
        """Whether `points` needs heatmaps."""
        return self._weights is not None

    def points(self, v: ViewPoses, conf: F32, maps: F32 | None) -> tuple[Triangulated, Bools]:
        """The joints of all people, and the joints [P,C,J] whose left and right were exchanged in a view. conf [P,C,J]: of what is seen, else 0
        (see `seen`). maps [P,C,h,w,17]: where it is `learned`."""
        return self._points(v.uv_px, conf, v.side_px, maps)

    def _points(self, uv_px: F32, conf: F32, side_px: F32, maps: F32 | None) -> tuple[Triangulated, Bools]:
        side, s, rays = self.side_px(side_px), self.settings, undistort(self.rig, uv_px)
        how: dict[str, Any] = {"mirror": self._mirror, "facing": self._facing}
        if self._weights is None:
            return triangulate_sides(self.rig, rays, conf, inlier_px=s.inlier * side, sigma_px=s.sigma * side, **how)
        assert maps is not None, "learned weights need heatmaps"
        return self._weights.triangulate(self.rig, rays, conf, side, maps, inlier=s.inlier, sigma=s.sigma, **how)

    @staticmethod
    def side_px(side_px: F32) -> F64:
        """Sides of the crops [P,C]: what distances in a view are measured by."""
        return np.maximum(side_px.astype(np.float64), 1)

    def close(self) -> None:
        """Close the network, if there is one."""
        if self._weights is not None:
            self._weights.close()

    def seen(self, v: ViewPoses) -> F32:
        """Confidences [P,C,J], 0 for what is too low to be seen."""
        return np.where(v.conf >= self.settings.min_conf, v.conf, np.float32(0))

    def people(self, points: Triangulated) -> I64:
        """Which rows have enough of a body to be a person."""
        there: I64 = np.flatnonzero(np.count_nonzero(points.conf[:, self.body] > 0, axis=1) >= self.settings.min_joints)
        return there

    def poses(self, v: ViewPoses, points: Triangulated, rows: I64, t_ns: int, *, tier: Tier = "algebraic") -> Poses:
        """The packet of the people in those rows."""
        there = set(v.ids[rows].tolist())
        conf = points.conf[rows]
        arrays = (
            np.array([self._identity(int(v.ids[row]), there, points.xyz_m[row], t_ns) for row in rows], np.int64),
            points.xyz_m[rows].astype(np.float32),
            conf.astype(np.float32),
            np.where(conf > 0, points.sigma_m[rows], np.nan).astype(np.float32),
            np.array([_median(points.residual_px[row][points.used[row]]) for row in rows], np.float32),
            points.used[rows].sum(axis=1, dtype=np.uint8),
        )
        for array in arrays:
            readonly(array)
        return Poses(v.cameras, v.skeleton, v.sync, tier, *arrays)

    def _identity(self, known: int, there: set[int], xyz_m: F64, t_ns: int) -> int:
        body_m = xyz_m[self.body]
        centre_m = body_m[np.isfinite(body_m[:, 0])].mean(axis=0)
        if known < 0:
            known = self._lost_near(centre_m, there, t_ns)
        if known < 0:
            known, self._next_id = self._next_id, self._next_id + 1
        self._last_seen[known] = (t_ns, centre_m)
        return known

    def _lost_near(self, centre_m: F64, there: set[int], t_ns: int) -> int:
        """The identity of someone lost near here and not long ago (none of those who are `there`), -1 for nobody."""
        since_ns = t_ns - int(self.settings.same_person_s * 1e9)
        self._last_seen = {p: seen for p, seen in self._last_seen.items() if seen[0] >= since_ns}
        near = {p: float(np.linalg.norm(at - centre_m)) for p, (t, at) in self._last_seen.items() if t < t_ns and p not in there}
        best = min(near, key=lambda p: near[p], default=-1)
        return best if best >= 0 and near[best] <= self.settings.same_person_m else -1


def _median(residuals_px: NDArray[np.floating[Any]]) -> float:
    return float(np.median(residuals_px)) if residuals_px.size else 0.0
