"""The nodes of a plan that run in one process: built, opened, run, drained, closed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .errors import PosepipeError, RunError, stopped_by
from .feed import Feed
from .graph import Plan, PlanNode
from .inbox import Inbox
from .links import Link, Queue
from .loans import Loan
from .node import Context, Node, Source
from .remote import Bridge
from .worker import Shared, Slot, Worker

_OFFLINE_QUEUE = 4


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the nodes are handed: rig and engines as they are, paths by `resolve`; `seconds` stops the sources after that long
    and makes recordings loop."""

    rig: Any
    resolve: Callable[[str], Path]
    seconds: float | None
    warn: Callable[[str], None]
    lend: Callable[[str, int], Loan | None] | None = None
    """Memory for pictures of a camera, where they go to other processes (`Pictures.lend`)."""


class Part:
    """The nodes of `plan` that are placed in worker process `here`, or all of them (None), one thread for each worker.

    bridge: the links to and from other processes, with the inbox that this process waits at.
    """

    def __init__(
        self,
        plan: Plan,
        around: Surroundings,
        shared: Shared,
        *,
        here: str | None = None,
        bridge: Bridge | None = None,
        inbox: Inbox | None = None,
    ) -> None:
        self.plan, self.around, self.shared = plan, around, shared
        self.nodes = [n for n in plan.nodes if here is None or n.process == here]
        self.slots: dict[str, Slot] = {}
        self.workers: dict[str, Worker] = {}
        self.feeds: list[Feed] = []
        self._closing = ExitStack()
        self._broken = 0
        self.start_ns = 0
        for planned in self.nodes:
            self._build(planned, inbox)
        for planned in self.nodes:  # feedback points down the graph, to slots that did not exist yet
            for port, name in planned.feedback.items():
                if name in self.slots:
                    self.slots[planned.name].feedback[port] = self.slots[name].cell
        if bridge is not None and here is not None:
            worker = self.workers.setdefault(here, Worker(here, shared, inbox))  # a process of sources alone still reads its inbox
            worker.sources = [feed.slot for feed in self.feeds]
            bridge.connect(self.slots, worker.ready, shared.ledger, warn=around.warn)
        under_way = sum(link.queue.size for slot in self.slots.values() for link in slot.inputs)
        for slot in self.slots.values():
            slot.joins.keep += under_way

    def _build(self, planned: PlanNode, inbox: Inbox | None) -> None:
        self.slots[planned.name] = slot = Slot(planned, planned.cls(planned.settings), self.shared)
        if issubclass(planned.cls, Source):
            self.feeds.append(Feed(slot, seconds=self.around.seconds, warn=self.around.warn, failed=self._source_failed))
            return
        if planned.process not in self.workers:
            self.workers[planned.process] = Worker(planned.process, self.shared, inbox)
        worker = self.workers[planned.process]
        worker.slots.append(slot)
        for port, upstream in planned.inputs.items():
            for name in upstream:
                if name in self.slots:
                    self._connect(self.slots[name], slot, port, planned.queue, worker)

    def _connect(self, writer: Slot, reader: Slot, port: str, queue: Queue, worker: Worker) -> None:
        if self.shared.offline:
            queue = Queue(size=max(queue.size, _OFFLINE_QUEUE), full="block")
        own = self.workers.get(writer.plan.process) if not isinstance(writer.node, Source) else None
        link = Link(writer.name, reader.name, port, queue, ready=worker.ready, freed=own.ready if own else None)
        writer.outputs.append(link)
        reader.inputs.append(link)

    def _context(self, planned: PlanNode) -> Context:
        slot = self.slots[planned.name]
        return Context(
            studio=self.plan.studio,
            name=planned.name,
            key=planned.key or planned.base,
            cameras=self.plan.cameras,
            caps=planned.caps_in,
            graph_sha256=self.plan.sha256,
            offline=self.shared.offline,
            loop=self.around.seconds is not None,
            rig=self.around.rig,
            engines=self.plan.engines,
            resolve=self.around.resolve,
            now_ns=self.shared.clock.now_ns,
            stopping=self.shared.stop,
            drop=slot.drop,
            warn=self.around.warn,
            log=slot.log,
            gives=planned.caps,
            lend=partial(self.around.lend, planned.key or planned.base) if self.around.lend is not None else None,
        )

    # life -------------------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open every node, sinks first: a port in use or a missing model is known before a camera is touched."""
        for planned in reversed(self.nodes):
            slot = self.slots[planned.name]
            self._closing.callback(self._close_node, slot.node, planned.name)
            slot.busy_since_ns = time.monotonic_ns()
            try:
                next((feed for feed in self.feeds if feed.slot is slot), slot.node).open(self._context(planned))
            except PosepipeError as e:
                if planned.place not in e.where:
                    e.where = f"{planned.place}: {e.where}" if e.where else f"{planned.place} (node {planned.name})"
                raise
            finally:
                slot.busy_since_ns = 0

    def subscribers(self) -> int | None:
        """Connected subscribers of the publishing node that has fewest; None when nothing here publishes."""
        return min((s.node.subscribers() for s in self.slots.values() if hasattr(s.node, "subscribers")), default=None)

    def start(self, start_ns: int | None = None, *, next_seq: Mapping[str, int] | None = None) -> None:
        """start_ns: second 0 of recordings on the studio clock; now, when it is not given. next_seq: by node, see `Feed.begin`."""
        self.start_ns = self.shared.clock.now_ns() + 20_000_000 if start_ns is None else start_ns
        for worker in self.workers.values():
            worker.start()
        for feed in self.feeds:
            feed.begin(self.start_ns, next_seq=(next_seq or {}).get(feed.slot.name, 0))

    @property
    def running(self) -> bool:
        return any(t.is_alive() for t in self._threads)

    @property
    def _threads(self) -> list[threading.Thread]:
        return [*self.feeds, *self.workers.values()]

    def stop(self) -> None:
        """Planned stop: the sources end, what is under way is finished."""
        self.shared.stop.set()

    def drain(self, *, timeout_s: float = 10.0) -> list[str]:
        """Wait until everything has ended; the names of what has not."""
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(until - time.monotonic(), 0.01))
        stuck = [t.name.removeprefix("posepipe:") for t in self._threads if t.is_alive()]
        for slot in self.slots.values():
            for link in slot.inputs:
                link.stop()
        return stuck

    def fault(self, stuck: list[str], *, timeout_s: float) -> RunError | None:
        """Why this part did not do what it should have."""
        if self.shared.failure is not None:
            return stopped_by(self.shared.failure)
        for slot in self.slots.values():
            if slot.failure is not None and slot.failing == slot.errors and not slot.latency.count:  # a run too short to give up in
                return stopped_by(slot.failure)
        if stuck:
            names = ", ".join(stuck)
            return RunError(f"did not stop within {timeout_s:.0f} s: {names}", where="the studio stopped", hint="a node hangs in step")
        return None

    def close(self) -> None:
        self._closing.close()

    def _close_node(self, node: Node, name: str) -> None:
        try:
            node.close()
        except (PosepipeError, OSError) as e:
            self.around.warn(f"{name}: while closing: {e}")

    def _source_failed(self, slot: Slot, error: Exception) -> None:
        """Live, a camera that breaks ends, and the studio goes on with the others while there are any."""
        self._broken += 1
        if self.shared.offline or self._broken == len(self.feeds):
            self.shared.fail(error)
        else:
            self.around.warn(f"{slot.name} has stopped: {error}; the studio goes on with the other cameras")
