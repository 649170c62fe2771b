"""A piece of recorded motion, and how a recording is made into clean ones."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64

from .body import BONES

JOINTS24 = BONES
SEGMENTS = (
    *("root", "lfemur", "ltibia", "lfoot", "rfemur", "rtibia", "rfoot", "lowerback", "upperback", "thorax"),
    *("lowerneck", "upperneck", "head", "lclavicle", "lhumerus", "lradius", "rclavicle", "rhumerus", "rradius"),
)
"""The source's rigid parts, with the names of CMU's skeletons."""
UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""From the world of the source (y up, rest pose facing +z) to ours (z up, rest pose facing -y, left hand at +x)."""

_TRUNK = np.array([JOINTS24.index(name) for name in ("left_hip", "right_hip", "spine3", "neck", "left_shoulder", "right_shoulder", "head")])
_FEET = np.array([JOINTS24.index(name) for name in ("left_ankle", "right_ankle", "left_foot", "right_foot")])
_FEET_M = np.array([0.08, 0.08, 0.03, 0.03])
"""How high the joints of a foot lie above its sole."""
_TRUNK_M_S, _LIMB_M_S = 7.5, 18.0
"""Faster than this against the pelvis no joint moves: a kick or a throw reaches 15 m/s, the trunk of one who turns 4."""
_TILT_RAD_S = 7.5
"""Nor does a pelvis tip over faster: a cartwheel takes 6."""
_SHORTEST_S, _MARGIN_S = 0.4, 0.1
_CONTACT_M = 0.05


@dataclass(frozen=True, slots=True)
class Clip:
    """One piece of recorded motion, T instants, `fps` a second.

    joints24_m [T,24,3]: bone heads in metres, z up, floor z = 0, named by `JOINTS24`. segment_quat_xyzw [T,19,4]: rotation of every segment of
    `SEGMENTS` in the world of the source (y up), against its rest pose: upright, arms out to the sides, facing +z. root_m [T,3]: in that world.
    Pieces of one recording share `recording`: keep them on one side of a split into training and test.
    """

    name: str
    fps: float
    label: str
    joints24_m: F32
    segment_quat_xyzw: F32
    root_m: F32

    @property
    def recording(self) -> str:
        return self.name.partition("#")[0]

    @property
    def clearance_m(self) -> float:
        """How high over the floor the feet are at their lowest : 0 unless the clip shows, say, climbing only."""
        return lowest(self.joints24_m[:, _FEET, 2] - _FEET_M)

    def segment_rotations(self) -> F64:
        """[T,19,3,3]: what the segments did, in our world: takes directions of the rest pose (z up, facing -y) to where they are."""
        return np.asarray(UP @ matrices(self.segment_quat_xyzw) @ UP.T)

    def between(self, first: int, end: int, *, name: str) -> Clip:
        arrays = (self.joints24_m, self.segment_quat_xyzw, self.root_m)
        return Clip(name, self.fps, self.label, *(a[first:end] for a in arrays))


def lowest(heights_m: NDArray[Any]) -> float:
    """The floor under heights [T,N] of parts of the feet: the median of the lowest part, over the instants at which it is near its lowest."""
    low = heights_m.min(axis=1)
    return float(np.median(low[low <= np.percentile(low, 5) + _CONTACT_M]))


def matrices(quat_xyzw: NDArray[Any]) -> F64:
    """Rotation matrices [...,3,3] of quaternions [...,4] (x, y, z, w), normalised here."""
    q = np.asarray(quat_xyzw, np.float64)
    x, y, z, w = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def pieces(clip: Clip) -> list[Clip]:
    """The parts of a recording between the instants at which the body jumps (and 0.1 s around them), none shorter than 0.4 s, together put on
    the floor.

    Recordings often begin with an instant in the pose of calibration, and turn over where angles wrap. Pieces are named `<clip>`, `<clip>#2`, ...
    """
    relative = clip.joints24_m - clip.joints24_m[:, :1]
    speed = np.linalg.norm(np.diff(relative, axis=0), axis=2) * clip.fps
    up = clip.segment_rotations()[:, SEGMENTS.index("root"), :, 2]
    tilt = np.arccos(np.clip((up[1:] * up[:-1]).sum(axis=1), -1, 1)) * clip.fps
    jumps = (speed > _LIMB_M_S).any(axis=1) | (speed[:, _TRUNK] > _TRUNK_M_S).any(axis=1) | (tilt > _TILT_RAD_S)
    ends = [0, *(np.flatnonzero(jumps) + 1).tolist(), len(clip.joints24_m)]
    margin = round(_MARGIN_S * clip.fps)
    bounds = [(a + margin * (a > 0), b - margin * (b < len(clip.joints24_m))) for a, b in itertools.pairwise(ends)]
    spans = [(a, b) for a, b in bounds if b - a >= max(2.0, _SHORTEST_S * clip.fps)]
    if not spans:
        return []
    feet = np.concatenate([clip.joints24_m[a:b, _FEET, 2] - _FEET_M for a, b in spans])
    joints = clip.joints24_m - np.array([0.0, 0.0, lowest(feet)], np.float32)
    whole = Clip(clip.name, clip.fps, clip.label, joints, clip.segment_quat_xyzw, clip.root_m)
    return [whole.between(a, b, name=clip.name if i == 0 else f"{clip.name}#{i + 1}") for i, (a, b) in enumerate(spans)]
