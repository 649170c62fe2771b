"""The shape of a person from the joints of a few seconds: how long the limbs are says most of what a body's shape says about its skeleton.

    body = load_body()
    shape = fit(body, xyz_m, sigma_m)                    # [T,17,3], [T,17]: coco17, a few seconds of one identity
    posed = body.pose(shape, rotations, root_m)

`smooth.vibe` does not use it (its network finds shape and pose together). It is for those who want a body without that: a recording that is
fitted afterwards, a character that is made to the measure of an actor. What the joints cannot tell stays that of the mean body: weight, muscle, head.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F64
from posepipe.pipeline.skeleton import COCO17

from .body import Body
from .body_annotated import along, trunk

_SIDES = ("left", "right")
_LIMBS = (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
_KNOWN_M = {"limb": 0.004, "hips": 0.006, "shoulders": 0.015, "trunk": 0.020}
"""How well a length is known at best: hips and shoulders are marked in photographs, shoulders and spine move in themselves."""
_TO_SIGMA = 1.4826
_LASTING = 10
"""Errors of joints last for about so many instants: that many count as one measurement."""
_NEAREST_M = 1e-6

_HEADS = tuple(f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in _SIDES)
_POINTS = [COCO17.joints.index(name) for name in _HEADS]


def fit(body: Body, xyz_m: NDArray[Any], sigma_m: NDArray[Any]) -> F64:
    """The most probable shape [K] of somebody whose joints were seen at xyz_m [T,17,3] (coco17, metres, any frame), given that shapes are N(0,1).

    sigma_m [T,17]: one standard deviation of each in every direction. What is NaN in either was not seen. Key points are moved onto the heads of the
    bones (`body_annotated` the other way round); the length of each limb is the weighted median over time; shape is found by Gauss-Newton on twelve
    lengths with that prior. A length that was never seen says nothing: without any, the shape is zeros, the mean body. ValueError for other shapes of arrays.
    """
    xyz, sigma = np.asarray(xyz_m, np.float64), np.asarray(sigma_m, np.float64)
    joints = len(COCO17.joints)
    if xyz.ndim != 3 or xyz.shape[1:] != (joints, 3) or sigma.shape != xyz.shape[:2]:
        raise ValueError(f"joints {xyz.shape} and their standard deviations {sigma.shape} are not [T,{joints},3] and [T,{joints}]")
    if not len(xyz):
        return np.zeros(body.shapes)
    spans, best_m = _spans()
    length_m, known_m = _lengths(_heads(body, xyz[:, _POINTS]), sigma[:, _POINTS], spans)
    known_m = np.hypot(known_m, best_m)
    seen = np.isfinite(length_m)
    at = [body.bones.index(name) for name in _HEADS]
    mean = spans[seen] @ body.rest(np.zeros(body.shapes)).joints_m[at]
    basis = np.stack([spans[seen] @ body.rest(row).joints_m[at] for row in np.eye(body.shapes)], axis=1) - mean[:, None]
    shape = np.zeros(body.shapes)
    for _ in range(8):
        bone = mean + np.einsum("lkc,k->lc", basis, shape)
        now = np.linalg.norm(bone, axis=1)
        slope = np.einsum("lc,lkc->lk", bone / now[:, None], basis) / known_m[seen, None]
        left = (length_m[seen] - now) / known_m[seen]
        shape = shape + np.linalg.solve(slope.T @ slope + np.eye(body.shapes), slope.T @ left - shape)
    return shape


def _spans() -> tuple[F64, F64]:
    """[L,12]: what of the heads is the vector whose length counts, and [L] how well it is known at best."""
    at = dict(zip(_HEADS, np.eye(len(_HEADS)), strict=True))
    limbs = [at[f"{side}_{a}"] - at[f"{side}_{b}"] for a, b in _LIMBS for side in _SIDES]
    hips, shoulders = (at[f"left_{name}"] - at[f"right_{name}"] for name in ("hip", "shoulder"))
    middle = [(at[f"left_{name}"] + at[f"right_{name}"]) / 2 for name in ("shoulder", "hip")]
    best = [_KNOWN_M["limb"]] * len(limbs) + [_KNOWN_M[name] for name in ("hips", "shoulders", "trunk")]
    return np.stack([*limbs, hips, shoulders, middle[0] - middle[1]]), np.array(best)


def _heads(body: Body, points_m: F64) -> F64:
    """Heads of bones [T,12,3] from the key points that stand for them (`_HEADS`)."""
    identity = np.broadcast_to(np.eye(3), (1, len(body.bones), 3, 3))
    rest_m = body.pose(np.zeros(body.shapes), identity, np.zeros((1, 3))).joints_m("coco17")[:, _POINTS].astype(np.float64)
    heads = points_m.copy()
    for joint in ("shoulder", "hip"):
        pair = [_HEADS.index(f"{side}_{joint}") for side in _SIDES]
        offsets = np.stack([beside[1] for side in _SIDES if (beside := trunk(f"{side}_{joint}")) is not None])
        turned = _frame(points_m, pair) @ _frame(rest_m, pair).transpose(0, 2, 1)
        heads[:, pair] -= np.einsum("tij,sj->tsi", turned, offsets)
    moved = [(_HEADS.index(name), *off) for name in _HEADS if (off := along(name)) is not None]
    point, towards = [m[0] for m in moved], [_HEADS.index(m[1]) for m in moved]
    direction = _unit(heads[:, towards] - heads[:, point])
    heads[:, point] -= np.array([m[2] for m in moved])[:, None] * direction
    return heads


def _frame(points_m: F64, pair: list[int]) -> F64:
    """[T,3,3]: columns to the person's left (the line of hips or shoulders), backwards, and up along the trunk."""
    left, right = (points_m[:, pair[k]] for k in (0, 1))
    shoulders, hips = (points_m[:, [_HEADS.index(f"{side}_{joint}") for side in _SIDES]].mean(axis=1) for joint in ("shoulder", "hip"))
    x = _unit(left - right)
    up = shoulders - hips
    z = _unit(up - (up * x).sum(axis=1, keepdims=True) * x)
    return np.stack([x, np.cross(z, x), z], axis=2)


