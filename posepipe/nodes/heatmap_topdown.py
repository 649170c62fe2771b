"""heatmap.topdown: crops around people, one batched heatmap network for all views and people, 2D key points out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

import msgspec
import numpy as np
from msgspec import Meta

from posepipe.calib.associate import match_views
from posepipe.calib.project import project
from posepipe.calib.rig import Rig
from posepipe.engines.crop import Rois
from posepipe.engines.engine import EngineOptions
from posepipe.engines.network import STUB, PersonDetector, TopDown, detector_card, has_maps, onnx_of, topdown_card
from posepipe.pipeline.errors import EngineError, GraphError, PullError, RigError
from posepipe.pipeline.node import Caps, Context, Latest, Node, NodeSettings
from posepipe.pipeline.packet import F64, FrameSet, Packet, Poses, ViewPoses, readonly

_FOLLOW_NS = 300_000_000  # a skeleton older than this says nothing about where the person is now
_BESIDE = 2.5
"""Joints further from the middle of the picture than so many of its sizes are not in it, however the skeleton came about."""
_MISSES = 3
_COMPARED = 4  # of the detector's looks at a person in few views, every so many are at everybody
_AROUND = 1.3


class HeatmapTopdown(Node):
    """2D key points of every person in every view.

    While a skeleton comes back through `feedback`, it is moved on by its own speed and projected into each view to place the crops;
    every `detect_every` instants the person detector looks at one view and confirms it. While nobody is followed, the detector looks at all
    views, and people are those whose detections meet in space, the one seen by most views first: a bystander seen by two cameras
    does not displace the performer seen by four. Whoever is followed in no more than half of the views is compared with the others
    now and then, so that a bystander who was found while cameras were missing is left again. One person for now (`max_people: 1`).

    Any network with a card for the joints of one person will do, also one's own (docs/models.md); the skeleton is that of its card.
    """

    use = "heatmap.topdown"
    needs_rig = True
    default_queue = (2, "keep_newest")  # makes up for a hiccup; behind for good, an instant that waits would only be late

    class Settings(NodeSettings, frozen=True):
        engine: Annotated[
            str, Meta(description="network for the joints of a person: blazepose.full, movenet.thunder, ..., my_net/card.toml, or stub")
        ] = "blazepose.full"
        detector: Annotated[
            str,
            Meta(description="person detector: blazepose.detector, yolox.nano, ..., my_net/card.toml; auto: as the network's card says"),
        ] = "auto"
        max_people: Annotated[int, Meta(description="people followed at once (1 in this release)", ge=1, le=1)] = 1
        detect_every: Annotated[int, Meta(description="instants between two looks of the person detector at one view", ge=1)] = 15
        min_joints: Annotated[int, Meta(description="a view is cut when this many body joints are expected inside it", ge=1, le=12)] = 4

        def beside(self, folder: Path) -> Self:
            cards = {"engine": self.engine, "detector": self.detector}
            return msgspec.structs.replace(
                self, **{k: str(folder / Path(v).expanduser()) if v.endswith(".toml") else v for k, v in cards.items()}
            )

    settings: Settings
    runs_on = ""
    _heatmaps: TopDown
    _detector: PersonDetector

    @classmethod
    def check(cls, settings: Settings, inputs: object) -> None:
        for key, card in (("engine", topdown_card), ("detector", detector_card)):
            name = settings.engine if key == "engine" else _detector(settings)
            try:
                card(name)
            except (EngineError, PullError, GraphError) as e:
                what = f"{e.where}: {e.what}" if e.where and e.where != name else e.what
                raise GraphError(f"{key} is {name!r}: {what}", hint=e.hint) from e

    @classmethod
    def caps(cls, settings: Settings, inputs: object) -> Caps:
        return Caps(skeleton=topdown_card(settings.engine).skeleton)

    @classmethod
    def gives_maps(cls, settings: Settings) -> bool:
        return has_maps(settings.engine)

    @classmethod
    def needs(cls, settings: Settings) -> tuple[str, ...]:
        return tuple(n for n in (settings.engine, _detector(settings)) if n != STUB)

    @classmethod
    def networks(cls, settings: Settings, rig: object) -> Mapping[str, Path]:
        names = {settings.engine: topdown_card, _detector(settings): detector_card}
        return {name: onnx_of(card(name)) for name, card in names.items() if name != STUB}

    def open(self, ctx: Context) -> None:
        if not isinstance(ctx.rig, Rig):
            raise RigError("the studio has no rig, so people cannot be followed from view to view", hint="add rig: FILE to the studio file")
        self._rig: Rig = ctx.rig
        try:
            options = msgspec.convert(ctx.engines, EngineOptions)
        except msgspec.ValidationError as e:
            raise EngineError(f"engines: {e}", hint="correct engines: in the studio file") from e
        views = len(ctx.cameras)
        self._heatmaps = TopDown(self.settings.engine, options, batch=views * self.settings.max_people, maps=ctx.gives.maps)
        self._detector = PersonDetector(_detector(self.settings), options, batch=views)
        layout = self._heatmaps.skeleton
        self._body = np.array(layout.body)
        self._hips = np.array([layout.index("left_hip"), layout.index("right_hip")])
        project(self._rig, np.zeros((1, 3)))  # compiles, or loads the compiled kernel
        self._picture_px = np.array([(c.width_px, c.height_px) for c in self._rig.cameras], np.float64)
        self._seen: Packet[Poses] | None = None
        self._speed_m_s = np.zeros(3)
        self._count = self._misses = 0
        self._lost_seq = -1
        engine = self._heatmaps.engine
        self.runs_on = f"{self.settings.engine} on {engine.runtime} {engine.precision} ({engine.device})"
        ctx.log.info("%s: %s", self.runs_on, engine.reason)

    def step(self, frames: FrameSet, poses: Latest[Packet[Poses]]) -> ViewPoses:
        self._count += 1
        xyz_m = self._expected(poses, frames.t_capture_ns)
        rois: Rois | None = None
        ids = np.full(1, -1, np.int64)
        if xyz_m is not None:
            assert poses is not None
            rois = followed = self._rois(xyz_m, frames)
            if self._count % self.settings.detect_every == 0:
                rois = (self._seen_by_more(frames, followed) or followed) if self._confirmed(frames, xyz_m, followed) else None
            if rois is followed:
                ids = poses.body.ids[:1]
            else:
                self._lost_seq = poses.seq
        rois = rois or self._search(frames)
        return self._views(frames, ids if rois is not None else np.zeros(0, np.int64), rois)

    def _views(self, frames: FrameSet, ids: np.ndarray[tuple[int], np.dtype[np.int64]], rois: Rois | None) -> ViewPoses:
        """Run the network on the regions [C] of one person (None: nobody)."""
        views, people = len(frames.cameras), len(ids)
        joints = len(self._heatmaps.skeleton.joints)
        uv_px = np.full((people, views, joints, 2), np.nan, np.float32)
        conf = np.zeros((people, views, joints), np.float32)
        side_px = np.zeros((people, views), np.float32)
        shape = self._heatmaps.map_shape
        maps = covered = None
        if shape is not None:
            maps, covered = np.zeros((people, views, *shape), np.float32), np.full((people, views, 4), np.nan, np.float32)
        if rois is not None:
            at = [i for i in frames.sync.views if rois.there[i]]
            cut = Rois(rois.centre_px[at], rois.side_px[at], rois.angle_rad[at])
            seen = [frames.frames[frames.cameras[i]] for i in at]
            if maps is None or covered is None:
                uv_px[0, at], conf[0, at] = self._heatmaps.infer(seen, cut)
            else:
                uv_px[0, at], conf[0, at], found, covered[0, at] = self._heatmaps.infer_maps(seen, cut)
                if len(at) == views:
                    maps = found[None]
                else:
                    maps[0, at] = found
            side_px[0, at] = cut.side_px
        for array in (uv_px, conf, side_px, maps, covered):
            if array is not None:
                readonly(array)
        return ViewPoses(frames.cameras, self._heatmaps.skeleton.name, frames.sync, ids, uv_px, conf, side_px, maps, covered)

    def close(self) -> None:
        for opened in (getattr(self, "_heatmaps", None), getattr(self, "_detector", None)):
            if opened is not None:
                opened.close()

    # where the person is -----------------------------------------------------------------------------------------------------

    def _expected(self, poses: Packet[Poses] | None, t_ns: int) -> F64 | None:
        """The followed skeleton [J,3] moved on to this instant, or None when there is nobody to follow."""
        if poses is None or poses.seq == self._lost_seq or not len(poses.body.ids) or abs(t_ns - poses.t_capture_ns) > _FOLLOW_NS:
            self._seen = None
            return None
        before, self._seen = self._seen, poses
        if before is not None and poses.seq != before.seq:
            dt_s = (poses.t_capture_ns - before.t_capture_ns) / 1e9
            moved_m = poses.body.xyz_m[0, self._body] - before.body.xyz_m[0, self._body]
            both = np.isfinite(moved_m[:, 0])
            same = dt_s > 0 and before.body.ids[0] == poses.body.ids[0] and both.any()
            self._speed_m_s = moved_m[both].mean(axis=0) / dt_s if same else np.zeros(3)
        elif before is None:
            self._speed_m_s = np.zeros(3)
        return np.asarray(poses.body.xyz_m[0] + self._speed_m_s * (t_ns - poses.t_capture_ns) / 1e9, np.float64)

    def _rois(self, xyz_m: F64, frames: FrameSet) -> Rois:
        """Regions [C] around the projected skeleton; none where too little of the body is inside the picture. A joint that lies beside the camera is
        not looked for: it would make the region as large as it likes."""
        seen = project(self._rig, np.nan_to_num(xyz_m, nan=1e6))
        known = np.isfinite(xyz_m[:, 0])
        with np.errstate(invalid="ignore"):
            near = (np.abs(seen.uv_px / self._picture_px[:, None] - 0.5) < _BESIDE).all(axis=2) & known
        uv_px = np.where(near[..., None], seen.uv_px, np.nan)
        rois = self._heatmaps.regions.of_joints(uv_px, near.astype(np.float32))
        enough = np.count_nonzero(seen.visible[:, self._body] & known[self._body], axis=1) >= self.settings.min_joints
        return Rois(rois.centre_px, np.where(enough, rois.side_px, np.nan), rois.angle_rad)

    def _confirmed(self, frames: FrameSet, xyz_m: F64, rois: Rois) -> bool:
        """One view after the other: does the detector see somebody where the followed person is? A few misses in a row end it."""
        views = [i for i in frames.sync.views if rois.there[i]]
        if not views:
            return False
        view = views[(self._count // self.settings.detect_every) % len(views)]
        hips_px = np.nanmean(project(self._rig, xyz_m[self._hips]).uv_px[view], axis=0)
        around = Rois(
            rois.centre_px[[view]], _AROUND * rois.side_px[[view]], np.zeros(1)
        )  # a person nearer to the camera must not hide this one
        found = self._detector.detect([frames.frames[frames.cameras[view]]], around)[0]
        near = any(np.linalg.norm(d.points_px[0] - hips_px) < 0.25 * rois.side_px[view] for d in found)
        self._misses = 0 if near else self._misses + 1
        return self._misses < _MISSES

    def _seen_by_more(self, frames: FrameSet, rois: Rois) -> Rois | None:
        """Regions [C] of somebody whom more views see than the followed person, looked for while no more than half of the views see that one: who
        only steps out of one of many pictures is not exchanged for a bystander."""
        views, look = list(frames.sync.views), self._count // self.settings.detect_every
        count = np.count_nonzero(rois.there[views])
        if look % _COMPARED or 2 * count > len(views):
            return None
        other = self._search(frames)
        return other if other is not None and np.count_nonzero(other.there) > count else None

    def _search(self, frames: FrameSet) -> Rois | None:
        """Regions [C] of the person whom most views agree on, or None."""
        self._misses = 0
        views = list(frames.sync.views)
        detections = dict(zip(views, self._detector.detect([frames.frames[frames.cameras[i]] for i in views]), strict=True))
        every = [detections.get(i, []) for i in range(len(frames.cameras))]
        points_px = [np.array([d.points_px[[0, 2]] for d in view], np.float64).reshape(-1, 2, 2) for view in every]
        size_px = [self._heatmaps.regions.of_detections(view).side_px for view in every]
        people = match_views(self._rig, points_px, size_px, max_people=1)
        if not people:
            return None
        count = len(frames.cameras)
        rois = Rois(np.full((count, 2), np.nan), np.full(count, np.nan), np.zeros(count))
        for view, row in people[0].items():
            one = self._heatmaps.regions.of_detections([every[view][row]])
            rois.centre_px[view], rois.side_px[view], rois.angle_rad[view] = one.centre_px[0], one.side_px[0], one.angle_rad[0]
        return rois


def _detector(settings: HeatmapTopdown.Settings) -> str:
    """The detector that the settings name, or that the network's card does."""
    if settings.detector != "auto":
        return settings.detector
    return STUB if settings.engine == STUB else topdown_card(settings.engine).detector or "blazepose.detector"
