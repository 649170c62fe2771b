"""The studio at one moment, wherever its nodes run: what the screen, the summary and the metrics show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from .graph import PlanNode
from .ledger import Drop, Ledger
from .links import Queue
from .packet import Packet, Poses
from .stats import Durations, Quality


@dataclass(frozen=True, slots=True)
class NodeView:
    """One row of the live screen."""

    name: str
    use: str
    count: int
    rate_hz: float
    ms: Mapping[str, float]
    waiting: int
    errors: int
    queue: Queue | None = None
    """What may wait on each link into it; None for a source."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The studio at one moment. `dropped` are frames lost for good, `skipped` packets that single branches lost. `people` and
    `reproj_px` are those of the last instant, the medians those of the run."""

    nodes: tuple[NodeView, ...]
    end_to_end_ms: Mapping[str, float]
    captured: int
    published: int
    dropped: tuple[Drop, ...]
    skipped: tuple[Drop, ...]
    in_flight: int
    balance: int
    people: int
    reproj_px: float
    median_people: float
    median_reproj_px: float
    instants: int
    seconds: float
    trouble: tuple[str, ...] = ()
    """What is not as it should be with the worker processes, one sentence each."""


@dataclass(slots=True)
class NodeFigures:
    """What is kept of one node."""

    name: str
    use: str
    latency: Durations
    queue: Queue | None = None
    waiting: int = 0
    errors: int = 0

    @classmethod
    def of(cls, planned: PlanNode, latency: Durations, *, waiting: int = 0, errors: int = 0) -> NodeFigures:
        return cls(planned.name, planned.use, latency, planned.queue if planned.inputs else None, waiting, errors)


def glance(packet: Packet[Poses] | None) -> tuple[int, float]:
    """People in an instant, and the median of their reprojection errors in px (NaN for nobody)."""
    if packet is None or not len(packet.body.ids):
        return 0, float("nan")
    return len(packet.body.ids), float(np.median(packet.body.reproj_px))


def snapshot(
    nodes: Iterable[NodeFigures],
    *,
    end_to_end: Durations,
    quality: Quality,
    ledger: Ledger,
    seen: tuple[int, float],
    seconds: float,
    newest: int,
    trouble: tuple[str, ...] = (),
) -> Snapshot:
    """The figures as they are now; latencies over the `newest` packets of each node. seen: `glance` at the last skeletons."""
    median_people, median_reproj_px = quality.medians()
    return Snapshot(
        nodes=tuple(
            NodeView(n.name, n.use, n.latency.count, n.latency.rate_hz, n.latency.percentiles_ms(newest), n.waiting, n.errors, n.queue)
            for n in nodes
        ),
        end_to_end_ms=end_to_end.percentiles_ms(newest),
        captured=ledger.captured,
        published=ledger.published,
        dropped=tuple(ledger.dropped),
        skipped=tuple(ledger.skipped),
        in_flight=ledger.in_flight,
        balance=ledger.balance,
        people=seen[0],
        reproj_px=seen[1],
        median_people=median_people,
        median_reproj_px=median_reproj_px,
        instants=end_to_end.count,
        seconds=seconds,
        trouble=trouble,
    )
