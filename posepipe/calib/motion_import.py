"""Recordings of other programs become clips: BVH, and Acclaim's AMC with its ASF skeleton.

A clip's joints are those of a body whose limbs are as long as the recorded person's: from the pelvis on, every joint lies where the segment before
it, as it is turned, puts it. Limbs point in the rest pose as the file's do; trunk, neck and collar bones as those of the body that is shipped do, since
programs put the joints of the back in different places.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from posepipe.pipeline.errors import RecordError, SourceError
from posepipe.pipeline.packet import F64

from .body import BONES, PARENTS, load_body
from .motion_amc import read_amc, read_asf
from .motion_bvh import read_bvh
from .motion_clips import SEGMENTS, UP, Clip
from .motion_roles import Roles, roles_of
from .motion_source import Source

FPS = 30.0
AMC_HZ = 120.0
"""CMU's rate; the format does not say one."""
CLIPS_FILE, ABOUT_FILE = "motion.npz", "clips.json"
_UNITS_M = (("metres", 1.0), ("CMU's units", 0.0254 / 0.45), ("inches", 0.0254), ("centimetres", 0.01), ("millimetres", 0.001))
_LEG_M = (0.55, 1.1)
_LIMBS = ("hip", "knee", "shoulder", "elbow")
_AFTER = {"hip": "knee", "knee": "ankle", "ankle": "toe", "shoulder": "elbow", "elbow": "wrist"}
_NAMES = {"femur": "hip", "tibia": "knee", "foot": "ankle", "clavicle": "collar", "humerus": "shoulder", "radius": "elbow"}


def read_recording(
    path: Path, *, skeleton: Path | None = None, label: str = "", amc_hz: float = AMC_HZ, unit_m: float = 0.0, fps: float = FPS
) -> Clip:
    """One file as a clip named by it, `fps` instants a second; not yet cut or put on the floor (`read_motion` does that).

    skeleton: the .asf of an .amc. unit_m: metres per unit of the file, 0 to find it out. Raises SourceError for unknown formats, a missing skeleton,
    broken lines (with file:line), joints that are not recognised, and units that cannot be told.
    """
    kind = path.suffix.lower()
    if kind == ".bvh":
        source = read_bvh(path)
    elif kind == ".amc":
        if skeleton is None:
            raise SourceError(
                "an .amc file needs the skeleton that it moves", where=str(path), hint=f"--skeleton {path.stem.partition('_')[0]}.asf"
            )
        source = read_amc(path, read_asf(skeleton), fps=amc_hz)
    else:
        raise SourceError(
            f"{kind or 'a file without an ending'} is no format of motion that is read", where=str(path), hint="it is .bvh or .amc"
        )
    return clip_of(source, name=_name(path), label=label, unit_m=unit_m, fps=fps)


def clip_of(source: Source, *, name: str, label: str = "", unit_m: float = 0.0, fps: float = FPS) -> Clip:
    """A recording as a clip. Raises SourceError for joints that are not recognised, a rest pose that does not stand, units that cannot be told."""
    roles = roles_of(source)
    unit = unit_m or source.unit_m or _unit(source, roles)
    axes = _axes(source, roles)
    at = _resampled(len(source.positions), source.fps, fps)
    turned = axes @ _between(source.rotations, at) @ axes.T
    placed = _between(source.positions, at) @ axes.T * unit
    rest = source.rest() @ axes.T * unit
    ends = {n: axes @ end * unit for n, end in source.ends.items()}
    segments = np.stack([turned[:, _segment(roles, s)] for s in SEGMENTS], axis=1)
    joints, pelvis = _joints(source, roles, rest, ends, segments, placed)
    return Clip(name, fps, label, joints.astype(np.float32), quaternions(segments).astype(np.float32), pelvis.astype(np.float32))


