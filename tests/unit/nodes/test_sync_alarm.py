"""A camera that leaves the window, or will soon, or is often missing, is told once, with figures and with what to do."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.nodes._certificate import Certificate
from posepipe.nodes._sync_alarm import SyncAlarm

CAMERAS = ("north", "east", "south", "west")
LOCK = (
    "\n  -> lock the shutters (genlock, trigger) or the clocks (PTP, NTP) of the cameras; recordings of unequal frame rates: fps: in the "
    "capture node; if that much does not matter here: a larger window_ms"
)
NAN = float("nan")


def certificate(
    offset_ms: tuple[float, ...] = (0, 0, 0, 0),
    drift_ppm: tuple[float, ...] | None = None,
    *,
    drift_sd_ppm: float = 0.5,
    complete: tuple[float, ...] | None = None,
    settled: bool = True,
) -> Certificate:
    n = len(offset_ms)
    rows = (offset_ms, (0.01,) * n, drift_ppm or (0,) * n, (drift_sd_ppm,) * n, complete or (1,) * n)
    return Certificate(*(np.array(row, float) for row in rows), settled)


def said(*certificates: Certificate, cameras: tuple[str, ...] = CAMERAS, window_ms: float = 8, ended: tuple[str, ...] = ()) -> list[str]:
    alarm = SyncAlarm("instants", cameras, window_ms)
    return [text for c in certificates for text in alarm.texts(c, ended=ended)]


def test_cameras_that_are_in_sync_are_not_talked_about() -> None:
    assert said(*[certificate((0.1, -0.2, 3.9, 0), (0.1, 0, -0.1, 0))] * 100) == []
    assert said(*[certificate((NAN, NAN, NAN, NAN), (NAN, NAN, NAN, NAN))] * 100) == []


@pytest.mark.parametrize("sign", [1, -1])
def test_an_offset_past_half_of_the_window(sign: int) -> None:
    (text,) = said(*[certificate((0, 4.26 * sign, 0.1, -0.1))] * 100)
    assert text == (
        "instants: camera east: 4.3 ms off the other cameras, past half of window_ms=8; beyond the window frames do not meet" + LOCK
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_a_drift_that_will_pass_it_within_ten_minutes(sign: int) -> None:
    (text,) = said(*[certificate((0, 0, 1.6 * sign, 0), (0, 0, 20.0 * sign, 0))] * 100)
    assert text == (
        "instants: camera south: drifts against the other cameras by 20.0 ppm (sd 0.5), 1.20 ms a minute; "
        "1.6 ms off now, past half of window_ms=8 in 2.0 min" + LOCK
    )


@pytest.mark.parametrize(
    ("offset_ms", "drift_ppm", "sd_ppm", "told"),
    [
        (0, 6.6, 0, False),  # 0.6 ms per ppm in ten minutes: 6.67 ppm make 4 ms
        (0, 6.7, 0, True),
        (3.9, -6.7, 0, False),  # it comes back first
        (-3.9, -1.0, 0, True),
        (0, 20, 5, False),  # three standard deviations less, it could be 5 ppm
        (0, 20, 4, True),
        (0, NAN, NAN, False),
    ],
)
def test_when_a_drift_is_told(offset_ms: float, drift_ppm: float, sd_ppm: float, told: bool) -> None:
    assert bool(said(*[certificate((0, 0, 0, offset_ms), (0, 0, 0, drift_ppm), drift_sd_ppm=sd_ppm)] * 3)) == told


def test_two_cameras_are_named_together() -> None:
    """Their distance counts: 4.4 ms, though each is 2.2 ms off the median."""
    (text,) = said(*[certificate((-2.2, 2.2))] * 5, cameras=("north", "east"))
    assert text.startswith("instants: cameras north and east: 4.4 ms off each other (which of the two is off cannot be told), past half of")
    (text,) = said(*[certificate((-1, 1), (-10, 10))] * 5, cameras=("north", "east"))
    assert (
        "drifts against each other (which of the two is off cannot be told) by 20.0 ppm (sd 1.0), 1.20 ms a minute; 2.0 ms off now" in text
    )
    assert "in 1.7 min" in text


def test_once_for_each_camera_and_kind() -> None:
    drifting, off = certificate((0, 1, 1, 0), (0, 30, 30, 0)), certificate((0, 5, 5, 0), (0, 30, 30, 0))
    texts = said(*[drifting] * 10, *[off] * 10, *[certificate()] * 10, *[drifting] * 10, *[off] * 10)
    assert [text.split(": ")[1] for text in texts] == ["camera east", "camera south"] * 2
    assert ["drifts" in text for text in texts] == [True, True, False, False]


def test_three_in_a_row_are_needed() -> None:
    off, fine = certificate((0, 5, 0, 0)), certificate()
    assert said(*[off, off, fine] * 10) == []
    assert len(said(off, off, off)) == 1


def test_a_camera_that_is_often_missing() -> None:
    (text,) = said(*[certificate(complete=(1, 1, 0.9, 0.894))] * 20)
    assert text == (
        "instants: camera west: in 89% of the instants of the last ten seconds\n  -> is it on, and its network good enough? The summary "
        "says why its frames were dropped: 'late' needs a larger wait_ms, 'too few views' synced cameras or a larger window_ms, 'decoder "
        "behind' a faster machine or smaller pictures"
    )


def test_a_camera_is_not_missed_before_ten_seconds_nor_after_its_end() -> None:
    gone = certificate(complete=(1, 1, 1, 0))
    assert said(*[certificate(complete=(1, 1, 1, 0), settled=False)] * 9) == []
    assert said(*[gone] * 9, ended=("west",)) == []
    assert len(said(*[gone] * 9)) == 1
