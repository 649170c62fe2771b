"""Key points of limbs where people who annotate photographs put them, which is not where bones turn.

The offsets are from six drawn recordings (six bodies, six movements, 480 pictures of four cameras; figures in docs/synthetic.md): networks that
were trained on COCO's annotations (MoveNet thunder, the light OpenPose) were triangulated and compared with the heads of the bones, in the
frames of trunk and limbs. BlazePose, trained on annotations of its own, is within 10 mm of them. What they agree on was rounded to 5 mm, and
the same for both sides: a body should not learn one network's mistakes. Wrists and the face stay where they were.
"""

from __future__ import annotations

import numpy as np

from posepipe.pipeline.packet import F64

_TRUNK_M = {"shoulder": ("spine3", 0.015, 0.0, 0.025), "hip": ("pelvis", 0.020, 0.020, 0.0)}
"""Bone whose frame is meant, towards the middle of the body, to the front, up (metres)."""
_ALONG_M = {"elbow": ("shoulder", 0.015), "ankle": ("knee", 0.015), "knee": ("ankle", 0.010)}
"""Towards that joint (metres)."""


def trunk(name: str) -> tuple[str, F64] | None:
    """The bone in whose frame a hip or shoulder lies off the head of its bone, and by how much [3] (rest pose: facing -y, z up, left at +x)."""
    side, _, limb = name.rpartition("_")
    if limb not in _TRUNK_M:
        return None
    bone, inwards, front, up = _TRUNK_M[limb]
    return bone, np.array([-inwards if side == "left" else inwards, -front, up])


def along(name: str) -> tuple[str, float] | None:
    """The bone towards whose head an elbow, ankle or knee lies off its own, and by how much."""
    side, _, limb = name.rpartition("_")
    if limb not in _ALONG_M:
        return None
    towards, by = _ALONG_M[limb]
    return f"{side}_{towards}", by


def annotated(name: str, bones: tuple[str, ...], heads_m: F64, rotations: F64) -> F64:
    """A limb's key point [T,3], of the heads [T,B,3] and rotations [T,B,3,3] of bones."""
    head = heads_m[:, bones.index(name)]
    if (offset := trunk(name)) is not None:
        return np.asarray(head + rotations[:, bones.index(offset[0])] @ offset[1])
    if (towards := along(name)) is not None:
        direction = heads_m[:, bones.index(towards[0])] - head
        return np.asarray(head + towards[1] * direction / np.linalg.norm(direction, axis=1, keepdims=True))
    return head
