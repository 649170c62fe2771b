"""Poses of bodies of many shapes, for training without pictures: every clip on several bodies, as COCO-17 key points."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from posepipe.pipeline.packet import F32, F64
from posepipe.pipeline.skeleton import COCO17

from .motion import JOINTS24, PARENTS24, SEGMENTS, Clip, on_floor


@dataclass(frozen=True, slots=True)
class Track:
    """One clip on one body. coco17_m [T,17,3]: metres, z up, floor z = 0. shape [K]. `name` is the recording's: split by it."""

    name: str
    label: str
    fps: float
    coco17_m: F32
    shape: F32


def bank(clips: Iterable[Clip], *, body: None = None, shapes: int, seed: int) -> list[Track]:
    """Every clip on `shapes` bodies drawn by `seed` (each body differs from clip to clip, too)."""
    rng = np.random.default_rng(seed)
    return [Track(c.recording, c.label, c.fps, _coco17(c, rng), np.zeros(16, np.float32)) for c in clips for _ in range(shapes)]


_FACE_M = {
    "nose": (0.0, -0.125, 0.055),
    "left_eye": (0.032, -0.1, 0.09),
    "right_eye": (-0.032, -0.1, 0.09),
    "left_ear": (0.075, -0.01, 0.065),
    "right_ear": (-0.075, -0.01, 0.065),
}
"""From the joint between neck and skull, of an upright head that faces -y."""
_GROUPS = {
    "knee": "leg",
    "ankle": "leg",
    "elbow": "arm",
    "wrist": "arm",
    "hand": "arm",
    "collar": "wide",
    "shoulder": "wide",
    "hip": "wide",
}


def _coco17(clip: Clip, rng: np.random.Generator) -> F32:
    group = {name: 1 + 0.06 * float(np.clip(rng.standard_normal(), -2, 2)) for name in ("leg", "arm", "wide", "trunk")}
    size = 1 + 0.06 * float(np.clip(rng.standard_normal(), -2, 2))
    joints: F64 = np.empty(clip.joints24_m.shape)
    joints[:, 0] = clip.joints24_m[:, 0] * size
    for j, parent in enumerate(PARENTS24):
        if parent >= 0:
            factor = size * group[_GROUPS.get(JOINTS24[j].rpartition("_")[2], "trunk")]
            joints[:, j] = joints[:, parent] + factor * (clip.joints24_m[:, j] - clip.joints24_m[:, parent])
    joints = on_floor(joints.astype(np.float32)).astype(np.float64)
    head = clip.segment_rotations()[:, SEGMENTS.index("head")]
    at = joints[:, JOINTS24.index("head")]
    points = [at + size * head @ np.array(_FACE_M[name]) if name in _FACE_M else joints[:, JOINTS24.index(name)] for name in COCO17.joints]
    return np.stack(points, axis=1).astype(np.float32)
