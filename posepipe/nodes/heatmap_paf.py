"""heatmap.paf: everybody in every view at once, by part affinity fields; 2D key points of the people whom the views agree on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec
import numpy as np
from msgspec import Meta

from posepipe.calib.associate import match_views
from posepipe.calib.rig import Rig
from posepipe.engines.assets import catalogue
from posepipe.engines.decoders.paf import Bodies
from posepipe.engines.engine import EngineOptions
from posepipe.engines.models.openpose.bottomup import BottomUp, input_size
from posepipe.engines.models.openpose.networks import find, sized
from posepipe.pipeline.errors import EngineError, GraphError, PullError, RigError
from posepipe.pipeline.node import Caps, Context, Node, NodeSettings
from posepipe.pipeline.packet import F64, FrameSet, ViewPoses, readonly
from posepipe.pipeline.skeleton import COCO17, skeleton

_AROUND = 1.25
_FEWEST_CELLS = 20.0


class HeatmapPaf(Node):
    """2D key points by one network run on whole pictures: its cost does not depend on how many people there are.

    People are matched across views by where the rays to their necks and hips meet; the one whom most views agree on is given, so that a
    bystander whom two cameras see does not displace the performer whom four do. Nothing is remembered from one instant to the next: identities
    are the next node's. One person for now (`max_people: 1`).
    """

    use = "heatmap.paf"
    needs_rig = True
    default_queue = (2, "keep_newest")

    class Settings(NodeSettings, frozen=True):
        engine: Annotated[
            str, Meta(description="part affinity network: openpose.light, one that was imported (openpose.body25), a card's path, or stub")
        ] = "openpose.light"
        joints: Annotated[
            Literal["coco17", "network"], Meta(description="order of the joints: COCO's 17, or all that the network sees, with its neck")
        ] = "coco17"
        max_people: Annotated[int, Meta(description="people given at once (1 in this release)", ge=1, le=1)] = 1
        short_px: Annotated[
            int, Meta(description="pictures are scaled so that their shorter side has this many pixels; 0: as trained", ge=0, le=2048)
        ] = 0

        def beside(self, folder: Path) -> Self:
            return msgspec.structs.replace(self, engine=str(folder / self.engine)) if self.engine.endswith(".toml") else self

    settings: Settings
    runs_on = ""
    _network: BottomUp

    @classmethod
    def check(cls, settings: Settings, inputs: object) -> None:
        try:
            find(settings.engine)
        except (EngineError, PullError, GraphError) as e:
            what = f"{e.where}: {e.what}" if e.where and e.where != settings.engine else e.what
            raise GraphError(f"engine is {settings.engine!r}: {what}", hint=e.hint) from e
        if 0 < settings.short_px < 64:
            raise GraphError(f"short_px is {settings.short_px}: nobody can be seen in so small a picture", hint="64 or more, or 0")

    @classmethod
    def caps(cls, settings: Settings, inputs: object) -> Caps:
        return Caps(skeleton=COCO17.name if settings.joints == "coco17" else find(settings.engine).parts.skeleton)

    @classmethod
    def needs(cls, settings: Settings) -> tuple[str, ...]:
        return (settings.engine,) if settings.engine in catalogue() else ()

    @classmethod
    def networks(cls, settings: Settings, rig: object) -> Mapping[str, Path]:
        network = find(settings.engine)
        if network.card is None or not isinstance(rig, Rig):
            return {}
        width, height = input_size(_pictures_px(rig), settings.short_px or network.short_px)
        return {settings.engine: sized(network, network.card, width=width, height=height)}

    def open(self, ctx: Context) -> None:
        if not isinstance(ctx.rig, Rig):
            raise RigError("the studio has no rig, so views cannot be told to agree", hint="add rig: FILE to the studio file")
        self._rig: Rig = ctx.rig
        options = msgspec.convert(ctx.engines, EngineOptions)
        self._network = BottomUp(
            self.settings.engine, options, pictures_px=_pictures_px(self._rig), short_px=self.settings.short_px, batch=len(ctx.cameras)
        )
        parts = self._network.network.parts
        self._order = parts.coco17 if self.settings.joints == "coco17" else np.arange(parts.count)
        self._skeleton = skeleton(self.caps(self.settings, None).skeleton)
        seen = self._network.skeleton
        self._neck = seen.index("neck")
        self._hips = np.array([seen.index("left_hip"), seen.index("right_hip")])
        engine = self._network.engine
        self.runs_on = f"{self.settings.engine} on {engine.runtime} {engine.precision} ({engine.device})"
        ctx.log.info("%s: %s", self.runs_on, engine.reason)

    def step(self, frames: FrameSet) -> ViewPoses:
        views = list(frames.sync.views)
        seen = dict(zip(views, self._network.infer([frames.frames[frames.cameras[i]] for i in views]), strict=True))
        known = {i: self._known(bodies) for i, bodies in seen.items()}
        anchors_px = [known[i][0] if i in known else np.zeros((0, 2, 2)) for i in range(len(frames.cameras))]
        size_px = [known[i][1] if i in known else np.zeros(0) for i in range(len(frames.cameras))]
        people = match_views(self._rig, anchors_px, size_px, max_people=self.settings.max_people)
        count, joints = len(frames.cameras), len(self._skeleton.joints)
        uv_px = np.full((len(people), count, joints, 2), np.nan, np.float32)
        conf = np.zeros((len(people), count, joints), np.float32)
        side_px = np.zeros((len(people), count), np.float32)
        for p, person in enumerate(people):
            for view, row in person.items():
                points = seen[view].points[known[view][2][row]][self._order]
                frame = frames.frames[frames.cameras[view]]
                uv_px[p, view], conf[p, view] = points[:, :2], np.minimum(points[:, 2], 1)
                side_px[p, view] = max(_AROUND * size_px[view][row], _FEWEST_CELLS * self._network.cell_px(frame.width, frame.height))
        for array in (uv_px, conf, side_px):
            readonly(array)
        return ViewPoses(frames.cameras, self._skeleton.name, frames.sync, np.full(len(people), -1, np.int64), uv_px, conf, side_px)

    def _known(self, bodies: Bodies) -> tuple[F64, F64, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """Of the bodies with a neck and a hip: neck and middle of the hips [N,2,2], size [N] in pixels, and which they are [N]."""
        points = bodies.points.astype(np.float64)
        hips = points[:, self._hips]
        there = hips[..., 2:] > 0
        rows = np.flatnonzero((points[:, self._neck, 2] > 0) & there.any(axis=(1, 2)))
        points, hips, there = points[rows], hips[rows], there[rows]
        middle = np.where(there, hips[..., :2], 0).sum(axis=1) / there.sum(axis=1)
        anchors = np.stack([points[:, self._neck, :2], middle], axis=1)
        if not len(rows):
            return anchors, np.zeros(0), rows
        extent = np.nanmax(points[..., :2], axis=1) - np.nanmin(points[..., :2], axis=1)
        return anchors, extent.max(axis=1), rows

    def close(self) -> None:
        if (network := getattr(self, "_network", None)) is not None:
            network.close()


def _pictures_px(rig: Rig) -> list[tuple[int, int]]:
    return [(camera.width_px, camera.height_px) for camera in rig.cameras]