def _lengths(heads_m: F64, sigma_m: F64, spans: F64) -> tuple[F64, F64]:
    """The lengths [L] of these spans and how well time has told them [L], of heads [T,12,3]; NaN for what was never seen.

    Noise makes a distance longer, by its variance across over the distance, which is taken off.
    """
    used = spans != 0
    bone = np.einsum("lh,thc->tlc", spans, np.where(np.isfinite(heads_m), heads_m, 0))
    seen = ~(~np.isfinite(heads_m).all(axis=2) | ~np.isfinite(sigma_m)) @ used.T.astype(np.int64) == used.sum(axis=1)
    variance = np.where(np.isfinite(sigma_m), sigma_m, 0) ** 2 @ (spans**2).T
    d = np.maximum(np.linalg.norm(bone, axis=2), _NEAREST_M)
    weight = np.where(seen, 1 / (variance + _NEAREST_M), 0)
    length = _median(d - np.minimum(variance / d, d / 2), weight)
    spread = _TO_SIGMA * _median(np.abs(d - length), weight)
    enough = np.maximum(seen.sum(axis=0) / _LASTING, 1)
    known = np.where(seen.any(axis=0), 1.25 * np.maximum(spread, np.sqrt(_median(variance, weight))) / np.sqrt(enough), np.nan)
    return np.where(seen.any(axis=0), length, np.nan), known


def _median(values: F64, weight: F64) -> F64:
    """Weighted medians over time: [T,L] -> [L]."""
    order = np.argsort(values, axis=0)
    share = np.cumsum(np.take_along_axis(weight, order, axis=0), axis=0)
    middle = np.argmax(share >= share[-1:] / 2, axis=0)
    return np.asarray(np.take_along_axis(np.take_along_axis(values, order, axis=0), middle[None], axis=0)[0])


def _unit(v: F64) -> F64:
    return np.asarray(v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), _NEAREST_M))
