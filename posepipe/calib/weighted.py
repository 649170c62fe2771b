"""Triangulation whose weights are learned: once with the heights of the peaks, to see how the views fit, then with what a network makes of that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from posepipe.pipeline.packet import F32, F64, I64

from .kernel import kernel
from .rig import Rig
from .sides import Bools, Facing, other_side, triangulate_sides
from .triangulate import Triangulated, triangulate

AGREEMENTS = 19
CERTAIN = 4.0
"""As `posepipe.engines.confidence` has it."""
_LIMIT2 = (0.05 / 0.012) ** 2
_TRUNK_M, _FAR = 0.5, 5.0
_RIDGE = 1.0
"""1 / m^2: what keeps the point of nearly parallel rays at hand."""


@dataclass(frozen=True, slots=True)
class First:
    """What a first triangulation with the heights of the peaks says of the views.

    points: it. order [P,C,J]: which of a view's key points was taken for joint j (its own, or that of the other side). rays [P,C,J,2] and
    conf [P,C,J] (0: not seen): in that order. axes [P,3,3]: the body's, to its left, ahead and up, in the world. agreement [P,C,J,19]: how a view fits the others, in that order:
    0: logarithm of its distance from the point, as a share of its crop's side; 1: whether it was used; 2: the share of the seeing views that
    were; 3: how many see it, a quarter; 4: whether there is a point; 5: logarithm of the point's standard deviation; 6, 7: logarithms of the least
    and of the mean distance in metres between its ray and those of the other views. 8, 9, with three views or more: logarithms of its distance
    from the point of the others, and of that point's standard deviation across its ray, both in deviations of a certain key point. 10-12: the
    point, from the middle of the hips along the body's axes, half metres; 13-15: from the point to the nearest one on the ray, decimetres; 16-18: the ray's
    direction; 0 where there is no point, and where neither hips nor shoulders say where the body is.
    """

    points: Triangulated
    order: I64
    rays: F64
    conf: F64
    axes: F64
    agreement: F32


def first_look(
    rig: Rig, rays: F64, conf: F64 | F32, side_px: F64, *, mirror: I64, facing: Facing | None = None, inlier: float, sigma: float
) -> First:
    """Triangulate with `triangulate_sides` and look at how the views fit. side_px [P,C]: of the crops. inlier, sigma: shares of it, as
    `lift.algebraic` has them; otherwise as `triangulate_sides`."""
    points, exchanged = triangulate_sides(
        rig, rays, conf, mirror=mirror, facing=facing, inlier_px=inlier * side_px, sigma_px=sigma * side_px
    )
    order = np.where(exchanged, mirror, np.arange(len(mirror)))
    rays, conf = other_side(rays, exchanged, mirror), other_side(np.nan_to_num(np.asarray(conf, np.float64)), exchanged, mirror)
    conf[~np.isfinite(rays).all(axis=3)] = 0
    agreement = np.zeros((*conf.shape, AGREEMENTS), np.float32)
    centres = np.array([c.centre_m for c in rig.cameras])
    _agreement(
        rig.camera_from_world, centres, rig.focal_px, rays, conf, np.ascontiguousarray(side_px, np.float64), sigma,
        points.xyz_m, points.sigma_m, points.residual_px, points.used, agreement,
    )  # fmt: skip
    axes = _body_axes(points.xyz_m, facing)
    agreement[..., 10:] = _in_body(rig, centres, rays, conf, points.xyz_m, axes, facing)
    return First(points, order, rays, conf, axes, agreement)


def _body_axes(xyz_m: F64, facing: Facing | None) -> F64:
    """[P,3,3]: to the left along hips and shoulders on the ground, ahead, and up; the world's own where that is not known."""
    across = (
        np.zeros((len(xyz_m), 2)) if facing is None else np.nan_to_num(xyz_m[:, facing.left] - xyz_m[:, facing.right]).sum(axis=1)[:, :2]
    )
    size = np.linalg.norm(across, axis=1, keepdims=True)
    across = np.where(size > 1e-6, across / np.maximum(size, 1e-6), [0.0, 1.0])
    axes = np.zeros((len(xyz_m), 3, 3))
    axes[:, 0, :2], axes[:, 1, 0], axes[:, 1, 1], axes[:, 2, 2] = across, across[:, 1], -across[:, 0], 1
    return axes


