"""Filters that look at nothing ahead: One-Euro and Kalman, for all people and joints at once, on the time stamps that there are.

State lives in arrays with one row a person; `People` says who has which row. P people, J joints.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64, I64

from .kernel import kernel

Bools = NDArray[np.bool_]
_NEVER = -(1 << 62)
_SPEED_M_S, _ACCELERATION_M_S2 = 1.0, 10.0
_FLOOR_M = 0.001


class People:
    """Which row of a filter's arrays belongs to whom. forget_ns: who was away for longer loses it; so does everybody when time goes back."""

    def __init__(self, forget_ns: int) -> None:
        self._forget_ns = forget_ns
        self._row: dict[int, int] = {}
        self._last_ns: dict[int, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._row)

    def rows(self, ids: Iterable[int], t_ns: int) -> tuple[I64, list[int]]:
        """Rows [P] of these people, and which of these rows have a new owner: their state has to be begun."""
        for person in [p for p, last_ns in self._last_ns.items() if not 0 <= t_ns - last_ns <= self._forget_ns]:
            self._free.append(self._row.pop(person))
            del self._last_ns[person]
        rows, new = [], []
        for person in ids:
            if person not in self._row:
                self._row[person] = self._free.pop() if self._free else len(self._row)
                new.append(self._row[person])
            self._last_ns[person] = t_ns
            rows.append(self._row[person])
        return np.array(rows, np.int64), new


@dataclass(frozen=True, slots=True)
class Smoothed:
    """One instant, smoothed. xyz_m [P,J,3], NaN where nothing is given. bridged [P,J]: joints that were not seen and are given all the same;
    there sigma_m and conf [P,J] say how sure that is, elsewhere they mean nothing."""

    xyz_m: F64
    bridged: Bools
    sigma_m: F64
    conf: F64


class Recursive(Protocol):
    """A filter that answers every instant at once."""

    def begin(self, row: int) -> None:
        """That row has a new owner."""

    def step(self, rows: I64, xyz_m: F64, sigma_m: F64, conf: F64, seen: Bools, t_ns: int) -> Smoothed:
        """rows [P] (each begun once), xyz_m [P,J,3], sigma_m and conf [P,J], seen [P,J]; what is not seen is not looked at."""


class OneEuro:
    """The One-Euro filter (Casiez, Roussel, Vogel, CHI 2012, eq. 1-7), isotropic: the cut-off follows the joint's speed in space.

    min_cutoff_hz at rest; beta Hz for every m/s; speed_cutoff_hz of the speed's own estimate. A joint unseen for `forget_s` starts afresh.
    """

    def __init__(self, joints: int, *, min_cutoff_hz: float, beta: float, speed_cutoff_hz: float, forget_s: float) -> None:
        self._settings = min_cutoff_hz, beta, speed_cutoff_hz, int(forget_s * 1e9)
        self._state = np.zeros((0, joints, 2, 3))
        self._t_ns = np.zeros((0, joints), np.int64)

    def begin(self, row: int) -> None:
        if row >= len(self._state):
            self._state, self._t_ns = grown(self._state, row), grown(self._t_ns, row)
        self._t_ns[row] = _NEVER

    def step(self, rows: I64, xyz_m: F64, sigma_m: F64, conf: F64, seen: Bools, t_ns: int) -> Smoothed:
        out = np.full(xyz_m.shape, np.nan)
        _one_euro(rows, xyz_m, seen, t_ns, *self._settings, self._state, self._t_ns, out)
        return Smoothed(out, np.zeros(seen.shape, np.bool_), sigma_m, conf)


