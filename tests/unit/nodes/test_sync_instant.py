"""Frames of the same moment become one instant, never later than promised, and every frame leaves once: in an instant or dropped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from node_kit import CAMERAS, MS, T0_NS, Studio, caps, frame

from posepipe.nodes.sync_instant import SyncInstant
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Caps
from posepipe.pipeline.packet import FrameSet

PERIOD_NS = 33_333_333


class Sync:
    """A sync.instant with its clock in the hand of the test."""

    def __init__(self, cameras: tuple[str, ...] = CAMERAS, *, offline: bool = False, fed_by: tuple[str, ...] = (), **settings: Any) -> None:
        self.studio = Studio(cameras)
        self.node = SyncInstant(SyncInstant.Settings(**{"min_views": 2, **settings}))
        self.node.open(self.studio.context(offline=offline, caps=caps("frame", cameras=fed_by or cameras)))

    def take(self, camera: str, seq: int, *, ms: float = 0.0) -> list[FrameSet]:
        """The frame `seq` of a camera, `ms` off its time."""
        return self.node.step(frame(camera, seq, T0_NS + seq * PERIOD_NS + int(ms * MS)))

    def at(self, ms: float) -> list[FrameSet]:
        """What leaves by itself once it is `ms` after the start."""
        self.studio.now_ns = T0_NS + int(ms * MS)
        wake = self.node.wake_ns()
        return self.node.on_time(self.studio.now_ns) if wake is not None and wake <= self.studio.now_ns else []


def whole(out: list[FrameSet]) -> FrameSet:
    (only,) = out
    return only


def test_an_instant_leaves_when_it_is_complete() -> None:
    sync = Sync()
    assert [sync.take(c, 0) for c in CAMERAS[:3]] == [[], [], []]
    instant = whole(sync.take("west", 0))
    assert (instant.seq, instant.t_capture_ns, tuple(instant.frames)) == (0, T0_NS, CAMERAS)
    assert (instant.sync.skew_ns, instant.sync.views, instant.sync.missing) == (0, (0, 1, 2, 3), ())
    assert sync.node.wake_ns() is None
    assert sync.studio.dropped == []


def test_frames_stand_in_the_order_of_the_cameras_whatever_came_first() -> None:
    sync = Sync()
    for camera in ("south", "west", "north"):
        sync.take(camera, 0)
    assert tuple(whole(sync.take("east", 0)).frames) == CAMERAS


def test_skew_and_median() -> None:
    sync = Sync(window_ms=8)
    for camera, ms in zip(CAMERAS[:3], (0, 1, 5), strict=True):
        sync.take(camera, 0, ms=ms)
    instant = whole(sync.take("west", 0, ms=2.5))
    assert instant.sync.skew_ns == 5 * MS
    assert instant.t_capture_ns == T0_NS + int(1.75 * MS)


def test_the_median_is_exact_to_the_nanosecond() -> None:
    sync = Sync(("north", "east"))
    sync.node.step(frame("north", 0, T0_NS + 1))
    assert whole(sync.node.step(frame("east", 0, T0_NS + 4))).t_capture_ns == T0_NS + 2
    odd = Sync(("north", "east", "south"))
    for camera, t_ns in (("north", T0_NS + 7), ("east", T0_NS + 1)):
        odd.node.step(frame(camera, 0, t_ns))
    assert whole(odd.node.step(frame("south", 0, T0_NS + 3))).t_capture_ns == T0_NS + 3


@pytest.mark.parametrize(("ms", "together"), [(7.9, True), (8.0, True), (8.1, False), (-8.0, True), (-8.1, False)])
def test_the_window(ms: float, together: bool) -> None:
    sync = Sync(("north", "east"), min_views=1, window_ms=8)
    assert sync.take("north", 1) == []
    out = sync.take("east", 1, ms=ms)
    assert [len(i.frames) for i in out] == ([2] if together else [1]), "apart, the earlier one leaves: the other camera has moved past it"


def test_a_late_camera_is_waited_for_no_longer_than_promised() -> None:
    sync = Sync(wait_ms=20)
    sync.studio.now_ns = T0_NS + 5 * MS
    for camera in CAMERAS[:3]:
        sync.take(camera, 0)
        sync.studio.now_ns += MS
    assert sync.node.wake_ns() == T0_NS + 25 * MS, "counted from the arrival of the first frame"
    assert sync.at(24.9) == []
    instant = whole(sync.at(25))
    assert (instant.seq, instant.sync.views, instant.sync.missing) == (0, (0, 1, 2), (3,))
    assert sync.take("west", 0) == []
    assert sync.studio.dropped == [((("west", 0),), "late: its instant had left")]


def test_a_camera_that_has_moved_on_is_not_waited_for() -> None:
    sync = Sync()
    for camera in CAMERAS[:3]:
        sync.take(camera, 0)
    instant = whole(sync.take("west", 1))
    assert (instant.seq, instant.sync.missing) == (0, (3,))
    for camera in CAMERAS[:2]:
        sync.take(camera, 1)
    assert whole(sync.take("south", 1)).sync.missing == ()


def test_a_camera_that_has_ended_is_not_waited_for() -> None:
    sync = Sync()
    for camera in CAMERAS[:3]:
        sync.take(camera, 0)
    instant = whole(sync.node.on_end("capture/west"))
    assert instant.sync.missing == (3,)
    for camera in CAMERAS[:2]:
        sync.take(camera, 1)
    assert whole(sync.take("south", 1)).sync.missing == (3,)


def test_a_camera_that_is_silent_for_fifteen_instants_is_not_waited_for_until_it_is_back() -> None:
    sync = Sync(wait_ms=20)
    for seq in range(15):
        assert [sync.take(camera, seq) for camera in CAMERAS[:3]] == [[], [], []], "waited for"
        assert whole(sync.at(seq * 34 + 1000)).sync.missing == (3,)
    assert [sync.take(camera, 15) for camera in CAMERAS[:2]] == [[], []]
    assert whole(sync.take("south", 15)).sync.missing == (3,), "at once"
    assert sync.take("west", 15) == [], "it is back, late"
    assert [sync.take(camera, 16) for camera in CAMERAS[:3]] == [[], [], []], "waited for again"
    assert whole(sync.take("west", 16)).sync.missing == ()


def test_a_camera_that_is_always_late_but_there_is_waited_for() -> None:
    sync = Sync(wait_ms=20)
    for seq in range(40):
        assert [sync.take(camera, seq) for camera in CAMERAS[:3]] == [[], [], []]
        assert whole(sync.at(seq * 34 + 1000)).sync.missing == (3,)
        assert sync.take("west", seq) == []


def test_offline_a_silent_camera_is_waited_for_until_it_comes_or_ends() -> None:
    sync = Sync(offline=True)
    for seq in range(40):
        assert [out for camera in CAMERAS[:3] for out in sync.take(camera, seq)] == []
    assert [i.seq for i in sync.node.on_end("capture/west")] == list(range(40))


def test_the_end_of_all_cameras_empties_it() -> None:
    sync = Sync(wait_ms=1000)
    for seq in range(3):
        sync.take("north", seq)
        sync.take("south", seq)
    left = [instant for camera in CAMERAS for instant in sync.node.on_end(f"capture/{camera}")]
    assert [i.seq for i in left] == [0, 1, 2]
    assert sync.node.wake_ns() is None


def test_only_the_cameras_that_feed_it_are_waited_for() -> None:
    sync = Sync(CAMERAS, fed_by=("east", "west"))
    sync.take("east", 0)
    instant = whole(sync.take("west", 0))
    assert (instant.cameras, instant.sync.views, instant.sync.missing) == (CAMERAS, (1, 3), ())


def test_instants_leave_in_order() -> None:
    sync = Sync(wait_ms=20)
    sync.take("north", 0)
    sync.take("east", 0)
    for camera in ("north", "east", "south"):
        assert sync.take(camera, 1) == []
    out = sync.take("west", 1)
    assert [(i.seq, i.sync.missing) for i in out] == [(0, (2, 3)), (1, ())], (
        "the complete one waits for the one before it, and ends its wait"
    )


def test_an_instant_whose_time_is_up_takes_those_before_it_along() -> None:
    sync = Sync(wait_ms=20, min_views=1)
    sync.take("north", 1)
    sync.take("east", 1)
    sync.studio.now_ns = T0_NS + 15 * MS
    sync.take("south", 0)
    assert [(i.seq, i.sync.views) for i in sync.at(20)] == [(0, (2,)), (1, (0, 1))]
    assert sync.node.wake_ns() is None


def test_two_frames_of_one_camera_in_one_window_are_two_instants() -> None:
    sync = Sync(("north", "east"), min_views=1, window_ms=8)
    sync.node.step(frame("north", 0, T0_NS))
    sync.node.step(frame("north", 1, T0_NS + 5 * MS))
    out = sync.node.on_end("capture/north") + sync.node.on_end("capture/east")
    assert [i.frame_ids for i in out] == [(("north", 0),), (("north", 1),)]
    assert sync.studio.dropped == []


# too few views ----------------------------------------------------------------------------------------------------------------


def test_too_few_views_are_dropped_and_the_number_is_not_used_again() -> None:
    sync = Sync(wait_ms=20, min_views=2)
    sync.take("north", 0)
    assert sync.at(25) == []
    assert sync.studio.dropped == [((("north", 0),), "too few views")]
    for camera in CAMERAS[:3]:
        sync.take(camera, 1)
    assert whole(sync.take("west", 1)).seq == 1


def test_cameras_that_never_meet_are_told_once() -> None:
    sync = Sync(("north", "east"), window_ms=2, wait_ms=5)
    for seq in range(100):
        sync.take("north", seq)
        sync.take("east", seq, ms=15)
    (warning,) = sync.studio.warnings
    assert re.fullmatch(
        r"node: 60 instants in a row had fewer than min_views=2 cameras within window_ms=2; "
        r"the cameras' newest frames lie (15|18)\.\d ms apart: are they synced\?",
        warning,
    )


def test_more_views_than_cameras_are_refused() -> None:
    settings = SyncInstant.Settings(min_views=3)
    SyncInstant.check(settings, {"frame": Caps(cameras=("a", "b", "c"))})
    with pytest.raises(GraphError, match=r"min_views is 3, but only 2 cameras come in: a, b\n  -> min_views: 2 or fewer"):
        SyncInstant.check(settings, {"frame": Caps(cameras=("a", "b"))})
    with pytest.raises(GraphError, match="min_views is 2, but only 1 camera comes in: a"):
        SyncInstant.check(SyncInstant.Settings(), {"frame": Caps(cameras=("a",))})


# numbers ----------------------------------------------------------------------------------------------------------------------


def run(sync: Sync, frames: Mapping[str, Iterable[int]]) -> list[int]:
    """The numbers of the instants that come of these frames, which arrive in the order of time; then the cameras end."""
    seqs = sorted((seq, CAMERAS.index(camera), camera) for camera, all_ in frames.items() for seq in all_)
    out = [i.seq for seq, _, camera in seqs for i in sync.take(camera, seq)]
    return out + [i.seq for camera in CAMERAS for i in sync.node.on_end(f"capture/{camera}")]


def test_numbers_follow_the_cameras_counters() -> None:
    assert run(Sync(), dict.fromkeys(CAMERAS, range(10))) == list(range(10))


def test_an_instant_that_no_camera_delivered_leaves_a_gap() -> None:
    assert run(Sync(), dict.fromkeys(CAMERAS, (0, 1, 4, 5))) == [0, 1, 4, 5]


def test_one_camera_with_losses_makes_no_gap() -> None:
    frames = {**dict.fromkeys(CAMERAS, range(8)), "south": (0, 3, 4, 7)}
    assert run(Sync(), frames) == list(range(8))


def test_a_camera_whose_counter_starts_elsewhere_makes_no_gap() -> None:
    sync = Sync(("north", "east"))
    seqs = []
    for i in range(5):
        sync.node.step(frame("north", i, T0_NS + i * PERIOD_NS))
        seqs += [s.seq for s in sync.node.step(frame("east", 1000 + 3 * i, T0_NS + i * PERIOD_NS))]
    assert seqs == [0, 1, 2, 3, 4]


# offline ----------------------------------------------------------------------------------------------------------------------


def test_offline_nothing_is_late() -> None:
    sync = Sync(offline=True, wait_ms=0)
    for camera in CAMERAS[:3]:
        sync.take(camera, 0)
    assert sync.node.wake_ns() is None
    assert len(whole(sync.take("west", 0)).frames) == 4


# the certificate --------------------------------------------------------------------------------------------------------------


def certified(sync: Sync, off_ms: Mapping[str, float], *, seqs: range, ppm: Mapping[str, float] | None = None) -> list[FrameSet]:
    """Instants of cameras that are off by so much, some of which drifts."""
    out = []
    for seq in seqs:
        for camera, ms in off_ms.items():
            drift_ms = (ppm or {}).get(camera, 0) * 1e-6 * seq * PERIOD_NS / MS
            out += sync.take(camera, seq, ms=ms + drift_ms)
    return out


def test_every_instant_carries_the_certificate() -> None:
    sync = Sync(window_ms=20)
    out = certified(sync, {"north": 0, "east": 2, "south": -1, "west": 0.5}, seqs=range(400), ppm={"east": 21})
    begin, end = out[0].sync, out[-1].sync
    assert (begin.offset_ms, begin.drift_ppm, begin.complete) == ((None,) * 4,) * 3, "a second is needed for the first"
    assert end.offset_ms == (-0.25, pytest.approx(1.75 + 0.268, abs=0.003), -1.25, 0.25)
    assert end.drift_ppm == (0.0, pytest.approx(21, abs=0.1), 0.0, 0.0)
    assert end.complete == (1.0, 1.0, 1.0, 1.0)
    assert "-0.0" not in repr(end), "zero has no sign on the wire"


def test_the_certificate_has_a_place_for_every_camera_of_the_studio() -> None:
    sync = Sync(CAMERAS, fed_by=("west", "east"), window_ms=20)
    end = certified(sync, {"east": 2, "west": 0}, seqs=range(150))[-1].sync
    assert end.offset_ms == (None, 1.0, None, -1.0)
    assert end.complete == (None, 1.0, None, 1.0)
    np.testing.assert_allclose(sync.node.certificate.offset_ms, (-1, 1))


def test_a_camera_that_drifts_out_of_the_window_is_told_before_it_does() -> None:
    sync = Sync(window_ms=8)
    out = certified(sync, dict.fromkeys(CAMERAS, 0), seqs=range(3000), ppm={"south": 60})
    early, late = sync.studio.warnings
    assert early.startswith("node: camera south: drifts against the other cameras by 60.0 ppm (sd 0.")
    assert re.search(r"0\.[78] ms off now, past half of window_ms=8 in 0\.9 min\n  -> lock the shutters", early)
    assert re.match(r"node: camera south: 4\.[12] ms off the other cameras, past half of window_ms=8", late)
    assert all(i.sync.missing == () for i in out), "said while all frames still meet"


def test_a_camera_that_is_often_missing_is_told_and_one_that_has_ended_is_not() -> None:
    sync = Sync()
    certified(sync, dict.fromkeys(CAMERAS, 0), seqs=range(60))
    sync.node.on_end("capture/west")
    for seq in range(60, 600):
        for camera in CAMERAS[:3]:
            if camera != "south" or seq % 5:
                sync.take(camera, seq)
    (warning,) = sync.studio.warnings
    assert warning.startswith("node: camera south: in 8")
    assert "% of the instants of the last ten seconds\n  -> is it on" in warning


# in any order -----------------------------------------------------------------------------------------------------------------


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[str, int, int, int]]:
    """(camera, seq, capture ns, arrival ns): losses, jitter within the window, transport delays; in order of arrival."""
    out = []
    for camera in CAMERAS[: draw(st.integers(2, 4))]:
        arrived = T0_NS
        for seq in range(draw(st.integers(0, 8))):
            if draw(st.integers(0, 4)) == 0:
                continue
            captured = T0_NS + seq * PERIOD_NS + draw(st.integers(-3 * MS, 3 * MS))
            arrived = max(arrived, captured + draw(st.integers(0, 60 * MS)))  # a camera's frames arrive in their order
            out.append((camera, seq, captured, arrived))
    return sorted(out, key=lambda a: a[3])


@given(arrivals(), st.integers(0, 50), st.integers(1, 3))
def test_every_frame_leaves_once_and_instants_are_in_order(came: list[tuple[str, int, int, int]], wait_ms: int, min_views: int) -> None:
    sync = Sync(wait_ms=wait_ms, min_views=min_views, window_ms=8)
    out: list[FrameSet] = []
    for camera, seq, captured, arrived in came:
        while (wake := sync.node.wake_ns()) is not None and wake < arrived:
            sync.studio.now_ns = wake
            out += sync.node.on_time(wake)
            assert sync.node.wake_ns() != wake, "the time that it asked for is used"
        sync.studio.now_ns = arrived
        out += sync.node.step(frame(camera, seq, captured))
    for camera in CAMERAS:
        out += sync.node.on_end(f"capture/{camera}")
    emitted = [f for i in out for f in i.frame_ids]
    lost = [f for ids, _ in sync.studio.dropped for f in ids]
    assert sorted(emitted + lost) == sorted((camera, seq) for camera, seq, _, _ in came)
    assert [i.seq for i in out] == sorted({i.seq for i in out})
    assert [i.t_capture_ns for i in out] == sorted(i.t_capture_ns for i in out)
    for i in out:
        assert i.sync.skew_ns <= 16 * MS
        assert len(i.frames) >= min_views
        assert len({seq for _, seq in i.frame_ids}) == 1, "frames of different moments are never one instant"
        assert sorted(i.sync.views + i.sync.missing) == [0, 1, 2, 3]
