"""Latency of every node, always on: durations in a ring, percentiles on demand, spans for a Chrome trace."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from .packet import Packet, Poses, Span, Tier

_KEEP = 1 << 16
_TIERS: tuple[Tier, ...] = get_args(Tier)
BUCKETS_MS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 100, 150, 200, 300, 500, 1000, 2500, 5000, 10000)
"""Upper bounds of a histogram's buckets: fine where nodes and instants lie, so that quantiles read off it are good to some 10 %."""
_BOUNDS_NS = [round(ms * 1e6) for ms in BUCKETS_MS]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations since the start. counts: at most each of `BUCKETS_MS`, each with those of the buckets before it, then all."""

    counts: tuple[int, ...]
    total_ns: int


class Durations:
    """The last 65,536 durations of one thing, and a histogram of all; appends are a few hundred nanoseconds. Written by one thread."""

    def __init__(self) -> None:
        self._ring = np.full(_KEEP, 0, np.int64)  # in memory from the start: a process that grows for half an hour looks like a leak
        self._buckets = [0] * (len(_BOUNDS_NS) + 1)
        self._total_ns = 0
        self.count = 0
        self._first_ns = self._last_ns = 0

    def add(self, duration_ns: int) -> None:
        self._ring[self.count % _KEEP] = duration_ns
        self._buckets[bisect_left(_BOUNDS_NS, duration_ns)] += 1
        self._total_ns += duration_ns
        self._last_ns = time.monotonic_ns()
        if self.count == 0:
            self._first_ns = self._last_ns
        self.count += 1

    def since(self, count: int) -> NDArray[np.int64]:
        """Those after the first `count`, as far as they are kept."""
        at = np.arange(max(count, self.count - _KEEP), self.count) % _KEEP
        return self._ring[at]

    def extend(self, durations_ns: NDArray[np.int64]) -> None:
        """Those that another process measured."""
        if not len(durations_ns):
            return
        kept = durations_ns[-_KEEP:]
        at = np.arange(self.count + len(durations_ns) - len(kept), self.count + len(durations_ns)) % _KEEP
        self._ring[at] = kept
        new = np.bincount(np.searchsorted(_BOUNDS_NS, durations_ns), minlength=len(self._buckets))
        self._buckets = [old + more for old, more in zip(self._buckets, new.tolist(), strict=True)]
        self._total_ns += int(durations_ns.sum())
        self._last_ns = time.monotonic_ns()
        if self.count == 0:
            self._first_ns = self._last_ns
        self.count += len(durations_ns)

    @property
    def histogram(self) -> Histogram:
        """All durations since the start; may be asked for by any thread."""
        return Histogram(tuple(accumulate(self._buckets.copy())), self._total_ns)

    @property
    def last_ns(self) -> int:
        """Monotonic time at which the newest one was heard of; 0 before the first."""
        return self._last_ns

    @property
    def rate_hz(self) -> float:
        """Mean rate since the first one."""
        spent = self._last_ns - self._first_ns
        return (self.count - 1) / spent * 1e9 if spent > 0 else 0.0

    def percentiles_ms(self, newest: int = _KEEP) -> dict[str, float]:
        """p50, p95, p99 and max in milliseconds of the newest ones; zeros before the first."""
        n = min(self.count, _KEEP, newest)
        if n == 0:
            return {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}
        end = self.count % _KEEP
        kept = (
            self._ring[max(end - n, 0) : end] if end >= n or self.count < _KEEP else np.r_[self._ring[end - n :], self._ring[:end]]
        ) / 1e6
        p50, p95, p99 = np.percentile(kept, [50, 95, 99])
        return {"p50": round(float(p50), 3), "p95": round(float(p95), 3), "p99": round(float(p99), 3), "max": round(float(kept.max()), 3)}


class Quality:
    """People and reprojection error of the last 65,536 published instants, and how often each tier made one. Written by one thread."""

    def __init__(self) -> None:
        self._people = np.full(_KEEP, 0, np.int32)
        self._reproj_px = np.full(_KEEP, np.nan, np.float32)
        self._tier = np.full(_KEEP, 0, np.uint8)
        self.tiers: dict[str, int] = {}
        """Instants that each tier made, since the start."""
        self.count = 0

    def add(self, poses: Poses) -> None:
        self._add(len(poses.ids), float(np.mean(poses.reproj_px)) if len(poses.ids) else np.nan, poses.tier)

    def _add(self, people: int, reproj_px: float, tier: Tier) -> None:
        at = self.count % _KEEP
        self._people[at], self._reproj_px[at], self._tier[at] = people, reproj_px, _TIERS.index(tier)
        self.tiers[tier] = self.tiers.get(tier, 0) + 1
        self.count += 1

    def since(self, count: int) -> list[tuple[int, float, Tier]]:
        """People, reprojection error and tier of the instants after the first `count`, as far as they are kept."""
        at = np.arange(max(count, self.count - _KEEP), self.count) % _KEEP
        tiers = [_TIERS[k] for k in self._tier[at].tolist()]
        return list(zip(self._people[at].tolist(), self._reproj_px[at].tolist(), tiers, strict=True))

    def extend(self, instants: Iterable[tuple[int, float, Tier]]) -> None:
        """Those that another process published."""
        for people, reproj_px, tier in instants:
            self._add(people, reproj_px, tier)

    def medians(self) -> tuple[float, float]:
        """People an instant, and reprojection error in px (NaN when nobody was seen)."""
        n = min(self.count, _KEEP)
        seen = self._reproj_px[:n][np.isfinite(self._reproj_px[:n])]
        return float(np.median(self._people[:n])) if n else 0.0, float(np.median(seen)) if len(seen) else float("nan")


class TraceLog:
    """Spans of captured frames and published packets, for `--trace`, as Chrome trace events (chrome://tracing, Perfetto).

    Category `node`: the way of a published packet, with the last camera that it waited for. Category `capture`: all other frames.
    """

    def __init__(self, keep: int = 20_000) -> None:
        self._packets: deque[Packet[Any]] = deque(maxlen=keep)
        self._captures: deque[tuple[int, Span]] = deque(maxlen=8 * keep)

    def capture(self, seq: int, span: Span) -> None:
        self._captures.append((seq, span))

    def add(self, packet: Packet[Any]) -> None:
        self._packets.append(packet)

    def take(self) -> tuple[list[Packet[Any]], list[tuple[int, Span]]]:
        """What was logged since the last time, to be logged by another process."""
        packets = [self._packets.popleft() for _ in range(len(self._packets))]
        return packets, [self._captures.popleft() for _ in range(len(self._captures))]

    def extend(self, packets: Iterable[Packet[Any]], captures: Iterable[tuple[int, Span]]) -> None:
        self._packets.extend(packets)
        self._captures.extend(captures)

    def chrome(self) -> dict[str, Any]:
        packets = list(self._packets)
        if not packets:
            return {"traceEvents": [], "displayTimeUnit": "ms"}
        origin = min(p.t_capture_ns for p in packets)
        rows: dict[str, int] = {}

        def event(span: Span, seq: int, category: str) -> dict[str, Any]:
            return {
                "name": span.node,
                "cat": category,
                "ph": "X",
                "ts": (span.t_in_ns - origin) / 1e3,
                "dur": max(span.t_out_ns - span.t_in_ns, 0) / 1e3,
                "pid": 1,
                "tid": rows.setdefault(span.node, len(rows) + 1),
                "args": {"seq": seq},
            }

        events = [event(span, packet.seq, "node") for packet in packets for span in packet.trace]
        shown = {span for packet in packets for span in packet.trace}
        events += [event(span, seq, "capture") for seq, span in list(self._captures) if span not in shown]
        names = [{"name": "thread_name", "ph": "M", "pid": 1, "tid": row, "args": {"name": node}} for node, row in rows.items()]
        return {"traceEvents": names + events, "displayTimeUnit": "ms"}
