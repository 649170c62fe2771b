"""Surface parts of a body in its rest pose, each with a chart (u, v): 24 parts numbered as DensePose numbers them.

A limb segment has a front and a back half; u runs across a half, v along the bone from its near end to its far end. Hands and feet are one part
each: u runs around the whole segment. The head has a right and a left half. The charts are our own (cylinders about bones): u and v are
not those of DensePose's maps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

FRONT_BACK: dict[str, tuple[int, int]] = {
    "torso": (2, 1),
    "right_upper_leg": (9, 7),
    "left_upper_leg": (10, 8),
    "right_lower_leg": (13, 11),
    "left_lower_leg": (14, 12),
    "left_upper_arm": (15, 17),
    "right_upper_arm": (16, 18),
    "left_lower_arm": (19, 21),
    "right_lower_arm": (20, 22),
}
WHOLE = {"right_hand": 3, "left_hand": 4, "left_foot": 5, "right_foot": 6}
HEAD = {"right": 23, "left": 24}

_SEGMENT_OF = {
    **dict.fromkeys(("pelvis", "spine1", "spine2", "spine3", "left_collar", "right_collar"), "torso"),
    **dict.fromkeys(("neck", "head"), "head"),
    **{f"{side}_hip": f"{side}_upper_leg" for side in ("left", "right")},
    **{f"{side}_knee": f"{side}_lower_leg" for side in ("left", "right")},
    **{f"{side}_{bone}": f"{side}_foot" for side in ("left", "right") for bone in ("ankle", "foot")},
    **{f"{side}_shoulder": f"{side}_upper_arm" for side in ("left", "right")},
    **{f"{side}_elbow": f"{side}_lower_arm" for side in ("left", "right")},
    **{f"{side}_{bone}": f"{side}_hand" for side in ("left", "right") for bone in ("wrist", "hand")},
}
_AXIS = {
    "torso": ("pelvis", "neck"),
    "head": ("neck", "head"),
    "upper_leg": ("hip", "knee"),
    "lower_leg": ("knee", "ankle"),
    "foot": ("ankle", "foot"),
    "upper_arm": ("shoulder", "elbow"),
    "lower_arm": ("elbow", "wrist"),
    "hand": ("wrist", "hand"),
}


def charts(vertices: F64, faces: I64, weights: F64, heads: F64, bones: tuple[str, ...]) -> tuple[I64, I64, I64, F64]:
    """Cut a mesh where parts meet.

    vertices [V,3] and bone heads [B,3] in the rest pose facing -y, z up; faces [F,3]; skin weights [V,B]. Returns origin [W] (which vertex each
    new one is), faces [F,3] over the new ones, part [W] (1..24), uv [W,2] (0..1).
    """
    segments = sorted(set(_SEGMENT_OF.values()))
    share = np.stack([weights[:, [b for b, n in enumerate(bones) if _SEGMENT_OF[n] == s]].sum(axis=1) for s in segments], axis=1)
    of_face = share[faces].sum(axis=1).argmax(axis=1)
    part = np.zeros(len(faces), np.int64)
    corner_uv = np.zeros((len(faces), 3, 2))
    for s, segment in enumerate(segments):
        mine = np.flatnonzero(of_face == s)
        if len(mine):
            part[mine], corner_uv[mine] = _chart(segment, vertices[faces[mine]], heads, bones)
    for p in np.unique(part):
        of_part = corner_uv[part == p]
        low, high = of_part.min(axis=(0, 1)), of_part.max(axis=(0, 1))
        corner_uv[part == p] = (of_part - low) / (high - low)
    return _cut(faces, part, corner_uv)


def _chart(segment: str, corners: F64, heads: F64, bones: tuple[str, ...]) -> tuple[I64, F64]:
    side, _, limb = segment.partition("_")
    name = segment if segment in _AXIS else limb
    prefix = "" if segment in _AXIS else side + "_"
    near, far = (heads[bones.index(prefix + end)] for end in _AXIS[name])
    axis = np.array([0.0, 0.0, 1.0]) if segment == "head" else (far - near) / np.linalg.norm(far - near)
    ahead = np.array([0.0, 0.0, 1.0]) if limb == "foot" else np.array([0.0, -1.0, 0.0])
    ahead -= (ahead @ axis) * axis
    ahead /= np.linalg.norm(ahead)
    across = np.cross(axis, ahead)
    from_axis = corners - (near + far) / 2 if segment == "head" else corners - near
    middle = from_axis.mean(axis=1)
    at = np.arctan2(middle @ across, middle @ ahead)
    turn = np.arctan2(from_axis @ across, from_axis @ ahead)
    turn = at[:, None] + (turn - at[:, None] + np.pi) % (2 * np.pi) - np.pi
    along = from_axis @ axis
    if segment in WHOLE:
        return np.full(len(corners), WHOLE[segment], np.int64), np.stack([turn, along], axis=-1)
    if segment == "head":
        left = middle[:, 0] > 0
        return np.where(left, HEAD["left"], HEAD["right"]), np.stack([np.abs(turn), along], axis=-1)
    front = np.abs(at) < np.pi / 2
    behind = np.where((at > 0)[:, None], turn - np.pi, turn + np.pi)
    u = np.where(front[:, None], turn, behind)
    return np.where(front, *FRONT_BACK[segment]), np.stack([u, along], axis=-1)


def _cut(faces: I64, part: I64, corner_uv: F64) -> tuple[I64, I64, I64, F64]:
    """One vertex for each (vertex, part, u, v) that corners have."""
    key = np.concatenate(
        [faces.reshape(-1, 1), np.repeat(part, 3)[:, None], np.round(corner_uv.reshape(-1, 2) * 1e6).astype(np.int64)], axis=1
    )
    unique, index = np.unique(key, axis=0, return_inverse=True)
    return unique[:, 0], index.reshape(-1, 3), unique[:, 1], unique[:, 2:] / 1e6
