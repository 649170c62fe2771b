"""Recorded human motion: clips of a folder that `posepipe motion import` wrote, or of one with the same layout.

The folder holds one `.npz` and `clips.json`. Per clip the npz has `<clip>/joints24_m` [T,24,3] (metres, z up, names of `JOINTS24`),
`<clip>/segment_quat_xyzw` [T,19,4] and `<clip>/root_m` [T,3] (see `Clip`); clips.json has `{"<clip>": {"label": ..., "fps": ...}}`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.packet import F32

from .motion_clips import JOINTS24, SEGMENTS, Clip, pieces
from .motion_retarget import fitted_shape, retarget
from .npz import DAMAGED

__all__ = ["FPS", "JOINTS24", "SEGMENTS", "Clip", "fitted_shape", "read_motion", "retarget"]

FPS = 30.0
"""Of clips that do not state their rate."""
_ROUNDED = 0.05
_SHAPES: dict[str, tuple[int, ...]] = {"joints24_m": (24, 3), "segment_quat_xyzw": (19, 4), "root_m": (3,)}
_HINT = "posepipe motion import FILE.bvh ... --out DIR writes such a folder from recordings"


def read_motion(path: Path) -> dict[str, Clip]:
    """The clips of a folder (or of its npz), cleaned: put on the floor, and cut where a body jumps (`pieces`).

    Raises SourceError for a folder or file of another layout.
    """
    path = Path(path)
    file, meta = _open(path)
    clips: dict[str, Clip] = {}
    with file:
        for name in sorted({key.rpartition("/")[0] for key in file.files}):
            about = meta.get(name, {})
            if not isinstance(about, dict):
                raise SourceError(f"clips.json says {about!r} of clip {name!r}, not its label and fps", where=str(path), hint=_HINT)
            arrays = [_array(file, path, f"{name}/{key}", shape) for key, shape in _SHAPES.items()]
            if len({len(array) for array in arrays}) != 1:
                raise SourceError(f"the arrays of clip {name!r} differ in length", where=str(path), hint=_HINT)
            whole = Clip(name, _fps(about, name, path), str(about.get("label", "")), *arrays)
            clips |= {piece.name: piece for piece in pieces(whole)}
    if not clips:
        raise SourceError("no clip in it has 0.4 s without a jump", where=str(path), hint=_HINT)
    return clips


def _open(path: Path) -> tuple[Any, dict[str, Any]]:
    if path.is_dir():
        found = sorted(path.glob("*.npz"))
        if len(found) != 1:
            raise SourceError(f"a folder of clips has one .npz, this one has {len(found)}", where=str(path), hint=_HINT)
        path = found[0]
    try:
        file = np.load(path)
        meta = json.loads((path.parent / "clips.json").read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise SourceError("there is no such file", where=str(e.filename), hint=_HINT) from None
    except DAMAGED as e:
        raise SourceError(f"this is no file of clips: {e}", where=str(path), hint=_HINT) from None
    if not isinstance(file, np.lib.npyio.NpzFile) or not isinstance(meta, dict):
        raise SourceError("this is no file of clips", where=str(path), hint=_HINT)
    return file, meta


def _array(file: Any, path: Path, key: str, shape: tuple[int, ...]) -> F32:
    if key not in file.files:
        raise SourceError(f"{key} is missing", where=str(path), hint=_HINT)
    try:
        array = np.asarray(file[key], np.float32)
    except DAMAGED as e:
        raise SourceError(f"{key} is damaged: {e}", where=str(path), hint=_HINT) from None
    if array.shape[1:] != shape:
        wanted = ",".join(str(n) for n in shape)
        raise SourceError(f"{key} has shape {array.shape}, not [T,{wanted}]", where=str(path), hint=_HINT)
    if not np.isfinite(array).all():
        raise SourceError(f"{key} has numbers that are not finite", where=str(path), hint=_HINT)
    if key.endswith("quat_xyzw") and not (np.abs(np.linalg.norm(array, axis=-1) - 1) < _ROUNDED).all():
        raise SourceError(f"{key} has quaternions that are no rotations: their length is not 1", where=str(path), hint=_HINT)
    return array


def _fps(about: dict[str, Any], name: str, path: Path) -> float:
    fps = about.get("fps", FPS)
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < math.inf:
        raise SourceError(f"clips.json gives clip {name!r} the rate {fps!r}, not one above 0", where=str(path), hint=_HINT)
    return float(fps)
