"""One view of one person: what a network that lifts it into space is given, and where in the room its answer stands.

The published lifter (Martinez et al. 2017) takes pixels, which binds it to one camera. Here the studio's calibration takes the camera out: the
person is turned into the middle of a virtual camera that stands upright, and the picture is divided by its own size. The answer comes
in the axes of the body's view: x to the right of the line of sight, y along it on the ground, z up. N views, 17 joints of coco17.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64
from posepipe.pipeline.skeleton import COCO17

from .single_kernel import look_at, stand_at

JOINTS = len(COCO17.joints)
INPUTS = 3 * JOINTS + 3
"""Numbers of a view: x, y of every joint, then how far each is believed, then sine and cosine of the elevation and the logarithm of the size."""
FEWEST = 6
"""Body joints (shoulders to ankles) that a view must show."""
DEPTH = 0.08
"""One standard deviation of the distance to the camera, as a share of it: people differ in size, and one view does not tell."""
OWN = 0.05
"""The same where the length of the person's own limbs is known."""
_SIZES = 0.8, 1.25
_BODY = np.array(COCO17.body)
_HIPS = [COCO17.index("left_hip"), COCO17.index("right_hip")]


@dataclass(frozen=True, slots=True)
class Looks:
    """N views. inputs [N,54] float32, zeros where a joint is not seen. directions [N,17,3]: unit vectors from the camera to the joints in the
    view's axes, NaN where a joint is not seen. conf [N,17]: 0 there. world_from_view [N,3,3]: the view's axes. centre_m [N,3]: the camera.
    enough [N]: whether enough of the body is seen."""

    inputs: F32
    directions: F64
    conf: F64
    world_from_view: F64
    centre_m: F64
    enough: NDArray[np.bool_]


def looks(rays: F64, conf: F64 | F32, camera_from_world: F64) -> Looks:
    """What views are to the network. rays [N,17,2]: x / z, y / z in the camera's frame without distortion (`project.undistort`), NaN where
    there is nothing; conf [N,17]: 0 for what is not seen; camera_from_world [N,3,4] or [3,4]."""
    count = len(rays)
    believed = np.array(conf, np.float64, order="C")
    pose = np.ascontiguousarray(np.broadcast_to(camera_from_world, (count, 3, 4)), np.float64)
    inputs, directions = np.empty((count, INPUTS), np.float32), np.empty((count, JOINTS, 3))
    axes, centre = np.empty((count, 3, 3)), np.empty((count, 3))
    look_at(np.ascontiguousarray(rays, np.float64), believed, pose, inputs, directions, axes, centre)
    enough = np.count_nonzero(believed[:, _BODY] > 0, axis=1) >= FEWEST
    return Looks(inputs, directions, believed, axes, centre, enough)


def from_hips(view: Looks, xyz_m: F64) -> F32:
    """The truth that a network has to give for these views: world points [N,17,3] from the middle of the hips, in the view's axes."""
    away = xyz_m - xyz_m[:, _HIPS].mean(axis=1, keepdims=True)
    target: F32 = np.einsum("nij,nki->nkj", view.world_from_view, away).astype(np.float32)
    return target


def stand(view: Looks, xyz_m: F64 | F32, spread_m: F64 | F32, *, ray_rad: F64, depth: F64 | float = DEPTH) -> tuple[F64, F64]:
    """The skeletons in the room: world points [N,17,3] and one standard deviation of each [N,17], metres; NaN where the view does not tell.

    xyz_m, spread_m: the network's answer, from the hips, in the view's axes. Its bones have a length (the network has learned how long they are),
    so only one place on the lines of sight fits them: the translation with the least squared distances from joints to lines,
    weighted by both uncertainties and robustly (three linear equations, four
    times, Geman and McClure's weights). Then every joint that is seen moves towards its line by its share of the variance.
    ray_rad [N]: one standard deviation of a key point that is certain, as an angle. depth ([N]): that of the distance, as a share of it.
    """
    local, wide = np.array(xyz_m, np.float64, order="C"), np.maximum(np.asarray(spread_m, np.float64), 1e-3)
    ray, share = np.ascontiguousarray(ray_rad, np.float64), np.ascontiguousarray(np.broadcast_to(depth, len(local)), np.float64)
    placed, sigma = np.empty(local.shape), np.empty(wide.shape)
    stand_at(view.directions, view.conf, view.world_from_view, view.centre_m, view.enough, local, wide, ray, share, placed, sigma)
    return placed, sigma


def size_of(known_m: F64, given_m: F64) -> F64:
    """By what [N] skeletons with limbs given_m [N,L] are to be multiplied to be those with known_m (NaN: not known): the median, 1 where fewer than four
    limbs tell, and never beyond 0.8 and 1.25."""
    ratio = known_m / np.maximum(given_m, 1e-3)
    enough = np.isfinite(ratio).sum(axis=1) >= 4
    size = np.ones(len(ratio))
    if enough.any():
        size[enough] = np.clip(np.nanmedian(ratio[enough], axis=1), *_SIZES)
    return size
