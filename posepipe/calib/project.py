"""Projection into the videos and back to rays.

The lens model (k1 k2 p1 p2 k3, Brown 1966 as OpenCV documents it): with r2 = x^2 + y^2 and s = 1 + k1 r2 + k2 r2^2 + k3 r2^3,
x' = x s + 2 p1 x y + p2 (r2 + 2 x^2), y' = y s + p1 (r2 + 2 y^2) + 2 p2 x y on the plane z = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64

from .kernel import kernel
from .rig import Rig

_NEAR_M = 1e-3
_STEPS = 20
_CONVERGED = 1e-12


@dataclass(frozen=True, slots=True)
class Projection:
    """uv_px [C,N,2]: pixels of each camera's video, NaN for points that the camera cannot see through its lens (behind it, or
    beyond the radius where the lens model folds). depth_m [C,N]: along the optical axis. visible [C,N]: inside the calibration image.
    """

    uv_px: F64
    depth_m: F64
    visible: NDArray[np.bool_]


@kernel
def _project(pose: F64, normal: F64, lens: F64, fold: F64, limits: F64, xyz: F64, uv: F64, depth: F64, visible: NDArray[np.bool_]) -> None:
    for c in range(pose.shape[0]):
        m, a, k = pose[c], normal[c], lens[c]
        fold2 = fold[c] * fold[c]
        for i in range(xyz.shape[0]):
            px, py, pz = xyz[i, 0], xyz[i, 1], xyz[i, 2]
            z = m[2, 0] * px + m[2, 1] * py + m[2, 2] * pz + m[2, 3]
            depth[c, i] = z
            uv[c, i, 0] = uv[c, i, 1] = np.nan
            visible[c, i] = False
            if not z > _NEAR_M:
                continue
            x = (m[0, 0] * px + m[0, 1] * py + m[0, 2] * pz + m[0, 3]) / z
            y = (m[1, 0] * px + m[1, 1] * py + m[1, 2] * pz + m[1, 3]) / z
            r2 = x * x + y * y
            if not r2 < fold2:
                continue
            s = 1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))
            xd = x * s + 2 * k[2] * x * y + k[3] * (r2 + 2 * x * x)
            yd = y * s + k[2] * (r2 + 2 * y * y) + 2 * k[3] * x * y
            uv[c, i, 0] = (xd - a[1]) / a[0]
            uv[c, i, 1] = (yd - a[3]) / a[2]
            visible[c, i] = limits[c, 0] <= xd <= limits[c, 1] and limits[c, 2] <= yd <= limits[c, 3]


@kernel
def _undistort(normal: F64, lens: F64, fold: F64, uv: F64 | F32, rays: F64) -> None:
    people, cameras, joints = uv.shape[0], uv.shape[1], uv.shape[2]
    for p in range(people):
        for c in range(cameras):
            a, k = normal[c], lens[c]
            fold2 = fold[c] * fold[c]
            for j in range(joints):
                xd = a[0] * uv[p, c, j, 0] + a[1]
                yd = a[2] * uv[p, c, j, 1] + a[3]
                rays[p, c, j, 0] = rays[p, c, j, 1] = np.nan
                if not (math.isfinite(xd) and math.isfinite(yd)):
                    continue
                x, y = xd, yd
                r2 = x * x + y * y
                if r2 >= fold2:
                    shrink = 0.9 * math.sqrt(fold2 / r2)
                    x, y = x * shrink, y * shrink
                for _ in range(_STEPS):
                    r2 = x * x + y * y
                    s = 1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))
                    ds = 2 * (k[0] + r2 * (2 * k[1] + r2 * 3 * k[4]))
                    ex = xd - (x * s + 2 * k[2] * x * y + k[3] * (r2 + 2 * x * x))
                    ey = yd - (y * s + k[2] * (r2 + 2 * y * y) + 2 * k[3] * x * y)
                    jxx = s + ds * x * x + 2 * k[2] * y + 6 * k[3] * x
                    jxy = ds * x * y + 2 * k[2] * x + 2 * k[3] * y
                    jyy = s + ds * y * y + 6 * k[2] * y + 2 * k[3] * x
                    det = jxx * jyy - jxy * jxy
                    if not det > 0:
                        break
                    dx = (jyy * ex - jxy * ey) / det
                    dy = (jxx * ey - jxy * ex) / det
                    x, y = x + dx, y + dy
                    if dx * dx + dy * dy < _CONVERGED * _CONVERGED:
                        if x * x + y * y < fold2:
                            rays[p, c, j, 0], rays[p, c, j, 1] = x, y
                        break


def project(rig: Rig, xyz_m: F64 | F32) -> Projection:
    """Where world points [N,3] (metres) appear in the videos of all cameras: distorted, in video pixels."""
    xyz = np.array(xyz_m, np.float64, order="C")
    count = len(xyz)
    projection = Projection(np.empty((len(rig), count, 2)), np.empty((len(rig), count)), np.empty((len(rig), count), np.bool_))
    _project(
        rig.camera_from_world,
        rig.normal_from_video,
        rig.distortion,
        rig.fold_radius,
        rig.picture,
        xyz,
        projection.uv_px,
        projection.depth_m,
        projection.visible,
    )
    return projection


def undistort(rig: Rig, uv_px: F64 | F32) -> F64:
    """Rays [P,C,J,2] = (x / z, y / z) in camera frames from video pixels [P,C,J,2].

    Newton's method on the lens model, to 1e-12 on the plane z = 1. NaN stays NaN; a pixel that no direction inside the lens
    model's fold radius reaches becomes NaN.
    """
    uv = np.array(uv_px, np.float64, order="C")  # one number type, writable: the kernel is compiled once
    rays = np.empty(uv.shape, np.float64)
    _undistort(rig.normal_from_video, rig.distortion, rig.fold_radius, uv, rays)
    return rays
