"""From key points and heatmaps to skeletons by way of a volume: triangulation, a cube around every person, unprojection, the network, the fine step."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import msgspec
import numpy as np
from msgspec import Meta

from posepipe.calib.cube import cube_around, fill, fine_step
from posepipe.calib.rig import Rig
from posepipe.calib.sides import Bools
from posepipe.calib.triangulate import Triangulated
from posepipe.calib.unproject import Cube
from posepipe.engines.lifter import lifter_file
from posepipe.engines.network import STUB
from posepipe.engines.posture import NAME as POSTURE
from posepipe.engines.posture import Placed, Posture
from posepipe.engines.posture import network_file as posture_file
from posepipe.engines.volume import VolumeNetwork, network_file, volume_card
from posepipe.pipeline.errors import EngineError, GraphError, PullError, RigError
from posepipe.pipeline.node import Caps, Context
from posepipe.pipeline.packet import F32, F64, Poses, Tier, ViewPoses
from posepipe.pipeline.skeleton import COCO17, skeleton

from ._lift import Algebraic, LiftSettings, check_single, engine_options
from ._lift_cubes import Candidate, Cubes, Shown
from ._lift_held import Held
from ._lift_maps import Seen, coco17_in, heatmaps

_LARGEST_STUDIO_M = 50.0
_BATCH = 4
_FOLLOW_NS = 500_000_000
_BODY = np.array(COCO17.body)
_SLIM = "triangulation.slim"


class VolumetricSettings(LiftSettings, frozen=True):
    engine: Annotated[
        str, Meta(description="network for joints in a cube: triangulation.slim, my_net/card.toml, or stub (the mean of every heatmap)")
    ] = "triangulation.slim"
    side_m: Annotated[float, Meta(description="side of the cube around a person, metres", ge=0.5, le=10)] = 2.5
    min_views: Annotated[int, Meta(description="fewest views of a person for the volume; with fewer, triangulation", ge=2, le=16)] = 2
    max_sigma_m: Annotated[float, Meta(description="a joint that is less certain than this is not given, metres", gt=0)] = 0.25
    posture: Annotated[bool, Meta(description="after triangulation.slim: correct every joint by what the whole body says of it")] = True
    hold_s: Annotated[float, Meta(description="how long the last skeletons are given again while nobody can be placed", ge=0, le=10)] = 0.5

    def beside(self, folder: Path) -> Self:
        own = super().beside(folder)
        return msgspec.structs.replace(own, engine=str(folder / Path(self.engine).expanduser())) if self.engine.endswith(".toml") else own

    @property
    def postured(self) -> bool:
        """Whether the last step is taken: it was trained on the answers of one network."""
        return self.posture and self.engine == _SLIM


def check(settings: VolumetricSettings, inputs: Mapping[str, Caps]) -> None:
    """Refuse a network that is none for this, and a skeleton without coco17's joints. GraphError."""
    if settings.engine != STUB:
        try:
            volume_card(settings.engine)
        except (EngineError, PullError, GraphError) as e:
            what = f"{e.where}: {e.what}" if e.where and e.where != settings.engine else e.what
            raise GraphError(f"engine is {settings.engine!r}: {what}", hint=e.hint) from e
    check_single(settings)
    if (views := inputs.get("views")) is not None and views.skeleton:
        coco17_in(skeleton(views.skeleton))


def needs(settings: VolumetricSettings) -> tuple[str, ...]:
    """The models that have to be here."""
    return tuple(name for name in (settings.engine, settings.single) if name not in (STUB, ""))


def networks(settings: VolumetricSettings) -> Mapping[str, Path]:
    """The files that are opened."""
    own = {POSTURE: posture_file()} if settings.postured else {}
    return {**network_file(settings.engine), **own, **(lifter_file(settings.single) if settings.single else {})}


def check_scale(rig: Rig) -> None:
    """RigError for cameras that stand where none of a studio can: the calibration is in other units than it says."""
    centres_m = np.array([camera.centre_m for camera in rig.cameras])
    apart_m = float(np.linalg.norm(centres_m[:, None] - centres_m[None], axis=-1).max())
    above_m = float(np.abs(centres_m[:, 2]).max())
    if max(apart_m, above_m) <= _LARGEST_STUDIO_M:
        return
    seems = "millimetres" if max(apart_m, above_m) > 500 else "centimetres or millimetres"
    where = f"{apart_m:.0f} m apart" if apart_m >= above_m else f"{above_m:.0f} m above or below the floor"
    raise RigError(
        f"cameras stand {where}, so the calibration looks like {seems}",
        where=rig.where,
        hint='write units = "mm" in [metadata] of a TOML file or "units: mm" in an OpenCV file; in a .rig.toml of posepipe, which is always in '
        "metres, divide the last column of every camera_from_world by 1000. The floor is z = 0 of the world frame",
    )


