"""One worker: the nodes placed together, run by one thread, each fed by bounded links.

Joins run first: a waiting frame joins its instant before the next instant is computed, so an overload drops whole instants on
the link behind the join and not single cameras.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from .clock import StudioClock
from .errors import PosepipeError, RunError
from .graph import PlanNode
from .inbox import Doorbell, Inbox
from .join import Join, Row
from .ledger import LedgerTap, divided, merged
from .links import Link
from .node import Node
from .packet import Frame, FrameId, FrameSet, Packet, Poses, Span
from .stats import Durations, Quality, TraceLog

_GIVE_UP_AFTER = 30


class Cell:
    """The newest result of a node, for `feedback` and for the screen. Assignment is atomic."""

    __slots__ = ("packet",)

    def __init__(self) -> None:
        self.packet: Packet[Any] | None = None


class Shared:
    """What all workers of a studio share."""

    def __init__(self, *, offline: bool, trace: TraceLog | None, ledger: LedgerTap) -> None:
        self.clock = StudioClock()
        self.ledger = ledger
        self.offline = offline
        self.end_to_end = Durations()
        self.quality = Quality()
        self.trace = trace
        self.stop = threading.Event()
        self.failure: BaseException | None = None
        self.after: Callable[[], object] = lambda: None
        """Called after each piece of work, by the thread that did it: in a worker process, the ledger's entries leave then."""
        self.on_poses: Callable[[Packet[Poses]], object] | None = None
        """Hears the skeletons that are published, by the thread that does it."""

    def fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self.stop.set()


