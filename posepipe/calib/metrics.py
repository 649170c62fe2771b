"""How far skeletons are from the truth: the measures of the field, on plain arrays.

N person-instants, J joints, metres. A joint that was not seen, or has no truth, is NaN and is left out of a mean; what counts
missing joints as wrong says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F64, I64

_POINTS_OF_A_POSE = 3
Bools = NDArray[np.bool_]


def distances(estimate_m: F64, truth_m: F64) -> F64:
    """[..., J] distance of every joint from its truth (MPJPE is the mean of them)."""
    off: F64 = np.linalg.norm(estimate_m - truth_m, axis=-1)
    return off


def known(xyz_m: F64) -> Bools:
    """[...] whether all three coordinates of a joint [..., 3] are there."""
    there: Bools = np.asarray(np.isfinite(xyz_m).all(axis=-1))
    return there


def mean_known(values: F64) -> F64:
    """Mean over the last axis of what is there; NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(-1)
    mean: F64 = np.where(count > 0, np.where(there, values, 0.0).sum(-1) / np.maximum(count, 1), np.nan)
    return mean


def centred(xyz_m: F64, root: Sequence[int]) -> F64:
    """Skeletons [..., J, 3] seen from their root, the middle of the joints `root` (the hips); all NaN where one of them is not known."""
    there: F64 = xyz_m - xyz_m[..., list(root), :].mean(axis=-2, keepdims=True)
    return there


def aligned(estimate_m: F64, truth_m: F64) -> F64:
    """The skeletons [N,J,3] after the similarity (rotation, scale, shift) that brings each nearest to its truth.

    Least squares over the joints known in both (Umeyama, PAMI 13, 1991, eq. 39-43), without mirroring. NaN for all of a skeleton
    with fewer than three such joints, or whose joints lie in one point. PA-MPJPE is the mean of `distances(aligned(e, t), t)`.
    """
    both = known(estimate_m) & known(truth_m)
    count = both.sum(-1)
    weight = (both / np.maximum(count, 1)[:, None])[..., None]
    here, there = np.where(both[..., None], estimate_m, 0.0), np.where(both[..., None], truth_m, 0.0)
    mean_here, mean_there = (weight * here).sum(1, keepdims=True), (weight * there).sum(1, keepdims=True)
    from_here, from_there = here - mean_here, there - mean_there
    u, s, vt = np.linalg.svd(np.einsum("nji,njk->nik", weight * from_there, from_here))
    keep = np.ones_like(s)
    keep[:, 2] = np.where(np.linalg.det(u) * np.linalg.det(vt) < 0, -1.0, 1.0)
    rotation = (u * keep[:, None]) @ vt
    spread = (weight * from_here**2).sum((1, 2))
    usable = (count >= _POINTS_OF_A_POSE) & (spread > 0)
    scale = np.where(usable, (s * keep).sum(1) / np.where(usable, spread, 1.0), np.nan)
    moved: F64 = scale[:, None, None] * (estimate_m - mean_here) @ rotation.transpose(0, 2, 1) + mean_there
    return moved


def assign(cost: F64, limit: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of `cost` [A,B] below `limit`: as many as there can be, and of those sets the one with the smallest sum.

    Hungarian method with shortest augmenting paths (Kuhn 1955; Jonker and Volgenant 1987). NaN is no pair.
    """
    rows, columns = cost.shape
    size = max(rows, columns)
    never = limit * (size + 1) + 1.0
    square = np.full((size, size), never)
    square[:rows, :columns] = np.where(cost < limit, cost, never)
    column_of = _shortest_paths(square)
    return [(i, j) for i, j in enumerate(column_of[:rows]) if j < columns and cost[i, j] < limit]


def _shortest_paths(cost: F64) -> list[int]:
    """The column of every row in the cheapest full assignment of a square matrix."""
    size = len(cost)
    row_price, column_price = np.zeros(size), np.zeros(size + 1)
    row_of = np.full(size + 1, -1)  # the last column is where each search starts
    for new in range(size):
        row_of[size], at = new, size
        reach, came_from = np.full(size, math.inf), np.full(size, size)
        visited = np.zeros(size + 1, np.bool_)
        while row_of[at] >= 0:
            visited[at] = True
            row = row_of[at]
            here = cost[row] - row_price[row] - column_price[:size]
            better = ~visited[:size] & (here < reach)
            reach[better], came_from[better] = here[better], at
            nearest = int(np.argmin(np.where(visited[:size], math.inf, reach)))
            step = reach[nearest]
            row_price[row_of[visited]] += step
            column_price[visited] -= step
            reach[~visited[:size]] -= step
            at = nearest
        while at != size:
            row_of[at], at = row_of[came_from[at]], int(came_from[at])
    column = np.empty(size, np.int64)
    column[row_of[:size]] = np.arange(size)
    found: list[int] = column.tolist()
    return found


def correct_keypoints(error_m: F64, expected: int, thresholds_m: F64) -> F64:
    """3D PCK: the share of `expected` joints that lie within each threshold [K]; a joint that is missing (NaN) is wrong."""
    there = np.sort(error_m[np.isfinite(error_m)])
    share: F64 = np.searchsorted(there, thresholds_m, side="right") / max(expected, 1)
    return share


def area_under(share: F64) -> float:
    """Mean height of a curve over evenly spaced thresholds (trapezoids)."""
    return float((share[1:] + share[:-1]).mean() / 2)


def correct_parts(estimate_m: F64, truth_m: F64, limbs: I64, *, alpha: float = 0.5) -> F64:
    """PCP [N,L]: 1 where the ends of a limb lie, in the mean of both, within alpha of its true length; else 0, also when one is missing.

    As 3D pictorial structures are scored (Belagiannis et al., CVPR 2014). limbs [L,2]: joint indices. NaN where the truth lacks an end.
    """
    off = distances(estimate_m, truth_m)[..., limbs].mean(-1)
    length = np.linalg.norm(truth_m[..., limbs[:, 0], :] - truth_m[..., limbs[:, 1], :], axis=-1)
    return np.where(np.isfinite(length), (off <= alpha * length).astype(np.float64), np.nan)


def second_differences(xyz_m: F64, seq: I64) -> F64:
    """Accelerations [N-2,J,3] in metres per frame^2, from skeletons [N,J,3]; NaN where the instants `seq` [N] are not three in a row."""
    bend: F64 = xyz_m[2:] - 2 * xyz_m[1:-1] + xyz_m[:-2]
    in_a_row = (np.diff(seq)[1:] == 1) & (np.diff(seq)[:-1] == 1)
    return np.where(in_a_row[:, None, None], bend, np.nan)


def acceleration_errors(estimate_m: F64, truth_m: F64, seq: I64) -> F64:
    """[N-2,J] length of the difference between both accelerations, metres per frame^2 (its mean is ACCEL_ERR)."""
    return distances(second_differences(estimate_m, seq), second_differences(truth_m, seq))
