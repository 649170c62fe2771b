"""A synthetic studio for the tests: cameras in a ring, a standing person, and where the cameras see them."""

from __future__ import annotations

from typing import Any

import numpy as np

from posepipe.calib.project import project
from posepipe.calib.rig import Camera, Rig
from posepipe.pipeline.skeleton import BLAZEPOSE33

Array = np.ndarray[Any, np.dtype[np.float64]]
NAMES = ("north", "east", "south", "west", "c5", "c6", "c7", "c8")

# The left side of a person at the origin who looks along +y; metres.
_HALF = {
    "eye_inner": (-0.015, 0.11, 1.64), "eye": (-0.03, 0.1, 1.64), "eye_outer": (-0.045, 0.09, 1.64), "ear": (-0.08, 0.0, 1.62),
    "mouth": (-0.02, 0.11, 1.55), "shoulder": (-0.2, 0.0, 1.4), "elbow": (-0.28, 0.02, 1.12), "wrist": (-0.3, 0.1, 0.88),
    "pinky": (-0.33, 0.12, 0.8), "index": (-0.3, 0.14, 0.79), "thumb": (-0.27, 0.14, 0.82), "hip": (-0.12, 0.0, 0.92),
    "knee": (-0.13, 0.03, 0.5), "ankle": (-0.13, 0.0, 0.08), "heel": (-0.13, -0.06, 0.03), "foot_index": (-0.14, 0.15, 0.02),
}  # fmt: skip


def standing(x_m: float = 0.0, y_m: float = 0.0) -> Array:
    """A person [33,3], upright, facing +y."""
    joints = []
    for name in BLAZEPOSE33.joints:
        if name == "nose":
            joints.append((0.0, 0.12, 1.6))
            continue
        part = name.replace("left_", "").replace("right_", "").replace("_left", "").replace("_right", "")
        x, y, z = _HALF[part]
        joints.append((-x if "right" in name else x, y, z))
    return np.array(joints) + np.array([x_m, y_m, 0.0])


def looking_at(centre_m: tuple[float, float, float], target_m: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> Array:
    """camera_from_world [3,4] of a camera at centre_m that looks at target_m, upright."""
    centre = np.array(centre_m, np.float64)
    forward = np.array(target_m, np.float64) - centre
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return np.column_stack([rotation, -rotation @ centre])


def ring(count: int = 4, *, width: int = 1280, height: int = 960, radius_m: float = 4.0, height_m: float = 1.6) -> Rig:
    """Cameras on a circle (two: a quarter apart) that look at (0, 0, 0.9); no distortion; a person in the middle is half the picture high."""
    cameras = []
    for k in range(count):
        angle = 0.3 + 2 * np.pi * k / max(count, 3 if count != 2 else 4)
        pose = looking_at((radius_m * np.cos(angle), radius_m * np.sin(angle), height_m), (0.0, 0.0, 0.9))
        focal = 1.2 * height
        matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        cameras.append(Camera(NAMES[k], width, height, matrix, np.zeros(5), pose))
    return Rig(tuple(cameras))


def seen(rig: Rig, people: list[Array]) -> Array:
    """Key points [P,C,J,2] of people in the videos."""
    return np.array([project(rig, person).uv_px for person in people]).reshape(len(people), len(rig), -1, 2)
