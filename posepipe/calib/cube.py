"""A person's cube: where it stands, what is put into it, and what is made of a network's answer.

Studios, training samples and measurements all go this way, so that a network is given in use what it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posepipe.pipeline.packet import F32, F64, readonly
from posepipe.pipeline.skeleton import COCO17

from .project import undistort
from .refine import refine
from .rig import Rig
from .sides import Bools, exchange_maps, mirror_of, other_side
from .triangulate import Triangulated
from .unproject import Cube, unproject

_HIPS, _SHOULDERS, _BODY, _MIRROR = np.array([11, 12]), np.array([5, 6]), np.array(COCO17.body), mirror_of(COCO17)
_LEAST_PEAK = 1e-3
"""A view whose peak says nothing still says so: without it a joint that no view is sure of would be nowhere."""

_SHARED = 1.5
"""The network has read its answer from the same heatmaps as the key points: what it adds to them is less than its deviation says. The factor with
the least error on recordings that it was trained on."""


def cube_around(xyz_m: F64, *, side_m: float = 2.5) -> Cube | None:
    """The cube around a coco17 skeleton [17,3] (NaN: joint not known): its middle the hips', else the mean of the body's joints; its x axis
    from right to left, along hips and shoulders on the ground. None where no joint of the body is known."""
    body = xyz_m[_BODY]
    known = np.isfinite(body).all(axis=1)
    if not known.any():
        return None
    hips = xyz_m[_HIPS]
    centre_m = hips.mean(axis=0) if np.isfinite(hips).all() else body[known].mean(axis=0)
    across = np.zeros(2)
    for pair in (hips, xyz_m[_SHOULDERS]):
        if np.isfinite(pair).all():
            across += (pair[0] - pair[1])[:2]
    return Cube(centre_m, side_m, float(np.arctan2(across[1], across[0])) if across.any() else 0.0)


def fill(rig: Rig, maps: F32, peaks: F32, rois: F64 | F32, exchanged: Bools, cube: Cube, *, n: int = 32, out: F32 | None = None) -> F32:
    """One person's heatmaps in the cube [n,n,n,17]: the mean of the views, weighted with the heights of their peaks.

    maps [C,h,w,17], peaks [C,17], rois [C,4] (NaN: no view), as of `unproject`. exchanged [C,17]: joints whose heatmaps triangulation found to be
    those of the other side. out: is filled and returned if given. EngineError for heatmaps that are not finite.
    """
    if exchanged.any():
        maps, peaks = exchange_maps(maps, exchanged, _MIRROR), np.where(exchanged, peaks[:, _MIRROR], peaks)
    maps = maps.view()
    readonly(maps)  # kernels are compiled for one or the other
    return unproject(rig, maps, np.asarray(rois, np.float64), cube, n=n, how="conf", conf=np.maximum(peaks, _LEAST_PEAK), out=out)


def fine_step(
    rig: Rig, uv_px: F32, conf: F32, exchanged: Bools, cubes: Sequence[Cube], shares: F32, spread: F32,
    *, inlier_px: F64, sigma_px: F64, weights: F64 | None = None,
) -> Triangulated:  # fmt: skip
    """P people's joints (coco17) where the views see them, as far as what the network says of the body allows: `refine` with its answer as prior.

    uv_px [P,C,17,2], conf [P,C,17] (0: not seen): key points as they were detected; exchanged [P,C,17]: as of `triangulate_sides`. shares
    [P,17,3], spread [P,17]: the network's answer in the P cubes, shares of their sides. inlier_px, sigma_px [P,C]: as of `triangulate`. weights
    [P,C,17]: as of `refine`, of the key points as they were detected.
    """
    side_m = np.array([cube.side_m for cube in cubes])
    return refine(
        rig,
        undistort(rig, other_side(uv_px, exchanged, _MIRROR)),
        other_side(conf, exchanged, _MIRROR),
        prior_m=np.stack([cube.world(xyz) for cube, xyz in zip(cubes, shares, strict=True)]),
        prior_sigma_m=_SHARED * spread.astype(np.float64) * side_m[:, None],
        inlier_px=inlier_px,
        sigma_px=sigma_px,
        weights=None if weights is None else other_side(weights, exchanged, _MIRROR),
    )
