"""Limbs do not change their length: what a person's own limbs have measured so far steadies the joints that are seen badly.

The length of a limb is the running median of the well-measured instants of the same person. Every new skeleton is pulled softly
towards it, as a measurement of the distance between two joints (extended Kalman update along the limb): each joint moves by
its share of the variance, so that a well-measured knee stays and a guessed ankle follows. Nothing looks ahead, and nothing is
assumed about the body: the lengths are the person's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64, I64
from posepipe.pipeline.skeleton import Skeleton

from .kernel import kernel

_REMEMBER = 256
_ENOUGH = 15
_REFRESH = 8
_WELL_M = 0.05
_SOFT_M = 0.03
_WORST_M = 0.2
_TO_SIGMA = 1.4826
_PARTS = (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))


def limbs_of(skeleton: Skeleton) -> I64:
    """Joint pairs [L,2] of thighs, shins, upper arms and forearms, the joint nearer to the trunk first."""
    sides = ("left", "right")
    return np.array([[skeleton.index(f"{side}_{a}"), skeleton.index(f"{side}_{b}")] for a, b in _PARTS for side in sides], np.int64)


@kernel
def _hold(xyz: F64, variance: F64, limbs: I64, seen: F64, count: I64, length: F64, spread2: F64) -> None:
    for k in range(limbs.shape[0]):
        a, b = limbs[k, 0], limbs[k, 1]
        va, vb = variance[a], variance[b]
        dx, dy, dz = xyz[b, 0] - xyz[a, 0], xyz[b, 1] - xyz[a, 1], xyz[b, 2] - xyz[a, 2]
        now = np.sqrt(dx * dx + dy * dy + dz * dz)
        if not (now > 0 and va < np.inf and vb < np.inf):
            continue
        if va < _WELL_M * _WELL_M and vb < _WELL_M * _WELL_M:
            seen[k, count[k] % _REMEMBER] = now
            count[k] += 1
            if count[k] >= _ENOUGH and (count[k] % _REFRESH == 0 or count[k] == _ENOUGH):
                known = seen[k, : min(count[k], _REMEMBER)]
                length[k] = np.median(known)
                spread = _TO_SIGMA * np.median(np.abs(known - length[k]))
                spread2[k] = max(_SOFT_M, spread) ** 2
        if not length[k] > 0:
            continue
        va, vb = min(va, _WORST_M * _WORST_M), min(vb, _WORST_M * _WORST_M)
        pull = (now - length[k]) / (now * (va + vb + spread2[k]))
        xyz[a, 0] += pull * va * dx
        xyz[a, 1] += pull * va * dy
        xyz[a, 2] += pull * va * dz
        xyz[b, 0] -= pull * vb * dx
        xyz[b, 1] -= pull * vb * dy
        xyz[b, 2] -= pull * vb * dz


class LimbLengths:
    """The limb lengths of one person: learnt and applied one skeleton at a time. Not for several threads at once.

    A length counts from its 15th well-measured instant (both joints better than 5 cm) and is the median of the last 256.
    """

    def __init__(self, limbs: I64) -> None:
        """limbs [L,2]: joint indices, trunk to hand or foot (`limbs_of`)."""
        self._limbs = np.ascontiguousarray(limbs, np.int64)
        self._seen = np.zeros((len(limbs), _REMEMBER))
        self._count = np.zeros(len(limbs), np.int64)
        self._length = np.full(len(limbs), np.nan)
        self._spread2 = np.full(len(limbs), np.nan)

    @property
    def length_m(self) -> NDArray[np.float64]:
        """[L] the lengths in use; NaN while a limb was not seen well often enough."""
        return self._length.copy()

    def hold(self, xyz_m: F64 | F32, sigma_m: F64 | F32) -> F64:
        """The skeleton [J,3] with steadier limbs, from raw points and their standard deviations [J]. NaN stays NaN."""
        xyz = np.array(xyz_m, np.float64)
        variance = np.asarray(sigma_m, np.float64) ** 2
        _hold(xyz, np.where(np.isfinite(variance), variance, np.inf), self._limbs, self._seen, self._count, self._length, self._spread2)
        return xyz
