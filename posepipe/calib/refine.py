"""The fine step after the volume: every joint where its views see it, held by what the whole body says about it.

A network that looks at a coarse volume knows which of several peaks is the joint and where a hidden one must be, but not to the centimetre; the
peaks know the centimetre, but not which of them to believe. Here the network's answer, a position with a standard deviation, is the prior of
the robust maximum-likelihood point that `triangulate` makes of the peaks (maximum a posteriori, Gauss-Newton with Tukey's biweight). Views
are believed as far as they agree with it: first within the prior's own uncertainty, then within the inlier threshold.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64

from .kernel import kernel
from .rig import Rig
from .triangulate import _NEAR_M, _STILL_M, Triangulated, _error, _step

_ROUGH, _STEPS = 4, 10
_GUESSED = 0.3
"""Confidence of a joint that no view shows and the body tells to within `_TOLD_M`."""
_TOLD_M = 0.05


@kernel
def _refine(
    pose: F64, focal: F64, xy_all: F64, conf: F64, weights: F64, sigma: F64, limit: F64, prior_m: F64, prior_sigma_m: F64,
    xyz: F64, conf_out: F64, sigma_out: F64, residual: F64, used: NDArray[np.bool_],
) -> None:  # fmt: skip
    cameras = pose.shape[0]
    views, xy = np.empty(cameras, np.int64), np.empty((cameras, 2))
    weight, wide2, limit2 = np.empty(cameras), np.empty(cameras), np.empty(cameras)
    prior = np.empty(4)
    for p in range(conf.shape[0]):
        for j in range(conf.shape[2]):
            px, py, pz, spread = prior_m[p, j, 0], prior_m[p, j, 1], prior_m[p, j, 2], prior_sigma_m[p, j]
            xyz[p, j, 0] = xyz[p, j, 1] = xyz[p, j, 2] = np.nan
            conf_out[p, j], sigma_out[p, j] = 0.0, np.inf
            for c in range(cameras):
                residual[p, c, j] = np.nan
                used[p, c, j] = False
            if not (spread > 0 and math.isfinite(px + py + pz + spread)):
                continue
            prior[0], prior[1], prior[2], prior[3] = 1 / (spread * spread), px, py, pz
            count, total = 0, 0.0
            for c in range(cameras):
                x, y, seen = xy_all[p, c, j, 0], xy_all[p, c, j, 1], conf[p, c, j]
                if not (seen > 0 and math.isfinite(x) and math.isfinite(y)):
                    continue
                m = pose[c]
                z = m[2, 0] * px + m[2, 1] * py + m[2, 2] * pz + m[2, 3]
                if z < _NEAR_M:
                    continue
                xy[count, 0], xy[count, 1], views[count] = x, y, c
                weight[count] = weights[p, c, j] / (sigma[p, c] * sigma[p, c])
                limit2[count] = limit[p, c] * limit[p, c]
                across = 2 * spread * focal[c, 0] / z
                wide2[count] = limit2[count] + across * across
                total += seen
                count += 1
            variance = np.inf
            for k in range(_STEPS):
                lx, ly, lz = px, py, pz
                px, py, pz, variance = _step(pose, focal, xy, weight, wide2 if k < _ROUGH else limit2, views, count, prior, px, py, pz)
                if k >= _ROUGH and not (px - lx) ** 2 + (py - ly) ** 2 + (pz - lz) ** 2 > _STILL_M * _STILL_M:
                    break
            if not variance < np.inf:
                continue
            kept, agreed, chi2 = 0, 0.0, 0.0
            for i in range(count):
                c = views[i]
                r2, z = _error(pose[c], focal[c], xy[i, 0], xy[i, 1], px, py, pz)
                residual[p, c, j] = math.sqrt(r2)
                if r2 < limit2[i] and z > _NEAR_M:
                    used[p, c, j] = True
                    kept += 1
                    agreed += conf[p, c, j]
                    chi2 += weight[i] * r2
            xyz[p, j, 0], xyz[p, j, 1], xyz[p, j, 2] = px, py, pz
            sigma_out[p, j] = math.sqrt(variance * max(1.0, (4.0 + chi2) / (4.0 + 2 * kept)) / 3)
            told = _GUESSED / (1 + (spread / _TOLD_M) * (spread / _TOLD_M))
            conf_out[p, j] = max(told, agreed / kept * (agreed / total)) if kept else told


def refine(
    rig: Rig,
    rays: F64,
    conf: F64 | F32,
    *,
    prior_m: F64,
    prior_sigma_m: F64,
    inlier_px: float | F64,
    sigma_px: float | F64,
    weights: F64 | None = None,
) -> Triangulated:
    """World points of all joints of all people, near where they are expected.

    rays [P,C,J,2], conf [P,C,J], inlier_px, sigma_px: as of `triangulate`. prior_m [P,J,3], prior_sigma_m [P,J]: the expectation and its
    standard deviation per axis, in metres; NaN where there is none, and then there is no point. weights [P,C,J]: how exact the key points are,
    in units of 1 / sigma_px^2; their confidences if left out. One view, or none, is enough: a joint that
    no view shows stays where it is expected, with that standard deviation and a confidence of at most 0.3.
    """
    seen = np.array(conf, np.float64, order="C")
    people, cameras, joints = seen.shape
    out = Triangulated(
        np.empty((people, joints, 3)),
        np.empty((people, joints)),
        np.empty((people, joints)),
        np.empty((people, cameras, joints)),
        np.empty((people, cameras, joints), np.bool_),
    )
    _refine(
        rig.camera_from_world, rig.focal_px, np.array(rays, np.float64, order="C"), seen,
        np.nan_to_num(np.array(seen if weights is None else weights, np.float64, order="C")),
        np.array(np.broadcast_to(sigma_px, (people, cameras)), np.float64, order="C"),
        np.array(np.broadcast_to(inlier_px, (people, cameras)), np.float64, order="C"),
        np.array(prior_m, np.float64, order="C"), np.array(prior_sigma_m, np.float64, order="C"),
        out.xyz_m, out.conf, out.sigma_m, out.residual_px, out.used,
    )  # fmt: skip
    return out
