"""lift.auto: the volume while there is time for it, triangulation while there is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from posepipe.pipeline.node import Caps, Context, Node
from posepipe.pipeline.packet import Packet, Poses, ViewPoses

from ._lift_governor import Governor
from ._lift_volume import Lifter, VolumetricSettings, check, needs, networks


class LiftAuto(Node):
    """lift.volumetric that gives way: when instants come late, the volume is left out (some ten milliseconds less) until there is time again.

    Late is an instant whose age at entry and the time that the volume takes are more than `budget_ms`. After `late_instants` of these in a row
    it goes down to triangulation; after `good_instants` in a row with a fifth of the budget to spare it goes up again, and if that was too
    soon, it waits twice as long the next time. With too few views of a person it goes down for that instant alone, as lift.volumetric does.
    With `--offline` time does not count, so that results do not depend on the machine. Every instant says its `tier`; changes are logged.
    """

    use = "lift.auto"
    needs_rig = True

    class Settings(VolumetricSettings, frozen=True):
        budget_ms: Annotated[float, Meta(description="from capture to the skeletons, milliseconds; later than that is late", gt=0)] = 100.0
        late_instants: Annotated[int, Meta(description="so many late instants in a row, and the volume is left out", ge=1)] = 3
        good_instants: Annotated[int, Meta(description="so many good instants in a row, and it is taken again", ge=1)] = 60

    settings: Settings
    runs_on = ""
    _lifter: Lifter
    _clock_ns: Callable[[], int] = staticmethod(time.perf_counter_ns)

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
        s = self.settings
        self._lifter, self._ctx = Lifter(ctx, s), ctx
        self.runs_on = self._lifter.runs_on
        self._governor = Governor(s.budget_ms, late_instants=s.late_instants, good_instants=s.good_instants)

    def step(self, views: Packet[ViewPoses]) -> Poses:
        if self._ctx.offline:
            return self._lifter.lift(views.body, views.t_capture_ns)
        age_ms = (self._ctx.now_ns() - views.t_capture_ns) / 1e6
        before = self._governor.volumes
        volumes = self._governor.decide(age_ms)
        if volumes != before:
            self._tell(volumes, age_ms)
        start_ns = self._clock_ns()
        poses = self._lifter.lift(views.body, views.t_capture_ns, volumes=volumes)
        if poses.tier == "volumetric" and len(poses.ids):
            self._governor.took((self._clock_ns() - start_ns) / 1e6)
        return poses

    def _tell(self, volumes: bool, age_ms: float) -> None:
        g, budget_ms = self._governor, self.settings.budget_ms
        took = f"an instant is {age_ms:.0f} ms old when it comes, the volume takes {g.volume_ms:.0f} ms, the budget is {budget_ms:g} ms"
        self._ctx.log.warning("%s: %s: %s", self._ctx.name, "volumetric again" if volumes else "algebraic for now", took)

    def close(self) -> None:
        if (lifter := getattr(self, "_lifter", None)) is not None:
            lifter.close()
