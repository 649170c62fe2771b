"""What `follow` of smooth.vibe adds: joints stand where the cameras see them, and move as the network says.

The network disbelieves errors of a detector that last a second, and with them part of what the cameras agree on. Its answer, calmed by an alpha-beta filter
that foresees constant speed, is therefore moved by what is measured less that answer, after two low passes: slow differences come through, a detector's
noise does not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posepipe.calib.smoothers import grown
from posepipe.pipeline.packet import F32, F64, I64
from posepipe.pipeline.skeleton import COCO17

Bools = NDArray[np.bool_]
_CALM_S, _SLOW_S = 0.08, 0.068
_FAR_M = 0.033
"""Where the difference is this large the low passes are twice as fast."""
_ASTRAY_M = 0.2
"""A joint that is measured this far from the answer counts half as far as it is, one much further off hardly: sides are exchanged, or it is another's."""
_HIPS = np.array([COCO17.index("left_hip"), COCO17.index("right_hip")])


class Follow:
    """A row for every person: the calmed answer, its speed, and the difference after one and two low passes [R,17,3]."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everybody."""
        self._at, self._speed, self._once, self._twice = (np.zeros((0, len(COCO17.joints), 3)) for _ in range(4))

    def grow(self, row: int) -> None:
        """Make room for this row."""
        self._at, self._speed, self._once, self._twice = (grown(x, row) for x in (self._at, self._speed, self._once, self._twice))

    def step(self, rows: I64, new: Bools, since_s: F64, joints: F32, measured_m: F32, seen: Bools) -> tuple[F32, F32]:
        """The joints [N,17,3] of these rows as they are given, and how far the body moves with its hips [N,3], metres.

        new [N]: rows that begin; since_s [N]: seconds since their last instant. joints [N,17,3]: the network's answer; measured_m [N,17,3]: where `seen`
        [N,17]; a joint that is not seen stays as far from the answer as it was.
        """
        after_s = since_s[:, None, None]
        keep = np.exp(-after_s / _CALM_S)
        foreseen = self._at[rows] + self._speed[rows] * after_s
        foreseen[new] = joints[new]
        self._speed[rows[new]] = self._once[rows[new]] = self._twice[rows[new]] = 0
        surprise = joints - foreseen
        at = foreseen + (1 - keep**2) * surprise
        away = np.where(seen[..., None], measured_m - at, 0)
        away /= 1 + np.einsum("njk,njk->nj", away, away)[..., None] / _ASTRAY_M**2
        hurry = 1 + np.linalg.norm(self._once[rows], axis=2)[..., None] / _FAR_M
        through = np.where(seen[..., None], 1 - np.exp(-after_s * hurry / _SLOW_S), 0)
        once = self._once[rows] + through * (away - self._once[rows])
        twice = self._twice[rows] + through * (once - self._twice[rows])
        self._at[rows], self._once[rows], self._twice[rows] = at, once, twice
        self._speed[rows] += (1 - keep) ** 2 / after_s * surprise
        given = at + twice
        return given.astype(np.float32), (given - joints)[:, _HIPS].mean(axis=1).astype(np.float32)
