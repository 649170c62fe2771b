"""Every measure against what it must be for errors that are known, and against a slow plain version of itself."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.calib import metrics

Array = np.ndarray[Any, Any]
seeds = st.integers(0, 2**32 - 1)


def poses(seed: int, *, n: int = 4, joints: int = 12, missing: float = 0.0) -> Array:
    rng = np.random.default_rng(seed)
    xyz = rng.normal(0, 0.5, (n, joints, 3)) + rng.normal(0, 3, (n, 1, 3))
    xyz[rng.random((n, joints)) < missing] = np.nan
    return xyz


def rotation(rng: np.random.Generator) -> Array:
    q = rng.normal(size=4)
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@given(seeds, st.tuples(*[st.floats(-5, 5)] * 3))
def test_a_shift_costs_its_length_and_nothing_from_the_hips(seed: int, shift: tuple[float, float, float]) -> None:
    truth = poses(seed)
    estimate = truth + np.array(shift)
    np.testing.assert_allclose(metrics.distances(estimate, truth), np.linalg.norm(shift), atol=1e-12)
    np.testing.assert_allclose(metrics.distances(metrics.centred(estimate, [6, 7]), metrics.centred(truth, [6, 7])), 0, atol=1e-12)
    np.testing.assert_allclose(metrics.distances(metrics.aligned(estimate, truth), truth), 0, atol=1e-9)


@given(seeds, st.floats(0.05, 20), st.floats(0, 0.5))
def test_a_similarity_is_undone_by_alignment_also_with_joints_missing(seed: int, scale: float, missing: float) -> None:
    rng, truth = np.random.default_rng(seed), poses(seed, missing=missing)
    estimate = scale * truth @ rotation(rng).T + rng.normal(size=3)
    off = metrics.distances(metrics.aligned(estimate, truth), truth)
    enough = np.isfinite(truth[..., 0]).sum(1) >= 3
    assert np.nanmax(off[enough], initial=0.0) < 1e-6
    assert np.isnan(off[~enough]).all()
    assert (np.isnan(off[enough]) == np.isnan(truth[enough, :, 0])).all()


@given(seeds)
def test_a_mirrored_skeleton_is_not_aligned_away(seed: int) -> None:
    truth = poses(seed)
    mirrored = truth * np.array([-1.0, 1.0, 1.0])
    assert (metrics.mean_known(metrics.distances(metrics.aligned(mirrored, truth), truth)) > 0.01).all()


@given(seeds)
def test_no_other_similarity_comes_nearer_than_the_aligned_skeleton(seed: int) -> None:
    """In the sum of squares, which is what alignment minimises."""
    rng, truth = np.random.default_rng(seed), poses(seed, n=1)
    estimate = truth + rng.normal(0, 0.1, truth.shape)
    best = metrics.aligned(estimate, truth)
    squares = (metrics.distances(best, truth) ** 2).sum()
    for _ in range(20):
        centre, small = best.mean(axis=1), rng.normal(0, 0.03, 3)
        skew = np.array([[0, -small[2], small[1]], [small[2], 0, -small[0]], [-small[1], small[0], 0]])
        turn = np.linalg.svd(np.eye(3) + skew)
        moved = (best - centre) @ (turn[0] @ turn[2]).T * (1 + rng.normal(0, 0.03)) + centre + rng.normal(0, 0.02, 3)
        assert (metrics.distances(moved, truth) ** 2).sum() >= squares - 1e-12


def test_joints_in_one_point_have_no_similarity() -> None:
    truth = poses(1, n=1)
    assert np.isnan(metrics.aligned(np.ones_like(truth), truth)).all()


def test_a_missing_hip_takes_the_view_from_the_hips_away() -> None:
    truth = poses(2, n=2)
    truth[0, 6] = np.nan
    seen = metrics.centred(truth, [6, 7])
    assert np.isnan(seen[0]).all()
    assert np.isfinite(seen[1]).all()


def plainly_assigned(cost: Array, limit: float) -> tuple[int, float]:
    """Most pairs below the limit, and the smallest sum of so many, by trying everything."""
    best = (0, 0.0)
    rows, columns = cost.shape
    for count in range(1, min(rows, columns) + 1):
        for chosen in itertools.combinations(range(rows), count):
            for taken in itertools.permutations(range(columns), count):
                parts = cost[list(chosen), list(taken)]
                if (parts < limit).all() and (count > best[0] or parts.sum() < best[1]):
                    best = (count, float(parts.sum()))
    return best


@settings(max_examples=150)
@given(seeds, st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.2, 0.5, 1.0]), st.booleans())
def test_people_are_assigned_as_if_everything_had_been_tried(seed: int, rows: int, columns: int, limit: float, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    cost = rng.integers(0, 4, (rows, columns)) / 4.0 if ties else rng.random((rows, columns))
    cost[rng.random(cost.shape) < 0.2] = np.nan
    pairs = metrics.assign(cost, limit)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(cost[i, j] < limit for i, j in pairs)
    count, total = plainly_assigned(cost, limit)
    assert len(pairs) == count
    assert sum(cost[i, j] for i, j in pairs) == pytest.approx(total)


@given(seeds, st.integers(1, 9))
def test_a_permuted_crowd_is_sorted_out(seed: int, crowd: int) -> None:
    order = np.random.default_rng(seed).permutation(crowd)
    apart = np.abs(order[:, None] - np.arange(crowd)[None]) * 1.0
    assert metrics.assign(apart, 0.5) == list(enumerate(order.tolist()))


@given(seeds, st.floats(0, 0.6))
def test_correct_key_points_are_those_within_the_distance_and_missing_ones_are_wrong(seed: int, missing: float) -> None:
    rng = np.random.default_rng(seed)
    off = rng.exponential(0.08, (5, 12))
    off[rng.random(off.shape) < missing] = np.nan
    thresholds = np.arange(0, 201, 10) / 1e3
    share = metrics.correct_keypoints(off, off.size, thresholds)
    assert share.tolist() == [sum(v <= t for v in off.ravel()) / off.size for t in thresholds]
    assert metrics.area_under(share) == pytest.approx(np.trapezoid(share, thresholds) / thresholds[-1])
    assert metrics.correct_keypoints(off[:0], 0, thresholds).tolist() == [0.0] * len(thresholds)


@given(seeds, st.floats(0, 0.4))
def test_parts_are_correct_within_half_their_length(seed: int, missing: float) -> None:
    rng, truth = np.random.default_rng(seed), poses(seed)
    estimate = truth + rng.normal(0, 0.2, truth.shape)
    estimate[rng.random(estimate.shape[:2]) < missing] = np.nan
    truth[0, 3] = np.nan
    limbs = np.array([[0, 1], [2, 3], [4, 5]])
    correct = metrics.correct_parts(estimate, truth, limbs)
    for n, (k, (a, b)) in itertools.product(range(len(truth)), enumerate(limbs)):
        length = np.linalg.norm(truth[n, a] - truth[n, b])
        if np.isnan(length):
            assert np.isnan(correct[n, k])
            continue
        ends = np.linalg.norm(estimate[n, a] - truth[n, a]), np.linalg.norm(estimate[n, b] - truth[n, b])
        assert correct[n, k] == float(sum(ends) / 2 <= 0.5 * length)


@given(seeds)
def test_constant_velocity_has_no_acceleration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    xyz = poses(seed, n=1) + rng.normal(0, 0.1, (1, 12, 3)) * np.arange(9)[:, None, None]
    assert np.abs(metrics.second_differences(xyz, np.arange(9))).max() < 1e-12


def test_acceleration_errors_are_those_of_the_difference_and_gaps_are_left_out() -> None:
    truth = poses(3, n=1) + 0.5 * 0.01 * np.arange(8.0)[:, None, None] ** 2
    estimate = truth.copy()
    estimate[4, 0, 2] += 0.02
    off = metrics.acceleration_errors(estimate, truth, np.arange(8))
    np.testing.assert_allclose(off[:, 0], [0, 0, 0.02, 0.04, 0.02, 0], atol=1e-12)
    np.testing.assert_allclose(off[:, 1:], 0, atol=1e-12)
    gap = metrics.acceleration_errors(estimate, truth, np.array([0, 1, 2, 3, 5, 6, 7, 8]))
    assert np.isnan(gap[:, 0]).tolist() == [False, False, True, True, False, False]


@given(seeds)
def test_means_are_of_what_is_there(seed: int) -> None:
    values = poses(seed, missing=0.5)[..., 0]
    for row, mean in zip(values, metrics.mean_known(values), strict=True):
        there = [v for v in row if not np.isnan(v)]
        assert (mean == pytest.approx(sum(there) / len(there))) if there else np.isnan(mean)
