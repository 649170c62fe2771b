"""lift.algebraic: 2D key points of calibrated views become metric 3D skeletons by robust triangulation."""

from __future__ import annotations

from posepipe.pipeline.node import Context, Node
from posepipe.pipeline.packet import Packet, Poses, ViewPoses

from ._lift import Algebraic, LiftSettings


class LiftAlgebraic(Node):
    """Confidence-weighted, outlier-voting triangulation with any two or more views; per joint a standard deviation in metres.

    A view that takes the front of a person for the back (all joints on the wrong side) is set right before the vote.
    A person exists when `min_joints` body joints (shoulders to ankles) have a point. A new person within `same_person_m` of one
    who was lost less than `same_person_s` ago keeps that identity; identities are never used twice.
    """

    use = "lift.algebraic"
    needs_rig = True

    class Settings(LiftSettings, frozen=True):
        pass

    settings: Settings

    def open(self, ctx: Context) -> None:
        self._lift = Algebraic(ctx, self.settings)

    def step(self, views: Packet[ViewPoses]) -> Poses:
        v, lift = views.body, self._lift
        points = lift.points(v.uv_px, lift.seen(v), v.side_px)
        return lift.poses(v, points, lift.people(points), views.t_capture_ns)
