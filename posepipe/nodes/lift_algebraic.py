"""lift.algebraic: 2D key points of calibrated views become metric 3D skeletons by robust triangulation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from posepipe.engines.lifter import lifter_file
from posepipe.pipeline.node import Caps, Context, Node
from posepipe.pipeline.packet import Packet, Poses, ViewPoses
from posepipe.pipeline.skeleton import skeleton

from ._lift import Algebraic, LiftSettings, check_single
from ._lift_maps import coco17_in, heatmaps


class LiftAlgebraic(Node):
    """Confidence-weighted, outlier-voting triangulation with any two or more views; per joint a standard deviation in metres.

    A view that takes the front of a person for the back (all joints on the wrong side) is set right before the vote.
    A person exists when `min_joints` body joints (shoulders to ankles) have a point. A new person within `same_person_m` of one
    who was lost less than `same_person_s` ago keeps that identity; identities are never used twice.

    With `weights: triangulation.confidence` a small network looks at the heatmaps, and at how the views agree, and says how far each is to be
    believed (Iskakov et al. 2019, algebraic).

    With `single: lifter.baseline` a person whom fewer than two views show is lifted from one (see lift.baseline), as large as several views have
    measured this person before. The instant's tier is then `lifted`; the change takes `blend_s`, either way.
    """

    use = "lift.algebraic"
    needs_rig = True

    class Settings(LiftSettings, frozen=True):
        pass

    settings: Settings
    runs_on = ""
    _lift: Algebraic

    @classmethod
    def wants_maps(cls, settings: Settings) -> bool:
        return settings.weights != "peaks"

    @classmethod
    def check(cls, settings: Settings, inputs: Mapping[str, Caps]) -> None:
        check_single(settings)
        if (settings.weights != "peaks" or settings.single) and inputs["views"].skeleton:
            coco17_in(skeleton(inputs["views"].skeleton))

    @classmethod
    def needs(cls, settings: Settings) -> tuple[str, ...]:
        return (settings.single,) if settings.single else ()

    @classmethod
    def networks(cls, settings: Settings, rig: object) -> Mapping[str, Path]:
        return lifter_file(settings.single) if settings.single else {}

    def open(self, ctx: Context) -> None:
        self._lift = Algebraic(ctx, self.settings)
        self.runs_on = self._lift.runs_on
        self._maps = heatmaps(ctx, coco17_in(self._lift.layout)) if self._lift.learned else None

    def step(self, views: Packet[ViewPoses]) -> Poses:
        v, lift = views.body, self._lift
        maps = self._maps.of(v).maps if self._maps is not None else None
        conf = lift.seen(v)
        points, rows, lifted = lift.with_single(v, conf, lift.points(v, conf, maps)[0], views.t_capture_ns)
        return lift.poses(v, points, rows, views.t_capture_ns, tier="lifted" if lifted.any() else "algebraic")

    def close(self) -> None:
        if (lift := getattr(self, "_lift", None)) is not None:
            lift.close()
