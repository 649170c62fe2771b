"""Where joints appear in the pictures, and which of them the pictures show."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64
from posepipe.pipeline.skeleton import COCO17

from .project import Projection, project
from .rig import Camera, Rig
from .synthetic import Studio
from .synthetic_gl import Shot
from .synthetic_lens import Flat
from .synthetic_truth import FORMAT, Person, Scene, Truth

_IN_FRONT_M = 0.05
_LIMB_M = 0.22
_LEGS, _ARMS = (
    {"left": ((8, 10), (12, 14), (5,)), "right": ((7, 9), (11, 13), (6,))},
    {"left": ((15, 17), (19, 21), (4,)), "right": ((16, 18), (20, 22), (3,))},
)
_TORSO = (1, 2)


def _parts_around() -> NDArray[np.bool_]:
    """[17,25]: whether a part's skin lies around a joint of coco17; none for the face, whose points lie on the skin."""
    around = np.zeros((17, 25), np.bool_)
    for side in ("left", "right"):
        for limbs, names in ((_ARMS, ("shoulder", "elbow", "wrist")), (_LEGS, ("hip", "knee", "ankle"))):
            upper, lower, end = limbs[side]
            for name, parts in zip(names, (_TORSO + upper, upper + lower, lower + end), strict=True):
                around[COCO17.index(f"{side}_{name}"), list(parts)] = True
    return around


_AROUND = _parts_around()


def truth_without_sight(studio: Studio) -> Truth:
    """The truth of a studio, where everything inside a picture counts as visible."""
    options = studio.options
    people, cameras, frames = len(studio.actors), len(studio.rig), options.frames
    who = tuple(Person(a.id, [round(float(k), 6) for k in a.shape], a.colours, a.clip.name, a.clip.label) for a in studio.actors)
    stated = {k: v if isinstance(v, int | float) else str(v) for k, v in asdict(options).items() if v not in (None, ())}
    sizes = {(c.width_px, c.height_px) for c in studio.rig.cameras}
    size_px = sizes.pop() if len(sizes) == 1 else (0, 0)
    scene = Scene(FORMAT, options.seed, options.fps, frames, size_px, studio.rig.names, studio.labels, who, stated)
    joints = {name: _all_joints(studio, name, count) for name, count in (("coco17", 17), ("body25", 25), ("smpl24", 24))}
    uv_px = np.full((cameras, people, frames, 17, 2), np.nan, np.float32)
    inside = np.zeros((cameras, people, frames, 17), np.bool_)
    for p, actor in enumerate(studio.actors):
        for c, camera in enumerate(studio.rig.cameras):
            seen = _seen(camera, studio.camera_from_world[c], actor.joints_m("coco17", studio.capture_t_s[c]))
            uv_px[c, p], inside[c, p] = seen.uv_px.reshape(frames, 17, 2), seen.visible.reshape(frames, 17)
    label = np.array([studio.labels.index(a.clip.label) for a in studio.actors], np.int16).reshape(people, 1)
    present = np.isfinite(joints["coco17"][..., 0, 0])
    return Truth(
        where="",
        scene=scene,
        t_s=studio.t_s.copy(),
        capture_t_s=studio.capture_t_s.copy(),
        camera_from_world=studio.camera_from_world.copy(),
        coco17_m=joints["coco17"],
        body25_m=joints["body25"],
        smpl24_m=joints["smpl24"],
        root_m=np.ascontiguousarray(joints["smpl24"][:, :, 0]),
        coco17_uv_px=uv_px,
        coco17_visible=inside,
        action=np.where(present, label, -1).astype(np.int16),
    )


def _all_joints(studio: Studio, layout: str, count: int) -> F32:
    joints = [actor.joints_m(layout, studio.t_s) for actor in studio.actors]
    return np.array(joints, np.float32).reshape(len(joints), len(studio.t_s), count, 3)


def _seen(camera: Camera, poses: F64, joints_m: F64) -> Projection:
    """joints_m [T,J,3] in the pictures of one camera; poses [T,3,4] where it was. N = T J."""
    still = bool((poses == poses[0]).all())
    if still:
        return project(Rig((replace(camera, camera_from_world=poses[0]),), units_stated=True), joints_m.reshape(-1, 3))
    each = [project(Rig((replace(camera, camera_from_world=m),), units_stated=True), j) for m, j in zip(poses, joints_m, strict=True)]
    return Projection(*(np.concatenate([getattr(p, name) for p in each], axis=1) for name in ("uv_px", "depth_m", "visible")))


class Sight:
    """Tells from a flat picture and its depth which joints it shows.

    A joint is seen when nothing lies in front of it by more than 5 cm and its own depth under the skin; or when what lies in front is the skin
    of the limb that it is in, less than 22 cm nearer: along a slanting ray a hip is that deep.
    """

    def __init__(self, studio: Studio) -> None:
        self._actors = studio.actors
        self._deep_m = np.array([_depth_inside(studio, p) for p in range(len(studio.actors))]).reshape(-1, 17)

    def of(self, t_s: float, flat: Flat, camera_from_world: F64, shot: Shot) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """[P,17]: what a picture taken at t_s shows."""
        if not self._actors:
            return np.zeros((0, 17), np.bool_)
        joints = np.stack([actor.joints_m("coco17", np.array([t_s]))[0] for actor in self._actors])
        local = joints @ camera_from_world[:, :3].T + camera_from_world[:, 3]
        ahead = local[..., 2] > 0
        rays = local[..., :2] / np.where(ahead, local[..., 2], np.nan)[..., None]
        columns, rows = np.moveaxis(np.round(np.nan_to_num(flat.pixels(rays), nan=-1.0)), -1, 0)
        inside = ahead & (columns >= 0) & (rows >= 0) & (columns < flat.width) & (rows < flat.height)
        at = np.where(inside, rows, 0).astype(np.int64), np.where(inside, columns, 0).astype(np.int64)
        nearer_m = local[..., 2] - shot.depth_m[at]
        part, whose = shot.surface[at][..., 0], shot.surface[at][..., 3]
        own = (whose == np.arange(1, len(joints) + 1)[:, None]) & _AROUND[np.arange(17), part]
        return np.asarray(inside & ((nearer_m < _IN_FRONT_M + self._deep_m) | (own & (nearer_m < _LIMB_M))))


def _depth_inside(studio: Studio, person: int) -> F64:
    """How far [17] a person's joints are from the nearest of the body's points, in the first instant that the clip has."""
    actor = studio.actors[person]
    skin = actor.skin(0.0)
    assert skin is not None
    joints = actor.joints_m("coco17", np.zeros(1))[0]
    return np.asarray(np.linalg.norm(joints[:, None] - skin[0][None], axis=-1).min(axis=1))
