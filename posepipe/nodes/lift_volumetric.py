"""lift.volumetric: heatmaps of calibrated views, unprojected into a cube around every person, become 3D skeletons by a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from posepipe.pipeline.node import Caps, Context, Node
from posepipe.pipeline.packet import Packet, Poses, ViewPoses

from ._lift_volume import Lifter, VolumetricSettings, check, needs, networks


class LiftVolumetric(Node):
    """Volumetric triangulation (Iskakov et al. 2019), from heatmaps: it knows what bodies look like, which triangulation does not, so it
    wins where views are missing, hidden or wrong.

    Every person is triangulated first (as lift.algebraic does, same settings). Around the hips stands a cube of `side_m`, turned with them; the
    heatmaps of all views are unprojected into it, weighted with their confidence, and the network gives 17 joints (coco17) with a standard
    deviation each, refined with the key points of the views. Joints that coco17 does not have stay triangulated.

    `tier` says what an instant was made by: `volumetric`; `algebraic` with fewer than `min_views` views of a person, or where the volume
    tells nothing; `held`, the last skeletons for at most `hold_s`, when nobody can be placed, as with one view.
    """

    use = "lift.volumetric"
    needs_rig = True

    class Settings(VolumetricSettings, frozen=True):
        pass

    settings: Settings
    runs_on = ""
    _lifter: Lifter

    @classmethod
    def wants_maps(cls, settings: Settings) -> bool:
        return True

    @classmethod
    def check(cls, settings: Settings, inputs: Mapping[str, Caps]) -> None:
        check(settings, inputs)

    @classmethod
    def needs(cls, settings: Settings) -> tuple[str, ...]:
        return needs(settings)

    @classmethod
    def networks(cls, settings: Settings, rig: object) -> Mapping[str, Path]:
        return networks(settings)

    def open(self, ctx: Context) -> None:
        self._lifter = Lifter(ctx, self.settings)
        self.runs_on = self._lifter.runs_on

    def step(self, views: Packet[ViewPoses]) -> Poses:
        return self._lifter.lift(views.body, views.t_capture_ns)

    def close(self) -> None:
        if (lifter := getattr(self, "_lifter", None)) is not None:
            lifter.close()
