"""Smoothers that look at instants on both sides: a local polynomial (Savitzky-Golay on uneven time stamps) and a Butterworth low pass run both ways.

Both take a joint's measurements apart where it was not seen for longer than `forget_s`, and give it where it was not seen only between two
measurements at most `bridge_s` apart. There sigma and confidence are those of the two measurements, mixed by time; sigma grows by 1 m/s and
the confidence falls to 0 with the time to the nearer one. T instants, P people, J joints; all time stamps rise.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F64

from .kernel import kernel
from .smoothers import Smoothed

Bools = NDArray[np.bool_]
_SPEED_M_S = 1.0
_MOST = 5
_SINGULAR = 1e-12
_WORST = 1e-3


@kernel
def _gap(seen: Bools, k: int) -> tuple[int, int]:
    """The measurements around instant k: indices before and after it, -1 for none. A measured instant is both itself."""
    before, after = k, k
    while before >= 0 and not seen[before]:
        before -= 1
    while after < len(seen) and not seen[after]:
        after += 1
    return before, after if after < len(seen) else -1


@kernel
def _bridge(t: F64, seen: Bools, sigma: F64, conf: F64, k: int, bridge_s: float) -> tuple[bool, float, float]:
    """Whether instant k, not seen, is given, and its sigma and confidence."""
    a, b = _gap(seen, k)
    if a < 0 or b < 0 or t[b] - t[a] > bridge_s:
        return False, 0.0, 0.0
    f = (t[k] - t[a]) / (t[b] - t[a])
    near = min(t[k] - t[a], t[b] - t[k])
    spread = (1 - f) * sigma[a] + f * sigma[b]
    sure = ((1 - f) * conf[a] + f * conf[b]) * (1 - near / bridge_s)
    return True, math.sqrt(spread * spread + (_SPEED_M_S * near) ** 2), sure


# a local polynomial ---------------------------------------------------------------------------------------------------------------


def local_polynomial(
    t_s: F64, xyz_m: F64, sigma_m: F64, conf: F64, seen: Bools, at: int, *, order: int, bridge_s: float, forget_s: float
) -> Smoothed:
    """Instant number `at` of a window, as the least-squares polynomial of that order through the window has it (Savitzky, Golay 1964, but on
    the time stamps that there are; every measurement counts by 1 / sigma_m^2, one counts at most 1000 times as much as another).

    t_s [T], xyz_m [T,P,J,3], sigma_m, conf and seen [T,P,J]. Fewer measurements than order + 1 get the highest order that they allow.
    """
    out, bridged = np.full(xyz_m.shape[1:], np.nan), np.zeros(seen.shape[1:], np.bool_)
    sigma, sure = np.zeros(seen.shape[1:]), np.zeros(seen.shape[1:])
    _local(t_s, xyz_m, sigma_m, conf, seen, at, order, bridge_s, forget_s, out, bridged, sigma, sure)
    return Smoothed(out, bridged, sigma, sure)


@kernel
def _first_row(moments: F64, size: int, row: F64) -> bool:
    """The first row of the inverse of the symmetric matrix m[r,c] = moments[r+c], by elimination. False: it has none."""
    m = np.empty((size, size))
    for r in range(size):
        row[r] = 1.0 if r == 0 else 0.0
        for c in range(size):
            m[r, c] = moments[r + c]
    for k in range(size):
        if not m[k, k] > _SINGULAR * moments[2 * k]:
            return False
        for r in range(k + 1, size):
            f = m[r, k] / m[k, k]
            for c in range(k, size):
                m[r, c] -= f * m[k, c]
            row[r] -= f * row[k]
    for k in range(size - 1, -1, -1):
        for c in range(k + 1, size):
            row[k] -= m[k, c] * row[c]
        row[k] /= m[k, k]
    return True


@kernel
def _local(
    t: F64, xyz: F64, sigma: F64, conf: F64, seen: Bools, at: int, order: int, bridge_s: float, forget_s: float,
    out: F64, bridged: Bools, sigma_out: F64, conf_out: F64,
) -> None:  # fmt: skip
    count, people, joints = seen.shape
    weight, row, moments = np.empty(count), np.empty(_MOST), np.empty(2 * _MOST)
    for p in range(people):
        for j in range(joints):
            there = seen[:, p, j]
            if not there[at]:
                given, spread, sure = _bridge(t, there, sigma[:, p, j], conf[:, p, j], at, bridge_s)
                if not given:
                    continue
                bridged[p, j], sigma_out[p, j], conf_out[p, j] = True, spread, sure
            first = last = at
            edge = t[at]
            for k in range(at, -1, -1):
                if there[k]:
                    if edge - t[k] > forget_s:
                        break
                    first, edge = k, t[k]
            edge = t[at]
            for k in range(at, count):
                if there[k]:
                    if t[k] - edge > forget_s:
                        break
                    last, edge = k, t[k]
            best, scale, used = np.inf, 0.0, 0
            for k in range(first, last + 1):
                if there[k]:
                    best, scale, used = min(best, sigma[k, p, j]), max(scale, abs(t[k] - t[at])), used + 1
            best, scale = max(best, 1e-6), scale if scale > 0 else 1.0
            moments[:] = 0.0
            for k in range(first, last + 1):
                weight[k] = max((best / max(sigma[k, p, j], best)) ** 2, _WORST) if there[k] else 0.0
                power = weight[k]
                for m in range(2 * order + 1):
                    moments[m] += power
                    power *= (t[k] - t[at]) / scale
            size = min(order + 1, used)
            while not _first_row(moments, size, row):
                size -= 1
            for i in range(3):
                out[p, j, i] = 0.0
            for k in range(first, last + 1):
                if there[k]:
                    share, power = 0.0, weight[k]
                    for m in range(size):
                        share += row[m] * power
                        power *= (t[k] - t[at]) / scale
                    for i in range(3):
                        out[p, j, i] += share * xyz[k, p, j, i]


# Butterworth both ways --------------------------------------------------------------------------------------------------------------

_PADDING = 6.0
_FINE = 5


def butterworth(
    t_s: F64, xyz_m: F64, sigma_m: F64, conf: F64, seen: Bools, *, cutoff_hz: float, order: int, bridge_s: float, forget_s: float
) -> Smoothed:
    """All instants of one person, low-passed forwards and backwards: no shift in time. Half of the power is left at `cutoff_hz` after both
    passes: |H(f)| = 1 / (1 + (sqrt 2 - 1) (f / cutoff)^(2 order)), f warped as the bilinear transform does it.

    t_s [T], xyz_m [T,J,3], sigma_m, conf and seen [T,J]; order even. Measurements between two long gaps are brought onto even steps by
    straight lines (nothing changes where they are even already, with holes or without), continued at both ends by their point
    reflection, filtered, and read at their own stamps; the straight line between the two ends is left out of that and stays as it is.
    """
    out, bridged = np.full(xyz_m.shape, np.nan), np.zeros(seen.shape, np.bool_)
    sigma, sure = np.zeros(seen.shape), np.zeros(seen.shape)
    _butterworth(t_s, xyz_m, sigma_m, conf, seen, cutoff_hz, order, bridge_s, forget_s, out, bridged, sigma, sure)
    return Smoothed(out, bridged, sigma, sure)


@kernel
def _pass(series: F64, cutoff: float, order: int) -> None:
    """Low-pass [n] in place, cutoff in cycles per step, at rest at its first value before it begins."""
    warped = math.tan(math.pi * cutoff) / (math.sqrt(2) - 1) ** (1 / (2 * order))
    for s in range(order // 2):
        damping = 2 * math.sin(math.pi * (2 * s + 1) / (2 * order))
        d = 1 + damping * warped + warped * warped
        b0 = warped * warped / d
        a1, a2 = 2 * (warped * warped - 1) / d, (1 - damping * warped + warped * warped) / d
        z1, z2 = (1 - b0) * series[0], (b0 - a2) * series[0]
        for k in range(len(series)):
            x = series[k]
            y = b0 * x + z1
            z1 = 2 * b0 * x - a1 * y + z2
            z2 = b0 * x - a2 * y
            series[k] = y


@kernel
def _both_ways(t: F64, values: F64, cutoff_hz: float, order: int, at: F64, out: F64) -> None:
    """One coordinate: measurements [n] at t, smoothed and read at `at` (within them)."""
    n = len(t)
    if n == 1:
        out[:] = values[0]
        return
    usual = np.sort(np.diff(t))[(n - 1) // 4]
    steps = round((t[n - 1] - t[0]) / usual) * math.ceil(_FINE * cutoff_hz * usual)
    step = (t[n - 1] - t[0]) / steps
    begin, slope = values[0], (values[n - 1] - values[0]) / steps
    pad = min(steps, math.ceil(_PADDING / (cutoff_hz * step)))
    series = np.empty(steps + 1 + 2 * pad)
    k = 0
    for g in range(steps + 1):
        when = t[0] + g * step
        while k < n - 2 and t[k + 1] <= when:
            k += 1
        f = min((when - t[k]) / (t[k + 1] - t[k]), 1.0)
        series[pad + g] = values[k] + f * (values[k + 1] - values[k]) - (begin + g * slope)
    for g in range(1, pad + 1):
        series[pad - g] = -series[pad + g]
        series[pad + steps + g] = -series[pad + steps - g]
    _pass(series, cutoff_hz * step, order)
    _pass(series[::-1], cutoff_hz * step, order)
    for m in range(len(at)):
        position = min(max((at[m] - t[0]) / step, 0.0), float(steps))
        g = min(int(position), steps - 1)
        f = position - g
        out[m] = (1 - f) * series[pad + g] + f * series[pad + g + 1] + begin + position * slope


@kernel
def _butterworth(
    t: F64, xyz: F64, sigma: F64, conf: F64, seen: Bools, cutoff_hz: float, order: int, bridge_s: float, forget_s: float,
    out: F64, bridged: Bools, sigma_out: F64, conf_out: F64,
) -> None:  # fmt: skip
    joints = seen.shape[1]
    for j in range(joints):
        measured = np.flatnonzero(seen[:, j])
        begin = 0
        for m in range(len(measured)):
            if m + 1 < len(measured) and t[measured[m + 1]] - t[measured[m]] <= forget_s:
                continue
            part = measured[begin : m + 1]
            begin = m + 1
            first, last = part[0], part[-1]
            smooth = np.empty(last + 1 - first)
            for i in range(3):
                _both_ways(t[part], xyz[part, j, i], cutoff_hz, order, t[first : last + 1], smooth)
                for k in range(first, last + 1):
                    out[k, j, i] = smooth[k - first]
            for k in range(first, last + 1):
                if not seen[k, j]:
                    bridged[k, j], sigma_out[k, j], conf_out[k, j] = _bridge(t, seen[:, j], sigma[:, j], conf[:, j], k, bridge_s)
                    if not bridged[k, j]:
                        out[k, j] = np.nan
