"""Rigs by chance: cameras around a room that look at its middle, each with a lens of its own; how they shake; what their clocks do."""

from __future__ import annotations

import math

import numpy as np

from posepipe.pipeline.errors import RigError
from posepipe.pipeline.packet import F64

from .project import undistort
from .rig import Camera, Rig

LEAST, MOST = 2, 16
_SKEW_S = 0.25
"""With a drift, cameras also start within this share of a frame period of each other."""


def random_rig(rng: np.random.Generator, count: int, size_px: tuple[int, int], *, radius_m: tuple[float, float] = (3.2, 4.4)) -> Rig:
    """`count` cameras (2..16) on a ring of that radius around the origin, 1.2 to 3 m high, evenly spread but for a random part.

    Focal lengths are 0.7 to 1.3 of the picture's width; k1, k2, p1, p2 are drawn until the lens covers the whole picture without folding.
    """
    if not LEAST <= count <= MOST:
        raise RigError(f"{count} cameras", hint=f"a synthetic studio has {LEAST} to {MOST} cameras")
    first = rng.uniform(0, 2 * np.pi)
    cameras = []
    for c in range(count):
        angle = first + (c + rng.uniform(-0.25, 0.25)) * 2 * np.pi / max(count, 3)
        distance = rng.uniform(*radius_m)
        eye = np.array([distance * np.cos(angle), distance * np.sin(angle), rng.uniform(1.2, 3.0)])
        target = np.array([*rng.uniform(-0.25, 0.25, 2), rng.uniform(0.8, 1.1)])
        cameras.append(_camera(rng, f"cam{c + 1}", size_px, look_at(eye, target, roll_rad=rng.normal(0, 0.02))))
    return Rig(tuple(cameras), where="a random rig", units_stated=True)


def look_at(eye_m: F64, target_m: F64, *, roll_rad: float = 0.0) -> F64:
    """camera_from_world [3,4] of a camera at `eye_m` that looks at `target_m`, upright but for the roll about its axis."""
    forward = (target_m - eye_m) / np.linalg.norm(target_m - eye_m)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = math.cos(roll_rad), math.sin(roll_rad)
    rotation = np.stack([cos * right + sin * down, cos * down - sin * right, forward])
    return np.concatenate([rotation, -(rotation @ eye_m)[:, None]], axis=1)


def _camera(rng: np.random.Generator, name: str, size_px: tuple[int, int], pose: F64) -> Camera:
    width, height = size_px
    focal = width * rng.uniform(0.7, 1.3)
    centre = (width - 1) / 2 + rng.normal(0, 0.01 * width), (height - 1) / 2 + rng.normal(0, 0.01 * height)
    matrix = np.array([[focal, 0, centre[0]], [0, focal * rng.uniform(0.998, 1.002), centre[1]], [0, 0, 1.0]])
    while True:
        k1 = rng.uniform(-0.25, 0.08)
        lens = np.array([k1, -0.25 * k1 + rng.normal(0, 0.015), rng.normal(0, 6e-4), rng.normal(0, 6e-4), 0.0])
        camera = Camera(name, width, height, matrix, lens, pose)
        if covers(camera):
            return camera


def covers(camera: Camera) -> bool:
    """Whether the lens model gives every pixel along the picture's edge (half a pixel outside) a direction."""
    across, down = np.linspace(-0.5, camera.width_px - 0.5, 33), np.linspace(-0.5, camera.height_px - 0.5, 33)
    edge = [(u, v) for u in across for v in (down[0], down[-1])] + [(u, v) for u in (across[0], across[-1]) for v in down]
    return bool(np.isfinite(undistort(Rig((camera,), units_stated=True), np.array(edge).reshape(1, 1, -1, 2))).all())


def shaken(rng: np.random.Generator, rig: Rig, frames: int, shake_mm: float) -> F64:
    """camera_from_world [C,frames,3,4]: every camera moves by `shake_mm` (one standard deviation an axis) and turns by as much as would move
    a point three metres away by the same, slowly (a wave of 0.1 s to 1 s for each axis), as tripods on a floor with people do."""
    poses = np.repeat(rig.camera_from_world[:, None], frames, axis=1)
    if shake_mm <= 0:
        return poses
    moves = np.stack([_wander(rng, frames) for _ in range(6 * len(rig))]).reshape(len(rig), 6, frames) * shake_mm * 1e-3
    for c in range(len(rig)):
        for t in range(frames):
            turn = _rotation(moves[c, :3, t] / 3.0)
            poses[c, t, :, :3] = turn @ rig.camera_from_world[c, :, :3]
            poses[c, t, :, 3] = turn @ rig.camera_from_world[c, :, 3] + moves[c, 3:, t]
    return poses


def _wander(rng: np.random.Generator, frames: int) -> F64:
    """Smooth noise [frames] of unit standard deviation: three sines of random rate (cycles a frame) and phase."""
    t = np.arange(frames)
    waves = [np.sin(2 * np.pi * (rng.uniform(0.03, 0.3) * t + rng.uniform())) for _ in range(3)]
    return np.asarray(np.sum(waves, axis=0) * math.sqrt(2 / 3))


def _rotation(axis_rad: F64) -> F64:
    """The rotation about an axis by its length (Rodrigues)."""
    angle = float(np.linalg.norm(axis_rad))
    if angle == 0:
        return np.eye(3)
    x, y, z = axis_rad / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross)


def capture_times(rng: np.random.Generator, cameras: int, frames: int, fps: float, drift_ppm: float) -> F64:
    """When frame k of each camera is really taken [C,frames], seconds; its file says k / fps.

    With a drift, clocks run fast or slow by up to `drift_ppm` and start up to a quarter of a frame period late; the first camera is right.
    """
    t_s = np.tile(np.arange(frames) / fps, (cameras, 1))
    if drift_ppm <= 0:
        return t_s
    rates = rng.uniform(-drift_ppm, drift_ppm, cameras) * 1e-6
    starts = rng.uniform(0, _SKEW_S / fps, cameras)
    rates[0] = starts[0] = 0
    return np.asarray(t_s * (1 + rates[:, None]) + starts[:, None])


def middle(rig: Rig) -> F64:
    """The point [3] that the cameras look at: nearest to all their optical axes, in the mean of squares."""
    axes = rig.camera_from_world[:, 2, :3]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    centres = np.stack([c.centre_m for c in rig.cameras])
    return np.asarray(np.linalg.lstsq(across.sum(axis=0), (across @ centres[..., None]).sum(axis=0)[:, 0], rcond=None)[0])
