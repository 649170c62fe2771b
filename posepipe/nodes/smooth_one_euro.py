"""smooth.one_euro: the One-Euro filter on real time stamps, per person and joint, no look-ahead."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from posepipe.calib.smoothers import OneEuro
from posepipe.nodes._smooth import Immediate, SmootherSettings


class SmoothOneEuro(Immediate):
    """One-Euro filter (Casiez, Roussel, Vogel, CHI 2012, eq. 1-7), isotropic: the cut-off follows the joint's speed in space.

    `min_cutoff` (Hz) removes jitter at rest, `beta` (Hz per m/s) lets go when the joint moves. State is kept by identity; a joint
    not seen for `forget_ms` starts afresh.
    """

    use = "smooth.one_euro"

    class Settings(SmootherSettings, frozen=True):
        min_cutoff: Annotated[float, Meta(description="cut-off at rest, Hz: lower is smoother and later", gt=0)] = 1.0
        beta: Annotated[float, Meta(description="cut-off added per m/s of speed, Hz", ge=0)] = 8.0
        speed_cutoff: Annotated[float, Meta(description="cut-off of the speed estimate, Hz", gt=0)] = 1.5

    settings: Settings

    def filter(self, joints: int) -> OneEuro:
        s = self.settings
        return OneEuro(joints, min_cutoff_hz=s.min_cutoff, beta=s.beta, speed_cutoff_hz=s.speed_cutoff, forget_s=s.forget_ms / 1e3)
