"""Runs a plan: opens the nodes, starts the workers and the sources, keeps the pace, stops, accounts.

In this release every worker is a thread of one process; nodes, links and packets do not know that.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from .errors import PosepipeError, RunError, stopped_by
from .feed import Feed
from .graph import Plan, PlanNode
from .ledger import Drop
from .links import Link, Queue
from .node import Context, Node, Source
from .packet import Packet, Poses
from .stats import TraceLog
from .worker import Shared, Slot, Worker

_OFFLINE_QUEUE = 4


@dataclasses.dataclass(frozen=True, slots=True)
class NodeView:
    """One row of the live screen."""

    name: str
    use: str
    count: int
    rate_hz: float
    ms: Mapping[str, float]
    waiting: int
    errors: int


@dataclasses.dataclass(frozen=True, slots=True)
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


class Runner:
    """One run of one plan.

    rig, engines and resolve are handed to the nodes as they are. `offline` processes every frame in order and loses none;
    `seconds` stops the sources after that long and makes files loop.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        rig: Any,
        resolve: Callable[[str], Path],
        offline: bool = False,
        seconds: float | None = None,
        trace: bool = False,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.plan, self._rig, self._resolve = plan, rig, resolve
        self._seconds = seconds
        self._warn = warn or logging.getLogger("posepipe").warning
        self.shared = Shared(offline=offline, trace=TraceLog() if trace else None)
        self._workers: dict[str, Worker] = {}
        self._feeds: list[Feed] = []
        self.slots: dict[str, Slot] = {}
        self._closing = ExitStack()
        self._began_ns = self._ended_ns = 0
        self.start_ns = self._broken = 0
        self._build()
        self.shared.ledger.side_nodes = self._side_nodes()

    # building ---------------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        for plan in self.plan.nodes:
            self.slots[plan.name] = slot = Slot(plan, plan.cls(plan.settings), self.shared)
            if issubclass(plan.cls, Source):
                self._feeds.append(Feed(slot, seconds=self._seconds, warn=self._warn, failed=self._source_failed))
                continue
            worker = self._workers.setdefault(plan.process, Worker(plan.process, self.shared))
            worker.slots.append(slot)
            for port, upstream in plan.inputs.items():
                for name in upstream:
                    self._connect(self.slots[name], slot, port, plan.queue, worker)
        for plan in self.plan.nodes:  # feedback points down the graph, to slots that did not exist yet
            for port, name in plan.feedback.items():
                self.slots[plan.name].feedback[port] = self.slots[name].cell
        under_way = sum(link.queue.size for slot in self.slots.values() for link in slot.inputs)
        for slot in self.slots.values():
            slot.join_keep += under_way

    def _side_nodes(self) -> frozenset[str]:
        """Nodes from which no way leads to a publishing sink (none, when nothing publishes)."""
        upstream = {n.name: [u for names in n.inputs.values() for u in names] for n in self.plan.nodes}
        on_the_way: set[str] = set()
        walk = [n.name for n in self.plan.nodes if n.cls.publishes]
        while walk:
            name = walk.pop()
            on_the_way.add(name)
            walk += [u for u in upstream[name] if u not in on_the_way]
        return frozenset(upstream) - on_the_way if on_the_way else frozenset()

    def _connect(self, writer: Slot, reader: Slot, port: str, queue: Queue, worker: Worker) -> None:
        if self.shared.offline:
            queue = Queue(size=max(queue.size, _OFFLINE_QUEUE), full="block")
        own = self._workers.get(writer.plan.process) if not isinstance(writer.node, Source) else None
        link = Link(writer.name, reader.name, port, queue, ready=worker.ready, freed=own.ready if own else None)
        writer.outputs.append(link)
        reader.inputs.append(link)

    def _context(self, plan: PlanNode) -> Context:
        return Context(
            studio=self.plan.studio,
            name=plan.name,
            key=plan.key or plan.base,
            cameras=self.plan.cameras,
            caps=plan.caps_in,
            graph_sha256=self.plan.sha256,
            offline=self.shared.offline,
            loop=self._seconds is not None,
            rig=self._rig,
            engines=self.plan.engines,
            resolve=self._resolve,
            now_ns=self.shared.clock.now_ns,
            stopping=self.shared.stop,
            drop=self.slots[plan.name].drop,
            warn=self._warn,
            log=self.slots[plan.name].log,
        )

    # life -------------------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open every node, sinks first: a port in use or a missing model is known before a camera is touched."""
        for plan in reversed(self.plan.nodes):
            node = self.slots[plan.name].node
            self._closing.callback(self._close_node, node, plan.name)
            try:
                node.open(self._context(plan))
            except PosepipeError as e:
                if plan.place not in e.where:
                    e.where = f"{plan.place}: {e.where}" if e.where else f"{plan.place} (node {plan.name})"
                raise

    def subscribers(self) -> int:
        """Connected subscribers of the publishing node that has fewest; 0 when nothing publishes."""
        counts = [s.node.subscribers() for s in self.slots.values() if hasattr(s.node, "subscribers")]
        return min(counts, default=0)

    def start(self) -> None:
        self._began_ns = time.monotonic_ns()
        self.start_ns = self.shared.clock.now_ns() + 20_000_000
        for worker in self._workers.values():
            worker.start()
        for feed in self._feeds:
            feed.begin(self.start_ns)

    @property
    def running(self) -> bool:
        return any(t.is_alive() for t in self._threads)

    @property
    def _threads(self) -> list[threading.Thread]:
        return [*self._feeds, *self._workers.values()]

    def stop(self) -> None:
        """Planned stop: the sources end, what is under way is finished."""
        self.shared.stop.set()

    def finish(self, *, timeout_s: float = 10.0) -> None:
        """Wait for the drain, close the nodes, settle the ledger. RunError when a node made the studio stop or failed on everything."""
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(until - time.monotonic(), 0.01))
        self._ended_ns = time.monotonic_ns()
        stuck = [t.name for t in self._threads if t.is_alive()]
        for slot in self.slots.values():
            for link in slot.inputs:
                link.stop()
        self.close()
        self.shared.ledger.close()
        if self.shared.failure is not None:
            raise stopped_by(self.shared.failure)
        for slot in self.slots.values():
            if slot.failure is not None and slot.failing == slot.errors and not slot.latency.count:  # a run too short to give up in
                raise stopped_by(slot.failure)
        if stuck:
            raise RunError(
                f"did not stop within {timeout_s:.0f} s: {', '.join(stuck)}", where="the studio stopped", hint="a node hangs in step"
            )

    def close(self) -> None:
        self._closing.close()

    def _close_node(self, node: Node, name: str) -> None:
        try:
            node.close()
        except (PosepipeError, OSError) as e:
            self._warn(f"{name}: while closing: {e}")

    def _source_failed(self, slot: Slot, error: Exception) -> None:
        """Live, a camera that breaks ends, and the studio goes on with the others while there are any."""
        self._broken += 1
        if self.shared.offline or self._broken == len(self._feeds):
            self.shared.fail(error)
        else:
            self._warn(f"{slot.name} has stopped: {error}; the studio goes on with the other cameras")

    # looking in -------------------------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        return ((self._ended_ns or time.monotonic_ns()) - self._began_ns) / 1e9 if self._began_ns else 0.0

    def newest_poses(self) -> Packet[Poses] | None:
        """The last skeletons that any node made, most downstream first."""
        for slot in reversed(self.slots.values()):
            packet = slot.cell.packet
            if packet is not None and isinstance(packet.body, Poses):
                return packet
        return None

    def snapshot(self, newest: int = 1 << 16) -> Snapshot:
        """The studio now; latencies over the `newest` packets of each node."""
        median_people, median_reproj_px = self.shared.quality.medians()
        poses = self.newest_poses()
        reproj = poses.body.reproj_px if poses else np.zeros(0)
        ledger = self.shared.ledger
        return Snapshot(
            nodes=tuple(
                NodeView(
                    s.name,
                    s.plan.use,
                    s.latency.count,
                    s.latency.rate_hz,
                    s.latency.percentiles_ms(newest),
                    sum(map(len, s.inputs)),
                    s.errors,
                )
                for s in self.slots.values()
            ),
            end_to_end_ms=self.shared.end_to_end.percentiles_ms(newest),
            captured=ledger.captured,
            published=ledger.published,
            dropped=tuple(ledger.dropped),
            skipped=tuple(ledger.skipped),
            in_flight=ledger.in_flight,
            balance=ledger.balance,
            people=len(poses.body.ids) if poses else 0,
            reproj_px=float(np.median(reproj)) if len(reproj) else float("nan"),
            median_people=median_people,
            median_reproj_px=median_reproj_px,
            instants=self.shared.end_to_end.count,
            seconds=self.seconds,
        )