def _in_body(rig: Rig, centres: F64, rays: F64, conf: F64, xyz_m: F64, axes: F64, facing: Facing | None) -> F32:
    """The last nine numbers of `First.agreement`."""
    out = np.zeros((*conf.shape, 9), np.float32)
    if facing is None:
        return out
    hips, shoulders = ((xyz_m[:, facing.left[k]] + xyz_m[:, facing.right[k]]) / 2 for k in (1, 0))
    middle = np.where(np.isfinite(hips), hips, shoulders - [0, 0, _TRUNK_M])
    ahead = np.concatenate([np.nan_to_num(rays), np.ones((*conf.shape, 1))], axis=3)
    direction = np.einsum("cki,pcjk->pcji", rig.camera_from_world[:, :, :3], ahead)
    direction /= np.linalg.norm(direction, axis=3, keepdims=True)
    away = centres[:, None] - xyz_m[:, None]
    offset = away - (away * direction).sum(axis=3, keepdims=True) * direction
    place = np.broadcast_to((xyz_m - middle[:, None])[:, None], offset.shape)
    for k, (what, unit) in enumerate(((place, 0.5), (offset, 0.1), (direction, 1.0))):
        out[..., 3 * k : 3 * k + 3] = np.clip(np.einsum("pab,pcjb->pcja", axes, what) / unit, -_FAR, _FAR)
    out[~np.isfinite(out).all(axis=3) | ~(conf > 0)] = 0
    return out


def triangulate_weighted(
    rig: Rig,
    rays: F64,
    conf: F64 | F32,
    side_px: F64,
    weigh: Callable[[I64, F32, F64], F64],
    *,
    mirror: I64,
    facing: Facing | None = None,
    inlier: float,
    sigma: float,
) -> Triangulated:
    """World points with learned weights. weigh: from `order`, `agreement` and `conf` of the first look to weights [P,C,J] in that order (0: as if
    not seen), where 1 is a deviation of sigma / 2. Otherwise as `first_look`. A joint that the weights leave without a point keeps that of the
    first look. `conf` stays what the heights of the peaks say: a weight tells how exact a key point is, not how surely it is there."""
    first = first_look(rig, rays, conf, side_px, mirror=mirror, facing=facing, inlier=inlier, sigma=sigma)
    weights = weigh(first.order, first.agreement, first.conf)
    second = triangulate(rig, first.rays, weights, inlier_px=inlier * side_px, sigma_px=CERTAIN**-0.5 * sigma * side_px)
    both = (second.conf > 0) & (first.points.conf > 0)
    second.conf[both] = first.points.conf[both]
    lost = (second.conf <= 0) & (first.points.conf > 0)
    for mine, theirs in (
        (second.xyz_m, first.points.xyz_m),
        (second.conf, first.points.conf),
        (second.sigma_m, first.points.sigma_m),
    ):
        mine[lost] = theirs[lost]
    every = np.broadcast_to(lost[:, None], second.used.shape)
    second.used[every], second.residual_px[every] = first.points.used[every], first.points.residual_px[every]
    return second


