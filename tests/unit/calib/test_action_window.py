"""Skeletons on a fixed time base, and windows of them that say nothing of place, direction and size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.calib.action_window import GAP_NS, JOINTS, MIRRORED, TICK_NS, TICKS, Windows, _advance, inputs, joints_in, resampled
from posepipe.pipeline.skeleton import BLAZEPOSE33, SKELETONS
from tests.people import standing

STANDING = standing()[joints_in(BLAZEPOSE33)].astype(np.float32)
HIPS = [JOINTS.index("left_hip"), JOINTS.index("right_hip")]
SECOND = 1_000_000_000


def moving(times_ns: Any) -> Any:
    """A person [N,13,3] whose every joint goes its own steady way."""
    speed = np.linspace(-1, 1, 39).reshape(13, 3)
    return (STANDING + (np.asarray(times_ns) / SECOND)[:, None, None] * speed).astype(np.float32)


def test_all_layouts_have_the_joints_and_a_mirror_exchanges_sides() -> None:
    for layout in SKELETONS.values():
        assert [layout.joints[j] for j in joints_in(layout)] == list(JOINTS)
    for name, mirrored in zip(JOINTS, MIRRORED, strict=True):
        assert JOINTS[mirrored].partition("_")[2] == name.partition("_")[2]
        assert (JOINTS[mirrored] == name) == (name == "nose")


@given(rate_hz=st.floats(8, 120), phase_ns=st.integers(0, TICK_NS), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_steady_movement_is_the_same_at_every_rate(rate_hz: float, phase_ns: int, seed: int) -> None:
    jitter = np.random.default_rng(seed).uniform(-0.2, 0.2, 200) / rate_hz
    times = np.sort(((np.arange(200) / rate_hz + jitter) * SECOND).astype(np.int64) + phase_ns + SECOND)
    xyz, seen, first = resampled(moving(times), np.ones((200, 13), np.bool_), times)
    assert seen.all()
    assert xyz == pytest.approx(moving((first + np.arange(len(xyz))) * TICK_NS), abs=2e-5)
    assert first * TICK_NS - TICK_NS < times[0] <= first * TICK_NS
    assert (first + len(xyz) - 1) * TICK_NS <= times[-1] < (first + len(xyz)) * TICK_NS


def test_live_windows_are_the_same_as_the_recording() -> None:
    times = SECOND + np.cumsum(np.random.default_rng(1).integers(8_000_000, 60_000_000, 120))
    seen = np.random.default_rng(2).random((120, 13)) > 0.2
    xyz = np.where(seen[..., None], moving(times), np.float32(np.nan))
    whole, whole_seen, _ = resampled(xyz, seen, times)
    windows = Windows(forget_ns=SECOND)
    for k in range(120):
        rows, new = windows.push([5], xyz[k : k + 1], seen[k : k + 1], int(times[k]))
        assert new.tolist() == [k == 0]
        assert windows.tick[rows].tolist() == [times[k] // TICK_NS]
    assert windows.xyz_m[rows[0]] == pytest.approx(whole[-TICKS:], abs=1e-6)
    assert (windows.seen[rows[0]] == whole_seen[-TICKS:]).all()
    assert not np.isnan(whole).any()


def test_a_tick_without_instants_near_is_missing_and_one_side_is_enough_if_it_is_the_nearer() -> None:
    times = np.array([0, TICK_NS // 3, 10 * TICK_NS + TICK_NS // 2, 11 * TICK_NS + TICK_NS // 4])
    seen = np.ones((4, 13), np.bool_)
    seen[2, 0] = seen[3, 1] = False
    _, there, _ = resampled(moving(times), seen, times)
    assert 10 * TICK_NS > GAP_NS
    assert there[0].all()
    assert not there[1:11].any()
    assert there[11].tolist() == [True, False] + [True] * 11  # the nearer instant lacks the second joint
    seen[2:, 0] = False
    assert not resampled(moving(times), seen, times)[1][11, 0]


def test_times_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="times do not rise"):
        resampled(moving([0, 0]), np.ones((2, 13), np.bool_), np.array([7, 7]))


@given(angle=st.floats(-3.1, 3.1), x=st.floats(-5, 5), y=st.floats(-5, 5), size=st.floats(0.6, 1.4))
@settings(max_examples=40, deadline=None)
def test_place_direction_and_size_make_no_difference(angle: float, x: float, y: float, size: float) -> None:
    times = np.arange(TICKS) * TICK_NS
    xyz, seen = moving(times)[None], np.random.default_rng(3).random((1, TICKS, 13)) > 0.1
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]], np.float32)
    elsewhere = (np.float32(size) * xyz @ turn.T + np.array([x, y, 0.3], np.float32)).astype(np.float32)
    assert inputs(elsewhere, seen) == pytest.approx(inputs(xyz, seen), abs=2e-3)


def test_channels_are_what_they_are_said_to_be() -> None:
    xyz = np.repeat(STANDING[None, None], TICKS, axis=1)
    xyz[0, :, :, 1] += np.arange(TICKS)[:, None] * 0.1  # walks the way it faces
    seen = np.ones((1, TICKS, 13), np.bool_)
    seen[0, 5, 0] = False
    out = inputs(xyz, seen)
    assert out[0, :, HIPS, :3].mean(axis=0) == pytest.approx(np.zeros((TICKS, 3)), abs=1e-5)
    size = out[0, 0, JOINTS.index("nose"), 2] / (STANDING[JOINTS.index("nose"), 2] - STANDING[HIPS, 2].mean())
    assert 0.7 < size < 1.4
    assert out[0, 1:5, 0, 3:6] == pytest.approx(np.tile([0.1 * 15 * 0.3 * size, 0, 0], (4, 1)), abs=1e-4)
    assert out[0, 0, 0, 1] > 0  # the left wrist is to the left
    assert (out[0, 5, 0] == 0).all()
    assert out[0, 6, 0, 3:].tolist() == [0, 0, 0, 1]
    assert (out[0, 0, :, 3:6] == 0).all()


def test_sides_exchanged_for_moments_do_not_turn_the_body_and_a_body_without_hips_hangs_on_its_shoulders() -> None:
    xyz = np.repeat(STANDING[None, None], TICKS, axis=1)
    seen = np.ones((1, TICKS, 13), np.bool_)
    straight = inputs(xyz, seen)
    xyz[0, 8:11] = xyz[0, 8:11][:, list(MIRRORED)]
    assert inputs(xyz, seen)[0, :8] == pytest.approx(straight[0, :8], abs=1e-5)
    seen[:, :, HIPS] = False
    hanging = inputs(xyz, seen)[0, 0, JOINTS.index("left_wrist"), :3]
    assert hanging == pytest.approx(straight[0, 0, JOINTS.index("left_wrist"), :3], abs=0.15)


def test_nothing_seen_is_all_zeros() -> None:
    assert not inputs(np.zeros((2, TICKS, 13, 3), np.float32), np.zeros((2, TICKS, 13), np.bool_)).any()


def test_a_head_alone_has_no_place_and_gives_nothing() -> None:
    seen = np.zeros((1, TICKS, 13), np.bool_)
    seen[:, :, JOINTS.index("nose")] = True
    assert not inputs(np.repeat(STANDING[None, None], TICKS, axis=1), seen).any()


def test_after_a_long_pause_within_the_time_of_memory_the_past_has_moved_out() -> None:
    windows = Windows(forget_ns=10 * SECOND)
    seen = np.ones((1, 13), np.bool_)
    for k in range(60):
        windows.push([1], STANDING[None], seen, SECOND + k * TICK_NS // 2)
    rows, new = windows.push([1], STANDING[None], seen, 6 * SECOND + 7)
    assert new.tolist() == [False]
    assert not windows.seen[rows[0]].any()


def test_rows_of_the_forgotten_are_used_again_and_are_empty() -> None:
    windows = Windows(forget_ns=SECOND)
    seen = np.ones((2, 13), np.bool_)
    two = np.stack([STANDING, STANDING])
    for k in range(30):
        windows.push([1, 2], two, seen, SECOND + k * TICK_NS)
    rows, new = windows.push([3, 4, 5], np.stack([STANDING] * 3), np.ones((3, 13), np.bool_), 9 * SECOND + 3)
    assert len(windows) == 3
    assert sorted(rows.tolist()) == [0, 1, 2]
    assert new.all()
    assert not windows.seen[rows].any()


def test_a_caller_with_another_memory_order_does_not_have_the_kernel_compiled_in_the_middle_of_a_run() -> None:
    windows = Windows(forget_ns=SECOND)
    two, seen = np.stack([STANDING, STANDING]), np.ones((2, 13), np.bool_)
    windows.push([1, 2], two, seen, SECOND)
    known = len(_advance.signatures)  # type: ignore[attr-defined]
    windows.push([1, 2], np.asfortranarray(two), np.asfortranarray(seen), SECOND + TICK_NS)
    assert len(_advance.signatures) == known  # type: ignore[attr-defined]
