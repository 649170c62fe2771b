"""People seen by random cameras through a detector's errors: what the three-dimensional networks are trained and judged on.

No picture is involved: a pose of the bank is placed in a room, cameras and occluders are drawn, the joints are projected through the lens
model, and `synthetic_noise` makes of them what a heatmap network would have seen. Then come the same steps as in a studio:
robust triangulation of the peaks, a cube around what it found, and the heatmaps unprojected into that cube.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64
from posepipe.pipeline.skeleton import COCO17

from .cube import fill, fine_step
from .posebank import Track
from .project import project, undistort
from .rig import Camera, Rig
from .sides import Bools, facing_of, mirror_of, triangulate_sides
from .synthetic_noise import Statistics, observe
from .triangulate import Triangulated
from .unproject import Cube, cells_from_video

CELLS = 64
"""Width and height of the heatmaps that are drawn."""
INLIER, SIGMA, MIN_CONF = 0.05, 0.012, 0.2
"""As `lift.algebraic` has them."""
_PADDING, _CROWN, _TRUNKS = 1.15, 0.2, 1.6  # as engines.regions cuts for BlazePose
_HIPS, _SHOULDERS = np.array([11, 12]), np.array([5, 6])
_LIMBS = np.array(
    [(5, 11), (6, 12), (5, 12), (6, 11), (5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16), (0, 3), (0, 4)]
)
_THICK_M = np.array([0.12, 0.12, 0.12, 0.12, 0.05, 0.04, 0.05, 0.04, 0.08, 0.06, 0.08, 0.06, 0.09, 0.09])
_MIRROR, _FACING = mirror_of(COCO17), facing_of(COCO17)


@dataclass(frozen=True, slots=True)
class Observed:
    """One person at one instant. rig: C cameras. truth_m [17,3]. rois [C,4], NaN where the camera gave no view. maps [C,64,64,17];
    uv_px [C,17,2], conf [C,17], hidden [C,17]: key points, and which of them were occluded or outside the picture. clip: name.
    """

    rig: Rig
    truth_m: F64
    rois: F64
    maps: F32
    uv_px: F32
    conf: F32
    hidden: NDArray[np.bool_]
    clip: str

    @property
    def views(self) -> int:
        """How many cameras gave a view."""
        return int(np.isfinite(self.rois[:, 2]).sum())


class Sampler:
    """Draws observations of the tracks' poses, deterministic by `seed`. views: with which chance how many of the cameras give a view.
    miscalibrated_rad: by how much, standard deviation in each axis, the cameras look elsewhere than their rig says.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        *,
        seed: int,
        rigs: Sequence[Rig] | None = None,
        views: dict[int, float] | None = None,
        occlusion: float = 0.4,
        statistics: Statistics | None = None,
        miscalibrated_rad: float = 0.0,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._tracks = tracks
        lengths = np.array([len(t.coco17_m) for t in tracks], np.float64)
        self._share = lengths / lengths.sum()
        self._rigs = list(rigs) if rigs is not None else [random_rig(self._rng) for _ in range(300)]
        self._views = views or {4: 0.5, 3: 0.2, 2: 0.3}
        self._occlusion = occlusion
        self._statistics = statistics
        self._miscalibrated_rad = miscalibrated_rad

    def draw(self) -> Observed:
        """The next observation; one whose person no two cameras can see is drawn again."""
        while True:
            rng = self._rng
            track = self._tracks[rng.choice(len(self._tracks), p=self._share)]
            truth_m = place(rng, np.asarray(track.coco17_m[rng.integers(len(track.coco17_m))], np.float64))
            rig = self._rigs[rng.integers(len(self._rigs))]
            counts = list(self._views)
            wanted = int(rng.choice(counts, p=np.array(list(self._views.values())) / sum(self._views.values())))
            seen = look(rng, rig, truth_m, views=wanted, occlusion=self._occlusion, statistics=self._statistics, clip=track.name)
            if seen.views >= 2:
                return replace(seen, rig=_turned(rng, rig, self._miscalibrated_rad)) if self._miscalibrated_rad else seen


