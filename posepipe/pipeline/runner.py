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

from .errors import PosepipeError, RunError
from .graph import Plan, PlanNode
from .ledger import Drop
from .links import Link, Queue
from .node import Context, FrameLost, Node, Source
from .packet import Frame, Packet, Poses, Span
from .stats import TraceLog
from .worker import Shared, Slot, Worker

_FAR_BEHIND_S = 1.0
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
        self._sources: list[tuple[Slot, threading.Thread]] = []
        self.slots: dict[str, Slot] = {}
        self._closing = ExitStack()
        self._began_ns = self._ended_ns = 0
        self.start_ns = 0
        self._build()
        self.shared.ledger.side_nodes = self._side_nodes()

    # building ---------------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        for plan in self.plan.nodes:
            self.slots[plan.name] = slot = Slot(plan, plan.cls(plan.settings), self.shared)
            if issubclass(plan.cls, Source):
                self._sources.append((slot, threading.Thread(target=self._feed, args=(slot,), name=f"posepipe:{plan.name}", daemon=True)))
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
        for _, thread in self._sources:
            thread.start()

    @property
    def running(self) -> bool:
        return any(w.is_alive() for w in self._workers.values()) or any(t.is_alive() for _, t in self._sources)

    def stop(self) -> None:
        """Planned stop: the sources end, what is under way is finished."""
        self.shared.stop.set()

    def finish(self, *, timeout_s: float = 10.0) -> None:
        """Wait for the drain, close the nodes, settle the ledger. RunError when a node made the studio stop or failed on everything."""
        until = time.monotonic() + timeout_s
        for thread in [t for _, t in self._sources] + list(self._workers.values()):
            if thread.ident is not None:
                thread.join(max(until - time.monotonic(), 0.01))
        self._ended_ns = time.monotonic_ns()
        stuck = [t.name for t in [t for _, t in self._sources] + list(self._workers.values()) if t.is_alive()]
        for slot in self.slots.values():
            for link in slot.inputs:
                link.stop()
        self.close()
        self.shared.ledger.close()
        if self.shared.failure is not None:
            raise _stopped_by(self.shared.failure)
        for slot in self.slots.values():
            if slot.failure is not None and slot.failing == slot.errors and not slot.latency.count:  # a run too short to give up in
                raise _stopped_by(slot.failure)
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

    # sources ----------------------------------------------------------------------------------------------------------------

    def _feed(self, slot: Slot) -> None:
        try:
            self._pace(slot)
        except Exception as e:
            self._source_failed(slot, e)
        finally:
            slot.ended = True
            for link in slot.outputs:
                link.end()

    def _source_failed(self, slot: Slot, error: Exception) -> None:
        """Live, a camera that breaks ends, and the studio goes on with the others while there are any."""
        slot.errors += 1
        slot.failure = _stopped_by(error)
        slot.log.error("%s: %s: %s", slot.name, type(error).__name__, error, exc_info=not isinstance(error, PosepipeError))
        if self.shared.offline or all(other.failure for other, _ in self._sources):
            self.shared.fail(error)
        else:
            self._warn(f"{slot.name} has stopped: {error}; the studio goes on with the other cameras")

    def _pace(self, slot: Slot) -> None:
        """Frames exist at their due time and are decoded after it, as with a camera: the latency includes the decoding."""
        source, shared = slot.node, self.shared
        assert isinstance(source, Source)
        step: Callable[[], Frame | None] = source.step  # type: ignore[attr-defined]
        while not shared.stop.is_set():
            due = source.due_s()
            if self._seconds is not None and (due if due is not None else self._late_s(self.start_ns)) >= self._seconds:
                return
            due_ns = None if due is None else self.start_ns + int(due * 1e9)
            if due_ns is not None and not shared.offline and (early_s := -self._late_s(due_ns)) > 0 and shared.stop.wait(early_s):
                return
            begin = shared.clock.now_ns()
            try:
                frame = step()
            except FrameLost as lost:
                shared.ledger.capture_lost(lost.count, slot.name, lost.reason)
            else:
                if frame is None:
                    return
                self._hand_on(slot, frame if due_ns is None else dataclasses.replace(frame, t_capture_ns=due_ns), begin)
            if due_ns is not None and not shared.offline and self._late_s(due_ns) > _FAR_BEHIND_S:
                passed = source.skip(self._late_s(self.start_ns))
                if passed:
                    shared.ledger.capture_lost(passed, slot.name, "decoder behind")

    def _hand_on(self, slot: Slot, frame: Frame, begin_ns: int) -> None:
        t_in = begin_ns if self.shared.offline else frame.t_capture_ns
        t_out = self.shared.clock.now_ns()
        slot.latency.add(t_out - t_in)
        self.shared.ledger.capture((frame.camera, frame.seq))
        span = Span(slot.name, t_in, t_out)
        if self.shared.trace is not None:
            self.shared.trace.capture(frame.seq, span)
        slot.emit(Packet(frame.seq, frame.t_capture_ns, slot.name, frame, (span,), frame.frame_ids), wait=True)

    def _late_s(self, due_ns: int) -> float:
        return (self.shared.clock.now_ns() - due_ns) / 1e9

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


def _stopped_by(fault: BaseException) -> RunError:
    if isinstance(fault, RunError):
        return fault
    what, where, hint = (
        (fault.what, fault.where, fault.hint)
        if isinstance(fault, PosepipeError)
        else (f"{type(fault).__name__}: {fault}", "", "the log above shows where")
    )
    error = RunError(what, where=where or "the studio stopped", hint=hint)
    error.__cause__ = fault
    return error
