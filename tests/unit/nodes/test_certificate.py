"""The sync certificate tells the offsets and drifts that the clocks have, within the uncertainty that it states, or says that it does not know."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sync_kit import Clocks, Watch, against_median

from posepipe.nodes._certificate import KNOWN_MS, KNOWN_PPM

OFFSETS = (0.0, 2.0, -1.0, 0.5)
DRIFTS = (3.0, -20.0, 41.0, 0.0)


@pytest.mark.parametrize("rate_hz", [30, 60, 120, 29.97])
def test_clocks_without_jitter_are_told_exactly(rate_hz: float) -> None:
    clocks = Clocks(OFFSETS, DRIFTS, rate_hz=rate_hz)
    for t_s, c in Watch(4).see(clocks, 40):
        if not np.isnan(c.offset_ms).any():
            np.testing.assert_allclose(c.offset_ms, against_median(clocks.true_ms(t_s)), atol=2e-5)
        if not np.isnan(c.drift_ppm).any():
            np.testing.assert_allclose(c.drift_ppm, against_median(clocks.drift_ppm), atol=0.01)
            np.testing.assert_array_less(c.drift_sd_ppm, 1)
    assert not np.isnan((c.offset_ms, c.drift_ppm)).any()


@pytest.mark.parametrize("rate_hz", [5, 30, 120])
def test_an_offset_takes_three_blocks_and_a_drift_ten(rate_hz: float) -> None:
    """A block is a second, or ten instants where that is longer."""
    seen = [c for _, c in Watch(4).see(Clocks(OFFSETS, DRIFTS, rate_hz=rate_hz), 30)]
    assert [bool(np.isnan(c.offset_ms).all()) for c in seen[:4]] == [True, True, False, False]
    assert [bool(np.isnan(c.drift_ppm).all()) for c in seen[7:12]] == [True, True, False, False, False]


def test_nothing_is_known_before_the_first_block() -> None:
    c = Watch(3).estimator.certificate
    assert all(np.isnan(figures).all() for figures in (c.offset_ms, c.offset_sd_ms, c.drift_ppm, c.drift_sd_ppm, c.complete))


@st.composite
def clocks(draw: st.DrawFn) -> Clocks:
    cameras = draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return Clocks(
        rng.uniform(-3, 3, cameras),
        rng.uniform(-1, 1, cameras) * draw(st.sampled_from([0, 10, 100])),
        rate_hz=draw(st.sampled_from([30, 60, 120])),
        jitter_ms=draw(st.floats(0.02, 2)),
        missing=draw(st.floats(0, 0.2)),
        outliers=draw(st.floats(0, 0.1)),
        seed=draw(st.integers(0, 2**32)),
    )


@settings(max_examples=40)
@given(clocks(), st.integers(5, 40))
def test_estimates_lie_within_their_uncertainty(clocks: Clocks, seconds: int) -> None:
    watch = Watch(len(clocks.offset_ms))
    *_, (t_s, c) = watch.see(clocks, seconds)
    for figure, sd, truth in (
        (c.offset_ms, c.offset_sd_ms, clocks.true_ms(t_s)),
        (c.drift_ppm, c.drift_sd_ppm, clocks.drift_ppm),
    ):
        # Not 6: a deviation of a few blocks is itself uncertain, and where drifting cameras cross, the median is one, then another.
        assert not (np.abs(figure - against_median(truth, figure)) > 10 * sd).any()
    assert not (c.offset_sd_ms > KNOWN_MS).any()
    assert not (c.drift_sd_ppm > KNOWN_PPM).any()


@pytest.mark.parametrize("cameras", [2, 3, 4, 7])
def test_the_uncertainty_is_no_larger_and_no_smaller_than_the_errors(cameras: int) -> None:
    offset, drift = [], []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        clocks = Clocks(rng.uniform(-3, 3, cameras), rng.uniform(-50, 50, cameras), jitter_ms=0.3, missing=0.05, outliers=0.05, seed=seed)
        *_, (t_s, c) = Watch(cameras).see(clocks, 40)
        offset.extend((np.abs(c.offset_ms - against_median(clocks.true_ms(t_s))) / c.offset_sd_ms).tolist())
        drift.extend((np.abs(c.drift_ppm - against_median(clocks.drift_ppm)) / c.drift_sd_ppm).tolist())
    for z in np.array(offset), np.array(drift):
        assert np.mean(z < 2) > 0.9
        assert np.mean(z < 1) > 0.55
        assert np.mean(z < 0.25) < 0.5


def test_a_missing_camera_does_not_move_the_others() -> None:
    """The median of an instant is at 3 ms with all four and at 0 ms without the last; the offsets are the same in both."""
    steady = Clocks((0, 0, 6, 6), (0, 0, 0, 0))
    times_s = np.arange(300) / 30
    off_ms = steady.stamps(times_s)
    off_ms[::2, 3] = np.nan
    *_, (_, c) = Watch(4).feed(times_s, off_ms)
    np.testing.assert_allclose(c.offset_ms, (-3, -3, 3, 3), atol=1e-9)
    np.testing.assert_allclose(c.complete, (1, 1, 1, 0.5), atol=0.05)


@pytest.mark.parametrize("rate_hz", [30, 60, 120])
def test_a_camera_that_restarts_with_another_offset_is_followed(rate_hz: float) -> None:
    watch = Watch(4)
    before = Clocks(OFFSETS, DRIFTS, rate_hz=rate_hz, jitter_ms=0.2, missing=0.02, outliers=0.02)
    after = Clocks((0.0, 2.0, 4.0, 0.5), DRIFTS, rate_hz=rate_hz, jitter_ms=0.2, missing=0.02, outliers=0.02, seed=1)
    told = watch.after(before, 60)
    assert told.drift_ppm[2] == pytest.approx(against_median(before.drift_ppm, told.drift_ppm)[2], abs=5 * told.drift_sd_ppm[2])
    followed = list(watch.see(after, 60))
    for t_s, c in followed:
        if t_s > 60 + 5:
            np.testing.assert_allclose(c.offset_ms, against_median(after.true_ms(t_s), c.offset_ms), atol=0.4)
            assert not (np.abs(c.drift_ppm - against_median(after.drift_ppm, c.drift_ppm)) > 5 * c.drift_sd_ppm).any()
    assert np.isnan(followed[4][1].drift_ppm[2]), "the drift from before the restart is no longer told"
    assert not np.isnan(followed[4][1].drift_ppm[[0, 1, 3]]).any(), "that of the others is"
    assert not np.isnan(c.drift_ppm).any()


@pytest.mark.parametrize("step_ms", [0.0, 0.3, 0.7, 2.0])
@pytest.mark.parametrize("at_s", [15, 40])
def test_a_step_is_no_drift(step_ms: float, at_s: int) -> None:
    """Small enough not to be taken for a restart, it would be many ppm when a line is drawn through it; the stated uncertainty says so."""
    watch = Watch(4)
    watch.after(Clocks((0, 0, 0, 0), (0, 0, 0, 0), jitter_ms=0.5), at_s)
    for _, c in watch.see(Clocks((0, 0, 0, step_ms), (0, 0, 0, 0), jitter_ms=0.5, seed=1), 60):
        assert not (np.abs(c.drift_ppm) > 4 * c.drift_sd_ppm + 1).any()


def test_of_two_cameras_nobody_can_tell_which_one_is_off() -> None:
    """Their distance is told, half of it for each; whether one is early or the other late makes no difference at all."""
    early, late = Clocks((0, 0), (0, 30)), Clocks((4, 4), (-30, 0))
    a, b = Watch(2).after(early, 30), Watch(2).after(late, 30)
    np.testing.assert_allclose(a.offset_ms, b.offset_ms, atol=1e-6)
    np.testing.assert_allclose(a.drift_ppm, (-15, 15), atol=1e-6)
    np.testing.assert_allclose(b.drift_ppm, (-15, 15), atol=1e-6)


def test_when_one_of_two_cameras_restarts_both_are_followed() -> None:
    watch = Watch(2)
    watch.after(Clocks((0, 1), (0, 0), jitter_ms=0.1), 30)
    c = watch.after(Clocks((0, 6), (0, 0), jitter_ms=0.1), 6)
    np.testing.assert_allclose(c.offset_ms, (-3, 3), atol=0.2)


def test_what_all_cameras_do_together_cannot_be_seen() -> None:
    c = Watch(4).after(Clocks((50, 50, 50, 50), (200, 200, 200, 200)), 20)
    np.testing.assert_allclose((*c.offset_ms, *c.drift_ppm), 0, atol=1e-6)


def test_groups_that_never_meet_are_not_compared() -> None:
    times_s = np.arange(600) / 60
    off_ms = np.zeros((600, 4))
    off_ms[::2, 2:] = off_ms[1::2, :2] = np.nan
    *_, (_, c) = Watch(4).feed(times_s, off_ms)
    assert np.isnan(c.offset_ms).all()
    np.testing.assert_allclose(c.complete, 0.5, atol=0.01)


def test_a_camera_that_is_gone_for_ten_seconds_is_not_known_until_it_was_back_for_three() -> None:
    watch = Watch(4)
    here = Clocks(OFFSETS, (0, 0, 0, 0))
    watch.after(here, 15)
    gone = Clocks((*OFFSETS[:3], np.nan), (0, 0, 0, 0))
    away = [c for _, c in watch.see(gone, 13)]
    assert [bool(np.isnan(c.offset_ms[3])) for c in (away[5], away[11])] == [False, True]
    assert not np.isnan(away[11].offset_ms[:3]).any()
    back = [c for _, c in watch.see(here, 6)]
    assert np.isnan(back[1].offset_ms[3])
    np.testing.assert_allclose(back[4].offset_ms, against_median(here.offset_ms), atol=1e-6)


def test_of_a_single_camera_only_the_completeness_is_known() -> None:
    watch = Watch(3)
    for i in range(100):
        watch.estimator.add(i * 100_000_000, [0.0, np.nan, np.nan])
    c = watch.estimator.certificate
    assert np.isnan(c.offset_ms).all()
    assert c.complete.tolist() == [1, 0, 0]


def test_the_completeness_looks_back_on_ten_blocks() -> None:
    watch = Watch(3)
    away, there = Clocks((0, 0, np.nan), (0, 0, 0)), Clocks((0, 0, 0), (0, 0, 0))
    seen = [c for _, c in (*watch.see(away, 9.3), *watch.see(there, 12.4))]  # a block is 31 instants at 30 per second
    assert [c.settled for c in seen] == [False] * 9 + [True] * 12
    assert [round(float(c.complete[2]), 2) for c in seen] == [0] * 9 + [round(0.1 * n, 2) for n in range(1, 10)] + [1, 1, 1]
    assert all(c.complete[:2].tolist() == [1, 1] for c in seen)


def test_after_a_long_pause_it_begins_anew() -> None:
    watch = Watch(3)
    watch.after(Clocks((0, 0, 2), (0, 0, 50)), 30)
    for _ in watch.feed(np.array([5000.0]), np.zeros((1, 3))):
        pass
    times_s = 5001 + np.arange(240) / 30
    *_, (_, c) = watch.feed(times_s, np.tile((1.0, 0.0, -1.0), (240, 1)))
    np.testing.assert_allclose(c.offset_ms, (1, 0, -1), atol=1e-6)
    assert np.isnan(c.drift_ppm).all()


def test_the_figures_are_read_only() -> None:
    c = Watch(2).after(Clocks((0, 1), (0, 0)), 5)
    with pytest.raises(ValueError, match="read-only"):
        c.offset_ms[0] = 1
