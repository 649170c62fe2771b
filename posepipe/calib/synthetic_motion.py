"""Movements that need no recording: a person who walks in a circle, one who reaches about, one who squats.

They are given as recorded clips are (joints of SMPL-24 and the world rotations of nineteen segments in a frame whose y points up),
so that a body is posed by them in the same way. Rest of the segments: facing +z, arms along x, thighs splayed by twenty degrees, as the
skeletons of the CMU motion database rest. The angles are smooth sums of sines, chosen by eye after slow walking and exercises.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from posepipe.pipeline.packet import F64

_SPINE_AND_LEGS = ("root", "lfemur", "ltibia", "lfoot", "rfemur", "rtibia", "rfoot", "lowerback", "upperback", "thorax")
_HEAD_AND_ARMS = ("lowerneck", "upperneck", "head", "lclavicle", "lhumerus", "lradius", "rclavicle", "rhumerus", "rradius")
SEGMENTS = _SPINE_AND_LEGS + _HEAD_AND_ARMS
_SPLAY = np.deg2rad(20.0)
_ANKLE_M = 0.02
_THIGH = (np.sin(_SPLAY), -np.cos(_SPLAY), 0.0)
_TREE: tuple[tuple[int, int, str, tuple[float, float, float], float], ...] = (
    # joint of SMPL-24, its parent, the segment between them, the segment's direction at rest, its length (m)
    (1, 0, "root", (0.99, -0.12, 0.0), 0.115),
    (2, 0, "root", (-0.99, -0.12, 0.0), 0.115),
    (3, 0, "root", (0.0, 1.0, 0.0), 0.11),
    (4, 1, "lfemur", _THIGH, 0.43),
    (5, 2, "rfemur", (-_THIGH[0], *_THIGH[1:]), 0.43),
    (6, 3, "lowerback", (0.0, 1.0, 0.0), 0.15),
    (7, 4, "ltibia", _THIGH, 0.42),
    (8, 5, "rtibia", (-_THIGH[0], *_THIGH[1:]), 0.42),
    (9, 6, "upperback", (0.0, 1.0, 0.0), 0.12),
    (10, 7, "lfoot", (0.08, -0.22, 0.97), 0.15),
    (11, 8, "rfoot", (-0.08, -0.22, 0.97), 0.15),
    (12, 9, "thorax", (0.0, 1.0, 0.0), 0.2),
    (13, 9, "thorax", (0.25, 0.97, 0.0), 0.13),
    (14, 9, "thorax", (-0.25, 0.97, 0.0), 0.13),
    (15, 12, "upperneck", (0.0, 0.97, 0.25), 0.11),
    (16, 13, "lclavicle", (0.99, -0.14, 0.0), 0.15),
    (17, 14, "rclavicle", (-0.99, -0.14, 0.0), 0.15),
    (18, 16, "lhumerus", (1.0, 0.0, 0.0), 0.28),
    (19, 17, "rhumerus", (-1.0, 0.0, 0.0), 0.28),
    (20, 18, "lradius", (1.0, 0.0, 0.0), 0.25),
    (21, 19, "rradius", (-1.0, 0.0, 0.0), 0.25),
    (22, 20, "lradius", (1.0, 0.0, 0.0), 0.09),
    (23, 21, "rradius", (-1.0, 0.0, 0.0), 0.09),
)


class Movement(NamedTuple):
    """joints24_m [T,24,3] (z up, floor z = 0), segment_quat_xyzw [T,19,4] and root_m [T,3] (y up), as clips have them."""

    name: str
    label: str
    fps: float
    joints24_m: F64
    segment_quat_xyzw: F64
    root_m: F64


class _Angles(NamedTuple):
    """Radians [T]; left and right together [2,T]. heading: where the person faces, about the vertical."""

    heading: F64
    lean: F64
    twist: F64
    hip: F64
    knee: F64
    arm: F64
    spread: F64
    elbow: F64
    nod: F64


def movements(*, seconds: float = 12.0, fps: float = 60.0) -> tuple[Movement, ...]:
    """`walk`, `reach` and `squat` for that long."""
    t = np.arange(max(2, round(seconds * fps))) / fps
    return _walk(t, fps), _reach(t, fps), _squat(t, fps)


def _walk(t: F64, fps: float) -> Movement:
    speed, radius, period = 1.0, 0.9, 1.15
    phase = 2 * np.pi * t / period
    legs = np.stack([phase, phase + np.pi])
    heading = speed / radius * t
    angles = _angles(
        t,
        heading=heading,
        lean=0.04 + 0 * t,
        twist=0.08 * np.sin(phase),
        hip=-0.12 - 0.4 * np.cos(legs),
        knee=0.12 + 0.45 * np.maximum(0, np.sin(legs - 2.9)) ** 2 + 0.5 * np.maximum(0, -np.sin(legs)) ** 2,
        arm=0.38 * np.cos(legs),
        elbow=0.35 - 0.15 * np.cos(legs),
    )
    path = np.stack([-radius * np.cos(heading), 0 * t, radius * np.sin(heading)], axis=-1)
    return _moved("walk", "walking", fps, angles, path)


def _reach(t: F64, fps: float) -> Movement:
    def swing(period: float, shift: float) -> F64:
        return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * (t / period + shift)))

    left, right = swing(2.6, 0.0), swing(3.4, 0.45)
    angles = _angles(
        t,
        heading=0.35 * np.sin(2 * np.pi * t / 7),
        lean=0.05 + 0.12 * swing(5.2, 0.2),
        twist=0.35 * (right - left),
        hip=np.stack([-0.1 - 0.1 * left, -0.1 - 0.1 * right]),
        knee=np.stack([0.15 + 0.15 * left, 0.15 + 0.15 * right]),
        arm=np.stack([-2.3 * left, -1.6 * right]),
        spread=np.stack([0.25 + 0.3 * left, 0.25 + 0.7 * right]),
        elbow=np.stack([0.9 - 0.7 * left, 1.0 - 0.8 * right]),
        nod=0.15 * np.sin(2 * np.pi * t / 3),
    )
    return _moved("reach", "reaching", fps, angles, np.zeros((len(t), 3)))


def _squat(t: F64, fps: float) -> Movement:
    down = 0.5 - 0.5 * np.cos(2 * np.pi * t / 3.0)
    angles = _angles(
        t,
        heading=0.2 * np.sin(2 * np.pi * t / 9),
        lean=0.05 + 0.5 * down,
        hip=np.stack([-1.15 * down, -1.15 * down]),
        knee=np.stack([0.1 + 1.65 * down, 0.1 + 1.65 * down]),
        arm=np.stack([-1.5 * down, -1.5 * down]),
        elbow=np.stack([0.3 + 0.1 * down, 0.3 + 0.1 * down]),
        nod=-0.3 * down,
    )
    return _moved("squat", "squatting", fps, angles, np.zeros((len(t), 3)))


def _angles(t: F64, **given: F64) -> _Angles:
    one, both = np.zeros_like(t), np.zeros((2, len(t)))
    rest = {
        "heading": one,
        "lean": one,
        "twist": one,
        "hip": both,
        "knee": both,
        "arm": both,
        "spread": both + 0.2,
        "elbow": both,
        "nod": one,
    }
    return _Angles(**(rest | given))


def _about(axis: int, angle: F64) -> F64:
    """Rotation matrices [T,3,3] about x, y or z (0, 1, 2)."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn = np.zeros((len(angle), 3, 3))
    turn[:, axis, axis] = 1
    turn[:, i, i] = turn[:, j, j] = np.cos(angle)
    turn[:, i, j], turn[:, j, i] = -np.sin(angle), np.sin(angle)
    return turn


