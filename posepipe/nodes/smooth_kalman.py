"""smooth.kalman: a Kalman filter for every joint on real time stamps, no look-ahead, short gaps bridged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from posepipe.calib.smoothers import Kalman
from posepipe.nodes._smooth import BridgingSettings, Immediate, check_bridge
from posepipe.pipeline.node import Caps

_PROCESS = {"velocity": 2.0, "acceleration": 20.0}


class SmoothKalman(Immediate):
    """Kalman filter with constant velocity or constant acceleration; a joint counts by its own sigma.

    `process` is how restless joints are taken to be, `noise` how much worse than its sigma a measurement is (errors of neighbouring
    instants are alike, which the filter does not know). A joint that is not seen goes on by itself for `bridge_ms`.
    """

    use = "smooth.kalman"

    class Settings(BridgingSettings, frozen=True):
        model: Annotated[Literal["velocity", "acceleration"], Meta(description="what stays constant while nothing is measured")] = (
            "velocity"
        )
        process: Annotated[
            Annotated[float, Meta(gt=0)] | None,
            Meta(
                description="square root of the spectral density of what drives it: white acceleration, m/s^1.5 (2 when left out), or "
                "white jerk, m/s^2.5 (20 when left out); higher follows faster and is rougher"
            ),
        ] = None
        noise: Annotated[float, Meta(description="standard deviation of a measurement, in its own sigma", gt=0)] = 1.0
        doubt: Annotated[float, Meta(description="a measurement further away than this many standard deviations counts less", gt=0)] = 1.0

    settings: Settings

    @classmethod
    def check(cls, settings: Any, inputs: Mapping[str, Caps]) -> None:
        check_bridge(settings)

    def filter(self, joints: int) -> Kalman:
        s = self.settings
        return Kalman(
            joints,
            model=s.model,
            process=_PROCESS[s.model] if s.process is None else s.process,
            noise=s.noise,
            doubt=s.doubt,
            bridge_s=s.bridge_ms / 1e3,
            forget_s=s.forget_ms / 1e3,
        )