def _segment(roles: Roles, name: str) -> int:
    spine = roles.spine
    if name == "root" or (name in ("lowerback", "upperback", "thorax") and not spine):
        return 0
    if name in ("lowerback", "upperback", "thorax"):
        return spine[{"lowerback": 0, "upperback": len(spine) // 2, "thorax": -1}[name]]
    if name in ("lowerneck", "upperneck"):
        return roles.neck
    if name == "head":
        return roles.head
    side = "left" if name[0] == "l" else "right"
    limb = f"{side}_{_NAMES[name[1:]]}"
    return roles.limbs[limb] if limb in roles.limbs else _segment(roles, "thorax")


def _unit(source: Source, roles: Roles) -> float:
    rest = source.rest()
    leg = [rest[roles.limbs[f"left_{joint}"]] for joint in ("hip", "knee", "ankle")]
    length = float(np.linalg.norm(leg[1] - leg[0]) + np.linalg.norm(leg[2] - leg[1]))
    for _, unit in _UNITS_M:
        if _LEG_M[0] <= length * unit <= _LEG_M[1]:
            return unit
    raise SourceError(
        f"a leg of {length:.4g} units is one of a person in none of {', '.join(name for name, _ in _UNITS_M)}",
        where=source.where,
        hint="--scale METRES says how many metres a unit is",
    )


def _axes(source: Source, roles: Roles) -> F64:
    """[3,3]: from the file's axes to x left, y up, z ahead of the rest pose. Up is where heads are over hips, over the whole recording."""
    at, limbs = source.positions, roles.limbs
    hips = (at[:, limbs["left_hip"]] + at[:, limbs["right_hip"]]) / 2
    up = _axis((at[:, roles.head] - hips).mean(axis=0))
    rest = source.rest()
    across = rest[limbs["left_hip"]] - rest[limbs["right_hip"]]
    left = _axis(across * (up == 0))
    if np.linalg.norm(across) < 1e-9:
        raise SourceError("both hips are at the same place in the rest pose", where=source.where)
    return np.stack([left, up, np.cross(left, up)])


def _axis(v: F64) -> F64:
    k = int(np.abs(v).argmax())
    return np.asarray(np.eye(3)[k] * (1.0 if v[k] >= 0 else -1.0))


def _joints(source: Source, roles: Roles, rest: F64, ends: dict[str, F64], segments: F64, placed: F64) -> tuple[F64, F64]:
    """Joints [T,24,3] in our world, and the pelvis [T,3] in the source's (y up)."""
    own = load_body().rest(np.zeros(load_body().shapes)).joints_m @ UP
    limbs, b = roles.limbs, {bone: n for n, bone in enumerate(BONES)}

    def middle(joints: F64, limb: str) -> F64:
        return np.asarray((joints[..., limbs[f"left_{limb}"], :] + joints[..., limbs[f"right_{limb}"], :]) / 2)

    def own_middle(limb: str) -> F64:
        return np.asarray((own[b[f"left_{limb}"]] + own[b[f"right_{limb}"]]) / 2)

    trunk = float(
        np.linalg.norm(middle(rest, "shoulder") - middle(rest, "hip")) / np.linalg.norm(own_middle("shoulder") - own_middle("hip"))
    )
    offsets = {bone: (own[n] - own[PARENTS[n]]) * trunk for n, bone in enumerate(BONES) if n}
    for side in ("left", "right"):
        for limb in ("hip", "shoulder"):
            width = np.linalg.norm(rest[limbs[f"left_{limb}"]] - rest[limbs[f"right_{limb}"]])
            own_width = np.linalg.norm(own[b[f"left_{limb}"]] - own[b[f"right_{limb}"]])
            offsets[f"{side}_{limb}"] *= np.array([width / own_width / trunk, 1.0, 1.0])
        for limb, after in _AFTER.items():
            near, far = limbs[f"{side}_{limb}"], limbs.get(f"{side}_{after}")
            there = rest[far] - rest[near] if far is not None else ends.get(source.names[near])
            bone = f"{side}_foot" if after == "toe" else f"{side}_{after}"
            if there is not None and np.linalg.norm(there) > 0:
                offsets[bone] = _as_long(there, float(np.linalg.norm(offsets[bone])) if limb == "ankle" else 0.0)
        offsets[f"{side}_hand"] = _as_long(offsets[f"{side}_wrist"], float(np.linalg.norm(offsets[f"{side}_hand"])))
    pelvis = middle(placed, "hip") - segments[:, 0] @ ((offsets["left_hip"] + offsets["right_hip"]) / 2)
    joints = np.empty((len(segments), len(BONES), 3))
    joints[:, 0] = pelvis
    for n, bone in enumerate(BONES[1:], 1):
        joints[:, n] = joints[:, PARENTS[n]] + segments[:, SEGMENTS.index(_MOVED_BY[BONES[PARENTS[n]]])] @ offsets[bone]
    return joints @ UP.T, pelvis


_MOVED_BY = {
    "pelvis": "root",
    "spine1": "lowerback",
    "spine2": "upperback",
    "spine3": "thorax",
    "neck": "lowerneck",
    **{f"{side}_{joint}": side[0] + segment for side in ("left", "right") for segment, joint in _NAMES.items()},
    **{f"{side}_wrist": side[0] + "radius" for side in ("left", "right")},
}
"""Which segment carries what hangs on a bone."""


def _as_long(v: F64, length: float) -> F64:
    return v if length == 0 else np.asarray(v / np.linalg.norm(v) * length)


def _resampled(count: int, source_fps: float, fps: float) -> F64:
    """Instants of the file [T], as fractional indices, `fps` a second from the first on."""
    last = max(count - 1, 0)
    wanted = np.arange(int(np.floor(last * fps / source_fps + 1e-3)) + 1) * source_fps / fps
    return np.asarray(np.minimum(wanted, last), np.float64)


def _between(values: F64, at: F64) -> F64:
    """Values [T,...] at fractional indices; rotations are blended as matrices and made orthonormal again."""
    low = np.minimum(np.floor(at + 1e-9).astype(np.int64), len(values) - 1)
    high = np.minimum(low + 1, len(values) - 1)
    share = np.clip(at - low, 0, 1).reshape(-1, *(1,) * (values.ndim - 1))
    blended = values[low] * (1 - share) + values[high] * share
    if values.ndim == 4:
        u, _, vt = np.linalg.svd(blended)
        blended = u @ vt
    return np.asarray(blended)


def quaternions(rotations: F64) -> F64:
    """[...,4] (x, y, z, w), w >= 0, of rotation matrices [...,3,3]: the strongest eigenvector of Bar-Itzhack's symmetric matrix (2000)."""
    r = rotations
    k = np.empty((*r.shape[:-2], 4, 4))
    k[..., :3, :3] = r + np.swapaxes(r, -1, -2) - np.trace(r, axis1=-2, axis2=-1)[..., None, None] * np.eye(3)
    k[..., :3, 3] = k[..., 3, :3] = np.stack(
        [r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], axis=-1
    )
    k[..., 3, 3] = np.trace(r, axis1=-2, axis2=-1)
    q = np.linalg.eigh(k)[1][..., -1]
    return np.asarray(q * np.where(q[..., 3:] < 0, -1.0, 1.0))


def must_be_new(out: Path) -> None:
    """RecordError when there are clips in a folder already."""
    if (out / CLIPS_FILE).exists() or (out / ABOUT_FILE).exists():
        raise RecordError("there are clips already", where=str(out), hint="name another folder with --out, or remove this one")


def write_motion(clips: Sequence[Clip], out: Path, *, sources: Sequence[str]) -> None:
    """A folder that `read_motion` reads. Raises RecordError when there are clips in it already, and when it cannot be written."""
    must_be_new(out)
    taken: dict[str, str] = {}
    for clip, source in zip(clips, sources, strict=True):
        if clip.name in taken:
            raise SourceError(f"{taken[clip.name]} and {source} would both be the clip {clip.name!r}", where=str(out), hint="rename one")
        taken[clip.name] = source
    arrays = {f"{c.name}/{key}": getattr(c, key) for c in clips for key in ("joints24_m", "segment_quat_xyzw", "root_m")}
    about = {
        c.name: {"frames": len(c.joints24_m), "fps": c.fps, "label": c.label, "source": source}
        for c, source in zip(clips, sources, strict=True)
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / CLIPS_FILE).write_bytes(buffer.getvalue())
        (out / ABOUT_FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    except OSError as e:
        raise RecordError(
            f"the clips cannot be written: {e.strerror}", where=str(out), hint="free some space, or write elsewhere"
        ) from None


def _name(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", path.stem) or "clip"
