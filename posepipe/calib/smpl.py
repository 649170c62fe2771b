"""SMPL (Loper et al. 2015) from a user's own file, with the interface of `calib.body.Body`: the same axes, names and calls.

Rest pose: standing, facing -y, z up, left hand at +x, the pelvis at the origin, metres, as the baked body has it; but SMPL's arms are level where that one's
hang out by 45 degrees, so rotations "against the rest pose" of the one are not those of the other: `from_body` carries them over, and `of_local` takes
SMPL's own parameters. posepipe has no SMPL data: the file and its licence are the user's. T instants, V = 6890 vertices, K shape components.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.errors import GraphError, did_you_mean
from posepipe.pipeline.packet import F32, F64, I64
from posepipe.pipeline.skeleton import BODY25, COCO17

from .body import BONES, PARENTS, kinematics
from .smpl_file import SmplArrays, read_regressor, read_smpl

SHAPES = 10
EXTRA = 9
"""Rows of `J_regressor_extra.npy`."""
FACE_AND_FEET = (332, 6260, 2800, 4071, 583, 3216, 3226, 3387, 6617, 6624, 6787)
"""Vertices: nose, right and left eye, right and left ear, left big toe, small toe, heel, right big toe, small toe, heel."""
SPIN49 = (
    *(24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34),
    *(8, 5, 45, 46, 4, 7, 21, 19, 17, 16, 18, 20, 47, 48, 49, 50, 51, 52, 53, 24, 26, 25, 28, 27),
)
"""SPIN's and VIBE's 49 joints, of SMPL's 24, its vertices (24 to 34 are `FACE_AND_FEET`, ten finger tips are not used) and the extra nine from 45. The
first 25 are body25."""
COCO17_OF = (24, 26, 25, 28, 27, 16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8)
"""coco17 of the same: limbs are the joints themselves, as SPIN and VIBE have them."""
Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""From SMPL's axes (y up, facing z) to posepipe's (z up, facing -y)."""
_ALONG = {
    **{f"{s}_{bone}": f"{s}_{child}" for s in ("left", "right") for bone, child in (("hip", "knee"), ("knee", "ankle"), ("collar", "shoulder"))},
    **{f"{s}_{bone}": f"{s}_{child}" for s in ("left", "right") for bone, child in (("shoulder", "elbow"), ("elbow", "wrist"), ("wrist", "hand"))},
}  # fmt: skip
"""Bones whose direction at rest differs between bodies, and what they point to. Trunk, head and feet stand alike."""


@dataclass(frozen=True, slots=True)
class SmplRest:
    """One person in the rest pose. joints_m [24,3], vertices_m [V,3]."""

    joints_m: F64
    vertices_m: F32