class Slot:
    """A node in its place: links, statistics, and the packets that it holds."""

    def __init__(self, plan: PlanNode, node: Node, shared: Shared) -> None:
        self.plan, self.node, self.shared = plan, node, shared
        self.name = plan.name
        self.inputs: list[Link] = []
        self.outputs: list[Any] = []
        self.watchers: list[Any] = []
        """Readers of this node's newest result in other processes (feedback); they carry no frames' accounts."""
        self.busy_since_ns = 0
        """Monotonic time at which the call that is running began, 0 between calls."""
        self.cell = Cell()
        self.feedback: dict[str, Cell] = {}
        self.latency = Durations()
        self.held: dict[FrameId, tuple[Packet[Any], int]] = {}
        self.joins = Join(plan.ports.inputs, plan.inputs, offline=shared.offline)
        self.ended_inputs: set[int] = set()
        self.ended = False
        self.errors = 0
        self.failing = 0
        self.failure: RunError | None = None
        self.log = logging.getLogger(f"posepipe.{plan.name}")
        self.keeps = plan.cls.fan_in or plan.cls.holds
        """Whether its outputs are of packets that came in earlier steps."""
        self._pixels = not plan.cls.fan_in and any(p.type in (Frame, FrameSet) for p in plan.ports.inputs)
        self._packet_ports = {p.name for p in (*plan.ports.inputs, *plan.ports.feedback) if p.packet}
        self._perhaps = [p.name for p in (*plan.ports.inputs, *plan.ports.feedback) if p.feedback or p.optional]

    # running --------------------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        return all(link.room for link in self.outputs)

    def turn(self) -> tuple[bool, Link | None]:
        """Whether an input has ended, and the input whose packet is oldest. Offline a join reads nothing before every input that
        goes on has something: no camera gets ahead of the others in memory, and frames are joined in the same order in every run.
        """
        ended, starved = False, False
        oldest: Link | None = None
        oldest_ns = 0
        for i, link in enumerate(self.inputs):
            if len(link):
                head_ns = link.head_ns
                if oldest is None or head_ns < oldest_ns:
                    oldest, oldest_ns = link, head_ns
            elif not link.ended:
                starved = True
            elif i not in self.ended_inputs:
                ended = True
        return ended, None if starved and self.shared.offline and self.plan.cls.fan_in else oldest

    def run(self, link: Link) -> None:
        packet = link.get()
        t_in = self.shared.clock.now_ns()
        if self.keeps:
            if any(frame in self.held for frame in packet.frames):
                self.shared.ledger.drop(replace(packet, shares=(0,) * len(packet.frames)), self.name, "came twice")
                return
            for frame in packet.frames:
                self.held[frame] = (packet, t_in)
            self._outputs(self._call(lambda: self._step({link.port: packet}), packet), packet, t_in)
        elif len(self.plan.inputs) == 1:
            self._outputs(self._call(lambda: self._step({link.port: packet}), packet), packet, t_in)
        else:
            self._met(self.joins.add(link.port, packet), t_in)

    def _step(self, packets: dict[str, Packet[Any]]) -> Any:
        newest = {port: cell.packet for port, cell in self.feedback.items()}
        arrived: dict[str, Packet[Any] | None] = {**dict.fromkeys(self._perhaps), **newest, **packets}
        arguments = {port: p if port in self._packet_ports or p is None else p.body for port, p in arrived.items()}
        result = self.node.step(**arguments)  # type: ignore[attr-defined]
        if self._pixels and not all(p.body.whole for p in packets.values() if isinstance(p.body, (Frame, FrameSet))):
            return _TORN
        return result

    def _met(self, leaving: list[tuple[Row, bool]], t_in: int) -> None:
        for row, answered in leaving:
            if answered:
                packet = self.joins.packet(row)
                self._outputs(self._call(partial(self._step, row), packet), packet, t_in)
            else:
                self._lose(row)

    def _lose(self, row: Row) -> None:
        for packet in row.values():
            self.shared.ledger.drop(packet, self.name, "its other input never came")

    def _call(self, call: Callable[[], Any], packet: Packet[Any] | None) -> Any:
        """A node that throws on one packet loses that packet, counted; one that throws on every packet stops the studio."""
        self.busy_since_ns = time.monotonic_ns()
        try:
            result = call()
        except Exception as e:
            self.errors += 1
            self.failing += 1
            if self.failing == 1 or self.failing == _GIVE_UP_AFTER:
                self.log.error(
                    "%s lost instant %s: %s: %s", self.name, packet.seq if packet else "-", type(e).__name__, e, exc_info=self.failing == 1
                )
            if packet is not None:
                for frame in packet.frames:
                    self.held.pop(frame, None)
                self.shared.ledger.drop(packet, self.name, f"error: {type(e).__name__}")
            what, hint = (e.what, e.hint) if isinstance(e, PosepipeError) else (f"{type(e).__name__}: {e}", "the log above shows where")
            self.failure = RunError(f"{self.failing} packets in a row failed: {what}", where=f"node {self.name}", hint=hint)
            if self.failing >= _GIVE_UP_AFTER:
                self.shared.fail(self.failure)
            return _LOST
        finally:
            self.busy_since_ns = 0
        if packet is not None:  # a node that says hello on time but fails on every packet is failing
            self.failing = 0
        return result

    def _outputs(self, result: Any, packet: Packet[Any], t_in: int) -> None:
        if result is _LOST:
            return
        if result is _TORN:
            self.shared.ledger.drop(packet, self.name, "overwritten while it was read")
            return
        t_out = self.shared.clock.now_ns()
        if self.keeps:
            for body in result or ():
                self._emit_kept(body, t_out)
            return
        self.latency.add(t_out - t_in)
        span = Span(self.name, t_in, t_out)
        if self.plan.ports.output is None:
            self._consume(packet, span)
        elif result is None:
            self.shared.ledger.drop(packet, self.name, "no result")
        else:
            self.emit(Packet(packet.seq, packet.t_capture_ns, self.name, result, (*packet.trace, span), packet.frames, packet.shares))

    def _consume(self, packet: Packet[Any], span: Span) -> None:
        publishes = self.plan.cls.publishes
        self.shared.ledger.consume(packet, published=publishes)
        if publishes:
            begin = packet.trace[0].t_in_ns if self.shared.offline else packet.t_capture_ns
            self.shared.end_to_end.add(span.t_out_ns - begin)
            if isinstance(packet.body, Poses):
                self.shared.quality.add(packet.body)
                if self.shared.on_poses is not None:
                    self.shared.on_poses(packet)
            if self.shared.trace is not None:
                self.shared.trace.add(Packet(packet.seq, packet.t_capture_ns, self.name, None, (*packet.trace, span), packet.frames))

    def _emit_kept(self, body: Any, t_out: int) -> None:
        """A body made of several held inputs: the last to arrive is the critical path, the wait is counted from the first. Or a packet that
        came (`Node.holds`), with another body.

        What is held no longer, for the node threw on it and kept it all the same, is accounted for already.
        """
        if self.plan.cls.holds:
            arrived = [self.held.pop(frame)[1] for frame in body.frames if frame in self.held]
            if arrived:
                self.latency.add(t_out - arrived[0])
                self.emit(replace(body, source=self.name, trace=(*body.trace, Span(self.name, arrived[0], t_out))))
            return
        parts = [self.held.pop(frame) for frame in body.frame_ids if frame in self.held]
        if not parts:
            return
        last = max(parts, key=lambda part: part[1])[0]
        first_ns = min(t for _, t in parts)
        self.latency.add(t_out - first_ns)
        frames, claims = merged(packet for packet, _ in parts)
        self.emit(Packet(body.seq, body.t_capture_ns, self.name, body, (*last.trace, Span(self.name, first_ns, t_out)), frames, claims))

    def emit(self, packet: Packet[Any], *, wait: bool = False) -> None:
        self.cell.packet = _let_go(packet)
        for watcher in self.watchers:
            watcher.put(replace(packet, frames=(), shares=()), wait=False)
        if not self.outputs:
            self.shared.ledger.consume(packet, published=False)
            return
        branches = [packet] if len(self.outputs) == 1 else [replace(packet, shares=part) for part in divided(packet, len(self.outputs))]
        for link, branch in zip(self.outputs, branches, strict=True):
            lost = link.put(branch, wait=wait)
            if lost is not None:
                self.shared.ledger.drop(lost, link.reader, link.why)

    def drop(self, body: Any, reason: str) -> None:
        """`ctx.drop`: the node gives up a body that it holds."""
        held = [self.held.pop(frame)[0] for frame in body.frame_ids if frame in self.held]
        for packet in held:
            self.shared.ledger.drop(packet, self.name, reason)

    # time and end -----------------------------------------------------------------------------------------------------------

    def on_time(self, now_ns: int) -> bool:
        wake = self.node.wake_ns()
        if wake is None or wake > now_ns:
            return False
        result = self._call(lambda: self.node.on_time(now_ns), None)
        for body in [] if result is _LOST else result:
            self._emit_kept(body, self.shared.clock.now_ns())
        return True

    def on_ends(self) -> bool:
        """Tell the node which inputs have ended; end the outputs after the last one. True when something was done."""
        news = [i for i, link in enumerate(self.inputs) if link.ended and not len(link) and i not in self.ended_inputs]
        for i in news:
            self.ended_inputs.add(i)
            result = self._call(lambda i=i: self.node.on_end(self.inputs[i].writer), None)  # type: ignore[misc]
            for body in [] if result is _LOST else result:
                self._emit_kept(body, self.shared.clock.now_ns())
            self._met(self.joins.end(self.inputs[i].port), self.shared.clock.now_ns())
        if not self.ended and len(self.ended_inputs) == len(self.inputs):
            self.ended = True
            for row in self.joins.rest():
                self._lose(row)
            for link in self.outputs:
                link.end()
            return True
        return bool(news)


