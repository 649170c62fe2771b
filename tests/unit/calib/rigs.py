"""Rigs and calibration files that the tests of this room share."""

from __future__ import annotations

import numpy as np
from people import looking_at

from posepipe.calib import Camera, ImageTransform, Rig
from posepipe.pipeline.skeleton import BLAZEPOSE33

MATRIX = np.array([[1680.0, 0, 540], [0, 1675, 955], [0, 0, 1]])
LENS = np.array([-0.047, 0.137, 0.0006, -0.0005, 0.01])


def camera(name="cam01", centre_m=(4.0, 0.0, 2.0), *, matrix=MATRIX, distortion=LENS, image=None):
    return Camera(name, 1088, 1920, matrix, distortion, looking_at(centre_m), image or ImageTransform())


def ring(count=4, *, radius_m=4.0, height_m=2.0, arc=2 * np.pi, distortion=LENS):
    """`count` cameras evenly on an arc around the origin, all looking at (0, 0, 1)."""
    angles = 0.3 + arc * np.arange(count) / count
    return Rig(
        tuple(
            camera(f"cam{k + 1:02d}", (radius_m * np.cos(a), radius_m * np.sin(a), height_m), distortion=distortion)
            for k, a in enumerate(angles)
        )
    )


def body(seed=0, *, at_m=(0.0, 0.0), turn_rad=0.0):
    """A standing person [33,3] in metres, roughly: every BlazePose joint, left and right well apart."""
    rng = np.random.default_rng(seed)
    half = {
        "heel": (0.17, 0.03),
        "foot": (0.19, 0.02),
        "eye": (0.03, 1.66),
        "ear": (0.08, 1.65),
        "mouth": (0.03, 1.58),
        "shoulder": (0.19, 1.42),
        "elbow": (0.34, 1.15),
        "wrist": (0.42, 0.92),
    }
    half |= {
        "pinky": (0.44, 0.84),
        "index": (0.43, 0.82),
        "thumb": (0.40, 0.86),
        "hip": (0.12, 0.93),
        "knee": (0.16, 0.50),
        "ankle": (0.17, 0.09),
    }
    half |= {"nose": (0.0, 1.62)}
    xyz = np.zeros((33, 3))
    for j, name in enumerate(BLAZEPOSE33.joints):
        side, height = next(v for part, v in half.items() if part in name)
        swing = 0.15 if any(part in name for part in ("elbow", "wrist", "knee", "ankle")) else 0.02
        xyz[j] = (side if "left" in name else -side, rng.uniform(-swing, swing), height)
    cos, sin = np.cos(turn_rad), np.sin(turn_rad)
    return xyz @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + np.array([*at_m, 0])