@kernel
def _without(
    centres: F64, focal: F64, direction: F64, conf: F64, side: F64, noise: float, xyz: F64, normal: F64, onto: F64, weight: F64, out: F32
) -> None:
    """How far every view is from the point of the others: the one nearest to their rays, weighted by conf and with Tukey's biweight around xyz."""
    for c in range(len(conf)):
        weight[c] = 0.0
        if not conf[c] > 0:
            continue
        d = direction[c]
        o = centres[c] - xyz
        along = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
        across2 = max(o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - along * along, 0.0)
        sharp = 0.5 * (focal[c, 0] + focal[c, 1]) / (max(abs(along), 0.1) * noise * side[c])
        sharp *= sharp
        keep = max(1 - across2 * sharp / _LIMIT2, 0.01)
        weight[c] = conf[c] * keep * keep
        normal[c, 0], normal[c, 1], normal[c, 2] = sharp * (1 - d[0] * d[0]), -sharp * d[0] * d[1], -sharp * d[0] * d[2]
        normal[c, 3], normal[c, 4], normal[c, 5] = sharp * (1 - d[1] * d[1]), -sharp * d[1] * d[2], sharp * (1 - d[2] * d[2])
        for k in range(3):
            onto[c, k] = sharp * (o[k] - along * d[k])
    for c in range(len(conf)):
        if not conf[c] > 0:
            continue
        a00 = a11 = a22 = _RIDGE
        a01 = a02 = a12 = g0 = g1 = g2 = 0.0
        for k in range(len(conf)):
            if k != c and weight[k] > 0:
                w, m = weight[k], normal[k]
                a00, a01, a02 = a00 + w * m[0], a01 + w * m[1], a02 + w * m[2]
                a11, a12, a22 = a11 + w * m[3], a12 + w * m[4], a22 + w * m[5]
                g0, g1, g2 = g0 + w * onto[k, 0], g1 + w * onto[k, 1], g2 + w * onto[k, 2]
        c00, c01, c02 = a11 * a22 - a12 * a12, a02 * a12 - a01 * a22, a01 * a12 - a02 * a11
        c11, c12, c22 = a00 * a22 - a02 * a02, a01 * a02 - a00 * a12, a00 * a11 - a01 * a01
        inverse = 1 / (a00 * c00 + a01 * c01 + a02 * c02)
        x = (c00 * g0 + c01 * g1 + c02 * g2) * inverse
        y = (c01 * g0 + c11 * g1 + c12 * g2) * inverse
        z = (c02 * g0 + c12 * g1 + c22 * g2) * inverse
        m = normal[c]
        sharp = 0.5 * (m[0] + m[3] + m[5])
        d0, d1, d2 = centres[c, 0] - xyz[0] - x, centres[c, 1] - xyz[1] - y, centres[c, 2] - xyz[2] - z
        e = direction[c]
        along = d0 * e[0] + d1 * e[1] + d2 * e[2]
        off2 = sharp * max(d0 * d0 + d1 * d1 + d2 * d2 - along * along, 0.0)
        spread = inverse * (m[0] * c00 + m[3] * c11 + m[5] * c22 + 2 * (m[1] * c01 + m[2] * c02 + m[4] * c12))
        out[c, 8] = 0.25 * math.log(off2 + 0.05)
        out[c, 9] = 0.25 * math.log(spread + 0.05)


@kernel
def _agreement(
    pose: F64,
    centres: F64,
    focal: F64,
    rays: F64,
    conf: F64,
    side: F64,
    noise: float,
    xyz: F64,
    sigma: F64,
    residual: F64,
    used: Bools,
    out: F32,
) -> None:
    people, cameras, joints = conf.shape
    direction = np.empty((cameras, 3))
    normal, onto, weight = np.empty((cameras, 6)), np.empty((cameras, 3)), np.empty(cameras)
    for p in range(people):
        for j in range(joints):
            count = kept = 0
            for c in range(cameras):
                if not conf[p, c, j] > 0:
                    continue
                count += 1
                kept += used[p, c, j]
                x, y, m = rays[p, c, j, 0], rays[p, c, j, 1], pose[c]
                length = 1 / math.sqrt(x * x + y * y + 1)
                for k in range(3):
                    direction[c, k] = (m[0, k] * x + m[1, k] * y + m[2, k]) * length
            found = np.isfinite(xyz[p, j, 0])
            if found and count > 2:
                _without(centres, focal, direction, conf[p, :, j], side[p], noise, xyz[p, j], normal, onto, weight, out[p, :, j])
            for c in range(cameras):
                if not conf[p, c, j] > 0:
                    continue
                o = out[p, c, j]
                off = residual[p, c, j] / side[p, c]
                o[0] = 0.5 * math.log((min(off, 1.0) + 0.002) / 0.02) if found and math.isfinite(off) else 0.0
                o[1] = 1.0 if used[p, c, j] else 0.0
                o[2], o[3] = kept / count, count / 4
                o[4] = 1.0 if found else 0.0
                o[5] = 0.5 * math.log(min(max(sigma[p, j], 1e-3), 1.0) / 0.03) if found else 0.0
                least, total, others = np.inf, 0.0, 0
                for d in range(cameras):
                    if d == c or not conf[p, d, j] > 0:
                        continue
                    a, b = direction[c], direction[d]
                    nx, ny, nz = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
                    length = math.sqrt(nx * nx + ny * ny + nz * nz)
                    if length < 1e-6:
                        continue
                    apart = centres[d] - centres[c]
                    between = min(abs(apart[0] * nx + apart[1] * ny + apart[2] * nz) / length, 1.0)
                    least, total, others = min(least, between), total + between, others + 1
                if others:
                    o[6], o[7] = 0.5 * math.log((least + 0.003) / 0.03), 0.5 * math.log((total / others + 0.003) / 0.03)