def _let_go(packet: Packet[Any]) -> Packet[Any]:
    """A lossless link waits until its pictures are let go: the newest result, which is only looked at, holds none."""
    body = packet.body
    if isinstance(body, Frame) and _waited_for(body):
        return replace(packet, body=replace(body, lease=None))
    if isinstance(body, FrameSet) and any(map(_waited_for, body.frames.values())):
        return replace(packet, body=replace(body, frames={c: replace(f, lease=None) for c, f in body.frames.items()}))
    return packet


def _waited_for(frame: Frame) -> bool:
    return frame.lease is not None and frame.lease.done is not None


_LOST = object()
_TORN = object()


class Worker(threading.Thread):
    """Runs its slots until all have ended or the studio fails. inbox: where packets from other processes arrive."""

    def __init__(self, name: str, shared: Shared, inbox: Inbox | None = None) -> None:
        super().__init__(name=f"posepipe:{name}", daemon=True)
        self._inbox = inbox
        self.ready: threading.Condition = threading.Condition() if inbox is None else Doorbell(inbox)
        self.slots: list[Slot] = []
        self._ordered: list[Slot] = []
        self._wakers: list[Slot] = []
        self.sources: list[Slot] = []
        """Sources whose links to other processes hear of their readers by this worker's inbox."""
        self._shared = shared

    def run(self) -> None:
        joins, others = [s for s in self.slots if s.plan.cls.fan_in], [s for s in self.slots if not s.plan.cls.fan_in]
        self._ordered = [*joins, *reversed(others)]
        self._wakers = [slot for slot in self.slots if type(slot.node).wake_ns is not Node.wake_ns]
        try:
            while not self._shared.failure and not all(slot.ended for slot in (*self.sources, *self.slots)):
                work = self._pick()
                if work:
                    work()
                    self._shared.after()
        except BaseException as e:
            self._shared.fail(e)
        finally:
            for slot in self.slots:
                for link in slot.outputs:
                    link.end()
                for link in slot.inputs:
                    link.stop()  # nobody reads any more: whoever waits to write must not wait for ever

    def _pick(self) -> Callable[[], object] | None:
        """The next thing to do; waits for one when there is none.

        Joins come first (cheap, and their inputs are late already), then the most downstream node: an instant that has begun is
        finished before the next one starts, so feedback is always the previous instant's.
        """
        with self.ready:
            if self._inbox is not None:
                self._inbox.handle()
            now = self._shared.clock.now_ns()
            wakes = [(w, slot) for slot in self._wakers if not slot.ended and (w := slot.node.wake_ns()) is not None]
            for wake, slot in wakes:
                if wake <= now and not slot.keeps:
                    return partial(slot.on_time, now)
            for slot in self._ordered:
                ended, link = slot.turn()
                if not ended and link is None:
                    continue
                if slot.has_room:
                    return slot.on_ends if ended or link is None else partial(slot.run, link)
                if link is not None and not slot.plan.cls.fan_in:
                    break  # a lossless link is full: nothing upstream may overtake
            for wake, slot in wakes:
                if wake <= now:  # a join's time-out comes after the frames that wait for it; what is held leaves when nothing else is to do
                    return partial(slot.on_time, now)
            first = min((w for w, _ in wakes), default=now + 250_000_000)
            self._sleep(min(max(first - now, 0) / 1e9, 0.25))
        return None

    def _sleep(self, timeout_s: float) -> None:
        if isinstance(self.ready, Doorbell):
            self.ready.sleep(timeout_s)
        else:
            self.ready.wait(timeout_s)
