"""What a network for actions looks at: the last instants of a skeleton on a fixed time base, whatever the camera's rate is.

Ticks are multiples of `TICK_NS` on the studio clock, so that all people share them. A tick between two instants is interpolated; one without
an instant near on both sides is missing. `inputs` makes a window of ticks independent of where the person is, which way it faces and how tall it is.
N windows or people, T ticks, J the 13 joints of `JOINTS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64, I64
from posepipe.pipeline.skeleton import Skeleton

from .kernel import kernel
from .smoothers import People

Bools = NDArray[np.bool_]

RATE_HZ = 15
TICK_NS = 1_000_000_000 // RATE_HZ
TICKS = 24
"""1.6 s: more than a stride, less than two."""
JOINTS = (
    *("left_wrist", "left_elbow", "left_shoulder", "nose", "right_shoulder", "right_elbow", "right_wrist"),
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
)
"""In every layout that posepipe has, in an order in which neighbours in the body are neighbours in the array, for the convolutions."""
MIRRORED = tuple(
    JOINTS.index(n.replace("left", "RIGHT").replace("right", "left").replace("RIGHT", "right")) for n in JOINTS
)  # the joint that a joint is in a mirror
CHANNELS = 7
GAP_NS = 300_000_000
"""Instants further apart are not interpolated between."""

_L_SHOULDER, _R_SHOULDER, _R_HIP, _L_HIP = (JOINTS.index(n) for n in ("left_shoulder", "right_shoulder", "right_hip", "left_hip"))
_PARTS = (
    ("shoulder", "elbow", 0.275),
    ("elbow", "wrist", 0.25),
    ("hip", "knee", 0.395),
    ("knee", "ankle", 0.42),
    ("shoulder", "hip", 0.50),
)
_LIMBS = np.array([[JOINTS.index(f"{s}_{a}"), JOINTS.index(f"{s}_{b}")] for a, b, _ in _PARTS for s in ("left", "right")])
_LENGTHS_M = np.array([m for _, _, m in _PARTS for _ in ("left", "right")])
"""Mean over the shapes of `calib.body` in recorded motion; they make someone without legs as large as with them."""
_TRUNK_M = 0.50
_SPEED_S = 0.3
"""By which speeds are multiplied, to be as large as positions."""


def joints_in(layout: Skeleton) -> I64:
    """Where the joints of `JOINTS` stand in a layout [J]. GraphError for a layout that lacks one."""
    return np.array([layout.index(name) for name in JOINTS], np.int64)


@kernel
def _interpolated(
    before: F32, saw: Bools, t0: int, after: F32, sees: Bools, t1: int, tick_ns: int, first: int, xyz: F32, seen: Bools
) -> None:
    """Ticks first, first + 1, ... into xyz [K,J,3] and seen [K,J], from the instants on both sides."""
    for k in range(len(xyz)):
        share = ((first + k) * tick_ns - t0) / (t1 - t0)
        for j in range(xyz.shape[1]):
            if t1 - t0 > GAP_NS:
                seen[k, j] = share == 1 and sees[j]
                a = 1.0
            else:
                near = sees[j] if share >= 0.5 else saw[j]
                seen[k, j] = (saw[j] and sees[j]) or near
                a = share if saw[j] and sees[j] else (1.0 if sees[j] else 0.0)
            for c in range(3):
                xyz[k, j, c] = (1 - a) * before[j, c] * (a < 1) + a * after[j, c] * (a > 0) if seen[k, j] else 0.0


@kernel
def _resampled(xyz: F32, seen: Bools, t_ns: I64, first: int, out: F32, out_seen: Bools) -> None:
    done = 0
    for i in range(1, len(t_ns)):
        until = t_ns[i] // TICK_NS - first + 1
        if until > done:
            _interpolated(
                xyz[i - 1], seen[i - 1], t_ns[i - 1], xyz[i], seen[i], t_ns[i], TICK_NS, first + done, out[done:until], out_seen[done:until]
            )
            done = until


def resampled(xyz_m: F32, seen: Bools, t_ns: I64) -> tuple[F32, Bools, int]:
    """A recording of one person [N,J,3], seen [N,J] at rising times [N], on the time base: positions [K,J,3] (0 where missing), seen [K,J] and the
    number of the first tick. ValueError for times that do not rise."""
    if (np.diff(t_ns) <= 0).any():
        raise ValueError("times do not rise")
    first, end = int(-(-t_ns[0] // TICK_NS)), int(t_ns[-1] // TICK_NS) + 1
    out = np.zeros((max(end - first, 0), len(JOINTS), 3), np.float32)
    out_seen = np.zeros(out.shape[:2], np.bool_)
    _resampled(np.nan_to_num(xyz_m).astype(np.float32), seen, np.asarray(t_ns, np.int64), first, out, out_seen)
    return out, out_seen, first


@kernel
def _inputs(xyz: F32, seen: Bools, limbs: I64, lengths: F64, out: F32) -> None:
    windows, ticks, joints = seen.shape
    root = np.empty((ticks, 3))
    has = np.empty(ticks, np.bool_)
    for n in range(windows):
        size = normal = 0.0
        for k in range(len(limbs)):
            a, b = limbs[k]
            count, length = 0, 0.0
            for t in range(ticks):
                if seen[n, t, a] and seen[n, t, b]:
                    dx, dy, dz = xyz[n, t, a, 0] - xyz[n, t, b, 0], xyz[n, t, a, 1] - xyz[n, t, b, 1], xyz[n, t, a, 2] - xyz[n, t, b, 2]
                    length += np.sqrt(dx * dx + dy * dy + dz * dz)
                    count += 1
            if count:
                size += length / count
                normal += lengths[k]
        scale = normal / size if size > 0 else 1.0
        left_x = left_y = 0.0
        for t in range(ticks):
            for a, b in ((_L_SHOULDER, _R_SHOULDER), (_L_HIP, _R_HIP)):
                if seen[n, t, a] and seen[n, t, b]:
                    left_x += xyz[n, t, a, 0] - xyz[n, t, b, 0]
                    left_y += xyz[n, t, a, 1] - xyz[n, t, b, 1]
        across = np.sqrt(left_x * left_x + left_y * left_y)
        # The left points along +y, so the person faces +x.
        sin, cos = (left_x / across, left_y / across) if across > 1e-6 else (0.0, 1.0)
        first = -1
        for t in range(ticks):
            has[t] = seen[n, t, _L_HIP] and seen[n, t, _R_HIP]
            if has[t]:
                for c in range(3):
                    root[t, c] = (xyz[n, t, _L_HIP, c] + xyz[n, t, _R_HIP, c]) / 2
            elif seen[n, t, _L_SHOULDER] and seen[n, t, _R_SHOULDER]:
                has[t] = True
                for c in range(3):
                    root[t, c] = (xyz[n, t, _L_SHOULDER, c] + xyz[n, t, _R_SHOULDER, c]) / 2 - (_TRUNK_M / scale if c == 2 else 0.0)
            if has[t] and first < 0:
                first = t
        for t in range(ticks):
            if not has[t] and first >= 0:
                root[t] = root[t - 1] if t > first else root[first]
        for t in range(ticks):
            for j in range(joints):
                if not seen[n, t, j] or first < 0:
                    out[n, t, j] = 0
                    continue
                d = (xyz[n, t, j] - root[t]) * scale
                out[n, t, j, 0] = cos * d[0] - sin * d[1]
                out[n, t, j, 1] = sin * d[0] + cos * d[1]
                out[n, t, j, 2] = d[2]
                out[n, t, j, 6] = 1
                out[n, t, j, 3:6] = 0
                if t > 0 and seen[n, t - 1, j]:
                    d = (xyz[n, t, j] - xyz[n, t - 1, j]).astype(np.float64) * (scale * RATE_HZ * _SPEED_S)
                    out[n, t, j, 3] = cos * d[0] - sin * d[1]
                    out[n, t, j, 4] = sin * d[0] + cos * d[1]
                    out[n, t, j, 5] = d[2]


def inputs(xyz_m: F32, seen: Bools) -> F32:
    """Windows [N,T,J,3] in the world's frame, seen [N,T,J], as the network takes them: [N,T,J,7].

    Channels: position from the middle of the hips (three, metres of a body of mean size: limbs as long, in sum, as the window's are on average; facing +x, left
    +y, up +z), the speed in the room along the same axes times 0.3 s, and 1. Which way the person faces is one direction for the window, the sum of
    all its lines from right to left hip and shoulder, so that sides that are exchanged for some instants do not turn the body. All 0 for a joint that
    is missing, the speed also where the tick before lacks it.
    """
    out = np.empty((*seen.shape, CHANNELS), np.float32)
    _inputs(xyz_m, seen, _LIMBS, _LENGTHS_M, out)
    return out


@kernel
def _advance(
    xyz: F32, seen: Bools, tick: I64, last_xyz: F32, last_seen: Bools, last_ns: I64, rows: I64, new: Bools, now: F32, sees: Bools, t_ns: int,
) -> None:  # fmt: skip
    ticks, until = xyz.shape[1], t_ns // TICK_NS
    for p in range(len(rows)):
        r = rows[p]
        if new[p]:
            xyz[r], seen[r] = 0, False
            tick[r] = until - 1 if t_ns % TICK_NS == 0 else until
            last_ns[r] = t_ns - 1
            last_xyz[r], last_seen[r] = now[p], sees[p]
        if until > tick[r] and t_ns > last_ns[r]:
            count = min(until - tick[r], ticks)
            for t in range(ticks - count):
                xyz[r, t], seen[r, t] = xyz[r, t + count], seen[r, t + count]
            tail = ticks - count
            _interpolated(
                last_xyz[r], last_seen[r], last_ns[r], now[p], sees[p], t_ns, TICK_NS, until - count + 1, xyz[r, tail:], seen[r, tail:]
            )
            tick[r] = until
        last_xyz[r], last_seen[r], last_ns[r] = now[p], sees[p], t_ns


class Windows:
    """The last `ticks` ticks of everybody, by identity: xyz_m [R,T,J,3] and seen [R,T,J], rows as `push` gives them, the newest tick last; tick [R]: its number.

    forget_ns: who was away for longer begins anew, and so does everybody when time goes back.
    """

    def __init__(self, *, ticks: int = TICKS, forget_ns: int) -> None:
        self._people = People(forget_ns)
        joints = len(JOINTS)
        self.xyz_m: F32 = np.zeros((0, ticks, joints, 3), np.float32)
        self.seen: Bools = np.zeros((0, ticks, joints), np.bool_)
        self.tick: I64 = np.zeros(0, np.int64)
        self._last_m: F32 = np.zeros((0, joints, 3), np.float32)
        self._last_seen: Bools = np.zeros((0, joints), np.bool_)
        self._last_ns: I64 = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._people)

    def push(self, ids: Iterable[int], xyz_m: F32, seen: Bools, t_ns: int) -> tuple[I64, Bools]:
        """An instant: people [P], joints [P,J,3], seen [P,J]. Gives their rows [P], and who is new [P]."""
        rows, begun = self._people.rows(ids, t_ns)
        if (lacking := int(rows.max(initial=-1)) + 1 - len(self.tick)) > 0:
            self.xyz_m, self.seen, self.tick = _longer(self.xyz_m, lacking), _longer(self.seen, lacking), _longer(self.tick, lacking)
            self._last_m, self._last_seen = _longer(self._last_m, lacking), _longer(self._last_seen, lacking)
            self._last_ns = _longer(self._last_ns, lacking)
        new = np.zeros(len(rows), np.bool_)
        new[[k for k, row in enumerate(rows.tolist()) if row in begun]] = True
        # In one memory order, whatever the caller's: the kernel would be compiled again for another, in the middle of a run, for seconds.
        now, sees = np.ascontiguousarray(np.where(seen[..., None], xyz_m, np.float32(0))), np.ascontiguousarray(seen)
        _advance(self.xyz_m, self.seen, self.tick, self._last_m, self._last_seen, self._last_ns, rows, new, now, sees, t_ns)
        return rows, new


def _longer(array: NDArray[Any], by: int) -> NDArray[Any]:
    return np.concatenate([array, np.zeros((by, *array.shape[1:]), array.dtype)])
