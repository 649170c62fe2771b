"""A user's own file of SMPL (`SMPL_NEUTRAL.pkl`, `basicmodel_m_lbs_10_207_0_v1.1.0.pkl`, an .npz of the same arrays), read without what wrote it.

The published files are pickles of Python 2 that hold objects of chumpy and scipy. Reading a pickle can run code, so only names on a short list are
taken, and these become plain arrays: nothing of the two packages is needed. posepipe has no SMPL data; the file and its licence are the user's.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.errors import EngineError
from posepipe.pipeline.packet import F64

from .body import PARENTS
from .npz import DAMAGED
from .smpl_pickle import Foreign, dense, read_pickle

VERTICES, JOINTS = 6890, 24
_POSES = 9 * (JOINTS - 1)
_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
_MODELS = {
    (6890, 24): "SMPL", (6890, 52): "SMPL-H", (10475, 55): "SMPL-X", (778, 16): "MANO", (5023, 5): "FLAME", (3889, 33): "SMAL", (3889, 35): "SMAL",
}  # fmt: skip
_WANTED = "give a file of SMPL itself, such as SMPL_NEUTRAL.pkl (6890 vertices, 24 joints)"
_SPOILT: tuple[type[Exception], ...] = (
    pickle.UnpicklingError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    ImportError,
    OverflowError,
    *DAMAGED,
)
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class SmplArrays:
    """What is in the file, in SMPL's own axes (x to the left hand, y up, z to the front), metres; V = 6890 vertices, K shape components.

    template [V,3]; shapes [V,3,K]; poses [V,3,207], of the 23 rotations less the identity, row by row; regressor [24,V]: joints from vertices; weights
    [V,24]; faces [F,3].
    """

    template: F64
    shapes: F64
    poses: F64
    regressor: F64
    weights: F64
    faces: NDArray[np.int32]


def read_smpl(path: Path, *, shapes: int = 10) -> SmplArrays:
    """The arrays of a file of SMPL; of its shape components the first so many.

    Raises EngineError: no such file, one that is none or ends early, one that could run code, one of another model (which, and what is wanted), arrays of
    other shapes or with numbers that are not finite.
    """
    where = str(path)
    try:
        held = _held(path)
    except Foreign as e:
        what = f"the file holds more than arrays ({e}), and that could run code: nothing of it was read"
        raise EngineError(what, where=where, hint=_WANTED) from e
    except OSError as e:
        raise EngineError(f"cannot read the body: {e.strerror or e}", where=where, hint=_WANTED) from e
    except _SPOILT as e:
        raise EngineError(f"neither a whole pickle nor an .npz of arrays: {_gist(e)}", where=where, hint=_WANTED) from e
    if not isinstance(held, Mapping) or "v_template" not in held:
        has = (
            f"it begins with {', '.join(map(str, list(held)[:_SHOWN]))}"
            if isinstance(held, Mapping)
            else f"it holds a {type(held).__name__}"
        )
        raise EngineError(f"this is no body model: {has}", where=where, hint=_WANTED)
    if absent := [key for key in _KEYS if key not in held]:
        raise EngineError(f"the body lacks {', '.join(absent)}", where=where, hint=_WANTED)
    arrays = {key: _numbers(held[key], key, where=where) for key in _KEYS}
    _must_be_smpl(arrays, where=where)
    return _checked(arrays, shapes, where=where)


def read_regressor(path: Path, rows: int) -> F64:
    """Further joints from vertices (`J_regressor_extra.npy`, 9 rows): [rows,6890]. EngineError for a file that is none."""
    where, hint = str(path), f"give the array that the publisher names, {rows} x {VERTICES}"
    try:
        array = np.load(path)
        found = np.asarray(array, np.float64)
    except OSError as e:
        raise EngineError(f"cannot read the joints: {e.strerror or e}", where=where, hint=hint) from e
    except _SPOILT as e:
        raise EngineError("this is no array of numbers", where=where, hint=hint) from e
    if found.shape != (rows, VERTICES) or not np.isfinite(found).all():
        raise EngineError(f"the joints have the shape {list(found.shape)}, or numbers that are not finite", where=where, hint=hint)
    return found


def _must_be_smpl(a: Mapping[str, NDArray[Any]], *, where: str) -> None:
    vertices = len(a["v_template"]) if a["v_template"].ndim == 2 else 0
    joints = a["kintree_table"].shape[-1] if a["kintree_table"].ndim == 2 else 0
    model = _MODELS.get((vertices, joints), "a body")
    if model == "SMPL" and a["posedirs"].shape[-1] == 93:
        model = "STAR"
    if model != "SMPL":
        raise EngineError(f"this is {model} ({vertices} vertices, {joints} joints), not SMPL", where=where, hint=_WANTED)


def _checked(a: Mapping[str, NDArray[Any]], shapes: int, *, where: str) -> SmplArrays:
    wanted = {
        "v_template": (VERTICES, 3), "posedirs": (VERTICES, 3, _POSES), "J_regressor": (JOINTS, VERTICES), "weights": (VERTICES, JOINTS),
        "kintree_table": (2, JOINTS),
    }  # fmt: skip
    wrong = [f"{key} is {list(a[key].shape)} instead of {list(shape)}" for key, shape in wanted.items() if a[key].shape != shape]
    if a["shapedirs"].ndim != 3 or a["shapedirs"].shape[:2] != (VERTICES, 3) or a["shapedirs"].shape[2] < shapes:
        wrong.append(f"shapedirs is {list(a['shapedirs'].shape)} instead of [{VERTICES}, 3, at least {shapes}]")
    if a["f"].ndim != 2 or a["f"].shape[1:] != (3,) or a["f"].min(initial=0) < 0 or a["f"].max(initial=0) >= VERTICES:
        wrong.append("f is no list of triangles")
    wrong += [f"{key} has numbers that are not finite" for key in _KEYS if not np.isfinite(a[key]).all()]
    if not wrong and tuple(a["kintree_table"][0, 1:].astype(int)) != PARENTS[1:]:
        wrong.append("its joints hang together in another way")
    if not wrong and np.abs(a["weights"].sum(axis=1) - 1).max() > 1e-3:
        wrong.append("the weights of a vertex do not sum to 1")
    if wrong:
        raise EngineError(f"the body is not SMPL's: {'; '.join(wrong[:_SHOWN])}", where=where, hint=_WANTED)
    own = {key: np.ascontiguousarray(a[key], np.float64) for key in _KEYS}
    return SmplArrays(
        own["v_template"], own["shapedirs"][..., :shapes], own["posedirs"], own["J_regressor"], own["weights"], a["f"].astype(np.int32)
    )


def _held(path: Path) -> Any:
    with path.open("rb") as file:
        begins = file.read(2)
        file.seek(0)
        if begins != b"PK":
            return read_pickle(file)
    with np.load(path) as arrays:
        return {key: arrays[key] for key in arrays.files if key in _KEYS}


def _numbers(value: Any, key: str, *, where: str) -> NDArray[Any]:
    try:
        found = dense(value)
        return found if found.dtype.kind in "iu" else found.astype(np.float64)
    except _SPOILT as e:
        raise EngineError(f"{key} is no array of numbers", where=where, hint=_WANTED) from e


def _gist(e: BaseException) -> str:
    text = str(e).partition("\n")[0].partition(". ")[0]
    return f"{type(e).__name__}: {text}" if text else type(e).__name__