@kernel
def _one_euro(
    rows: I64, xyz: F64, seen: Bools, t_ns: int, min_cutoff: float, beta: float, speed_cutoff: float, forget_ns: int,
    state: F64, last_ns: I64, out: F64,
) -> None:  # fmt: skip
    for p in range(len(rows)):
        row = rows[p]
        for j in range(xyz.shape[1]):
            if not seen[p, j]:
                continue
            where, speed = state[row, j, 0], state[row, j, 1]
            since_ns = t_ns - last_ns[row, j]
            if since_ns <= 0 or since_ns > forget_ns:
                for i in range(3):
                    where[i], speed[i] = xyz[p, j, i], 0.0
            else:
                dt = since_ns * 1e-9
                r = 2 * np.pi * speed_cutoff * dt
                total = 0.0
                for i in range(3):
                    speed[i] += r / (r + 1) * ((xyz[p, j, i] - where[i]) / dt - speed[i])
                    total += speed[i] * speed[i]
                r = 2 * np.pi * (min_cutoff + beta * np.sqrt(total)) * dt
                for i in range(3):
                    where[i] += r / (r + 1) * (xyz[p, j, i] - where[i])
            last_ns[row, j] = t_ns
            for i in range(3):
                out[p, j, i] = where[i]


class Kalman:
    """A Kalman filter for every joint, the same in all directions (Bar-Shalom, Li, Kirubarajan 2001, 6.2.2 and 6.2.3).

    model: `velocity`, driven by white acceleration (process: the square root of its spectral density, m/s^1.5), or `acceleration`, driven by
    white jerk (m/s^2.5). A measurement's variance is (noise * sigma_m)^2, at least 1 mm^2. One that lies more than `doubt` standard
    deviations away (of the distance in space) moves the state as if it lay there: its variance is made larger (Huber's weight). A joint that
    is not seen goes on by itself for `bridge_s`, its confidence falls to 0 and its sigma grows with the state's; one that was unseen for
    `forget_s` starts afresh, at rest (1 m/s, 10 m/s^2 standard deviation).
    """

    def __init__(
        self,
        joints: int,
        *,
        model: Literal["velocity", "acceleration"],
        process: float,
        noise: float,
        doubt: float,
        bridge_s: float,
        forget_s: float,
    ) -> None:
        size = 2 if model == "velocity" else 3
        self._settings = process * process, noise * noise, doubt, int(bridge_s * 1e9), int(forget_s * 1e9)
        self._state, self._cov = np.zeros((0, joints, size, 3)), np.zeros((0, joints, size, size))
        self._times = np.zeros((0, joints, 2), np.int64)  # of the state, of the last measurement
        self._last = np.zeros((0, joints, 3))  # variance and confidence of the last measurement, variance of the state after it

    def begin(self, row: int) -> None:
        if row >= len(self._state):
            self._state, self._cov = grown(self._state, row), grown(self._cov, row)
            self._times, self._last = grown(self._times, row), grown(self._last, row)
        self._times[row] = _NEVER

    def step(self, rows: I64, xyz_m: F64, sigma_m: F64, conf: F64, seen: Bools, t_ns: int) -> Smoothed:
        out, bridged = np.full(xyz_m.shape, np.nan), np.zeros(seen.shape, np.bool_)
        sigma, sure = np.zeros(seen.shape), np.zeros(seen.shape)
        state = self._state, self._cov, self._times, self._last
        _kalman(rows, xyz_m, sigma_m, conf, seen, t_ns, *self._settings, *state, out, bridged, sigma, sure)
        return Smoothed(out, bridged, sigma, sure)


