"""What smooth.vibe's network is trained and judged on."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install 'posepipe[train]'")

from posepipe.engines.models.vibe.smooth import WINDOW
from posepipe.launch.training_vibe import LENGTH, Judge, Sequences, batches
from posepipe.pipeline.packet import F32


def still(people: int = 6) -> Sequences:
    """People who walk along x at 1 m/s and are seen 10 mm above where they are."""
    rng = np.random.default_rng(1)
    joints = np.repeat(rng.normal(0, 0.4, (people, 1, 17, 3)), LENGTH, axis=1).astype(np.float32)
    joints[..., 0] += np.arange(LENGTH, dtype=np.float32)[None, :, None] / 30
    seen = joints + np.array([0, 0, 0.01], np.float32)
    sigma, conf = (np.full(joints.shape[:3], x, np.float32) for x in (0.02, 0.7))
    six = np.tile(np.eye(3, dtype=np.float32)[:, :2].reshape(6), (people, LENGTH, 24, 1))
    return Sequences(seen, sigma, conf, joints, six, joints[:, :, 0], np.zeros((people, 16), np.float32), np.full(people, 30, np.float32))


def test_batches_are_the_same_by_seed_and_true_to_their_sequence() -> None:
    drawn = still()
    one, again = (next(batches(drawn, seed=4, size=20)) for _ in range(2))
    assert np.array_equal(one.xyz_m, again.xyz_m)
    count = len(one.joints_m)
    assert one.xyz_m.shape == (count + WINDOW - 1, 20, 17, 3)
    off = np.linalg.norm(one.xyz_m[:count] - one.joints_m, axis=-1)
    assert 0.0025 <= np.median(off) <= 0.0101
    rate = np.diff(one.t_s[:count], axis=0) * 30
    assert (rate >= 0.9).all()
    walked = np.diff(one.joints_m[..., 0, 0], axis=0) * 30
    assert walked == pytest.approx(rate, abs=0.02)
    assert set(np.unique(one.ahead)) <= set(range(WINDOW))
    assert (one.ahead == 0).any()


def test_things_happen_to_what_is_seen_but_not_to_the_truth() -> None:
    drawn, gaps, jumps, halves = still(), 0, 0, 0
    feed = batches(drawn, seed=5, size=40)
    for _ in range(5):
        batch = next(feed)
        count = len(batch.joints_m)
        gaps += int((batch.conf == 0).any(axis=(0, 2)).sum())
        jumps += int((np.linalg.norm(batch.xyz_m[:count] - batch.joints_m, axis=-1) > 0.1).any(axis=(0, 2)).sum())
        halves += int((np.ptp(np.diff(batch.t_s, axis=0), axis=0) > 0.02).sum())
    assert 60 < gaps < 190
    assert 5 < jumps < 80
    assert 5 < halves < 80
    assert np.array_equal(drawn.joints_m, still().joints_m)


def test_key_points_that_lie_elsewhere_are_seen_and_wanted_there() -> None:
    drawn, elsewhere, calmer = still(), 0, 0
    begin = drawn.joints_m[:, 0] - drawn.joints_m[:, 0].mean(axis=1, keepdims=True)
    feed = batches(drawn, seed=6, size=40)
    for _ in range(5):
        batch = next(feed)
        count = len(batch.joints_m)
        for n in range(40):
            body = min(begin, key=lambda b: np.linalg.norm(b - batch.joints_m[0, n] + batch.joints_m[0, n].mean(axis=0)))
            lies = batch.joints_m[0, n] - batch.root_m[0, n] - (body - body[0])
            assert np.std(lies - batch.apart_m[n], axis=0).max() < 0.02, "what is remembered is nearly how they lie"
            elsewhere += np.abs(lies).max() > 0.001
            seen = np.linalg.norm(batch.xyz_m[:count, n] - batch.joints_m[:, n], axis=-1)
            calmer += np.median(seen) < 0.0095
        assert not batch.known.all()
        assert batch.known.any()
    assert 30 < elsewhere < 110
    assert 30 < calmer < 120


def test_the_judge_gives_millimetres_and_sees_gaps() -> None:
    judge = Judge(still(), seed=1)

    def seen(state: F32, window: F32, after_s: F32) -> tuple[F32, ...]:
        """What is seen; what is not seen is where it was last."""
        last = state.reshape(len(state), 17, 3)
        now = np.where(window[:, 0, :, 4:] > 0, window[:, 0, :, :3], last)
        return now, now[..., 0], now.reshape(len(state), -1)

    scores = judge(seen, 51)
    assert scores["error, 0 ahead"] == pytest.approx(10, abs=0.1)
    assert scores["acceleration, 0 ahead"] == pytest.approx(0, abs=0.1)
    assert scores["in gaps"] == pytest.approx(np.hypot(10, 1000 / 30 * 5), rel=0.1)
