"""Files that are like SMPL's: arrays of the true shapes with made-up numbers, and pickles as chumpy, scipy and Python 2 wrote them."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

VERTICES, JOINTS = 6890, 24
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
_LEFT = {
    "pelvis": (0, 0, 0), "hip": (7, -9, 0), "knee": (10, -48, 0), "ankle": (9, -88, -3), "foot": (11, -94, 9), "spine1": (0, 12, -3),
    "spine2": (0, 26, -2), "spine3": (0, 32, 0), "neck": (0, 53, -3), "collar": (7, 44, -2), "head": (0, 61, 2), "shoulder": (17, 46, -3),
    "elbow": (43, 46, -5), "wrist": (69, 46, -5), "hand": (77, 46, -6),
}  # fmt: skip
_ORDER = (
    *("pelvis", "+hip", "-hip", "spine1", "+knee", "-knee", "spine2", "+ankle", "-ankle", "spine3", "+foot", "-foot", "neck", "+collar"),
    *("-collar", "head", "+shoulder", "-shoulder", "+elbow", "-elbow", "+wrist", "-wrist", "+hand", "-hand"),
)
_PICKED = {
    332: (0, 65, 12), 6260: (-3, 69, 10), 2800: (3, 69, 10), 4071: (-7, 66, 2), 583: (7, 66, 2), 3216: (12, -97, 16), 3226: (15, -97, 13),
    3387: (9, -97, -7), 6617: (-12, -97, 16), 6624: (-15, -97, 13), 6787: (-9, -97, -7),
}  # fmt: skip


def made_up(shapes: int = 10, seed: int = 0) -> dict[str, Any]:
    """The arrays by the names of the published files: a stick man of clouds of vertices, y up, facing z, the pelvis 0.2 m below the origin."""
    rng = np.random.default_rng(seed)
    joints = np.array([_at(name) for name in _ORDER]) / 100 + [0.0, -0.2, 0.03]
    owner = np.arange(VERTICES) % JOINTS
    template = joints[owner] + rng.normal(0, 0.03, (VERTICES, 3))
    weights = np.zeros((VERTICES, JOINTS))
    weights[np.arange(VERTICES), owner] = 1.0
    parent = np.maximum(np.array(PARENTS), 0)[owner]
    share = rng.uniform(0, 0.4, VERTICES)
    weights[np.arange(VERTICES), owner] -= share
    np.add.at(weights, (np.arange(VERTICES), parent), share)
    for vertex, place in _PICKED.items():
        template[vertex] = np.array(place) / 100 + [0.0, -0.2, 0.03]
        weights[vertex] = 0
        weights[vertex, 15 if place[1] > 0 else 10 + (place[0] < 0)] = 1
    regressor = np.zeros((JOINTS, VERTICES))
    for j in range(JOINTS):
        mine = rng.choice(np.flatnonzero(owner == j), 30, replace=False)
        regressor[j, mine] = rng.dirichlet(np.ones(30))
    tree = np.array([[4294967295, *PARENTS[1:]], range(JOINTS)], np.uint32)
    return {
        "v_template": template, "shapedirs": rng.normal(0, 0.01, (VERTICES, 3, shapes)), "posedirs": rng.normal(0, 0.002, (VERTICES, 3, 207)),
        "J_regressor": regressor, "weights": weights, "kintree_table": tree, "f": rng.integers(0, VERTICES, (13776, 3)).astype(np.uint32),
        "bs_type": "lrotmin", "bs_style": "lbs",
    }  # fmt: skip


def extra(seed: int = 1) -> np.ndarray:
    """As `J_regressor_extra.npy`: nine joints, each the mean of some vertices."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((9, VERTICES))
    for row in rows:
        row[rng.choice(VERTICES, 40, replace=False)] = 1 / 40
    return rows


def _at(name: str) -> np.ndarray:
    side = -1 if name[0] == "-" else 1
    return np.array(_LEFT[name.lstrip("+-")], float) * [side, 1, 1]


def write_pickle(path: Path, arrays: dict[str, Any], *, computed: str = "J") -> Path:
    """As the publisher's: of Python 2, the shapes in chumpy's arrays (one of them a selection), the joints in scipy's matrix by columns, and
    beside them something that chumpy computes."""
    held = dict(arrays)
    held["shapedirs"] = _Ch.of(x=arrays["shapedirs"], _dirty_vars=set(), _itr=None)
    count = arrays["v_template"].size
    held["v_template"] = _Select.of(
        a=_Ch.of(x=arrays["v_template"].ravel()[::-1].copy()),
        idxs=np.arange(count)[::-1].copy(),
        preferred_shape=arrays["v_template"].shape,
    )
    held[computed] = _Product.of(A=_Ch.of(x=np.eye(3)), vec=_Ch.of(x=np.zeros(3)))
    held["J_regressor"] = columns(arrays["J_regressor"])
    with path.open("wb") as file:
        _python2(file, held)
    return path


def write_plain(path: Path, arrays: dict[str, Any]) -> Path:
    """With plain arrays, as those who cleaned the publisher's file have it."""
    path.write_bytes(pickle.dumps(arrays, protocol=2))
    return path


def columns(dense: np.ndarray) -> Any:
    """scipy's matrix compressed by columns, as it saves itself."""
    found = [np.flatnonzero(column) for column in dense.T]
    rows = np.concatenate(found)
    bounds = np.concatenate([[0], np.cumsum([len(f) for f in found])]).astype(np.int32)
    across = np.repeat(np.arange(dense.shape[1]), np.diff(bounds))
    return _Csc.of(data=dense[rows, across], indices=rows.astype(np.int32), indptr=bounds, _shape=dense.shape, maxprint=50, format="csc")


class _Saved:
    @classmethod
    def of(cls, **state: Any) -> Any:
        one = cls()
        one.__dict__.update(state)
        return one


class _Ch(_Saved):
    pass


class _Select(_Saved):
    pass


class _Csc(_Saved):
    pass


class _Product(_Saved):
    pass


_PLACES = {
    _Ch: ("chumpy.ch", "Ch"),
    _Select: ("chumpy.reordering", "Select"),
    _Csc: ("scipy.sparse.csc", "csc_matrix"),
    _Product: ("chumpy.ch", "MatVecMult"),
}


class _Python2(pickle._Pickler):
    """Pickles with Python 2's strings for bytes, and with classes under the names of the packages that they stand for."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, obj: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(obj)) + obj)
        self.memoize(obj)

    dispatch[bytes] = save_bytes

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module, name = _PLACES.get(obj, (getattr(obj, "__module__", ""), name or obj.__qualname__))
        self.write(f"c{module.replace('numpy._core', 'numpy.core')}\n{name}\n".encode())
        self.memoize(obj)

    dispatch[type] = save_global
    dispatch[type(struct.pack)] = save_global
    dispatch[type(_at)] = save_global


def _python2(file: Any, held: Any) -> None:
    _Python2(file, protocol=2).dump(held)
