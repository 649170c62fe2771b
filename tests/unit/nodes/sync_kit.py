"""Cameras whose clocks are known: what their capture stamps are, and what a certificate of them has to say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from node_kit import T0_NS

from posepipe.nodes._certificate import Certificate, SyncEstimator

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Clocks:
    """Stamps of C cameras off the true time, in ms: offset + drift * t + jitter, with some missing and some outliers."""

    offset_ms: Floats
    drift_ppm: Floats
    rate_hz: float = 30.0
    jitter_ms: float = 0.0
    missing: float = 0.0
    outliers: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.offset_ms, self.drift_ppm = np.array(self.offset_ms, float), np.array(self.drift_ppm, float)
        self._rng = np.random.default_rng(self.seed)

    def stamps(self, times_s: Floats) -> Floats:
        shape = len(times_s), len(self.offset_ms)
        off_ms = self.true_ms(times_s[:, None]) + self._rng.normal(0, self.jitter_ms, shape)
        off_ms += np.where(self._rng.random(shape) < self.outliers, self._rng.uniform(-8, 8, shape), 0)
        off_ms[self._rng.random(shape) < self.missing] = np.nan
        return off_ms

    def true_ms(self, t_s: Any) -> Floats:
        true: Floats = self.offset_ms + 1e-3 * self.drift_ppm * t_s
        return true


class Watch:
    """An estimator that watches some clocks; the time goes on from call to call."""

    def __init__(self, cameras: int) -> None:
        self.estimator = SyncEstimator(cameras)
        self._t_s = 0.0

    def see(self, clocks: Clocks, seconds: float) -> Iterator[tuple[float, Certificate]]:
        """Every new certificate and its time."""
        times_s = self._t_s + np.arange(round(seconds * clocks.rate_hz)) / clocks.rate_hz
        self._t_s += seconds
        yield from self.feed(times_s, clocks.stamps(times_s))

    def feed(self, times_s: Floats, off_ms: Floats) -> Iterator[tuple[float, Certificate]]:
        """As `sync.instant` does it: stamps against their median, only instants of two cameras or more."""
        for t_s, row in zip(times_s.tolist(), off_ms, strict=True):
            if np.count_nonzero(~np.isnan(row)) > 1 and self.estimator.add(T0_NS + round(t_s * 1e9), (row - np.nanmedian(row)).tolist()):
                yield t_s, self.estimator.certificate

    def after(self, clocks: Clocks, seconds: float) -> Certificate:
        for _ in self.see(clocks, seconds):
            pass
        return self.estimator.certificate


def against_median(true: Floats, told: Floats | None = None) -> Floats:
    """The truth as a certificate has to tell it; told: what it tells of, when some cameras have not been there for long enough."""
    known = true if told is None else true[~np.isnan(told)]
    against: Floats = true - (np.median(known) if len(known) else np.nan)
    return against
