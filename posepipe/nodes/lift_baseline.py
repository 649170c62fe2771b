"""lift.baseline: 2D key points of one view become a metric 3D skeleton by a network that knows bodies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

import msgspec
import numpy as np
from msgspec import Meta

from posepipe.engines.lifter import lifter_card, lifter_file
from posepipe.pipeline.errors import EngineError, GraphError, PullError
from posepipe.pipeline.node import Caps, Context, Node
from posepipe.pipeline.packet import Packet, Poses, ViewPoses
from posepipe.pipeline.skeleton import Skeleton, skeleton

from ._lift import engine_options, rig_of
from ._lift_maps import coco17_in
from ._lift_people import People, PeopleSettings
from ._lift_single import SingleView


class LiftBaseline(Node):
    """The single-view lifter after Martinez et al. 2017: every person from the one view that shows most of the body; other views do not count.

    The network gives coco17's joints around the hips with a standard deviation; how long its bones are tells how far away the person is. One view
    cannot tell a tall person from a near one: along the line of sight a skeleton is some 6 % of the distance off (median), and `sigma_m` says so.
    For comparison with lifts that use several views, and for what they leave out. Joints that coco17 does not have are not given. `tier` is `lifted`.
    """

    use = "lift.baseline"
    needs_rig = True

    class Settings(PeopleSettings, frozen=True):
        engine: Annotated[str, Meta(description="network that lifts one view: lifter.baseline, or my_net/card.toml")] = "lifter.baseline"

        def beside(self, folder: Path) -> Self:
            whole = str(folder / Path(self.engine).expanduser())
            return msgspec.structs.replace(self, engine=whole) if self.engine.endswith(".toml") else self

    settings: Settings
    runs_on = ""
    _single: SingleView

    @classmethod
    def check(cls, settings: Settings, inputs: Mapping[str, Caps]) -> None:
        try:
            lifter_card(settings.engine)
        except (EngineError, PullError) as e:
            what = f"{e.where}: {e.what}" if e.where and e.where != settings.engine else e.what
            raise GraphError(f"engine is {settings.engine!r}: {what}", hint=e.hint) from e
        if (views := inputs.get("views")) is not None and views.skeleton:
            coco17_in(skeleton(views.skeleton))

    @classmethod
    def needs(cls, settings: Settings) -> tuple[str, ...]:
        return (settings.engine,)

    @classmethod
    def networks(cls, settings: Settings, rig: object) -> Mapping[str, Path]:
        return lifter_file(settings.engine)

    def open(self, ctx: Context) -> None:
        layout: Skeleton = skeleton(ctx.caps["views"].skeleton)
        self._single = SingleView(self.settings.engine, engine_options(ctx), rig_of(ctx), layout, sigma=self.settings.sigma)
        self._people = People(layout, self.settings)
        engine = self._single.engine
        self.runs_on = f"{self.settings.engine} on {engine.runtime} {engine.precision} ({engine.device})"
        ctx.log.info("%s: %s", self.runs_on, engine.reason)

    def step(self, views: Packet[ViewPoses]) -> Poses:
        v = views.body
        points = self._single.lift(v, self._people.seen(v), np.arange(len(v.ids)))
        rows = np.flatnonzero((points.conf > 0).any(axis=1))
        return self._people.poses(v, points, rows, views.t_capture_ns, tier="lifted")

    def close(self) -> None:
        if (single := getattr(self, "_single", None)) is not None:
            single.close()
