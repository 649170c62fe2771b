"""Recorded human motion: clips of a folder that `posepipe motion import` wrote, or of one with the same layout.

The folder holds one `.npz` and `clips.json`. Per clip the npz has `<clip>/joints24_m` [T,24,3] (metres, z up, names of `JOINTS24`),
`<clip>/segment_quat_xyzw` [T,19,4] (rotation of every segment of `SEGMENTS` in the world of the source, y up, against the pose in which the
source was measured: upright, arms out, facing +z) and `<clip>/root_m` [T,3] (the same world); clips.json has `{"<clip>": {"label", "fps"}}`.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.packet import F32, F64

JOINTS24 = (
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot right_foot neck left_collar "
    "right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hand right_hand"
).split()
PARENTS24 = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
SEGMENTS = (
    "root lfemur ltibia lfoot rfemur rtibia rfoot lowerback upperback thorax lowerneck upperneck head lclavicle lhumerus lradius "
    "rclavicle rhumerus rradius"
).split()
FPS = 30.0
"""Of clips that do not state their rate."""

_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""From the world of the source (y up, rest pose facing +z) to ours (z up, rest pose facing -y, left hand at +x)."""
_TRUNK = np.array([JOINTS24.index(name) for name in ("left_hip", "right_hip", "spine3", "neck", "left_shoulder", "right_shoulder", "head")])
_FEET = np.array([JOINTS24.index(name) for name in ("left_ankle", "right_ankle", "left_foot", "right_foot")])
_TRUNK_M_S, _LIMB_M_S = 7.5, 18.0
"""Faster than this against the pelvis no joint moves: a kick or a throw reaches 15 m/s, the trunk of a turning dancer 4."""
_SHORTEST_S = 0.4


@dataclass(frozen=True, slots=True)
class Clip:
    """One piece of recorded motion, T instants `fps` a second.

    joints24_m [T,24,3]: bone heads in metres, z up, lowest feet at the floor z = 0, names in `JOINTS24`. segment_quat_xyzw [T,19,4] and root_m
    [T,3]: as in the
    file, in the world of the source, y up. Pieces of one recording share `recording`: keep them on one side of a train/test split.
    """

    name: str
    fps: float
    label: str
    joints24_m: F32
    segment_quat_xyzw: F32
    root_m: F32

    @property
    def recording(self) -> str:
        return self.name.partition("#")[0]

    def segment_rotations(self) -> F64:
        """[T,19,3,3]: what each segment did, in our world: rotates a direction of the rest pose (z up, facing -y) to where it is now."""
        return _UP @ matrices(self.segment_quat_xyzw) @ _UP.T


def matrices(quat_xyzw: NDArray[Any]) -> F64:
    """Rotation matrices [...,3,3] of quaternions [...,4] (x, y, z, w), normalised here."""
    q = np.asarray(quat_xyzw, np.float64)
    x, y, z, w = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def read_motion(path: Path) -> dict[str, Clip]:
    """The clips of a folder (or of its npz), cleaned: put on the floor, and cut where a body jumps.

    Recordings often begin with an instant in the pose of calibration, and turn over where angles wrap; a clip is cut there. What remains of a
    clip in several pieces is named `<clip>`, `<clip>#2`, ...; pieces under 0.4 s are left out. Raises SourceError for a folder or file of
    another layout.
    """
    file, meta = _open(Path(path))
    clips: dict[str, Clip] = {}
    with file:
        names = sorted({key.rpartition("/")[0] for key in file.files})
        for name in names:
            about = meta.get(name, {})
            parts = [_array(file, path, f"{name}/{key}", shape) for key, shape in _SHAPES.items()]
            if len({len(part) for part in parts}) != 1:
                raise SourceError(f"the arrays of clip {name!r} differ in length", where=str(path), hint=_HINT)
            whole = Clip(name, float(about.get("fps", FPS)), str(about.get("label", "")), *parts)
            clips |= {piece.name: piece for piece in pieces(whole)}
    if not clips:
        raise SourceError("there is no clip in it", where=str(path), hint=_HINT)
    return clips


def pieces(clip: Clip) -> list[Clip]:
    """The parts of a clip between the instants at which the body jumps, each on the floor; none shorter than 0.4 s."""
    relative = clip.joints24_m - clip.joints24_m[:, :1]
    speed = np.linalg.norm(np.diff(relative, axis=0), axis=2) * clip.fps
    jumps = (speed > _LIMB_M_S).any(axis=1) | (speed[:, _TRUNK] > _TRUNK_M_S).any(axis=1)
    bounds = [0, *(np.flatnonzero(jumps) + 1).tolist(), len(clip.joints24_m)]
    spans = [(a, b) for a, b in zip(bounds, bounds[1:], strict=False) if b - a >= max(2.0, _SHORTEST_S * clip.fps)]
    out = []
    for i, (a, b) in enumerate(spans):
        joints = on_floor(clip.joints24_m[a:b])
        name = clip.name if i == 0 else f"{clip.name}#{i + 1}"
        out.append(Clip(name, clip.fps, clip.label, joints, clip.segment_quat_xyzw[a:b], clip.root_m[a:b]))
    return out


def on_floor(joints24_m: F32) -> F32:
    """The joints moved up or down so that the feet at their lowest (first percentile) are as high as the foot of a standing body is.

    The joints of a foot lie above its sole: ankles about 9 cm, the ball about 3 cm.
    """
    lowest = np.percentile(joints24_m[:, _FEET, 2] - np.array([0.09, 0.09, 0.03, 0.03]), 1)
    return joints24_m - np.array([0.0, 0.0, lowest], np.float32)


_SHAPES: dict[str, tuple[int, ...]] = {"joints24_m": (24, 3), "segment_quat_xyzw": (19, 4), "root_m": (3,)}
_HINT = "posepipe motion import FILE.bvh ... --out DIR writes such a folder from recordings"


def _open(path: Path) -> tuple[Any, dict[str, Any]]:
    if path.is_dir():
        found = sorted(path.glob("*.npz"))
        if len(found) != 1:
            raise SourceError(f"a folder of clips has one .npz, this one has {len(found)}", where=str(path), hint=_HINT)
        path = found[0]
    try:
        file = np.load(path)
        text = (path.parent / "clips.json").read_text(encoding="utf-8")
        meta = json.loads(text)
    except FileNotFoundError as e:
        raise SourceError("there is no such file", where=str(e.filename), hint=_HINT) from None
    except (ValueError, zipfile.BadZipFile, EOFError) as e:
        raise SourceError(f"this is no file of clips: {e}", where=str(path), hint=_HINT) from None
    if not isinstance(file, np.lib.npyio.NpzFile) or not isinstance(meta, dict):
        raise SourceError("this is no file of clips", where=str(path), hint=_HINT)
    return file, meta


def _array(file: Any, path: Path, key: str, shape: tuple[int, ...]) -> F32:
    if key not in file.files:
        raise SourceError(f"{key} is missing", where=str(path), hint=_HINT)
    array = np.asarray(file[key], np.float32)
    if array.shape[1:] != shape:
        wanted = ",".join(str(n) for n in shape)
        raise SourceError(f"{key} has shape {array.shape}, not [T,{wanted}]", where=str(path), hint=_HINT)
    if not np.isfinite(array).all():
        raise SourceError(f"{key} has numbers that are not finite", where=str(path), hint=_HINT)
    return array