@dataclass(frozen=True, slots=True)
class _Looked:
    """One instant. conf [P,C,J]: of what is seen; points: triangulated, to be improved; exchanged [P,C,J]: joints whose sides
    triangulation exchanged in a view; weights [P,C,17]: how exact the key points are, where that was learned."""

    v: ViewPoses
    conf: F32
    points: Triangulated
    exchanged: Bools
    weights: F64 | None
    seen: Seen


class Lifter:
    """Volumetric where it can be, algebraic where it cannot, held where nobody can be placed; every result says which."""

    def __init__(self, ctx: Context, settings: VolumetricSettings) -> None:
        """Opens the network and compiles, or loads what was compiled. Raises RigError, EngineError, PullError."""
        check_scale(ctx.rig) if isinstance(ctx.rig, Rig) else None
        self.settings = settings
        with ExitStack() as undo:
            self._algebraic = Algebraic(ctx, settings)
            undo.callback(self._algebraic.close)
            self._rig, self._joints = self._algebraic.rig, coco17_in(self._algebraic.layout)
            self._maps, self._held = heatmaps(ctx, self._joints), Held(settings.hold_s)
            self._tell = self._maps.tell
            self._network = VolumeNetwork(settings.engine, engine_options(ctx), batch=_BATCH)
            undo.callback(self._network.close)
            postured = settings.postured and self._network.engine.runtime != STUB
            self._posture = Posture(engine_options(ctx)) if postured else None
            self._cubes = Cubes(self._rig, self._network, self._posture, tell=self._tell)
            undo.pop_all()
        engine = self._network.engine
        self.runs_on = f"{settings.engine} on {engine.runtime} {engine.precision} ({engine.device})"
        if not ctx.caps["views"].maps:
            self.runs_on += ", heatmaps painted around key points"
        ctx.log.info("%s: %s", self.runs_on, engine.reason)
        self._seen: dict[int, tuple[int, F64, F64]] = {}
        self._warm()

    def _warm(self) -> None:
        views = len(self._rig)
        one, none = np.full((1, views, 17), 0.5, np.float32), np.zeros((1, views, 17), np.bool_)
        maps, rois = np.zeros((views, 64, 64, 17), np.float32), np.tile([0.0, 0, 100, 0], (views, 1))
        cube = Cube(np.zeros(3), self.settings.side_m, 0.0)
        fill(self._rig, maps, one[0], rois, none[0], cube, n=self._network.cells)
        uv_px, side_px = np.zeros((1, views, 17, 2), np.float32), np.ones((1, views))
        shares, spread = np.zeros((1, 17, 3), np.float32), np.full((1, 17), 0.1, np.float32)
        fine_step(self._rig, uv_px, one, none, [cube], shares, spread, inlier_px=side_px, sigma_px=side_px)
        if self._posture is not None:
            for people in range(1, _BATCH + 1):
                somewhere = Placed(shares.repeat(people, 0), spread.repeat(people, 0), np.zeros((people, 17)))
                self._posture(somewhere, somewhere, somewhere, one.repeat(people, 0))

    def lift(self, v: ViewPoses, t_ns: int, *, volumes: bool = True) -> Poses:
        """The people of one instant. volumes: False leaves the volume out."""
        lift = self._algebraic
        conf = lift.seen(v)
        seen = self._maps.of(v) if volumes or lift.learned else None
        points, exchanged, weights = lift.points(v, conf, seen.maps if seen is not None else None)
        placed = np.zeros(len(v.ids), np.bool_)
        if volumes and seen is not None:
            placed = self._volumetric(
                _Looked(v, conf, points, exchanged, None if weights is None else weights[:, :, self._joints], seen),
                t_ns,
            )
        points, rows, lifted = lift.with_single(v, conf, points, t_ns)
        if not len(rows):
            return self._held.at(v, t_ns, "volumetric" if volumes else "algebraic")
        made: Tier = "lifted" if lifted.any() else "volumetric" if placed[rows].all() else "algebraic"
        poses = lift.poses(v, points, rows, t_ns, tier=made)
        self._held.keep(poses, t_ns)
        self._follow(poses, t_ns)
        return poses

    def close(self) -> None:
        self._network.close()
        if self._posture is not None:
            self._posture.close()
        self._algebraic.close()

    # the volume -------------------------------------------------------------------------------------------------------------

    def _volumetric(self, at: _Looked, t_ns: int) -> Bools:
        """Put the network's joints into the triangulated points where there is a cube; for whom [P]."""
        joints, points, seen = self._joints, at.points, at.seen
        candidates = [
            Candidate(p, at.exchanged[p][:, joints], points.xyz_m[p, joints], points.sigma_m[p, joints], points.used[p][:, joints], cube)
            for p in range(len(at.v.ids))
            if (cube := self._cube(at, p, t_ns)) is not None
        ]
        placed = np.zeros(len(at.v.ids), np.bool_)
        if not candidates:
            return placed
        side_px = self._algebraic.side_px(at.v.side_px)
        noise = {"inlier_px": self.settings.inlier * side_px, "sigma_px": self.settings.sigma * side_px}
        shown = Shown(at.v.uv_px[:, :, joints], at.conf[:, :, joints], seen.maps, seen.rois, seen.peaks, **noise, weights=at.weights)
        for found in self._cubes.lifted(shown, candidates):
            for k, c in enumerate(found.candidates):
                self._turn(at, c)
                placed[c.row] = self._put(points, c.row, found.points, k)
        return placed

    def _cube(self, at: _Looked, p: int, t_ns: int) -> Cube | None:
        """Around the triangulated person, else where this one must be by now; None without a place, or with too few views."""
        if int(np.isfinite(at.seen.rois[p, :, 2]).sum()) < self.settings.min_views:
            self._tell(f"fewer than {self.settings.min_views} views of a person: triangulation alone, if there are two")
            return None
        who, cube = int(at.v.ids[p]), cube_around(at.points.xyz_m[p, self._joints], side_m=self.settings.side_m)
        if cube is None and who in self._seen:
            since_ns, at_m, speed_m_s = self._seen[who]
            if t_ns - since_ns < _FOLLOW_NS:
                cube = Cube(at_m + speed_m_s * (t_ns - since_ns) / 1e9, self.settings.side_m, 0.0)
        return cube

    def _turn(self, at: _Looked, c: Candidate) -> None:
        """Where the sides of whole views were exchanged, those of the joints that coco17 lacks are as well."""
        turned = (c.exchanged != at.exchanged[c.row][:, self._joints]).any(axis=1)
        if not turned.any():
            return
        points = self._algebraic.again(at.v, at.conf, c.row, at.exchanged[c.row] ^ (turned[:, None] & self._algebraic.sided))
        for name in Triangulated.__slots__:
            getattr(at.points, name)[c.row] = getattr(points, name)[0]

    def _put(self, points: Triangulated, p: int, fine: Triangulated, k: int) -> bool:
        """Put row k of the refined joints into person p of the points; False where they are not enough of a body."""
        known = (fine.conf[k] > 0) & (fine.sigma_m[k] <= self.settings.max_sigma_m)
        if np.count_nonzero(known[_BODY]) < self.settings.min_joints:
            self._tell("the volume does not tell where a person's joints are: triangulation alone")
            return False
        j = self._joints
        points.xyz_m[p, j] = np.where(known[:, None], fine.xyz_m[k], np.nan)
        points.conf[p, j] = np.where(known, fine.conf[k], 0)
        points.sigma_m[p, j] = np.where(known, fine.sigma_m[k], np.inf)
        points.residual_px[p][:, j] = np.where(known, fine.residual_px[k], np.nan)
        points.used[p][:, j] = known & fine.used[k]
        return True

    def _follow(self, poses: Poses, t_ns: int) -> None:
        """Where everybody's hips are and how they move, for instants in which nothing else says so."""
        seen = {who: one for who, one in self._seen.items() if t_ns - one[0] < _FOLLOW_NS}
        for who, xyz_m in zip(poses.ids.tolist(), poses.xyz_m[:, self._joints].astype(np.float64), strict=True):
            cube = cube_around(xyz_m)
            if cube is None:
                continue
            before = self._seen.get(who)
            gone_s = (t_ns - before[0]) / 1e9 if before is not None else 0.0
            speed_m_s = (cube.centre_m - before[1]) / gone_s if before is not None and gone_s > 0 else np.zeros(3)
            seen[who] = (t_ns, cube.centre_m, speed_m_s)
        self._seen = seen
