"""What the lifting nodes share: their settings, robust triangulation, who is who, and the packet that comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from posepipe.calib.project import undistort
from posepipe.calib.rig import Rig
from posepipe.calib.sides import Bools, exchanged_points, facing_of, mirror_of, triangulate_sides
from posepipe.calib.triangulate import Triangulated
from posepipe.engines.engine import EngineOptions
from posepipe.engines.lifter import lifter_card
from posepipe.pipeline.errors import EngineError, GraphError, PullError, RigError
from posepipe.pipeline.node import Context
from posepipe.pipeline.packet import F32, F64, I64, Poses, Tier, ViewPoses, readonly
from posepipe.pipeline.skeleton import Skeleton, skeleton

from ._lift_alone import Alone
from ._lift_people import People, PeopleSettings

if TYPE_CHECKING:
    from ._lift_weights import LearnedWeights


class LiftSettings(PeopleSettings, frozen=True):
    inlier: Annotated[
        float, Meta(description="a view further from the point than this does not count, as a share of its crop's side", gt=0, lt=1)
    ] = 0.05
    min_joints: Annotated[int, Meta(description="fewest body joints that make a person", ge=1, le=12)] = 4
    weights: Annotated[
        Literal["peaks", "triangulation.confidence"],
        Meta(description="how far a view is believed: by the heights of its peaks, or by a network that looks at its heatmaps"),
    ] = "peaks"
    single: Annotated[
        str,
        Meta(
            description="network for a person whom fewer than two views show: lifter.baseline, or my_net/card.toml; empty: such a person is not given"
        ),
    ] = ""
    blend_s: Annotated[
        float, Meta(description="how long a change between one view and several takes, so that nothing jumps", ge=0, le=5)
    ] = 0.4

    def beside(self, folder: Path) -> Self:
        whole = str(folder / Path(self.single).expanduser())
        return msgspec.structs.replace(self, single=whole) if self.single.endswith(".toml") else self


def check_single(settings: LiftSettings) -> None:
    """Refuse a `single` that is no lifter. GraphError."""
    if settings.single:
        try:
            lifter_card(settings.single)
        except (EngineError, PullError) as e:
            what = f"{e.where}: {e.what}" if e.where and e.where != settings.single else e.what
            raise GraphError(f"single is {settings.single!r}: {what}", hint=e.hint) from e


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
        self._people = People(self.layout, settings)
        self._mirror, self._facing = mirror_of(self.layout), facing_of(self.layout)
        self.sided: Bools = self._mirror != np.arange(len(self._mirror))
        """Joints [J] that the other side has, too."""
        self._weights: LearnedWeights | None = None
        if settings.weights != "peaks":
            from ._lift_weights import LearnedWeights

            self._weights = LearnedWeights(engine_options(ctx), self.layout)
        self._alone: Alone | None = None
        if settings.single:
            how = {"sigma": settings.sigma, "blend_s": settings.blend_s}
            self._alone = Alone(settings.single, engine_options(ctx), self.rig, self.layout, **how)
        views, joints = len(self.rig), len(self.layout.joints)
        nothing = np.zeros((1, views, joints, 2), np.float32)
        maps = np.zeros((1, views, 64, 64, 17), np.float32)
        readonly(maps)  # as those of packets are: kernels are compiled for one or the other
        self._points(nothing, nothing[..., 0] + np.float32(0.5), np.ones((1, views), np.float32), maps)

    @property
    def runs_on(self) -> str:
        """What learned weights and the lifter of single views are computed on; empty without them."""
        opened = ((self.settings.weights, self._weights), (self.settings.single, self._alone))
        engines = [(name, one.engine) for name, one in opened if one is not None]
        return ", ".join(f"{name} on {e.runtime} {e.precision} ({e.device})" for name, e in engines)

    @property
    def learned(self) -> bool:
        """Whether `points` needs heatmaps."""
        return self._weights is not None

    def points(self, v: ViewPoses, conf: F32, maps: F32 | None) -> tuple[Triangulated, Bools, F64 | None]:
        """The joints of all people; the joints [P,C,J] whose left and right were exchanged in a view; and, where it is `learned`, how exact the key
        points [P,C,J] are (`refine`). conf [P,C,J]: of what is seen, else 0 (see `seen`). maps [P,C,h,w,17]: where it is `learned`."""
        return self._points(v.uv_px, conf, v.side_px, maps)

    def _points(self, uv_px: F32, conf: F32, side_px: F32, maps: F32 | None) -> tuple[Triangulated, Bools, F64 | None]:
        side, s, rays = self.side_px(side_px), self.settings, undistort(self.rig, uv_px)
        how: dict[str, Any] = {"mirror": self._mirror, "facing": self._facing}
        if self._weights is None:
            return *triangulate_sides(self.rig, rays, conf, inlier_px=s.inlier * side, sigma_px=s.sigma * side, **how), None
        assert maps is not None, "learned weights need heatmaps"
        return self._weights.triangulate(self.rig, rays, conf, side, maps, inlier=s.inlier, sigma=s.sigma, **how)

    def again(self, v: ViewPoses, conf: F32, person: int, exchanged: Bools) -> Triangulated:
        """One person's joints, P = 1, with left and right of these [C,J] exchanged in a view; with the heights of the peaks, also where weights are learned."""
        s, p = self.settings, slice(person, person + 1)
        side, rays = self.side_px(v.side_px[p]), undistort(self.rig, v.uv_px[p])
        seen = conf[p].astype(np.float64)
        return exchanged_points(
            self.rig, rays, seen, exchanged[None], mirror=self._mirror, inlier_px=s.inlier * side, sigma_px=s.sigma * side
        )

    @staticmethod
    def side_px(side_px: F32) -> F64:
        """Sides of the crops [P,C]: what distances in a view are measured by."""
        return np.maximum(side_px.astype(np.float64), 1)

    def close(self) -> None:
        """Close the networks, if there are any."""
        for opened in (self._weights, self._alone):
            if opened is not None:
                opened.close()

    def seen(self, v: ViewPoses) -> F32:
        """Confidences [P,C,J], 0 for what is too low to be seen."""
        return self._people.seen(v)

    def people(self, points: Triangulated) -> I64:
        """Which rows have enough of a body to be a person."""
        there: I64 = np.flatnonzero(np.count_nonzero(points.conf[:, self._people.body] > 0, axis=1) >= self.settings.min_joints)
        return there

    def with_single(self, v: ViewPoses, conf: F32, points: Triangulated, t_ns: int) -> tuple[Triangulated, I64, NDArray[np.bool_]]:
        """The points with those whom one view shows put in, the rows of the people, and who [P] was lifted from one view."""
        rows = self.people(points)
        if self._alone is None:
            return points, rows, np.zeros(len(v.ids), np.bool_)
        return self._alone.fill(v, conf, points, rows, t_ns)

    def poses(self, v: ViewPoses, points: Triangulated, rows: I64, t_ns: int, *, tier: Tier = "algebraic") -> Poses:
        """The packet of the people in those rows."""
        return self._people.poses(v, points, rows, t_ns, tier=tier)