@dataclass(frozen=True, slots=True)
class Smpl:
    """A model of SMPL. bones, parents and faces as of `Body`; `shapes` components, meant to be drawn from N(0,1). arrays: what the file holds."""

    bones: tuple[str, ...]
    parents: tuple[int, ...]
    shapes: int
    faces: NDArray[np.int32]
    arrays: SmplArrays
    extra: F64 | None
    _template_m: F32
    _basis_m: F32
    _heads_m: F64
    _heads_basis_m: F64
    _poses_m: F32
    _weights: F32

    def rest(self, shape: NDArray[Any]) -> SmplRest:
        """The body of shape [K] at rest. ValueError for another number of components."""
        k = np.asarray(shape, np.float64)
        if k.shape != (self.shapes,):
            raise ValueError(f"a shape has {self.shapes} numbers, not {k.shape}")
        heads = self._heads_m + np.tensordot(k, self._heads_basis_m, 1)
        vertices = self._template_m + np.tensordot(k.astype(np.float32), self._basis_m, 1)
        return SmplRest(heads - heads[0], vertices - heads[0].astype(np.float32))

    def pose(self, shape: NDArray[Any], bone_world_rot: NDArray[Any], root_m: NDArray[Any]) -> SmplPosed:
        """Pose a body.

        bone_world_rot: rotations of the bones in the world against SMPL's rest pose, as matrices [T,24,3,3] or as [T,24,6]; identity is the rest pose
        (`of_local` makes them of SMPL's own parameters). root_m [T,3]: where the pelvis is. ValueError for arrays of other shapes.
        """
        rest = self.rest(shape)
        rotations, heads = kinematics(rest.joints_m, self.parents, bone_world_rot, root_m)
        return SmplPosed(self, rest, rotations, heads)

    def from_body(self, bone_world_rot: NDArray[Any], joints_m: NDArray[Any], shape: NDArray[Any]) -> F64:
        """Rotations for `pose` of rotations [T,24,3,3] against the rest pose of another body, whose joints there are joints_m [24,3].

        Every bone of a limb points where the other body's does, by the shortest turn between the two at rest; hands follow their wrists, trunk, head
        and feet are taken as they are.
        """
        own, theirs = self.rest(shape).joints_m, np.asarray(joints_m, np.float64)
        turns = np.eye(3)[None].repeat(len(self.bones), axis=0)
        for bone, towards in _ALONG.items():
            b, end = self.bones.index(bone), self.bones.index(towards)
            turns[b] = _shortest(own[end] - own[b], theirs[end] - theirs[b])
        for side in ("left", "right"):
            turns[self.bones.index(f"{side}_hand")] = turns[self.bones.index(f"{side}_wrist")]
        return np.asarray(np.asarray(bone_world_rot, np.float64) @ turns)


@dataclass(frozen=True, slots=True)
class SmplPosed:
    """A body over T instants. rotations [T,24,3,3] (world, against the rest pose), heads_m [T,24,3] (joints)."""

    body: Smpl
    rest: SmplRest
    rotations: F64
    heads_m: F64

    def __len__(self) -> int:
        return len(self.heads_m)

    def vertices_m(self, t: int) -> F32:
        """The skin at instant t: [V,3]."""
        return np.asarray(self._skin([t], slice(None))[0])

    def joints_m(self, layout: str) -> F32:
        """Key points [T,J,3] of the layout `smpl24`, `coco17`, `body25` or `spin49`, which takes `J_regressor_extra.npy`.

        Of coco17 and body25 limbs are SMPL's joints, face and feet vertices, as SPIN and VIBE have them. GraphError for another layout, and for
        `spin49` of a body that was loaded without its regressor.
        """
        if layout == "smpl24":
            return self.heads_m.astype(np.float32)
        chosen = {"coco17": COCO17_OF, "body25": SPIN49[: len(BODY25.joints)], "spin49": SPIN49}.get(layout)
        if chosen is None:
            hint = did_you_mean(layout, (COCO17.name, BODY25.name, "smpl24", "spin49"))
            raise GraphError(f"a body of SMPL has no key points {layout!r}", hint=hint)
        parts: list[NDArray[Any]] = [self.heads_m, self._skin(slice(None), np.array(FACE_AND_FEET)), np.zeros((len(self), 10, 3))]
        if layout == "spin49":
            if self.body.extra is None:
                raise GraphError(
                    "spin49 takes nine joints that are not in SMPL's file", hint="load_smpl(path, extra=Path('J_regressor_extra.npy'))"
                )
            parts.append(self.regressed_m(self.body.extra))
        return np.concatenate(parts, axis=1)[:, list(chosen)].astype(np.float32)

    def regressed_m(self, regressor: NDArray[Any]) -> F32:
        """Joints [T,J,3] as weighted means of vertices: regressor [J,V] (`J_regressor_h36m.npy` has Human3.6M's 17). Only what it looks at is posed."""
        used = np.flatnonzero(np.any(regressor != 0, axis=0))
        return np.asarray(np.einsum("jv,tvi->tji", regressor[:, used], self._skin(slice(None), used)), np.float32)

    def shifted(self, by_m: NDArray[Any]) -> SmplPosed:
        """The same motion somewhere else: by_m [3] or [T,3]."""
        return SmplPosed(self.body, self.rest, self.rotations, self.heads_m + np.asarray(by_m, np.float64).reshape(-1, 1, 3))

    def _skin(self, instants: slice | list[int], which: I64 | slice) -> F32:
        """Vertices [T,n,3]: template, shape and what poses add, by linear blend skinning."""
        rotations, heads = self.rotations[instants], self.heads_m[instants]
        against = np.swapaxes(rotations[:, list(PARENTS[1:])], 2, 3) @ rotations[:, 1:]
        bent = (np.einsum("ji,tbjk,kl->tbil", Z_UP, against, Z_UP) - np.eye(3)).reshape(len(rotations), -1).astype(np.float32)
        poses = self.body._poses_m[which]
        added = np.moveaxis((poses.reshape(-1, poses.shape[2]) @ bent.T).reshape(*poses.shape[:2], -1), 2, 0)
        shifts = heads - np.einsum("tbij,bj->tbi", rotations, self.rest.joints_m)
        moves = np.concatenate([rotations, shifts[..., None]], axis=3).astype(np.float32).reshape(len(rotations), len(BONES), 12)
        mixed = (self.body._weights[which] @ moves).reshape(len(rotations), len(poses), 3, 4)
        placed: F32 = np.einsum("tvij,tvj->tvi", mixed[..., :3], self.rest.vertices_m[which] + added) + mixed[..., 3]
        return placed


