"""The people of a synthetic scene: what they wear, where they stand, and where every point of them is at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64
from posepipe.pipeline.skeleton import COCO17

from .body import Body, Posed
from .motion import Clip
from .synthetic_mesh import CLOTH, SKIN, Mesh, vertex_normals

_FEET, _HANDS, _HEAD, _TORSO = (5, 6), (3, 4), (23, 24), (1, 2)
_UPPER_LEGS, _LOWER_LEGS, _UPPER_ARMS, _LOWER_ARMS = (7, 8, 9, 10), (11, 12, 13, 14), (15, 16, 17, 18), (19, 20, 21, 22)
_SKINS = ((0.72, 0.45, 0.33), (0.62, 0.36, 0.25), (0.47, 0.26, 0.16), (0.30, 0.15, 0.09), (0.17, 0.08, 0.05))
_HAIRS = ((0.02, 0.015, 0.01), (0.07, 0.035, 0.02), (0.20, 0.10, 0.04), (0.40, 0.28, 0.13), (0.30, 0.30, 0.30))
_APART_M = 0.9
_TRIES = 400


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """One person of a scene: a body that moves as `clip` does from the scene's time 0 on, turned and moved on the floor.

    posed has an instant for each of the clip's; between two of them the skin and the joints move along straight lines. Outside the clip the
    person is absent.
    """

    id: int
    clip: Clip
    posed: Posed
    shape: F64
    yaw_rad: float
    offset_m: F64
    mesh: Mesh
    welded: NDArray[np.int32]
    colours: dict[str, list[float]]
    _joints: dict[str, F32] = field(default_factory=dict, repr=False)
    _recent: dict[int, F32] = field(default_factory=dict, repr=False)

    def _turn(self) -> F64:
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])

    def _placed(self, points: NDArray[np.floating]) -> F64:
        return np.asarray(points @ self._turn().T + [*self.offset_m, 0.0])

    def skin(self, t_s: float) -> tuple[F32, F32] | None:
        """Points and normals [V,3] at a time; None when absent."""
        at = t_s * self.clip.fps
        first = int(np.floor(at))
        if first < 0 or at > len(self.clip.joints24_m) - 1:
            return None
        share = at - first
        points = self._instant(first)
        if share > 0:
            points = (1 - share) * points + share * self._instant(first + 1)
        placed = np.asarray(self._placed(points), np.float32)
        return placed, vertex_normals(placed, self.mesh.faces, self.welded)

    def _instant(self, k: int) -> F32:
        if k not in self._recent:
            for gone in [i for i in self._recent if i < k - 2 or i > k + 2]:
                del self._recent[gone]
            self._recent[k] = np.asarray(self.posed.vertices_m(k), np.float32)
        return self._recent[k]

    def joints_m(self, layout: str, t_s: F64) -> F64:
        """Joints [T,J,3] at times [T]; NaN when absent."""
        if layout not in self._joints:
            self._joints[layout] = self.posed.joints_m(layout)
        joints = self._joints[layout][: len(self.clip.joints24_m)]
        at = np.asarray(t_s) * self.clip.fps
        first = np.floor(at).astype(np.int64)
        here = (first >= 0) & (at <= len(joints) - 1)
        a, b = np.clip(first, 0, len(joints) - 1), np.clip(first + 1, 0, len(joints) - 1)
        share = (at - first)[:, None, None]
        return np.where(here[:, None, None], self._placed((1 - share) * joints[a] + share * joints[b]), np.nan)


def cut(clip: Clip, first: int, count: int) -> Clip:
    """`count` instants of a clip (fewer where it ends)."""
    span = slice(first, first + count)
    return replace(clip, joints24_m=clip.joints24_m[span], segment_quat_xyzw=clip.segment_quat_xyzw[span], root_m=clip.root_m[span])


def placed(rng: np.random.Generator, others: Sequence[Actor], actor: Actor, t_s: F64, *, middle_m: F64, free_m: float) -> Actor:
    """The actor where it stays within `free_m` of the middle and away from the others: the best of many draws."""
    roots = [other.joints_m("coco17", t_s).mean(axis=1)[:, :2] for other in others]
    path = replace(actor, yaw_rad=0.0, offset_m=np.zeros(2)).joints_m("coco17", t_s).mean(axis=1)
    path = path[np.isfinite(path[:, 0])]
    centre = (path[:, :2].min(axis=0) + path[:, :2].max(axis=0)) / 2
    best, best_cost = actor, np.inf
    for _ in range(_TRIES if others else 1):
        yaw = rng.uniform(-np.pi, np.pi)
        turned = replace(actor, yaw_rad=yaw, offset_m=np.zeros(2))
        spread = rng.uniform(-0.2, 0.2, 2) if not others else rng.uniform(-free_m, free_m, 2)
        offset = middle_m[:2] + spread - turned._placed(np.array([*centre, 0.0]))[:2]
        trial = replace(actor, yaw_rad=yaw, offset_m=offset)
        own = trial.joints_m("coco17", t_s).mean(axis=1)[:, :2]
        outside = max(0.0, float(np.nanmax(np.linalg.norm(own - middle_m[:2], axis=1))) - free_m)
        near = max((max(0.0, _APART_M - float(np.nanmin(np.linalg.norm(own - root, axis=1)))) for root in roots), default=0.0)
        if outside + 10 * near < best_cost:
            best, best_cost = trial, outside + 10 * near
        if best_cost == 0:
            break
    return best


def dressed(rng: np.random.Generator, person: int, body: Body, posed: Posed) -> tuple[Mesh, dict[str, list[float]]]:
    """The mesh of a person with clothes, skin, hair, eyes and shoes, and the colours of these."""
    part, points = np.asarray(body.part), np.asarray(posed.vertices_m(0), np.float64)
    bright = rng.uniform(0.15, 1.0)
    colours = {
        "skin": np.array(_SKINS[rng.integers(len(_SKINS))]) * rng.uniform(0.85, 1.1),
        "hair": np.array(_HAIRS[rng.integers(len(_HAIRS))]),
        "shirt": bright * rng.uniform(0.05, 0.85, 3),
        "trousers": rng.uniform(0.2, 0.9) * rng.uniform(0.05, 0.5, 3),
        "shoes": np.full(3, rng.choice([0.02, 0.06, 0.7])) * rng.uniform(0.8, 1.2, 3),
    }
    shirt = _TORSO + _UPPER_ARMS + (_LOWER_ARMS if rng.random() < 0.5 else ())
    trousers = _UPPER_LEGS + (_LOWER_LEGS if rng.random() < 0.75 else ())
    colour = np.tile(colours["skin"], (len(part), 1))
    for name, parts in (("shirt", shirt), ("trousers", trousers), ("shoes", _FEET)):
        colour[np.isin(part, parts)] = colours[name]
    cloth = np.isin(part, shirt + trousers + _FEET)
    _paint_head(colour, points, np.isin(part, _HEAD), np.asarray(posed.joints_m("coco17")[0], np.float64), colours)
    surface = np.zeros((len(part), 4), np.uint8)
    surface[:, 0], surface[:, 3] = part, person + 1
    surface[:, 1:3] = np.clip(np.round(np.asarray(body.uv) * 255), 0, 255)
    texture = np.concatenate([points - points.mean(axis=0), np.where(cloth, CLOTH, SKIN)[:, None]], axis=1)
    mesh = Mesh(np.asarray(body.faces, np.int32), colour.astype(np.float32), surface, texture.astype(np.float32))
    return mesh, {name: [round(float(v), 4) for v in value] for name, value in colours.items()}


def _paint_head(colour: F64, points: F64, head: NDArray[np.bool_], coco: F64, colours: dict[str, F64]) -> None:
    """Hair above and behind the face, brows, eyes and lips; the head's own axes come from its ears and its nose."""
    nose, left_eye, right_eye, left_ear, right_ear = (
        coco[COCO17.index(n)] for n in ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
    )
    left = (left_ear - right_ear) / np.linalg.norm(left_ear - right_ear)
    between = (left_eye + right_eye) / 2
    up = between - nose + 0.35 * (nose - (left_ear + right_ear) / 2)
    up -= (up @ left) * left
    up /= np.linalg.norm(up)
    front = np.cross(left, up)
    own = points - between
    x, y, z = own @ left, own @ front, own @ up
    ears = float(((left_ear + right_ear) / 2 - between) @ front)
    hair = head & (((z > 0.045) & (y < 0.02)) | ((y < ears - 0.012) & (z > -0.09)) | (z > 0.065))
    colour[hair] = colours["hair"]
    face = head & ~hair & (y > ears)
    half = float((left_eye - right_eye) @ left) / 2
    aside = np.abs(np.abs(x) - half)
    colour[face & (aside < 0.019) & (np.abs(z - 0.021) < 0.005)] = 0.5 * (colours["hair"] + 0.3 * colours["skin"])
    colour[face & (np.hypot(aside, z) < 0.013)] = 0.75
    colour[face & (np.hypot(aside, z) < 0.007)] = 0.02
    colour[face & (np.abs(x) < 0.024) & (np.abs(z + 0.068) < 0.008)] = colours["skin"] * [0.9, 0.45, 0.5]
