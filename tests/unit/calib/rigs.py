"""Rigs and calibration files that the tests of this room share."""

from __future__ import annotations

import numpy as np

from posepipe.calib import Camera, ImageTransform, Rig

MATRIX = np.array([[1680.0, 0, 540], [0, 1675, 955], [0, 0, 1]])
LENS = np.array([-0.047, 0.137, 0.0006, -0.0005, 0.01])


def looking_at(centre_m, target_m=(0.0, 0.0, 1.0)):
    """camera_from_world [3,4] of a camera at centre_m that looks at target_m, upright."""
    centre = np.asarray(centre_m, float)
    forward = np.asarray(target_m, float) - centre
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return np.column_stack([rotation, -rotation @ centre])


def camera(name="cam01", centre_m=(4.0, 0.0, 2.0), *, matrix=MATRIX, distortion=LENS, image=None):
    return Camera(name, 1088, 1920, matrix, distortion, looking_at(centre_m), image or ImageTransform())


def ring(count=4, *, radius_m=4.0, height_m=2.0, arc=2 * np.pi, distortion=LENS):
    """`count` cameras evenly on an arc around the origin, all looking at (0, 0, 1)."""
    angles = 0.3 + arc * np.arange(count) / count
    return Rig(
        tuple(
            camera(f"cam{k + 1:02d}", (radius_m * np.cos(a), radius_m * np.sin(a), height_m), distortion=distortion) for k, a in enumerate(angles)
        )
    )