def random_rig(rng: np.random.Generator, cameras: int = 4) -> Rig:
    """Cameras around a room of 4 to 12 m, 1 to 3.2 m high, looking at its middle, with lenses of 45 to 95 degrees and distortion."""
    radius_m, start = rng.uniform(2.2, 6.0), rng.uniform(0, 2 * np.pi)
    made = []
    for k in range(cameras):
        angle = start + 2 * np.pi * k / cameras + rng.normal(0, 0.35)
        centre = np.array([*(radius_m * rng.uniform(0.75, 1.25) * np.array([np.cos(angle), np.sin(angle)])), rng.uniform(1.0, 3.2)])
        target = np.array([*rng.normal(0, 0.3, 2), rng.uniform(0.8, 1.1)])
        forward = (target - centre) / np.linalg.norm(target - centre)
        roll = rng.normal(0, 0.03)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
        rotation = np.stack([right, down, forward])
        focal = 1920 / (2 * np.tan(np.deg2rad(rng.uniform(45, 95)) / 2))
        matrix = np.array([[focal, 0, 960 + rng.normal(0, 10)], [0, focal, 540 + rng.normal(0, 10)], [0, 0, 1]])
        lens = np.array([rng.normal(0, 0.06), rng.normal(0, 0.02), rng.normal(0, 5e-4), rng.normal(0, 5e-4), 0])
        made.append(Camera(f"c{k}", 1920, 1080, matrix, lens, np.column_stack([rotation, -rotation @ centre])))
    return Rig(tuple(made))


def _turned(rng: np.random.Generator, rig: Rig, sigma_rad: float) -> Rig:
    """The rig with every camera turned a little about its own centre: a calibration that is not quite true."""
    cameras = []
    for camera in rig.cameras:
        x, y, z = rng.normal(0, sigma_rad, 3)
        left, _, right = np.linalg.svd(np.array([[1, -z, y], [z, 1, -x], [-y, x, 1]]))
        cameras.append(replace(camera, camera_from_world=left @ right @ camera.camera_from_world))
    return Rig(tuple(cameras))


def place(rng: np.random.Generator, pose_m: F64) -> F64:
    """A pose [17,3] turned about the vertical, put within 1.2 m of the middle, and mirrored half of the time."""
    pose_m = pose_m.copy()
    if rng.random() < 0.5:
        pose_m = pose_m[_MIRROR] * np.array([-1.0, 1.0, 1.0])
    middle = pose_m[_HIPS].mean(axis=0)
    turn = rng.uniform(0, 2 * np.pi)
    c, s = np.cos(turn), np.sin(turn)
    placed: F64 = (pose_m - [*middle[:2], 0]) @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    placed[:, :2] += rng.uniform(-1.2, 1.2, 2)
    return placed


def look(
    rng: np.random.Generator, rig: Rig, truth_m: F64, *, views: int, occlusion: float, statistics: Statistics | None = None, clip: str = ""
) -> Observed:
    """What `views` of the rig's cameras, drawn by chance, see of a skeleton [17,3]. occlusion: chance of an occluder in a view."""
    count = len(rig)
    seen = project(rig, truth_m)
    on = np.zeros(count, np.bool_)
    on[rng.permutation(count)[:views]] = True
    rois = np.full((count, 4), np.nan)
    for c in np.flatnonzero(on & (seen.visible.sum(axis=1) >= 4)):
        rois[c] = region(rng, seen.uv_px[c], seen.visible[c])
    to_cells = cells_from_video(rois, CELLS)
    uv = np.einsum("cij,cnj->cni", to_cells[:, :, :2], seen.uv_px) + to_cells[:, None, :, 2]
    hidden = ~seen.visible | behind_itself(rig, truth_m) | _behind_things(rng, uv, occlusion)
    found = observe(rng, uv.astype(np.float64), hidden, size=CELLS, stats=statistics)
    uv_px = np.linalg.solve(to_cells[:, None, :, :2], (found.peaks - to_cells[:, None, :, 2])[..., None])[..., 0]
    there = np.isfinite(rois[:, 2])
    uv_px[~there] = np.nan
    conf = np.where(there[:, None], found.conf, 0)
    return Observed(rig, truth_m, rois, found.maps, uv_px.astype(np.float32), conf.astype(np.float32), hidden, clip)


def key_points(seen: Observed) -> tuple[F64, F32, F64]:
    """As a lifting node has them, P = 1: rays [1,C,17,2], confidences [1,C,17] (0: too low to be seen), and sides of the crops [1,C] in pixels."""
    conf = np.where(seen.conf >= MIN_CONF, seen.conf, np.float32(0))[None]
    return undistort(seen.rig, seen.uv_px[None]), conf, np.maximum(np.nan_to_num(seen.rois[:, 2]), 1)[None]


def algebraic(seen: Observed) -> tuple[Triangulated, Bools]:
    """Robust triangulation as `lift.algebraic` does it, P = 1, and the joints [1,C,17] whose sides it exchanged."""
    rays, conf, side_px = key_points(seen)
    return triangulate_sides(seen.rig, rays, conf, mirror=_MIRROR, facing=_FACING, inlier_px=INLIER * side_px, sigma_px=SIGMA * side_px)


