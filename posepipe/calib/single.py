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
_STEEP, _SMALLEST, _OUTLIER, _ROUNDS = 0.1, 1e-3, 3.0, 4


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
    conf = np.asarray(conf, np.float64)
    seen = np.isfinite(rays).all(axis=2) & (conf > 0)
    pose = np.broadcast_to(camera_from_world, (len(rays), 3, 4))
    turn = pose[:, :, :3]
    ahead = np.concatenate([np.where(seen[..., None], rays, 0.0), np.ones((*seen.shape, 1))], axis=2)
    world = np.einsum("nji,nkj->nki", turn, ahead / np.linalg.norm(ahead, axis=2, keepdims=True))
    axis = np.where(seen[..., None], world, 0.0).sum(axis=1)
    axis /= np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-9)
    axes = _axes(axis, turn)
    there = np.einsum("nij,nki->nkj", axes, world)
    sine, cosine = axis[:, 2], (axes[:, :, 1] * axis).sum(axis=1)
    forward = there[..., 1] * cosine[:, None] + there[..., 2] * sine[:, None]
    forward = np.where(np.abs(forward) > 0.05, forward, 0.05)
    x = there[..., 0] / forward
    y = (there[..., 2] * cosine[:, None] - there[..., 1] * sine[:, None]) / forward
    count = np.maximum(seen.sum(axis=1), 1)
    size = np.maximum(np.sqrt((np.where(seen, x * x + y * y, 0.0)).sum(axis=1) / count), _SMALLEST)[:, None]
    believed = np.where(seen, conf, 0.0)
    inputs = np.concatenate(
        [np.where(seen, x / size, 0), np.where(seen, y / size, 0), believed, sine[:, None], cosine[:, None], np.log(size) + 2], axis=1
    )
    centre = -np.einsum("nji,nj->ni", turn, pose[:, :, 3])
    enough = np.count_nonzero(seen[:, _BODY], axis=1) >= FEWEST
    return Looks(inputs.astype(np.float32), np.where(seen[..., None], there, np.nan), believed, axes, centre, enough)


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
    local, wide = np.asarray(xyz_m, np.float64), np.maximum(np.asarray(spread_m, np.float64), 1e-3)
    seen = np.isfinite(view.directions[..., 0])
    line = np.nan_to_num(view.directions)
    far = np.full((len(local), 1), 4.0)  # metres: it only balances the two uncertainties, and is set right by the second round
    root = np.zeros((len(local), 3))
    across = np.eye(3) - line[..., :, None] * line[..., None, :]
    agrees = np.ones(wide.shape)
    for _ in range(_ROUNDS):
        variance = wide * wide + (ray_rad[:, None] * far) ** 2 / np.maximum(view.conf, 1e-3)
        weight = np.where(seen, agrees / variance, 0.0)
        a = np.einsum("nk,nkij->nij", weight, across) + 1e-9 * np.eye(3)
        b = np.einsum("nk,nkij,nkj->ni", weight, across, local)
        root = -np.linalg.solve(a, b[..., None])[..., 0]
        far = np.maximum(np.linalg.norm(root, axis=1, keepdims=True), 0.3)
        off2 = (np.einsum("nkij,nkj->nki", across, local + root[:, None]) ** 2).sum(axis=2)
        agrees = 1 / (1 + off2 / (2 * variance)) ** 2
    at = local + root[:, None]
    off = np.einsum("nkij,nkj->nki", across, at)
    noise2 = (ray_rad[:, None] * far) ** 2 / np.maximum(view.conf, 1e-3)
    near = (off * off).sum(axis=2) < _OUTLIER**2 * 2 * (wide * wide + noise2)
    share = np.where(seen & near, wide * wide / (wide * wide + noise2), 0.0)
    at = at - share[..., None] * off
    known = view.enough & ((root * line.sum(axis=1)).sum(axis=1) > 0)
    placed = np.where(known[:, None, None], np.einsum("nij,nkj->nki", view.world_from_view, at) + view.centre_m[:, None], np.nan)
    lateral2 = wide * wide * (1 - share)
    sigma = np.sqrt((2 * lateral2 + wide * wide + (np.reshape(depth, (-1, 1)) * far) ** 2) / 3)
    return placed, np.where(known[:, None], sigma, np.inf)


def size_of(known_m: F64, given_m: F64) -> F64:
    """By what [N] skeletons with limbs given_m [N,L] are to be multiplied to be those with known_m (NaN: not known): the median, 1 where fewer than four
    limbs tell, and never beyond 0.8 and 1.25."""
    ratio = known_m / np.maximum(given_m, 1e-3)
    enough = np.isfinite(ratio).sum(axis=1) >= 4
    size = np.ones(len(ratio))
    if enough.any():
        size[enough] = np.clip(np.nanmedian(ratio[enough], axis=1), *_SIZES)
    return size


def _axes(axis: F64, turn: F64) -> F64:
    """World from view [N,3,3] of lines of sight [N,3]. Straight down, where no direction is ahead, it is what is up in the picture."""
    ground = axis * [1.0, 1.0, 0.0]
    steep = np.linalg.norm(ground, axis=1) < _STEEP
    up = -turn[:, 1] * [1.0, 1.0, 0.0] * -np.sign(axis[:, 2:] + 1e-12)
    ground = np.where(steep[:, None], up, ground)
    ground = np.where(np.linalg.norm(ground, axis=1, keepdims=True) > 1e-6, ground, np.array([0.0, 1.0, 0.0]))
    ground = ground / np.linalg.norm(ground, axis=1, keepdims=True)
    above = np.broadcast_to(np.array([0.0, 0.0, 1.0]), ground.shape)
    axes: F64 = np.stack([np.cross(ground, above), ground, above], axis=2)
    return axes
