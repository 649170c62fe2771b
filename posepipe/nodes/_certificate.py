"""The sync certificate: how far every camera's capture stamps lie off the other cameras', how fast that changes, and how often it was there.

    estimator = SyncEstimator(4)
    if estimator.add(t_capture_ns, off_ms):     # once an instant; off_ms [C], nan for a camera that is missing
        estimator.certificate                   # new about once a second

Instants are gathered to blocks of a second. In each block every camera gets one offset by median polish (Tukey, Exploratory Data
Analysis, 1977, ch. 11), which separates the cameras from the instants and so is not fooled when a missing camera moves the median.
Block offsets of the last two minutes give the drift (Theil, 1950: the median slope of pairs half the time apart) and the offset (median
of the last ten blocks, carried on to now along the drift). Everything is against the median of the cameras: what all of them do
together cannot be seen from within.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F64, I64

BLOCK_S = 1.0
BLOCK_INSTANTS = 10
"""Fewest instants of a block: cameras slower than 10 per second have longer ones."""
RECENT_BLOCKS = 10
"""What the offset and the completeness look back on."""
WINDOW_BLOCKS = 120
"""What the drift looks back on."""
OFFSET_BLOCKS = 3
DRIFT_BLOCKS = 10
"""Fewest blocks for an offset and for a drift."""
KNOWN_MS = 1.0
KNOWN_PPM = 10.0
"""What is less certain than this (one standard deviation) counts as not known."""

_BLOCK_FRAMES = 3
_SD_OF_MEDIAN = sqrt(np.pi / 2)
_SD_OF_MAD = 1.4826
_STEP_SD = 6.0
_STEP_MS = 0.05
_STEP_DRIFT_SD = 2.5


@dataclass(frozen=True, slots=True)
class Certificate:
    """State of C cameras, each against their median; nan where it is not known.

    offset_ms [C]: capture stamps later (+) or earlier (-) than the other cameras'. drift_ppm [C]: how fast that grows; 1 ppm is
    0.6 ms in ten minutes. offset_sd_ms, drift_sd_ppm [C]: one standard deviation. complete [C]: share of the recent instants that it
    was in. `settled`: the completeness looks back on as much as it ever does.
    """

    offset_ms: F64
    offset_sd_ms: F64
    drift_ppm: F64
    drift_sd_ppm: F64
    complete: F64
    settled: bool = False


def _certificate(figures: F64, *, settled: bool = False) -> Certificate:
    """Its figures as rows [5,C], read-only."""
    figures.setflags(write=False)
    return Certificate(figures[0], figures[1], figures[2], figures[3], figures[4], settled)


class SyncEstimator:
    """Follows the offsets of some cameras from instant to instant."""

    def __init__(self, cameras: int) -> None:
        self._rows: list[Sequence[float]] = []
        self._times_ns: list[int] = []
        self._counts: deque[tuple[F64, int]] = deque(maxlen=RECENT_BLOCKS)
        self._lines = _Lines(cameras)
        self._zero_ns = 0
        self.certificate = _certificate(np.full((5, cameras), np.nan))

    def add(self, t_capture_ns: int, off_ms: Sequence[float]) -> bool:
        """One instant: its time and the cameras' stamps against any time that is the same for all of them, nan where one is missing.

        True when there is a new certificate. Instants come in the order of time.
        """
        self._zero_ns = self._zero_ns or t_capture_ns
        self._rows.append(off_ms)
        self._times_ns.append(t_capture_ns)
        if len(self._rows) < BLOCK_INSTANTS or t_capture_ns - self._times_ns[0] < BLOCK_S * 1e9:
            return False
        self._close_block()
        self._rows, self._times_ns = [], []
        return True

    def _close_block(self) -> None:
        rows = np.array(self._rows)
        there = ~np.isnan(rows)
        self._counts.append((there.sum(axis=0), len(rows)))
        seen = sum(count for count, _ in self._counts)
        instants = sum(n for _, n in self._counts)
        # Two instants with more than half of the cameras share one, so their offsets can be compared; groups that never meet cannot.
        enough = 2 * there.sum(axis=1) > max(2, np.count_nonzero(seen))
        figures = np.full((4, rows.shape[1]), np.nan)
        if enough.any():
            times_s = (np.array(self._times_ns) - self._zero_ns) * 1e-9
            figures = self._lines.follow(float(times_s[enough].mean()), *_polish(rows[enough]), now_s=float(times_s[-1]))
            figures = np.where(figures[[1, 1, 3, 3]] <= [[KNOWN_MS], [KNOWN_MS], [KNOWN_PPM], [KNOWN_PPM]], figures, np.nan)
        self.certificate = _certificate(np.vstack((figures, seen / instants)), settled=len(self._counts) == RECENT_BLOCKS)


class _Lines:
    """Block offsets of all cameras, rows in the order of time, and a straight line through each camera's.

    Offsets are kept against a zero that all cameras share: at every block the median line is taken off, so that it stays flat.
    """

    def __init__(self, cameras: int) -> None:
        self._t_s, self._y_ms, self._sd_ms = np.empty(0), np.empty((0, cameras)), np.empty((0, cameras))
        self._now_s = 0.0
        self._figures = np.full((4, cameras), np.nan)  # offset, its sd, slope, its sd (ms, s) at now
        self._off_line = np.zeros(cameras, int)

    def follow(self, t_s: float, offset_ms: F64, sd_ms: F64, *, now_s: float) -> F64:
        """Take in a block at t_s: offsets [C], up to a constant, and their sd. Offset, its sd, drift (ppm), its sd [4,C] at now_s."""
        since_s = t_s - self._now_s
        offset, offset_sd, slope, slope_sd = self._figures
        foreseen = offset + np.nan_to_num(slope) * since_s
        common = _centre((offset_ms - foreseen)[None])
        y_ms = offset_ms - (_median(offset_ms) if np.isnan(common) else common)  # nan: nobody who is here was here before
        sd = np.sqrt(sd_ms**2 + offset_sd**2 + (np.nan_to_num(slope_sd) * since_s) ** 2)
        off_line = np.abs(y_ms - foreseen) > np.maximum(_STEP_MS, _STEP_SD * sd)
        self._off_line = np.where(np.isnan(y_ms), self._off_line, np.where(off_line, self._off_line + 1, 0))
        self._now_s = now_s
        self._append(t_s, y_ms, sd_ms)
        self._fit()
        return self._figures * [[1], [1], [1e3], [1e3]]  # 1 ms/s is 1000 ppm

    def _append(self, t_s: float, y_ms: F64, sd_ms: F64) -> None:
        rows = slice(max(int(np.searchsorted(self._t_s, t_s - 2 * WINDOW_BLOCKS * BLOCK_S)), len(self._t_s) - WINDOW_BLOCKS + 1), None)
        self._t_s = np.append(self._t_s[rows], t_s)
        self._y_ms, self._sd_ms = np.vstack((self._y_ms[rows], y_ms)), np.vstack((self._sd_ms[rows], sd_ms))
        # Two blocks in a row off the line: the camera has another clock now, and what came before does not count.
        self._y_ms[:-2, self._off_line == 2] = np.nan
        self._off_line[self._off_line == 2] = 0
        self._y_ms[:, np.isnan(self._y_ms[-RECENT_BLOCKS:]).all(axis=0)] = np.nan

    def _fit(self) -> None:
        known = ~np.isnan(self._y_ms)
        begin = known.argmax(axis=0)
        figures = np.full_like(self._figures, np.nan)
        for row in set(begin[known.any(axis=0)].tolist()):  # as a rule all cameras began together
            cameras = (begin == row) & (known.sum(axis=0) >= OFFSET_BLOCKS)
            if cameras.any():
                figures[:, cameras] = _line(self._t_s[row:] - self._now_s, self._y_ms[row:, cameras].T, self._sd_ms[row:, cameras].T)
        level, slope = (np.nan_to_num(_median(figures[i])) for i in (0, 2))
        self._y_ms -= (level + slope * (self._t_s - self._now_s))[:, None]
        figures[:3:2] -= [[level], [slope]]
        for sd in figures[1::2]:  # the median is the one or two lines in the middle, and jitters as they do
            if n := np.count_nonzero(~np.isnan(sd)):
                sd[:] = np.sqrt(sd**2 + ((1 if n % 2 else 1 / 2) - 1 / n) * _median(sd) ** 2)
        self._figures = figures


def _line(t_s: F64, y_ms: F64, sd_ms: F64) -> F64:
    """Offset at 0, its sd, slope, its sd [4,C] of block offsets y_ms [C,K] at t_s [K]."""
    n = np.count_nonzero(~np.isnan(y_ms), axis=1)
    slope, lag_s, pairs = _theil(t_s, y_ms)
    flat = y_ms - slope[:, None] * t_s
    level = _median(flat)
    sd = np.fmax(_median(sd_ms), _SD_OF_MAD * _median(np.abs(flat - level[:, None])) * n / (n - 2))
    slope_sd = _SD_OF_MEDIAN * np.sqrt(2 / np.maximum(pairs, 1)) * sd / lag_s
    least_sd = np.abs(slope) / _STEP_DRIFT_SD
    if (least_sd > slope_sd).any():
        slope_sd = np.where(_steps(t_s, y_ms), np.fmax(slope_sd, least_sd), slope_sd)
    offset = _median(flat[:, -RECENT_BLOCKS:])
    recent = np.minimum(n, RECENT_BLOCKS)
    lag_s = -t_s[-RECENT_BLOCKS:].mean()
    offset_sd = np.sqrt((_SD_OF_MEDIAN * sd) ** 2 / recent + (slope_sd * lag_s) ** 2)
    slope[n < DRIFT_BLOCKS] = slope_sd[n < DRIFT_BLOCKS] = np.nan
    return np.stack((offset, offset_sd, slope, slope_sd))


def _theil(t: F64, y: F64) -> tuple[F64, float, I64]:
    """Median slope [C] of the pairs half of the points apart, their mean distance in time, their number [C]. y: [C,K], K at least 2."""
    half = len(t) // 2
    dt = t[-half:] - t[:half]
    slopes = (y[:, -half:] - y[:, :half]) / dt
    return _median(slopes), float(dt.mean()), np.count_nonzero(~np.isnan(slopes), axis=1)


def _steps(t_s: F64, y_ms: F64) -> NDArray[np.bool_]:
    """Whether one step explains the offsets [C,K] as well as a straight line does (least squares): then a slope is no drift."""
    k = len(t_s)
    y = np.nan_to_num(y_ms - _median(y_ms)[:, None])
    y -= y.mean(axis=1, keepdims=True)
    t = t_s - t_s.mean()
    by_line = (y @ t) ** 2 / (t @ t)
    left = np.arange(1, k)
    by_step = (y.cumsum(axis=1)[:, :-1] ** 2 * (k / (left * (k - left)))).max(axis=1)
    same: NDArray[np.bool_] = by_step >= by_line
    return same


def _polish(rows: F64) -> tuple[F64, F64]:
    """Offset of every camera [C] over the instants [N,C], up to a constant, and its sd; nan for one that was hardly there."""
    count = np.count_nonzero(~np.isnan(rows), axis=0)
    offset = _median(rows.T)
    for _ in range(1 if count.min() == len(rows) else 2):  # what is missing moves the first medians
        instant = _centre(rows - offset)[:, None]
        offset = _median((rows - instant).T)
    spread = _SD_OF_MAD * _median(np.abs(rows - instant - offset).T)
    offset[count < _BLOCK_FRAMES] = np.nan
    return offset, _SD_OF_MEDIAN * spread / np.sqrt(np.maximum(count, 1))


def _centre(values: F64) -> F64:
    """Mean over the last axis, [N] of [N,C], of what lies within three standard deviations of the median, and of the limit for the rest.

    Not the median itself: that is one camera's own stamp, which then never seems to jitter.
    """
    gone = np.isnan(values)
    middle = _median(values)
    apart = values - middle[:, None]
    reach = 3 * _SD_OF_MAD * _median(np.abs(apart).ravel())
    near = np.where(gone, 0.0, np.clip(apart, -reach, reach))
    centre: F64 = middle + near.sum(axis=1) / np.maximum(values.shape[1] - gone.sum(axis=1), 1)
    return centre


def _median(values: F64) -> F64:
    """Median over the last axis of what is not nan; nan where nothing is. [C] or [N,C]; many times as fast as `np.nanmedian` on small arrays."""
    ordered = np.sort(values, axis=-1)  # nan comes last
    n = ordered.shape[-1]
    if not np.isnan(ordered[..., -1]).any():
        whole: F64 = (ordered[..., (n - 1) // 2] + ordered[..., n // 2]) / 2
        return whole
    count = n - np.isnan(ordered).sum(axis=-1)
    row = np.arange(len(ordered)) if ordered.ndim == 2 else ...
    part: F64 = (ordered[row, np.maximum(count - 1, 0) // 2] + ordered[row, np.minimum(count // 2, n - 1)]) / 2
    return part