def volume_of(seen: Observed, cube: Cube, exchanged: Bools, *, n: int = 32) -> F32:
    """What a volumetric network is given: `fill` with what was observed. exchanged [C,17]."""
    return fill(seen.rig, seen.maps, seen.conf, seen.rois, exchanged, cube, n=n)


def refined(seen: Observed, cube: Cube, exchanged: Bools, shares: F32, spread: F32, *, weights: F64 | None = None) -> Triangulated:
    """What is made of its answer (shares [17,3], spread [17]), P = 1: `fine_step` with what was observed. exchanged [C,17]. weights
    [1,C,17]: as of `fine_step`."""
    _, conf, side_px = key_points(seen)
    return fine_step(
        seen.rig, seen.uv_px[None], conf, exchanged[None], [cube], shares[None], spread[None],
        inlier_px=INLIER * side_px, sigma_px=SIGMA * side_px, weights=weights,
    )  # fmt: skip


def region(rng: np.random.Generator, uv_px: F64, visible: NDArray[np.bool_]) -> F64:
    """Where a tracker would cut: around the joints, a little off."""
    uv_px = np.where(np.isfinite(uv_px), uv_px, np.nanmean(uv_px[visible], axis=0))
    hips, shoulders = uv_px[_HIPS].mean(axis=0), uv_px[_SHOULDERS].mean(axis=0)
    up = shoulders - hips
    ends = np.vstack([uv_px, uv_px[0] + _CROWN * (uv_px[0] - hips)])
    radius = max(np.linalg.norm(ends - hips, axis=1).max(), _TRUNKS * np.linalg.norm(up))
    side = 2 * _PADDING * radius * np.exp(rng.normal(0, 0.04))
    centre = hips + rng.normal(0, 0.015, 2) * side
    return np.array([*centre, side, np.arctan2(up[0], -up[1]) + rng.normal(0, 0.05)])


def behind_itself(rig: Rig, xyz_m: F64) -> NDArray[np.bool_]:
    """[C,17]: joints whose line of sight passes through the trunk, the head or another limb (capsules around the bones)."""
    camera_m = np.array([c.centre_m for c in rig.cameras])
    a, b = xyz_m[_LIMBS[:, 0]], xyz_m[_LIMBS[:, 1]]
    ray = xyz_m[None] - camera_m[:, None]
    length = np.linalg.norm(ray, axis=2, keepdims=True)
    ray = ray / length
    # the points nearest to each other of line and bone: lines first, then clamped to the bone
    bone = b - a
    w = a[None] - camera_m[:, None]
    bb = (bone * bone).sum(1)
    rb, rw, bw = np.einsum("cji,li->cjl", ray, bone), np.einsum("cji,cli->cjl", ray, w), (bone[None] * w).sum(2)[:, None]
    t = np.clip((rb * rw - bw) / np.maximum(bb - rb * rb, 1e-9), 0, 1)
    s = rw + t * rb
    away2 = ((w[:, None] + t[..., None] * bone) ** 2).sum(3) - s * s
    own = (_LIMBS[None] == np.arange(17)[:, None, None]).any(2)
    blocked = (away2 < _THICK_M**2) & (s < length - _THICK_M - 0.08) & ~own[None]
    hidden: NDArray[np.bool_] = blocked.any(axis=2)
    return hidden


def _behind_things(rng: np.random.Generator, uv: F64, chance: float) -> NDArray[np.bool_]:
    """[C,17]: joints behind a table (all below a line), a column or a box, in cells of the crop."""
    hidden = np.zeros(uv.shape[:2], np.bool_)
    for c in range(len(uv)):
        if rng.random() >= chance:
            continue
        kind, x, y = rng.integers(3), uv[c, :, 0], uv[c, :, 1]
        if kind == 0:
            hidden[c] = y > rng.uniform(0.4, 0.8) * CELLS + (x - CELLS / 2) * rng.normal(0, 0.1)
        elif kind == 1:
            hidden[c] = np.abs(x - rng.uniform(0.2, 0.8) * CELLS) < rng.uniform(0.04, 0.14) * CELLS
        else:
            at, size = rng.uniform(0.1, 0.9, 2) * CELLS, rng.uniform(0.08, 0.25, 2) * CELLS
            hidden[c] = (np.abs(x - at[0]) < size[0]) & (np.abs(y - at[1]) < size[1])
    return hidden
