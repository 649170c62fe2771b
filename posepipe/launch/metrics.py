"""What a live studio does, as Prometheus metrics. They are read off the books when somebody asks; nothing is counted for them."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from posepipe import __version__
from posepipe.pipeline.packet import Sync
from posepipe.pipeline.stats import BUCKETS_MS, Durations

from .health import Watched, since_instant_s, up

Value = tuple[Mapping[str, str], float]
_LE = [*(str(ms / 1e3) for ms in BUCKETS_MS), "+Inf"]


@dataclass(frozen=True, slots=True)
class _Process:
    worker: str
    rss_bytes: int
    cpu_s: float


class StudioCollector(Collector):
    """Collects from the supervisor of a live studio. Asked by the threads of a server, one at a time."""

    def __init__(self, studio: Watched) -> None:
        self._studio = studio
        self._most: dict[tuple[str, str], int] = {}
        self._asked = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        return []  # so that registering it does not collect

    def collect(self) -> Iterator[Metric]:
        with self._asked:
            families = [*self._whole(), *self._frames(), *self._nodes(), *self._workers(), *self._sync()]
        yield from families

    # the studio as a whole --------------------------------------------------------------------------------------------------

    def _whole(self) -> Iterator[Metric]:
        studio, books = self._studio, self._studio.books
        info = {"version": __version__, "graph_sha256": studio.plan.sha256}
        yield InfoMetricFamily("posepipe_studio", "What runs.", value={"studio": studio.plan.studio, **info})
        since_s = since_instant_s(books, now_ns=time.monotonic_ns())
        yield self._histogram(
            "posepipe_end_to_end_latency_seconds", "From capture to publishing, of every published instant.", [({}, books.end_to_end)]
        )
        people, reproj_px = books.seen
        yield self._gauge("posepipe_people", "People in the last instant.", [({}, people)])
        yield self._gauge("posepipe_reprojection_error_pixels", "Median over the people of the last instant.", _known(reproj_px))
        yield self._counter(
            "posepipe_instants",
            "Published instants by what made their skeletons.",
            [({"tier": t}, n) for t, n in books.quality.tiers.copy().items()],
        )
        yield self._gauge(
            "posepipe_last_instant_age_seconds", "Since the last instant was published.", [] if since_s is None else [({}, since_s)]
        )
        yield self._gauge(
            "posepipe_subscribers",
            "Connected subscribers.",
            [({"worker": worker}, n) for worker, n in books.subscribers.copy().items()],
        )
        yield self._counter(
            "posepipe_messages_rejected",
            "Messages between workers that were damaged or not for this studio.",
            [({"worker": worker}, n) for worker, n in books.strange.copy().items()],
        )

    # the ledger -------------------------------------------------------------------------------------------------------------

    def _frames(self) -> Iterator[Metric]:
        ledger = self._studio.books.ledger
        yield self._counter("posepipe_frames_captured", "Frames that the cameras had.", [({}, ledger.captured)])
        yield self._counter("posepipe_frames_published", "Frames that became part of a published instant.", [({}, ledger.published)])
        # A frame that was given up and then published leaves its account again; a counter that falls would read as a restart.
        for drop in ledger.dropped:
            key = drop.node, drop.reason
            self._most[key] = max(self._most.get(key, 0), drop.count)
        yield self._counter(
            "posepipe_frames_dropped",
            "Frames lost for good.",
            [({"node": node, "reason": reason}, n) for (node, reason), n in self._most.items()],
        )
        yield self._counter(
            "posepipe_packets_skipped",
            "Packets that single branches lost, also where another branch published the frames.",
            [({"node": d.node, "reason": d.reason}, d.count) for d in ledger.skipped],
        )
        yield self._gauge("posepipe_frames_in_flight", "Frames that are under way.", [({}, ledger.in_flight)])
        yield self._gauge(
            "posepipe_ledger_balance", "Captured - published - dropped - in flight; anything but 0 is a bug.", [({}, ledger.balance)]
        )

    # nodes and workers ------------------------------------------------------------------------------------------------------

    def _nodes(self) -> Iterator[Metric]:
        kept = [
            ({"node": n.name, "worker": n.process}, figures)
            for n in self._studio.plan.nodes
            if (figures := self._studio.books.nodes.get(n.name)) is not None
        ]
        yield self._histogram(
            "posepipe_node_latency_seconds", "What a node takes for one packet.", [(labels, figures.latency) for labels, figures in kept]
        )
        yield self._gauge("posepipe_node_queue_packets", "Packets that wait for a node.", [(labels, f.waiting) for labels, f in kept])
        yield self._counter("posepipe_node_errors", "Packets that a node failed on.", [(labels, f.errors) for labels, f in kept])

    def _workers(self) -> Iterator[Metric]:
        crew = list(self._studio.crew.values())
        yield self._gauge("posepipe_worker_up", "1: open or working.", [({"worker": m.name}, float(up(m))) for m in crew])
        yield self._counter(
            "posepipe_worker_restarts", "Times that a worker was started again.", [({"worker": m.name}, m.restarts) for m in crew]
        )
        there = list(_processes({"supervisor": os.getpid(), **{m.name: m.pid for m in crew if m.alive and m.pid}}))
        yield self._gauge(
            "posepipe_worker_resident_bytes",
            "Memory of the process; pages that several share are counted in each.",
            [({"worker": p.worker}, p.rss_bytes) for p in there],
        )
        yield self._counter(
            "posepipe_worker_cpu_seconds", "Processor time of the process since it began.", [({"worker": p.worker}, p.cpu_s) for p in there]
        )

    # the sync certificate ---------------------------------------------------------------------------------------------------

    def _sync(self) -> Iterator[Metric]:
        sync = self._studio.books.sync
        skew: list[Value] = [] if sync is None else [({}, sync.skew_ns / 1e9)]
        sync = sync or Sync(0, (), ())
        yield self._gauge("posepipe_sync_skew_seconds", "Between the first and the last frame of the last instant.", skew)
        yield self._gauge(
            "posepipe_camera_offset_seconds", "Capture stamps against the median of the cameras.", self._cameras(sync.offset_ms, 1e-3)
        )
        yield self._gauge("posepipe_camera_drift_ppm", "How fast that offset grows.", self._cameras(sync.drift_ppm, 1.0))
        yield self._gauge(
            "posepipe_camera_complete_ratio", "Share of the last ten seconds' instants with this camera.", self._cameras(sync.complete, 1.0)
        )

    def _cameras(self, figures: Iterable[float | None], unit: float) -> list[Value]:
        return [({"camera": c}, f * unit) for c, f in zip(self._studio.plan.cameras, figures, strict=False) if f is not None]

    # families ---------------------------------------------------------------------------------------------------------------

    def _gauge(self, name: str, text: str, values: Iterable[Value]) -> Metric:
        return self._filled(GaugeMetricFamily(name, text, labels=()), "", values)

    def _counter(self, name: str, text: str, values: Iterable[Value]) -> Metric:
        return self._filled(CounterMetricFamily(name, text, labels=()), "_total", values)

    def _filled(self, family: Metric, suffix: str, values: Iterable[Value]) -> Metric:
        for labels, value in values:
            family.add_sample(family.name + suffix, {"studio": self._studio.plan.studio, **labels}, value)
        return family

    def _histogram(self, name: str, text: str, values: Iterable[tuple[Mapping[str, str], Durations]]) -> Metric:
        family = HistogramMetricFamily(name, text, labels=())
        for labels, durations in values:
            whole, all_labels = durations.histogram, {"studio": self._studio.plan.studio, **labels}
            for le, count in zip(_LE, whole.counts, strict=True):
                family.add_sample(f"{name}_bucket", {**all_labels, "le": le}, count)
            family.add_sample(f"{name}_count", all_labels, whole.counts[-1])
            family.add_sample(f"{name}_sum", all_labels, whole.total_ns / 1e9)
        return family


def _known(value: float) -> list[Value]:
    return [] if math.isnan(value) else [({}, value)]


def _processes(pids: Mapping[str, int]) -> Iterator[_Process]:
    """What the processes take; one that has just died is left out."""
    for worker, pid in pids.items():
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                yield _Process(worker, process.memory_info().rss, times.user + times.system)
        except psutil.Error:
            continue
