"""Skeleton layouts: joint names in order, bones, and the mirror of every joint."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import GraphError, did_you_mean


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A named joint layout. `bones` are pairs of joint indices; `body` are the joints that carry the body (shoulders to ankles)."""

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    body: tuple[int, ...]

    def index(self, joint: str) -> int:
        """Position of a joint by name; GraphError with the nearest name when there is none."""
        try:
            return self.joints.index(joint)
        except ValueError:
            raise GraphError(f"skeleton {self.name!r} has no joint {joint!r}", hint=did_you_mean(joint, self.joints)) from None


_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")


def _layout(name: str, joints: str, bones: str) -> Skeleton:
    order = tuple(joints.split())
    pairs = tuple((order.index(a), order.index(b)) for a, b in (p.split("-") for p in bones.split()))
    body = tuple(order.index(f"{side}_{limb}") for limb in _LIMBS for side in ("left", "right"))
    return Skeleton(name, order, pairs, body)


_TRUNK_AND_LIMBS = (
    "left_shoulder-right_shoulder left_hip-right_hip left_shoulder-left_hip right_shoulder-right_hip "
    "left_shoulder-left_elbow left_elbow-left_wrist right_shoulder-right_elbow right_elbow-right_wrist "
    "left_hip-left_knee left_knee-left_ankle right_hip-right_knee right_knee-right_ankle"
)

BLAZEPOSE33 = _layout(
    "blazepose33",
    "nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer left_ear right_ear mouth_left mouth_right "
    "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_pinky right_pinky left_index right_index "
    "left_thumb right_thumb left_hip right_hip left_knee right_knee left_ankle right_ankle left_heel right_heel left_foot_index right_foot_index",
    _TRUNK_AND_LIMBS + " nose-left_eye nose-right_eye left_eye-left_ear right_eye-right_ear mouth_left-mouth_right "
    "left_wrist-left_pinky left_wrist-left_index left_wrist-left_thumb right_wrist-right_pinky right_wrist-right_index right_wrist-right_thumb "
    "left_ankle-left_heel left_heel-left_foot_index left_ankle-left_foot_index right_ankle-right_heel right_heel-right_foot_index "
    "right_ankle-right_foot_index",
)

COCO17 = _layout(
    "coco17",
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
    "left_hip right_hip left_knee right_knee left_ankle right_ankle",
    _TRUNK_AND_LIMBS + " nose-left_eye nose-right_eye left_eye-left_ear right_eye-right_ear",
)

_LIMBS_AND_NECK = (
    "neck-left_shoulder neck-right_shoulder left_shoulder-left_elbow left_elbow-left_wrist right_shoulder-right_elbow right_elbow-right_wrist "
    "left_hip-left_knee left_knee-left_ankle right_hip-right_knee right_knee-right_ankle "
    "neck-nose nose-left_eye nose-right_eye left_eye-left_ear right_eye-right_ear"
)

COCO18 = _layout(
    "coco18",
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist "
    "right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear",
    _LIMBS_AND_NECK + " neck-left_hip neck-right_hip",
)

BODY25 = _layout(
    "body25",
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist mid_hip right_hip right_knee right_ankle "
    "left_hip left_knee left_ankle right_eye left_eye right_ear left_ear left_big_toe left_small_toe left_heel "
    "right_big_toe right_small_toe right_heel",
    _LIMBS_AND_NECK + " neck-mid_hip mid_hip-left_hip mid_hip-right_hip left_ankle-left_big_toe left_big_toe-left_small_toe "
    "left_ankle-left_heel right_ankle-right_big_toe right_big_toe-right_small_toe right_ankle-right_heel",
)

HUMAN36M17 = _layout(
    "human36m17",
    "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis spine thorax head right_wrist right_elbow right_shoulder "
    "left_shoulder left_elbow left_wrist nose",
    "left_shoulder-left_elbow left_elbow-left_wrist right_shoulder-right_elbow right_elbow-right_wrist "
    "left_hip-left_knee left_knee-left_ankle right_hip-right_knee right_knee-right_ankle pelvis-left_hip pelvis-right_hip "
    "pelvis-spine spine-thorax thorax-left_shoulder thorax-right_shoulder thorax-nose nose-head",
)
"""Human3.6M's joints in the order of learnable triangulation (Iskakov et al. 2019). The pelvis is number 6; `nose` is what the data set calls
"Neck/Nose" (its raw joint 14), in the face above the thorax; `head` is the top of the head. Other networks have these joints in other orders."""

SKELETONS: dict[str, Skeleton] = {s.name: s for s in (BLAZEPOSE33, COCO17, COCO18, BODY25, HUMAN36M17)}


def skeleton(name: str) -> Skeleton:
    """The layout of that name; GraphError with the nearest name when there is none."""
    try:
        return SKELETONS[name]
    except KeyError:
        raise GraphError(f"unknown skeleton layout {name!r}", hint=did_you_mean(name, SKELETONS)) from None
