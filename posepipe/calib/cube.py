"""Where a person's cube stands: around the hips, turned with them."""

from __future__ import annotations

import numpy as np

from posepipe.pipeline.packet import F64
from posepipe.pipeline.skeleton import COCO17

from .unproject import Cube

_HIPS, _SHOULDERS, _BODY = np.array([11, 12]), np.array([5, 6]), np.array(COCO17.body)


def cube_around(xyz_m: F64, *, side_m: float = 2.5) -> Cube | None:
    """The cube around a coco17 skeleton [17,3] (NaN: joint not known): its middle the hips', else the mean of the body's joints; its x axis
    from right to left, along hips and shoulders on the ground. None where no joint of the body is known."""
    body = xyz_m[_BODY]
    known = np.isfinite(body).all(axis=1)
    if not known.any():
        return None
    hips = xyz_m[_HIPS]
    centre_m = hips.mean(axis=0) if np.isfinite(hips).all() else body[known].mean(axis=0)
    across = np.zeros(2)
    for pair in (hips, xyz_m[_SHOULDERS]):
        if np.isfinite(pair).all():
            across += (pair[0] - pair[1])[:2]
    return Cube(centre_m, side_m, float(np.arctan2(across[1], across[0])) if across.any() else 0.0)
