"""Heatmaps and affinity fields as a perfect network would give them: for the stub, and for tests of what decodes them.

As networks are trained (CMU's openpose_train): a Gaussian of 7 input pixels per part, the largest where people overlap; a limb's unit
vector on cells within one cell of it, the mean where limbs overlap. Cell c is input pixel 8 c + 3.5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .layout import Parts

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

STRIDE = 8
_SIGMA_CELLS = 7 / STRIDE


def paint(parts: Parts, people: F64, *, rows: int, columns: int) -> tuple[F32, F32]:
    """Maps of people [P,J,2] in cells (NaN: a part that is not there): heatmaps [J+1,rows,columns], fields [2L,rows,columns]."""
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    heat = np.zeros((parts.count + 1, rows, columns))
    fields, count = np.zeros((2 * len(parts.limbs), rows, columns)), np.zeros((len(parts.limbs), rows, columns))
    for person in people:
        for j in np.flatnonzero(np.isfinite(person[:, 0])):
            distance2 = (x - person[j, 0]) ** 2 + (y - person[j, 1]) ** 2
            heat[j] = np.maximum(heat[j], np.exp(-distance2 / (2 * _SIGMA_CELLS**2)))
        for limb, (a, b) in enumerate(parts.limbs):
            along = person[b] - person[a]
            length = np.linalg.norm(along)
            if not length > 0:
                continue
            along = along / length
            dx, dy = x - person[a, 0], y - person[a, 1]
            on = (np.abs(dx * along[1] - dy * along[0]) <= 1) & (dx * along[0] + dy * along[1] >= -1)
            on &= dx * along[0] + dy * along[1] <= length + 1
            at = parts.fields[limb]
            fields[at : at + 2] += np.where(on, along[:, None, None], 0)
            count[limb] += on
    for limb, at in enumerate(parts.fields):
        fields[at : at + 2] /= np.maximum(count[limb], 1)
    heat[-1] = 1 - heat[:-1].max(axis=0)
    return heat.astype(np.float32), fields.astype(np.float32)


_UPRIGHT = {
    "nose": (0.0, 0.06), "neck": (0.0, 0.18), "shoulder": (0.1, 0.18), "elbow": (0.14, 0.33), "wrist": (0.15, 0.47), "hip": (0.06, 0.5),
    "mid_hip": (0.0, 0.5), "knee": (0.07, 0.73), "ankle": (0.07, 0.94), "eye": (0.02, 0.04), "ear": (0.04, 0.05),
    "big_toe": (0.09, 0.99), "small_toe": (0.11, 0.98), "heel": (0.06, 0.97),
}  # fmt: skip


def upright(joints: tuple[str, ...], *, rows: int, columns: int) -> F64:
    """One person [1,J,2] in cells who stands in the middle, facing the camera, three quarters of the picture tall; parts by their names."""
    found = np.empty((len(joints), 2))
    for j, name in enumerate(joints):
        side, _, rest = name.partition("_")
        sided = side in ("left", "right")
        x, y = _UPRIGHT[rest if sided else name]
        found[j] = (-x if side == "right" else x), y
    tall = 0.75 * rows
    return np.asarray((found * tall + [(columns - 1) / 2, 0.125 * rows])[None])