def load_smpl(path: Path, *, extra: Path | None = None, shapes: int = SHAPES) -> Smpl:
    """A body from a file of SMPL. extra: `J_regressor_extra.npy`, for `spin49`. shapes: how many of its components are used.

    EngineError for a file that cannot be read, is none, could run code or is of another model, as `smpl_file.read_smpl` says.
    """
    a = read_smpl(path, shapes=shapes)
    turned = [np.moveaxis(array, 1, -1) @ Z_UP.T for array in (a.shapes, a.poses)]
    basis, poses = np.moveaxis(turned[0], 1, 0), np.moveaxis(turned[1], -1, 1)
    template = a.template @ Z_UP.T
    arrays = [np.ascontiguousarray(x, np.float32) for x in (template, basis, poses, a.weights)]
    body = Smpl(
        bones=BONES,
        parents=PARENTS,
        shapes=shapes,
        faces=a.faces,
        arrays=a,
        extra=None if extra is None else read_regressor(extra, EXTRA),
        _template_m=arrays[0],
        _basis_m=arrays[1],
        _heads_m=a.regressor @ template,
        _heads_basis_m=np.einsum("jv,kvi->kji", a.regressor, basis, optimize=True),
        _poses_m=arrays[2],
        _weights=arrays[3],
    )
    for array in (body.faces, *arrays):
        array.setflags(write=False)
    return body


def of_local(rotations: NDArray[Any], world_from_smpl: NDArray[Any] | None = None) -> F64:
    """Rotations for `Smpl.pose` of SMPL's own: [T,24,3,3], the pelvis in the axes that the parameters are in and the others against their parent.

    world_from_smpl [3,3]: those axes in the world (None: they are it). VIBE's are those of its camera (x right, y down, z away), so for a calibrated
    camera it is the transposed rotation of its pose.
    """
    local = np.asarray(rotations, np.float64)
    chained = np.empty_like(local)
    for b, parent in enumerate(PARENTS):
        before = np.eye(3) if world_from_smpl is None else np.asarray(world_from_smpl, np.float64)
        chained[:, b] = (before if parent < 0 else chained[:, parent]) @ local[:, b]
    return np.asarray(chained @ Z_UP.T)


def _shortest(a: F64, b: F64) -> F64:
    """The shortest rotation [3,3] that takes the direction a to b (Rodrigues)."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    x, y, z = np.cross(a, b)
    k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + k + k @ k / (1 + a @ b))
