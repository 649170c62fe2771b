"""Which detection in one view is the same person as which in another: by where their rays meet."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from posepipe.pipeline.packet import F64

from .project import project, undistort
from .rig import Rig
from .triangulate import triangulate


def match_views(
    rig: Rig, points_px: Sequence[F64], size_px: Sequence[F64], *, max_people: int, tolerance: float = 0.12
) -> list[dict[int, int]]:
    """People as maps view -> detection, the one seen by most views first (ties: the smaller error).

    points_px: per view [N_view,K,2] key points in video pixels that every detection has (hips, shoulders); size_px: per view
    [N_view] size of the detected person. A detection supports a hypothesis when its key points lie within `tolerance` x size of
    the projected points of a pair of detections. A person needs two views.
    """
    free = [set(range(len(p))) for p in points_px]
    people: list[dict[int, int]] = []
    while len(people) < max_people:
        best: tuple[int, float, dict[int, int]] | None = None
        for a, b in itertools.combinations(range(len(points_px)), 2):
            for i, j in itertools.product(free[a], free[b]):
                found = _support(rig, points_px, size_px, free, {a: i, b: j}, tolerance)
                if found and (best is None or (found[0], -found[1]) > (best[0], -best[1])):
                    best = found
        if best is None:
            break
        people.append(best[2])
        for view, row in best[2].items():
            free[view].discard(row)
    return people


def _support(
    rig: Rig, points_px: Sequence[F64], size_px: Sequence[F64], free: list[set[int]], pair: dict[int, int], tolerance: float
) -> tuple[int, float, dict[int, int]] | None:
    """Views that agree with the points where this pair of detections meets: their number, mean error and who it is."""
    joints = next(p.shape[1] for p in points_px if len(p))
    uv = np.full((1, len(points_px), joints, 2), np.nan)
    for view, row in pair.items():
        uv[0, view] = points_px[view][row]
    limit_px = max(size_px[view][row] for view, row in pair.items()) * tolerance
    points = triangulate(rig, undistort(rig, uv), np.isfinite(uv[..., 0]).astype(np.float64), inlier_px=limit_px, sigma_px=limit_px / 3)
    if not (points.conf[0] > 0).all():
        return None
    there_px = project(rig, points.xyz_m[0]).uv_px
    chosen: dict[int, int] = {}
    errors: list[float] = []
    for view, candidates in enumerate(free):
        error = {
            row: float(np.linalg.norm(points_px[view][row] - there_px[view], axis=-1).mean() / size_px[view][row]) for row in candidates
        }
        near = min(error, key=lambda row: error[row], default=None)
        if near is not None and error[near] <= tolerance:
            chosen[view] = near
            errors.append(error[near])
    if len(chosen) < 2:
        return None
    return len(chosen), float(np.mean(errors)), chosen
