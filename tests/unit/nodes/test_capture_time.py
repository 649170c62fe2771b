"""Capture times of live streams: never after arrival, free of the network's jitter, and by the sender's clock where that is believable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from node_kit import MS, T0_NS

from posepipe.nodes._capture_time import FURTHEST_NS, REPORTS, WINDOW_NS, CaptureClock, LeastDelay

PERIOD_NS = 33_333_333
Delays = st.lists(st.integers(0, 400 * MS), min_size=2, max_size=400)


def stream(delays_ns: list[int], *, pts0_ns: int = 0, ppm: float = 0.0) -> list[tuple[int, int, int]]:
    """(pts, captured, arrived) of pictures that a sender takes at even times by its own clock; ppm: how much faster that runs."""
    out, arrived = [], 0
    for i, delay in enumerate(delays_ns):
        captured = T0_NS + i * PERIOD_NS
        arrived = max(arrived + 1, captured + delay)  # one connection: nothing overtakes
        out.append((pts0_ns + round(i * PERIOD_NS * (1 + ppm * 1e-6)), captured, arrived))
    return out


def stamps(clock: CaptureClock, packets: list[tuple[int, int, int]], told_error_ns: int | None = None) -> list[int]:
    out = []
    for pts, captured, arrived in packets:
        clock.arrived(pts, arrived, None if told_error_ns is None else captured + told_error_ns)
        out.append(clock.stamp_ns(pts))
    return out


@given(Delays, st.integers(-(10**15), 10**15), st.floats(-300, 300))
def test_a_stamp_is_never_after_arrival(delays: list[int], pts0: int, ppm: float) -> None:
    packets = stream(delays, pts0_ns=pts0, ppm=ppm)
    for stamp, (_, _, arrived) in zip(stamps(CaptureClock(), packets), packets, strict=True):
        assert stamp <= arrived


@given(Delays)
def test_a_stamp_is_late_by_the_shortest_way_so_far_and_by_nothing_else(delays: list[int]) -> None:
    packets = stream(delays)
    shortest = np.minimum.accumulate([arrived - captured for _, captured, arrived in packets])
    for i, stamp in enumerate(stamps(CaptureClock(), packets)):
        if i * PERIOD_NS + 400 * MS < WINDOW_NS:
            assert stamp == packets[i][1] + shortest[i]


@given(st.integers(0, 2**32 - 1), st.sampled_from([30, 60, 120]))
def test_jitter_does_not_reach_the_stamps(seed: int, rate: int) -> None:
    """Ways of 5 to 45 ms: after two seconds the stamps keep the camera's own intervals to within a millisecond or two. They
    follow the shortest way so far and nothing else: a stream whose shortest way comes late (one of 750) has a step there, as it must."""
    rng = np.random.default_rng(seed)
    clock, last, steps = CaptureClock(), None, []
    arrived, least, settled = 0, 2**62, 0
    for i in range(8 * rate):
        captured = T0_NS + i * 1_000_000_000 // rate
        arrived = max(arrived + 1, captured + int(rng.uniform(5, 45) * MS))
        clock.arrived(captured - T0_NS, arrived, None)
        stamp = clock.stamp_ns(captured - T0_NS)
        least = min(least, arrived - (captured - T0_NS))
        settled = least if i <= 2 * rate else settled
        assert stamp == captured - T0_NS + least
        if last is not None and i > 2 * rate:
            steps.append(abs(stamp - last - 1_000_000_000 / rate))
        last = stamp
    assert np.median(steps) < 1000
    assert np.quantile(steps, 0.99) < 2 * MS
    assume(settled - least < 5 * MS)
    assert max(steps) < 5 * MS


@given(st.floats(-200, 200))
def test_a_camera_clock_that_drifts_is_followed(ppm: float) -> None:
    """Two minutes with a way that is 20 ms and sometimes more; without following, 200 ppm would be 24 ms by then."""
    packets = stream([20 * MS + (i % 7) * MS for i in range(3600)], ppm=ppm)
    made = stamps(CaptureClock(), packets)
    allowed = abs(ppm) * 1e-6 * WINDOW_NS + MS
    assert abs(made[-1] - packets[-1][1] - 20 * MS) <= allowed


def test_a_sender_whose_clock_is_set_back_is_followed_at_once() -> None:
    clock = CaptureClock()
    clock.arrived(10_000 * MS, T0_NS, None)
    clock.arrived(40 * MS, T0_NS + 40 * MS, None)
    assert clock.stamp_ns(40 * MS) == T0_NS + 40 * MS
    clock.arrived(90_000 * MS, T0_NS + 80 * MS, None)
    assert clock.stamp_ns(90_000 * MS) == T0_NS + 80 * MS


def test_what_is_older_than_the_window_is_forgotten() -> None:
    least = LeastDelay(window_ns=1000)
    least.add(0, 10)
    least.add(500, 550)
    assert least.offset_ns == 10
    least.add(1100, 1160)
    assert least.offset_ns == 50


# the sender's clock -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(25 * MS, 400 * MS), min_size=REPORTS, max_size=100), st.integers(-20 * MS, 20 * MS))
def test_a_sender_that_tells_its_clock_is_believed_whatever_the_network_does(delays: list[int], error: int) -> None:
    packets = stream(delays, pts0_ns=77)
    clock = CaptureClock()
    made = stamps(clock, packets, told_error_ns=error)
    assert clock.by == "sender"
    assert [s - c for s, (_, c, _) in zip(made, packets, strict=True)][REPORTS - 1 :] == [error] * (len(delays) - REPORTS + 1)


@pytest.mark.parametrize(("error_ns", "ahead"), [(3600 * 10**9, True), (80 * MS, True), (-FURTHEST_NS - MS, False), (-3600 * 10**9, False)])
def test_a_clock_that_cannot_be_right_is_not_used(error_ns: int, ahead: bool) -> None:
    packets = stream([30 * MS] * 20)
    clock = CaptureClock()
    made = stamps(clock, packets, told_error_ns=error_ns)
    assert clock.by == "arrival"
    assert clock.ahead_ns == error_ns - 30 * MS
    assert (clock.ahead_ns > 0) == ahead
    assert made == [arrived for _, _, arrived in packets]


def test_a_clock_that_is_put_right_is_used_from_then_on() -> None:
    packets = stream([30 * MS] * 60)
    clock = CaptureClock()
    stamps(clock, packets[:30], told_error_ns=-3600 * 10**9)
    assert clock.by == "arrival"
    assert stamps(clock, packets[30:], told_error_ns=0)[-1] == packets[-1][1]
    assert clock.by == "sender"


def test_one_odd_report_changes_nothing() -> None:
    """FFmpeg gives the first packet after a report the time of its successor."""
    packets = stream([30 * MS] * 40)
    clock = CaptureClock()
    for i, (pts, captured, arrived) in enumerate(packets):
        clock.arrived(pts, arrived, captured + (PERIOD_NS if i in (0, 20) else 0))
        if i >= REPORTS - 1:
            assert clock.stamp_ns(pts) == captured


def test_after_a_return_the_way_is_known_before_the_first_report() -> None:
    """So a camera that comes back falls in with the others at once, and not only with its first report, seconds later."""
    packets = stream([30 * MS] * 20)
    clock = CaptureClock()
    stamps(clock, packets, told_error_ns=0)
    clock.connected()
    again = [(pts + 10**12, captured + 10**10, arrived + 10**10) for pts, captured, arrived in packets]
    assert stamps(clock, again[:10]) == [captured for _, captured, _ in again[:10]]
    assert stamps(clock, again[10:], told_error_ns=0) == [captured for _, captured, _ in again[10:]]


def test_without_reports_or_unasked_it_is_arrival() -> None:
    packets = stream([30 * MS] * 20)
    for clock, error in ((CaptureClock(), None), (CaptureClock(sender=False), 0)):
        assert stamps(clock, packets, told_error_ns=error) == [arrived for _, _, arrived in packets]
        assert (clock.by, clock.ahead_ns) == ("arrival", 0)


@given(st.integers(0, 2**32 - 1))
def test_after_a_return_jitter_does_not_spoil_what_is_known_of_the_way(seed: int) -> None:
    """Ways of 35 to 50 ms: half a second after the return, and before a report, stamps are good to 10 ms (the best of 15 ways of so wide a spread)."""
    rng = np.random.default_rng(seed)
    packets = stream([int(d) for d in rng.uniform(35, 50, 330) * MS])
    clock = CaptureClock()
    stamps(clock, packets[:300], told_error_ns=0)
    clock.connected()
    for stamp, (_, captured, arrived) in list(zip(stamps(clock, packets[300:]), packets[300:], strict=True))[15:]:
        assert abs(stamp - captured) < 10 * MS
        assert stamp <= arrived


def test_packets_that_waited_to_be_read_say_nothing_about_the_way() -> None:
    packets = stream([30 * MS] * 40)
    clock = CaptureClock()
    stamps(clock, packets[:20], told_error_ns=0)
    clock.connected()
    for pts, _, _ in packets[20:30]:
        clock.arrived(pts, packets[30][2], None)
    clock.arrived(packets[30][0], packets[30][2], None)
    clock.caught_up()
    assert stamps(clock, packets[31:]) == [captured for _, captured, _ in packets[31:]]