def _moved(name: str, label: str, fps: float, a: _Angles, path: F64) -> Movement:
    still = np.zeros_like(a.heading)
    root = _about(1, a.heading) @ _about(0, 0.3 * a.lean)
    back = root @ _about(0, 0.4 * a.lean) @ _about(1, 0.5 * a.twist)
    chest = back @ _about(0, 0.3 * a.lean) @ _about(1, 0.5 * a.twist)
    head = chest @ _about(0, a.nod - 0.6 * a.lean)
    turns = {"root": root, "lowerback": back, "upperback": chest, "thorax": chest, "lowerneck": head, "upperneck": head, "head": head}
    for k, (side, sign) in enumerate((("l", 1.0), ("r", -1.0))):
        straight = _about(2, still - sign * (_SPLAY - 0.04))
        thigh = root @ _about(0, a.hip[k])
        shank = thigh @ _about(0, a.knee[k])
        upper = chest @ _about(2, sign * a.spread[k]) @ _about(0, a.arm[k])
        hanging = _about(2, still - sign * np.pi / 2)
        turns |= {
            f"{side}femur": thigh @ straight,
            f"{side}tibia": shank @ straight,
            f"{side}foot": _about(1, a.heading) @ _about(0, 0.4 * (a.hip[k] + a.knee[k])) @ _about(1, still + sign * 0.1),
            f"{side}clavicle": chest,
            f"{side}humerus": upper @ hanging,
            f"{side}radius": upper @ _about(0, -a.elbow[k]) @ hanging,
        }
    joints = np.zeros((len(still), 24, 3))
    for joint, parent, segment, direction, length_m in _TREE:
        joints[:, joint] = joints[:, parent] + turns[segment] @ (length_m * np.array(direction) / np.linalg.norm(direction))
    rise = _ANKLE_M - joints[:, [10, 11], 1].min(axis=1)
    root_m = path + np.stack([still, rise, still], axis=-1)
    joints += root_m[:, None]
    z_up = np.stack([joints[..., 0], -joints[..., 2], joints[..., 1]], axis=-1)
    quaternions = np.stack([_quaternion(turns[s]) for s in SEGMENTS], axis=1)
    return Movement(name, label, fps, z_up, quaternions, root_m)


def _quaternion(turn: F64) -> F64:
    """[T,3,3] -> x y z w [T,4], by the largest of the four squares (Shepperd 1978), without sign jumps along T."""
    m = turn
    trace = np.trace(m, axis1=1, axis2=2)
    squares = np.stack([1 + 2 * m[:, i, i] - trace for i in range(3)] + [1 + trace], axis=-1)
    sums = np.empty((len(m), 4, 4))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        sums[:, i, i] = squares[:, i]
        sums[:, i, j] = m[:, i, j] + m[:, j, i]
        sums[:, i, k] = m[:, i, k] + m[:, k, i]
        sums[:, i, 3] = sums[:, 3, i] = m[:, k, j] - m[:, j, k]
    sums[:, 3, 3] = squares[:, 3]
    best = np.argmax(squares, axis=-1)
    q = sums[np.arange(len(m)), best]
    q /= np.linalg.norm(q, axis=-1, keepdims=True)
    sign = np.cumprod(np.concatenate([[1.0], np.where(np.sum(q[1:] * q[:-1], axis=-1) < 0, -1.0, 1.0)]))
    return np.asarray(q * sign[:, None])
