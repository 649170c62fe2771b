"""Robust triangulation of joints from any two or more views, with an honest standard deviation.

Every joint is the maximum-likelihood point of its views: the minimum of the squared reprojection error in pixels, weighted with
the information of each key point (Hartley & Zisserman 2004, ch. 12; here Gauss-Newton on normalised rays, 3x3 normal equations).
Views that disagree are outvoted: every pair of rays proposes a point (closest approach), the views vote with a truncated
quadratic score, and the winner is refined with Tukey's biweight, so that a view which drifts away loses its weight smoothly
instead of dropping out with a jump (MM-estimation, Yohai 1987).

Pixel noise model: one key point with confidence c has a standard deviation of sigma_px / sqrt(c) in each axis. When the
residuals of a joint are larger than that, its covariance grows with their chi-square (a scaled inverse chi-square posterior with
`_PRIOR_DOF` degrees of freedom on the claimed noise, never below it). Along nearly parallel rays the error is even in inverse
depth, not in depth: a point found too near looks sharper than it is, so sigma is what it would be `_TAIL` deviations further
away, and there is no point at all when that is at infinity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64

from .kernel import kernel
from .rig import Rig

_NEAR_M = 0.05
_SINGULAR = 1e-12
_PRIOR_DOF = 4.0
_TAIL = 4.0
_STEPS = 8
_STILL_M = 1e-3
_ODDS = 0.3
_ELSEWHERE_M = 1.0
_FEW, _CLEAR = 5, 0.7
"""With more than `_FEW` views the vote is over when this share of them agrees; with few, every pair is heard."""
_AGREE = 0.6
"""The point nearest to all rays needs no vote when every residual is below this part of the inlier threshold."""

Views = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Triangulated:
    """P people, C cameras, J joints.

    xyz_m [P,J,3]: world frame, NaN where there is no point. conf [P,J]: mean confidence of the views used, times the share of
    the confidence that agreed; 0 where there is no point. sigma_m [P,J]: root mean square standard deviation of the three axes
    (|error|^2 is 3 sigma^2 on average), inf where there is no point. residual_px [P,C,J]: distance between key point and
    reprojection in pixels of the calibration image, for all views seen (also those outvoted), NaN elsewhere. used [P,C,J].
    """

    xyz_m: F64
    conf: F64
    sigma_m: F64
    residual_px: F64
    used: NDArray[np.bool_]


@kernel
def _solve(
    a00: float, a01: float, a02: float, a11: float, a12: float, a22: float, g0: float, g1: float, g2: float
) -> tuple[float, float, float, float]:
    """Symmetric 3x3 system by its adjugate: the solution and the trace of the inverse (inf when singular)."""
    c00, c01, c02 = a11 * a22 - a12 * a12, a02 * a12 - a01 * a22, a01 * a12 - a02 * a11
    c11, c12, c22 = a00 * a22 - a02 * a02, a01 * a02 - a00 * a12, a00 * a11 - a01 * a01
    det = a00 * c00 + a01 * c01 + a02 * c02
    trace = a00 + a11 + a22
    if not det > _SINGULAR * trace * trace * trace:
        return np.nan, np.nan, np.nan, np.inf
    inverse = 1 / det
    return (
        (c00 * g0 + c01 * g1 + c02 * g2) * inverse,
        (c01 * g0 + c11 * g1 + c12 * g2) * inverse,
        (c02 * g0 + c12 * g1 + c22 * g2) * inverse,
        (c00 + c11 + c22) * inverse,
    )


@kernel
def _error(m: F64, focal: F64, x: float, y: float, px: float, py: float, pz: float) -> tuple[float, float]:
    """Squared reprojection error in pixels and depth of a point."""
    z = m[2, 0] * px + m[2, 1] * py + m[2, 2] * pz + m[2, 3]
    iz = 1 / z
    ex = focal[0] * (x - (m[0, 0] * px + m[0, 1] * py + m[0, 2] * pz + m[0, 3]) * iz)
    ey = focal[1] * (y - (m[1, 0] * px + m[1, 1] * py + m[1, 2] * pz + m[1, 3]) * iz)
    return ex * ex + ey * ey, z


@kernel
def _step(
    pose: F64, focal: F64, xy: F64, weight: F64, limit2: F64, views: Views, count: int, prior: F64, px: float, py: float, pz: float
) -> tuple[float, float, float, float]:
    """One Gauss-Newton step on the biweighted reprojection error: the new point and the trace of its covariance.

    prior [4]: information (1 / m^2) and place of what is known of the point beforehand; information 0 where nothing is.
    """
    a00 = a11 = a22 = prior[0]
    a01 = a02 = a12 = 0.0
    g0, g1, g2 = prior[0] * (prior[1] - px), prior[0] * (prior[2] - py), prior[0] * (prior[3] - pz)
    for i in range(count):
        c = views[i]
        m = pose[c]
        iz = 1 / (m[2, 0] * px + m[2, 1] * py + m[2, 2] * pz + m[2, 3])
        u = (m[0, 0] * px + m[0, 1] * py + m[0, 2] * pz + m[0, 3]) * iz
        v = (m[1, 0] * px + m[1, 1] * py + m[1, 2] * pz + m[1, 3]) * iz
        fx, fy = focal[c, 0], focal[c, 1]
        ex, ey = fx * (xy[i, 0] - u), fy * (xy[i, 1] - v)
        keep = 1 - (ex * ex + ey * ey) / limit2[i]
        if keep <= 0 or iz <= 0:
            continue
        w = weight[i] * keep * keep
        fx, fy = fx * iz, fy * iz
        x0, x1, x2 = fx * (m[0, 0] - u * m[2, 0]), fx * (m[0, 1] - u * m[2, 1]), fx * (m[0, 2] - u * m[2, 2])
        y0, y1, y2 = fy * (m[1, 0] - v * m[2, 0]), fy * (m[1, 1] - v * m[2, 1]), fy * (m[1, 2] - v * m[2, 2])
        a00 += w * (x0 * x0 + y0 * y0)
        a01 += w * (x0 * x1 + y0 * y1)
        a02 += w * (x0 * x2 + y0 * y2)
        a11 += w * (x1 * x1 + y1 * y1)
        a12 += w * (x1 * x2 + y1 * y2)
        a22 += w * (x2 * x2 + y2 * y2)
        g0 += w * (x0 * ex + y0 * ey)
        g1 += w * (x1 * ex + y1 * ey)
        g2 += w * (x2 * ex + y2 * ey)
    d0, d1, d2, variance = _solve(a00, a01, a02, a11, a12, a22, g0, g1, g2)
    return px + d0, py + d1, pz + d2, variance


@kernel
def _closest(centres: F64, rays: F64, views: Views, weight: F64, count: int) -> tuple[float, float, float]:
    """The point nearest to all rays (weighted squared distance to the lines): a start that needs no depth."""
    a00 = a01 = a02 = a11 = a12 = a22 = g0 = g1 = g2 = 0.0
    for i in range(count):
        c = views[i]
        d0, d1, d2, w = rays[i, 0], rays[i, 1], rays[i, 2], weight[i]
        o0, o1, o2 = centres[c, 0], centres[c, 1], centres[c, 2]
        n00, n01, n02 = w * (1 - d0 * d0), -w * d0 * d1, -w * d0 * d2
        n11, n12, n22 = w * (1 - d1 * d1), -w * d1 * d2, w * (1 - d2 * d2)
        a00, a01, a02, a11, a12, a22 = a00 + n00, a01 + n01, a02 + n02, a11 + n11, a12 + n12, a22 + n22
        g0 += n00 * o0 + n01 * o1 + n02 * o2
        g1 += n01 * o0 + n11 * o1 + n12 * o2
        g2 += n02 * o0 + n12 * o1 + n22 * o2
    x, y, z, _ = _solve(a00, a01, a02, a11, a12, a22, g0, g1, g2)
    return x, y, z


@kernel
def _vote(
    pose: F64, focal: F64, centres: F64, xy: F64, rays: F64, voice: F64, limit2: F64, views: Views, count: int, proposals: F64
) -> tuple[float, float, float, float]:
    """The point that most views agree with, and the variance that its rivals add (m^2, summed over axes).

    Every pair proposes its closest approach, scored by sum voice (2 - r^2 / limit^2) over the views within the limit: numbers
    first, then closeness. A rival scores s at distance d: the truth is there with odds exp((s - best) / `_ODDS`), which adds
    p d^2 to the variance (two hypotheses, law of total variance); d counts up to `_ELSEWHERE_M`.
    """
    made, best = 0, -1
    enough = _CLEAR * count if count > _FEW else count + 1.0
    support = 0
    for i in range(count):
        for j in range(i + 1, count):
            if support >= enough:
                break
            a, b = views[i], views[j]
            cosine = rays[i, 0] * rays[j, 0] + rays[i, 1] * rays[j, 1] + rays[i, 2] * rays[j, 2]
            sine2 = 1 - cosine * cosine
            if sine2 < _SINGULAR:
                continue
            o0, o1, o2 = centres[b, 0] - centres[a, 0], centres[b, 1] - centres[a, 1], centres[b, 2] - centres[a, 2]
            along_i = rays[i, 0] * o0 + rays[i, 1] * o1 + rays[i, 2] * o2
            along_j = rays[j, 0] * o0 + rays[j, 1] * o1 + rays[j, 2] * o2
            s, t = (along_i - cosine * along_j) / sine2, (cosine * along_i - along_j) / sine2
            if s <= 0 or t <= 0:
                continue
            near = s / (s + t)
            px = (1 - near) * (centres[a, 0] + s * rays[i, 0]) + near * (centres[b, 0] + t * rays[j, 0])
            py = (1 - near) * (centres[a, 1] + s * rays[i, 1]) + near * (centres[b, 1] + t * rays[j, 1])
            pz = (1 - near) * (centres[a, 2] + s * rays[i, 2]) + near * (centres[b, 2] + t * rays[j, 2])
            score, support = 0.0, 0
            for k in range(count):
                r2, z = _error(pose[views[k]], focal[views[k]], xy[k, 0], xy[k, 1], px, py, pz)
                if r2 < limit2[k] and z > _NEAR_M:
                    score += voice[k] * (2 - r2 / limit2[k])
                    support += 1
            proposals[made, 0], proposals[made, 1], proposals[made, 2], proposals[made, 3] = px, py, pz, score
            if score > 0 and (best < 0 or score > proposals[best, 3]):
                best = made
            made += 1
    if best < 0:
        return np.nan, np.nan, np.nan, np.inf
    px, py, pz, top = proposals[best, 0], proposals[best, 1], proposals[best, 2], proposals[best, 3]
    doubt = 0.0
    for k in range(made):
        away2 = (proposals[k, 0] - px) ** 2 + (proposals[k, 1] - py) ** 2 + (proposals[k, 2] - pz) ** 2
        odds = math.exp((proposals[k, 3] - top) / _ODDS)
        doubt = max(doubt, odds / (1 + odds) * min(away2, _ELSEWHERE_M * _ELSEWHERE_M))
    return px, py, pz, doubt


@kernel
def _triangulate(
    pose: F64,
    focal: F64,
    xy_all: F64,
    conf: F64,
    sigma: F64,
    limit: F64,
    min_views: int,
    xyz: F64,
    conf_out: F64,
    sigma_out: F64,
    residual: F64,
    used: NDArray[np.bool_],
) -> None:
    cameras = pose.shape[0]
    centres = np.empty((cameras, 3))
    for c in range(cameras):
        for k in range(3):
            centres[c, k] = -(pose[c, 0, k] * pose[c, 0, 3] + pose[c, 1, k] * pose[c, 1, 3] + pose[c, 2, k] * pose[c, 2, 3])
    views = np.empty(cameras, np.int64)
    xy, rays = np.empty((cameras, 2)), np.empty((cameras, 3))
    weight, voice, limit2 = np.empty(cameras), np.empty(cameras), np.empty(cameras)
    proposals = np.empty((cameras * (cameras - 1) // 2, 4))
    nothing = np.zeros(4)
    for p in range(conf.shape[0]):
        for j in range(conf.shape[2]):
            count, total = 0, 0.0
            for c in range(cameras):
                x, y, seen = xy_all[p, c, j, 0], xy_all[p, c, j, 1], conf[p, c, j]
                residual[p, c, j] = np.nan
                used[p, c, j] = False
                if not (seen > 0 and math.isfinite(x) and math.isfinite(y)):
                    continue
                m = pose[c]
                length = 1 / math.sqrt(x * x + y * y + 1)
                for k in range(3):
                    rays[count, k] = (m[0, k] * x + m[1, k] * y + m[2, k]) * length
                xy[count, 0], xy[count, 1], views[count] = x, y, c
                voice[count] = math.sqrt(seen)
                weight[count] = seen / (sigma[p, c] * sigma[p, c])
                limit2[count] = limit[p, c] * limit[p, c]
                total += seen
                count += 1
            xyz[p, j, 0] = xyz[p, j, 1] = xyz[p, j, 2] = np.nan
            conf_out[p, j], sigma_out[p, j] = 0.0, np.inf
            if count < min_views:
                continue

            px, py, pz = _closest(centres, rays, views, weight, count)
            agree = True
            for i in range(count):
                r2, z = _error(pose[views[i]], focal[views[i]], xy[i, 0], xy[i, 1], px, py, pz)
                if not (r2 < _AGREE * _AGREE * limit2[i] and z > _NEAR_M):
                    agree = False
            doubt = 0.0
            if not agree:
                px, py, pz, doubt = _vote(pose, focal, centres, xy, rays, voice, limit2, views, count, proposals)
            variance = np.inf
            for _ in range(_STEPS):
                lx, ly, lz = px, py, pz
                px, py, pz, variance = _step(pose, focal, xy, weight, limit2, views, count, nothing, px, py, pz)
                if not (px - lx) ** 2 + (py - ly) ** 2 + (pz - lz) ** 2 > _STILL_M * _STILL_M:
                    break
            if not variance < np.inf:
                continue

            kept, agreed, chi2, nearest = 0, 0.0, 0.0, np.inf
            for i in range(count):
                c = views[i]
                r2, z = _error(pose[c], focal[c], xy[i, 0], xy[i, 1], px, py, pz)
                residual[p, c, j] = math.sqrt(r2)
                if r2 < limit2[i] and z > _NEAR_M:
                    used[p, c, j] = True
                    kept += 1
                    agreed += conf[p, c, j]
                    chi2 += weight[i] * r2
                    nearest = min(nearest, z)
            sharp = 1 - _TAIL * math.sqrt(variance) / nearest
            if kept < min_views or sharp <= 0:
                for i in range(count):
                    used[p, views[i], j] = False
                continue
            freedom = 2 * kept - 3
            inflation = max(1.0, (_PRIOR_DOF + chi2) / (_PRIOR_DOF + freedom))
            xyz[p, j, 0], xyz[p, j, 1], xyz[p, j, 2] = px, py, pz
            sigma_out[p, j] = math.sqrt((variance * inflation / (sharp * sharp) + doubt) / 3)
            conf_out[p, j] = agreed / kept * (agreed / total)


def triangulate(
    rig: Rig,
    rays: F64,
    conf: F64 | F32,
    *,
    inlier_px: float | F64,
    sigma_px: float | F64,
    min_views: int = 2,
) -> Triangulated:
    """World points of all joints of all people.

    rays [P,C,J,2]: from `undistort`, NaN where there is nothing. conf [P,C,J]: 0..1, 0 or NaN is not seen. inlier_px: a view
    further away than this does not count; sigma_px: standard deviation of a key point with confidence 1 (both in pixels of the
    calibration image, one number or [P,C] when it depends on the size of the person in the view). min_views: at least 2; with
    fewer views in agreement a joint has no point. Nearly parallel rays give a large sigma_m.
    """
    if min_views < 2:
        raise ValueError(f"min_views={min_views}: one view cannot give a point")
    seen = np.array(conf, np.float64, order="C")
    people, cameras, joints = seen.shape
    out = Triangulated(
        np.empty((people, joints, 3)),
        np.empty((people, joints)),
        np.empty((people, joints)),
        np.empty((people, cameras, joints)),
        np.empty((people, cameras, joints), np.bool_),
    )
    _triangulate(
        rig.camera_from_world,
        rig.focal_px,
        np.array(rays, np.float64, order="C"),  # writable as everything here: the kernel is compiled once
        seen,
        np.array(np.broadcast_to(sigma_px, (people, cameras)), np.float64, order="C"),
        np.array(np.broadcast_to(inlier_px, (people, cameras)), np.float64, order="C"),
        min_views,
        out.xyz_m,
        out.conf,
        out.sigma_m,
        out.residual_px,
        out.used,
    )
    return out
