"""What the workers report, added up: latencies, the ledger, the quality of the skeletons, the trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from posepipe.pipeline.graph import Plan
from posepipe.pipeline.ledger import Ledger
from posepipe.pipeline.packet import Packet, Span, Sync
from posepipe.pipeline.runner import side_nodes
from posepipe.pipeline.snapshot import NodeFigures, Snapshot, snapshot
from posepipe.pipeline.stats import Durations, Quality, TraceLog

from . import letters


class Books:
    """The figures of a studio whose nodes run elsewhere. Written by the thread that listens to the workers."""

    def __init__(self, plan: Plan, *, trace: bool) -> None:
        self.ledger = Ledger(side_nodes=side_nodes(plan))
        self.trace = TraceLog() if trace else None
        self.on_spans: Callable[[list[Packet[None]]], None] | None = None
        """Who else wants the published packets with their traces (they come when the workers trace)."""
        self.end_to_end, self.quality = Durations(), Quality()
        self.nodes = {n.name: NodeFigures.of(n, Durations()) for n in plan.nodes}
        self.seen: tuple[int, float] = (0, float("nan"))
        """People and reprojection error of the last skeletons."""
        self.sync: Sync | None = None
        """How well their instant hung together."""
        self.strange: dict[str, int] = {}
        """Messages that were damaged or not for this studio, by worker."""
        self.subscribers: dict[str, int] = {}
        self.next_seq: dict[str, int] = {}
        """Camera -> the number behind the last frame that was captured."""
        self.harmed: dict[int, int] = {}
        """Number of a harm that is over -> how often it took effect."""
        self.ended: set[str] = set()
        """Nodes that will write no more."""

    def note(self, worker: str, beat: letters.Beat) -> None:
        for name, node in beat.nodes.items():
            figures = self.nodes[name]
            figures.latency.extend(np.frombuffer(node.latency_ns, np.int64))
            figures.waiting, figures.errors = node.waiting, max(figures.errors, node.errors)
            if node.ended:
                self.ended.add(name)
        self.end_to_end.extend(np.frombuffer(beat.end_to_end_ns, np.int64))
        self.quality.extend(beat.quality)
        if beat.seen is not None:
            self.seen, self.sync = beat.seen, beat.sync
        if beat.subscribers is not None:
            self.subscribers[worker] = beat.subscribers
        self.strange[worker] = beat.strange

    def count(self, events: list[tuple[Any, ...]]) -> None:
        for event in events:
            if event[0] == "capture":
                camera, seq = event[1]
                self.next_seq[camera] = max(self.next_seq.get(camera, 0), seq + 1)
        self.ledger.apply(events)

    def spans(self, packets: list[Any], captures: list[Any]) -> None:
        published = msgspec.convert(packets, list[Packet[None]])
        if self.on_spans is not None:
            self.on_spans(published)
        if self.trace is not None:
            self.trace.extend(published, msgspec.convert(captures, list[tuple[int, Span]]))

    def snapshot(self, *, seconds: float, newest: int, trouble: tuple[str, ...] = ()) -> Snapshot:
        """The studio now; latencies over the `newest` packets of each node."""
        return snapshot(
            self.nodes.values(),
            end_to_end=self.end_to_end,
            quality=self.quality,
            ledger=self.ledger,
            seen=self.seen,
            seconds=seconds,
            newest=newest,
            trouble=trouble,
        )
