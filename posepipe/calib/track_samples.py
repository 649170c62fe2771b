"""People who move, seen by random cameras through a detector's errors that last, and triangulated: what smoothers are tuned, trained and judged on.

As `samples`, but over time and without maps: no picture is involved. T instants.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from posepipe.pipeline.packet import F32, F64
from posepipe.pipeline.skeleton import COCO17

from .body import Body, Posed, load_body, rotations_of_6d
from .motion_clips import Clip
from .motion_retarget import retarget
from .project import project, undistort
from .samples import CELLS, INLIER, MIN_CONF, SIGMA, behind_itself, random_rig, region
from .sides import facing_of, mirror_of, triangulate_sides
from .synthetic_noise import Statistics, observe_track
from .unproject import cells_from_video

_MIRROR, _FACING = mirror_of(COCO17), facing_of(COCO17)
_BONE_MIRROR = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22])
_HIPS = [11, 12]


@dataclass(frozen=True, slots=True)
class Motion:
    """A recording on one body, resampled. coco17_m [T,17,3]; six [T,24,6]: rotations of the bones as `Body.pose` takes them; root_m [T,3]; shape [K]."""

    name: str
    fps: float
    coco17_m: F64
    six: F64
    root_m: F64
    shape: F32

    def __len__(self) -> int:
        return len(self.root_m)


@dataclass(frozen=True, slots=True)
class Seen:
    """What triangulation makes of a motion: xyz_m [T,17,3] (NaN: not found), sigma_m and conf [T,17]; views: how many cameras looked."""

    xyz_m: F32
    sigma_m: F32
    conf: F32
    views: int


def posed(clips: Iterable[Clip], *, shapes: int, seed: int, body: Body | None = None) -> list[tuple[str, Posed, F32, float]]:
    """Every clip on `shapes` bodies: name of the recording, body over time, shape [K], instants a second."""
    body, rng = body or load_body(), np.random.default_rng(seed)
    made = []
    for clip in clips:
        for _ in range(shapes):
            shape = body.draw(rng)
            made.append((clip.recording, retarget(clip, body, shape), shape, clip.fps))
    return made


def resampled(
    rng: np.random.Generator, name: str, whole: Posed, shape: F32, recorded_fps: float, *, fps: float, count: int, bent_rad: float = 0.0
) -> Motion:
    """`count` instants at `fps` from a random beginning, turned about the vertical, put within a metre of the middle, mirrored half of the time
    (the body is symmetric: sides are exchanged, and the rotations reflected). Between instants positions and the six numbers of rotations
    go along cubics. bent_rad: standard deviation by which arms and legs are held otherwise than they were (all the time the same, half of the limbs, legs
    half as much), so that poses are seen that nobody recorded. ValueError for a recording that is too short."""
    needed = (count - 1) * recorded_fps / fps
    if needed > len(whole) - 1:
        raise ValueError(f"{name} has {len(whole)} instants, {needed + 1:.0f} are needed")
    at: F64 = rng.uniform(0, len(whole) - 1 - needed) + np.arange(count, dtype=np.float64) * (recorded_fps / fps)
    six = _cubic(whole.rotations[..., :2].reshape(len(whole), -1, 6), at)
    rotations, root = rotations_of_6d(six), _cubic(whole.heads_m[:, 0], at)
    if bent_rad:
        _bend(rng, rotations, bent_rad)
    if rng.random() < 0.5:
        reflect = np.diag([-1.0, 1.0, 1.0])
        rotations, root = reflect @ rotations[:, _BONE_MIRROR] @ reflect, root * [-1.0, 1.0, 1.0]
    turn = rng.uniform(0, 2 * np.pi)
    c, s = np.cos(turn), np.sin(turn)
    about = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    rotations, root = about @ rotations, root @ about.T
    root = root - [*root[0, :2], 0] + [*rng.uniform(-1, 1, 2), 0]
    moved = whole.body.pose(shape, rotations, root)
    return Motion(name, fps, moved.joints_m("coco17").astype(np.float64), rotations[..., :2].reshape(count, -1, 6), root, shape)


_LIMBS = (((16, 18, 20, 22), 9, 1.0), ((17, 19, 21, 23), 9, 1.0), ((1, 4, 7, 10), 0, 0.5), ((2, 5, 8, 11), 0, 0.5))
"""Bones of a limb from the trunk on, the bone that it hangs on, and how far it is bent."""


def _bend(rng: np.random.Generator, rotations: F64, bent_rad: float) -> None:
    """Turn half of the limbs against the trunk, and their lower halves against the upper ones; rotations [T,24,3,3], in place."""
    for bones, trunk, share in _LIMBS:
        if rng.random() < 0.5:
            continue
        for first, against in ((0, trunk), (1, bones[0])):
            frame, turn = rotations[:, against].copy(), _turn(rng.normal(0, bent_rad * share / np.sqrt(3), 3))
            in_world = frame @ turn @ frame.transpose(0, 2, 1)
            rotations[:, bones[first:]] = in_world[:, None] @ rotations[:, bones[first:]]


def _turn(by_rad: F64) -> F64:
    """The rotation about an axis by its length (Rodrigues' formula)."""
    angle = float(np.linalg.norm(by_rad)) + 1e-12
    x, y, z = by_rad / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: F64 = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turn


def watched(rng: np.random.Generator, truth_m: F64, fps: float, *, occlusion: float = 0.0, statistics: Statistics | None = None) -> Seen:
    """Joints [T,17,3] before a random rig: four cameras look half of the time, else two or three. occlusion: chance of a thing in the room that hides,
    for a view, what is behind it all the time."""
    rig = random_rig(rng)
    count, frames = len(rig), len(truth_m)
    on = np.zeros(count, np.bool_)
    on[rng.permutation(count)[: rng.choice([4, 3, 2], p=[0.5, 0.2, 0.3])]] = True
    uv, hidden, cells = np.empty((frames, count, 17, 2)), np.empty((frames, count, 17), np.bool_), np.empty((frames, count, 2, 3))
    sides = np.empty((frames, count))
    things = [_thing(rng) if rng.random() < occlusion else None for _ in range(count)]
    for t in range(frames):
        seen = project(rig, truth_m[t])
        hidden[t] = ~seen.visible | behind_itself(rig, truth_m[t])
        rois = np.full((count, 4), np.nan)
        for k in np.flatnonzero(on & (seen.visible.sum(axis=1) >= 4)):
            rois[k] = region(rng, seen.uv_px[k], seen.visible[k])
            if (thing := things[k]) is not None:
                hidden[t, k] |= (np.abs(seen.uv_px[k] - thing[0]) < thing[1]).all(axis=1)
        cells[t], sides[t] = cells_from_video(rois, CELLS), np.maximum(np.nan_to_num(rois[:, 2]), 1)
        uv[t] = np.einsum("cij,cnj->cni", cells[t, :, :, :2], seen.uv_px) + cells[t, :, None, :, 2]
    peaks, conf = observe_track(rng, uv, hidden, fps=fps, size=CELLS, stats=statistics)
    with np.errstate(invalid="ignore"):
        linear = np.where(np.isfinite(cells[..., :2]), cells[..., :2], np.eye(2))
        uv_px = np.linalg.solve(linear[:, :, None], (peaks - cells[:, :, None, :, 2])[..., None])[..., 0]
    there = np.isfinite(cells[..., 0, 0])
    uv_px[~there] = np.nan
    conf = np.where(there[..., None] & (conf >= MIN_CONF), conf, 0)
    rays = undistort(rig, uv_px.astype(np.float32))
    found, _ = triangulate_sides(
        rig, rays, conf.astype(np.float32), mirror=_MIRROR, facing=_FACING, inlier_px=INLIER * sides, sigma_px=SIGMA * sides
    )
    return Seen(
        np.asarray(found.xyz_m, np.float32), np.asarray(found.sigma_m, np.float32), np.asarray(found.conf, np.float32), int(on.sum())
    )


def _thing(rng: np.random.Generator) -> tuple[F64, F64]:
    """A column, a table or a box in a picture of 1920 x 1080: centre and half its size in pixels."""
    kind = rng.integers(3)
    if kind == 0:
        return np.array([960.0, 1080.0]), np.array([2000.0, rng.uniform(100, 450)])
    if kind == 1:
        return np.array([rng.uniform(500, 1420), 540.0]), np.array([rng.uniform(30, 120), 2000.0])
    return np.array([rng.uniform(400, 1520), rng.uniform(200, 900)]), rng.uniform(60, 260, 2)


def _cubic(values: F64, at: F64) -> F64:
    """Catmull-Rom through values [T,...] at places 0..T-1."""
    last = len(values) - 1
    k = np.clip(np.floor(at).astype(np.int64), 0, max(last - 1, 0))
    f = (at - k).reshape(-1, *[1] * (values.ndim - 1))
    a, b, c, d = (values[np.clip(k + i, 0, last)] for i in (-1, 0, 1, 2))
    a, d = np.where((k > 0).reshape(f.shape), a, 2 * b - c), np.where((k + 2 <= last).reshape(f.shape), d, 2 * c - b)
    out: F64 = b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))
    return out
