"""The last skeletons, given again for a moment in which nobody can be placed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from posepipe.pipeline.packet import Poses, Tier, ViewPoses, readonly

_SPEED_M_S = 1.0
"""How fast a joint may have gone away, one standard deviation: what is not seen is known less with every instant."""


class Held:
    """hold_s: how long skeletons are given again. Their confidence falls to 0 by then, and their standard deviation grows by 1 m/s."""

    def __init__(self, hold_s: float) -> None:
        self._hold_ns = int(hold_s * 1e9)
        self._last: Poses | None = None
        self._t_ns = 0

    def keep(self, poses: Poses, t_ns: int) -> None:
        """These people were seen."""
        self._last, self._t_ns = poses, t_ns

    def at(self, v: ViewPoses, t_ns: int, nobody: Tier) -> Poses:
        """The last skeletons as tier `held`; nobody (stamped with that tier) when they are older than `hold_s`."""
        last, age_ns = self._last, t_ns - self._t_ns
        if last is None or not 0 <= age_ns < self._hold_ns:
            self._last = None
            return _empty(v, nobody)
        sigma_m = np.hypot(last.sigma_m, np.float32(_SPEED_M_S * age_ns / 1e9))
        conf = last.conf * np.float32(1 - age_ns / self._hold_ns)
        views_used, reproj_px = np.zeros_like(last.views_used), np.zeros_like(last.reproj_px)
        for array in (sigma_m, conf, views_used, reproj_px):
            readonly(array)
        return replace(last, sync=v.sync, tier="held", conf=conf, sigma_m=sigma_m, views_used=views_used, reproj_px=reproj_px)


def _empty(v: ViewPoses, tier: Tier) -> Poses:
    joints = v.conf.shape[2]
    arrays = (
        np.zeros(0, np.int64), np.zeros((0, joints, 3), np.float32), np.zeros((0, joints), np.float32),
        np.zeros((0, joints), np.float32), np.zeros(0, np.float32), np.zeros((0, joints), np.uint8),
    )  # fmt: skip
    for array in arrays:
        readonly(array)
    return Poses(v.cameras, v.skeleton, v.sync, tier, *arrays)
