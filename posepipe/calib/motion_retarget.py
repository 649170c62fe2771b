"""A clip on a body of any shape: bones point where the clip's bones point, and turn about themselves as the clip's segments do.

The joints of a clip say where every bone points; how a bone is turned about itself comes from the rotations of the source's segments. For a bone with rest
direction b, segment rotation M(t) and direction d(t) of the clip, d0 = mean of M(t)^T d(t) is the direction that the bone had in the rest pose of the source. P
is the shortest rotation that takes b there, and the bone gets S(t) M(t) P with S(t) the shortest rotation that takes M(t) P b to d(t).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F64

from .body import BONES, PARENTS, Body, Posed
from .motion_clips import SEGMENTS, Clip, lowest

_SIDES = (("left", "l"), ("right", "r"))
_TOWARDS = {
    "spine1": "spine2",
    "spine2": "spine3",
    "neck": "head",
    **{f"{s}_{bone}": f"{s}_{child}" for s, _ in _SIDES for bone, child in (("hip", "knee"), ("knee", "ankle"), ("ankle", "foot"))},
    **{f"{s}_{bone}": f"{s}_{child}" for s, _ in _SIDES for bone, child in (("collar", "shoulder"), ("shoulder", "elbow"))},
    **{f"{s}_{bone}": f"{s}_{child}" for s, _ in _SIDES for bone, child in (("elbow", "wrist"), ("wrist", "hand"))},
}
"""What a bone points to."""
_SEGMENT = {
    "pelvis": "root",
    "spine1": "lowerback",
    "spine2": "upperback",
    "spine3": "thorax",
    "neck": "lowerneck",
    "head": "head",
    **{f"{s}_{bone}": c + name for s, c in _SIDES for bone, name in (("hip", "femur"), ("knee", "tibia"), ("ankle", "foot"))},
    **{f"{s}_{bone}": c + name for s, c in _SIDES for bone, name in (("collar", "clavicle"), ("shoulder", "humerus"))},
    **{f"{s}_{bone}": c + "radius" for s, c in _SIDES for bone in ("elbow", "wrist")},
}
_CHAIN = (("knee", "hip"), ("ankle", "knee"), ("elbow", "shoulder"), ("wrist", "elbow"))
_UNFOLDS = {f"{s}_{bone}": f"{s}_{before}" for s, _ in _SIDES for bone, before in _CHAIN}
"""Bones whose P goes on from the P of the bone before, as a limb is straightened joint by joint."""
_SPREADS = {"pelvis": ("left_hip", "right_hip", "spine1"), "spine3": ("neck", "left_collar", "right_collar")}
_RIGID = {"left_hand": "left_wrist", "right_hand": "right_wrist", "left_foot": "left_ankle", "right_foot": "right_ankle"}
_SOLES = tuple(f"{s}_{part}" for s, _ in _SIDES for part in ("big_toe", "small_toe", "heel"))


def retarget(clip: Clip, body: Body, shape: NDArray[Any]) -> Posed:
    """The clip's motion on the body of shape [K], feet as high over the floor as in the clip, steps as long as its legs."""
    rest = body.rest(shape).joints_m
    joints, moved = clip.joints24_m.astype(np.float64), clip.segment_rotations()
    rotations = np.empty((len(joints), len(BONES), 3, 3))
    unfolded: dict[str, F64] = {}
    for bone in BONES:
        b = BONES.index(bone)
        if bone in _SPREADS:
            ends = [BONES.index(end) for end in _SPREADS[bone]]
            rotations[:, b] = _fitted(_unit(rest[ends] - rest[b]), _unit(joints[:, ends] - joints[:, b : b + 1]))
        elif bone in _RIGID:
            turned = rotations[:, BONES.index(_RIGID[bone])]
            rotations[:, b] = _bent_toes(turned) if bone.endswith("foot") else turned
        elif bone == "head":
            rotations[:, b] = moved[:, SEGMENTS.index("head")]
        else:
            end, m = BONES.index(_TOWARDS[bone]), moved[:, SEGMENTS.index(_SEGMENT[bone])]
            direction = _unit(joints[:, end] - joints[:, b])
            before = unfolded[_UNFOLDS[bone]] if bone in _UNFOLDS else np.eye(3)
            at_rest = before @ _unit(rest[end] - rest[b])
            in_source = np.einsum("tji,tj->ti", m, direction).mean(axis=0)
            unfolded[bone] = _shortest(at_rest, _unit(in_source)) @ before
            turned = m @ unfolded[bone]
            rotations[:, b] = _shortest(turned @ _unit(rest[end] - rest[b]), direction) @ turned
    size = leg_m(rest) / leg_m(joints[0])
    posed = body.pose(shape, rotations, joints[:, 0] * size)
    return posed.shifted(np.array([0.0, 0.0, clip.clearance_m * size - lowest(soles_m(posed))]))