@kernel
def _predict(x: F64, cov: F64, dt: float, q: float) -> None:
    """State [n,3] and covariance [n,n] `dt` seconds later; q: spectral density of the white noise that drives the last derivative."""
    n = len(x)
    half = 0.5 * dt * dt
    for i in range(3):
        if n == 2:
            x[0, i] += dt * x[1, i]
        else:
            x[0, i] += dt * x[1, i] + half * x[2, i]
            x[1, i] += dt * x[2, i]
    for _ in range(2):  # F (F P)^T, twice transposed
        for c in range(n):
            if n == 2:
                cov[0, c] += dt * cov[1, c]
            else:
                cov[0, c] += dt * cov[1, c] + half * cov[2, c]
                cov[1, c] += dt * cov[2, c]
        for r in range(n):
            for c in range(r):
                cov[r, c], cov[c, r] = cov[c, r], cov[r, c]
    if n == 2:
        cov[0, 0] += q * dt**3 / 3
        cov[0, 1] += q * half
        cov[1, 0] += q * half
        cov[1, 1] += q * dt
    else:
        noise = (dt**5 / 20, dt**4 / 8, dt**3 / 6, dt**3 / 3, half, dt)
        cov[0, 0] += q * noise[0]
        cov[0, 1] += q * noise[1]
        cov[1, 0] += q * noise[1]
        cov[0, 2] += q * noise[2]
        cov[2, 0] += q * noise[2]
        cov[1, 1] += q * noise[3]
        cov[1, 2] += q * noise[4]
        cov[2, 1] += q * noise[4]
        cov[2, 2] += q * noise[5]


@kernel
def _update(x: F64, cov: F64, seen: F64, variance: float, doubt: float) -> None:
    """Take one position [3] with that variance into state and covariance."""
    n = len(x)
    away2 = 0.0
    for i in range(3):
        away2 += (seen[i] - x[0, i]) ** 2
    total = cov[0, 0] + variance
    far = np.sqrt(away2 / (3 * total)) / doubt
    if far > 1:
        total *= far
    gain = cov[:, 0] / total
    for i in range(3):
        off = seen[i] - x[0, i]
        for r in range(n):
            x[r, i] += gain[r] * off
    first = cov[0].copy()
    for r in range(n):
        for c in range(n):
            cov[r, c] -= gain[r] * first[c]


@kernel
def _kalman(
    rows: I64, xyz: F64, sigma: F64, conf: F64, seen: Bools, t_ns: int,
    q: float, noise2: float, doubt: float, bridge_ns: int, forget_ns: int,
    state: F64, covs: F64, times: I64, last: F64, out: F64, bridged: Bools, sigma_out: F64, conf_out: F64,
) -> None:  # fmt: skip
    for p in range(len(rows)):
        row = rows[p]
        for j in range(xyz.shape[1]):
            x, cov, when, was = state[row, j], covs[row, j], times[row, j], last[row, j]
            dt_ns, unseen_ns = t_ns - when[0], t_ns - when[1]
            known = dt_ns > 0 and unseen_ns <= forget_ns
            if known:
                _predict(x, cov, dt_ns * 1e-9, q)
                when[0] = t_ns
            if seen[p, j]:
                variance = max(noise2 * sigma[p, j] ** 2, _FLOOR_M * _FLOOR_M)
                if known:
                    _update(x, cov, xyz[p, j], variance, doubt)
                else:
                    x[:], cov[:] = 0.0, 0.0
                    x[0] = xyz[p, j]
                    cov[0, 0], cov[1, 1] = variance, _SPEED_M_S * _SPEED_M_S
                    if len(cov) > 2:
                        cov[2, 2] = _ACCELERATION_M_S2 * _ACCELERATION_M_S2
                when[0], when[1] = t_ns, t_ns
                was[0], was[1], was[2] = sigma[p, j] ** 2, conf[p, j], cov[0, 0]
                out[p, j] = x[0]
            elif known and unseen_ns < bridge_ns:
                bridged[p, j], out[p, j] = True, x[0]
                sigma_out[p, j] = np.sqrt(was[0] + cov[0, 0] - was[2])
                conf_out[p, j] = was[1] * (1 - unseen_ns / bridge_ns)


def grown(array: NDArray[Any], row: int) -> NDArray[Any]:
    """The same with room for that row, and some more."""
    bigger = np.zeros((2 * row + 4, *array.shape[1:]), array.dtype)
    bigger[: len(array)] = array
    return bigger


def tall(values: F32 | F64) -> F64:
    """float64 in one piece, as the kernels take it."""
    return np.ascontiguousarray(values, np.float64)