def _bent_toes(foot: F64) -> F64:
    """Toes of a foot [T,3,3] that points down stay level, up to 60 degrees, as under one who pushes off."""
    ahead = foot @ np.array([0.0, -1.0, 0.0])
    along = np.hypot(ahead[:, 0], ahead[:, 1])
    pitch = np.arctan2(ahead[:, 2], along)
    up = np.where(pitch < 0, np.minimum(pitch + np.pi / 3, 0.0), pitch)
    flat = np.stack([ahead[:, 0], ahead[:, 1]], axis=1) / np.maximum(along, 1e-9)[:, None]
    level = np.concatenate([flat * np.cos(up)[:, None], np.sin(up)[:, None]], axis=1)
    return np.asarray(_shortest(ahead, level) @ foot)


def soles_m(posed: Posed) -> F64:
    """[T,6]: heights of heels and toes, taken at the sole under them."""
    from posepipe.pipeline.skeleton import BODY25

    rows = [BODY25.index(name) for name in _SOLES]
    standing = posed.body.pose(np.zeros(posed.body.shapes), np.eye(3)[None, None].repeat(len(BONES), axis=1), np.zeros((1, 3)))
    above = standing.joints_m("body25")[0, rows, 2] - standing.vertices_m(0)[:, 2].min()
    return np.asarray(posed.joints_m("body25")[:, rows, 2] - above, np.float64)


def leg_m(joints: F64) -> float:
    """Length of the left leg, hip to ankle, of joints [24,3]."""
    at = joints[[BONES.index(name) for name in ("left_hip", "left_knee", "left_ankle")]]
    return float(np.linalg.norm(np.diff(at, axis=0), axis=1).sum())


def fitted_shape(clip: Clip, body: Body) -> F64:
    """The shape [K] whose bones are as long as the clip's, as far as bodies of that build are found: least squares with the prior N(0,1).

    A bone is taken to be known to 5 mm. Gauss-Newton from the mean body.
    """
    child, parent = np.arange(1, len(BONES)), np.array(PARENTS[1:])
    wanted = np.median(np.linalg.norm(clip.joints24_m[:, child] - clip.joints24_m[:, parent], axis=2), axis=0)
    basis = np.stack([body.rest(row).joints_m for row in np.eye(body.shapes)]) - body.rest(np.zeros(body.shapes)).joints_m
    shape = np.zeros(body.shapes)
    for _ in range(8):
        joints = body.rest(shape).joints_m
        bone = joints[child] - joints[parent]
        length = np.linalg.norm(bone, axis=1)
        slope = np.einsum("bi,kbi->bk", bone / length[:, None], basis[:, child] - basis[:, parent]) / 0.005
        left = (wanted - length) / 0.005
        shape = shape + np.linalg.solve(slope.T @ slope + np.eye(body.shapes), slope.T @ left - shape)
    return shape


def _unit(v: F64) -> F64:
    return np.asarray(v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9))


def _shortest(a: F64, b: F64) -> F64:
    """The rotations [...,3,3] without twist that take unit vectors a [...,3] to b [...,3] (Rodrigues; not for opposite ones)."""
    a, b = np.broadcast_arrays(a, b)
    v = np.cross(a, b)
    cos = (a * b).sum(axis=-1)[..., None, None]
    zero = np.zeros_like(v[..., 0])
    cross = np.stack(
        [
            np.stack([zero, -v[..., 2], v[..., 1]], axis=-1),
            np.stack([v[..., 2], zero, -v[..., 0]], axis=-1),
            np.stack([-v[..., 1], v[..., 0], zero], axis=-1),
        ],
        axis=-2,
    )
    return np.asarray(np.eye(3) + cross + cross @ cross / np.maximum(1 + cos, 1e-6))


def _fitted(rest: F64, seen: F64) -> F64:
    """Rotations [T,3,3] that bring rest [N,3] nearest to seen [T,N,3] (Kabsch 1976)."""
    u, _, vt = np.linalg.svd(np.einsum("tni,nj->tij", seen, rest))
    turn = np.linalg.det(u @ vt)
    u[:, :, 2] *= turn[:, None]
    return np.asarray(u @ vt)
