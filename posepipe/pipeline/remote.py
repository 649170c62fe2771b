"""Links that cross from one process to another. Nodes and packets do not know.

The writer's end encodes a packet to a header of a few hundred bytes and sends it to the inbox of the reader's process; pixels
stay in the ring of their camera. The reader's end puts the packet into an ordinary `Link` with the policy of the port. A link
with `block` sends no more packets than its size before the reader says that one is taken, and their pictures are not overwritten until then.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import zmq

from .errors import RunError
from .graph import Plan
from .headers import Headers, resolve
from .inbox import DATA, END, TAKEN, Inbox, Post
from .ledger import LedgerTap
from .links import Link, Queue
from .packet import Frame, FrameSet, Packet
from .pictures import Pictures
from .worker import Cell, Slot

_LOOK_AGAIN_S = 0.25


@dataclass(frozen=True, slots=True)
class Wire:
    """One link between two processes. Both ends count them off the same plan, so a number names the same link everywhere."""

    number: int
    writer: str
    reader: str
    port: str
    queue: Queue
    body: type
    feedback: bool
    from_worker: str
    to_worker: str

    @property
    def where(self) -> str:
        return f"link {self.writer} -> {self.reader}"

    @property
    def pixels(self) -> bool:
        return self.body in (Frame, FrameSet)


def wires(plan: Plan) -> tuple[Wire, ...]:
    """All links of a plan that cross from one worker to another."""
    found: list[Wire] = []
    for node in plan.nodes:
        ways = [(port, name, False) for port, names in node.inputs.items() for name in names]
        ways += [(port, name, True) for port, name in node.feedback.items()]
        for port, name, feedback in ways:
            up = plan[name]
            if up.process != node.process:
                assert up.ports.output is not None
                found.append(Wire(len(found), name, node.name, port, node.queue, up.ports.output, feedback, up.process, node.process))
    return tuple(found)


class RemoteLink:
    """The writer's end. Used by the one thread that runs the writer, except `taken`."""

    def __init__(self, wire: Wire, post: Post, pictures: Pictures, *, stop: threading.Event) -> None:
        self.wire, self.queue = wire, wire.queue
        self.writer, self.reader, self.port = wire.writer, wire.reader, wire.port
        self._post, self._pictures, self._stop = post, pictures, stop
        self._socket = post.to(wire.to_worker)
        self._codec = Headers(wire.body)
        self._head, self._end = post.head(DATA, wire.number), post.head(END, wire.number)
        self._under_way: dict[int, Packet[Any]] = {}
        self._sent = time.monotonic_ns()
        """Number of the next packet. Starts above those of an earlier life of this process: what it sent may yet be taken."""
        self._room = threading.Condition()
        self._blocks = wire.queue.full == "block" and not wire.feedback
        self.wake: Callable[[], None] = lambda: None
        """Called when room was made; the worker that waits for it sets it."""
        self.why = ""

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def room(self) -> bool:
        return not self._blocks or len(self._under_way) < self.queue.size

    def put(self, packet: Packet[Any], *, wait: bool) -> Packet[Any] | None:
        if self._blocks:
            with self._room:
                while wait and not self.room and not self._stop.is_set():
                    self._room.wait(_LOOK_AGAIN_S)
        if self.wire.pixels:
            body = self._pictures.in_slots(packet.body, pin=self._blocks)
            if body is None:
                self.why = "no free slot in the frame ring"
                return packet
            packet = replace(packet, body=body)
        parts = [self._head, self._codec.encode(packet)]
        if self._blocks:
            parts.append(self._sent.to_bytes(8, "little"))
            with self._room:
                self._under_way[self._sent] = packet
            self._sent += 1
        if self._send(parts):
            return None
        if self._blocks:
            self.taken(self._sent - 1)
        self.why = f"worker {self.wire.to_worker} is down"
        return packet

    def _send(self, parts: list[bytes]) -> bool:
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def taken(self, number: int) -> None:
        """The reader has done with packet `number` (block)."""
        with self._room:
            packet = self._under_way.pop(number, None)
            self._room.notify_all()
        if packet is not None and self.wire.pixels:
            self._pictures.unpin(packet.body)
        self.wake()

    def on_message(self, kind: int, payload: Sequence[zmq.Frame]) -> bool:
        if kind != TAKEN or len(payload) != 1:
            return False
        self.taken(int.from_bytes(payload[0].bytes, "little"))
        return True

    def reader_is_gone(self) -> list[Packet[Any]]:
        """The reader's process died: nothing that is under way to it will be taken. Returns what was lost with it."""
        with self._room:
            lost = list(self._under_way.items())
        for number, _ in lost:
            self.taken(number)
        return [packet for _, packet in lost]

    def end(self) -> None:
        self._send([self._end])

    def stop(self) -> list[Packet[Any]]:
        with self._room:
            self._room.notify_all()
        return []


class Arrivals:
    """The reader's end: puts what comes into a `Link`, or, for feedback, into a `Cell`."""

    def __init__(
        self,
        wire: Wire,
        target: Link | Cell,
        post: Post,
        inbox: Inbox,
        pictures: Pictures,
        ledger: LedgerTap,
        *,
        warn: Callable[[str], None],
    ) -> None:
        self.wire, self.target = wire, target
        self._inbox, self._pictures, self._ledger, self._warn = inbox, pictures, ledger, warn
        self._codec = Headers(wire.body)
        self._back: zmq.Socket[bytes] | None = None
        self._head = post.head(TAKEN, wire.number)
        self._waiting: deque[bytes] = deque()
        self._taken: deque[bytes] = deque()
        self.damaged = 0
        if isinstance(target, Link) and wire.queue.full == "block":
            self._back = post.to(wire.from_worker)
            inbox.owed.append(self._say_taken)
            if not wire.pixels:
                target.taken = self._one_taken

    def on_message(self, kind: int, payload: Sequence[zmq.Frame]) -> bool:
        if kind == END and not payload:
            if isinstance(self.target, Link):
                self.target.end()
            return True
        if kind != DATA or len(payload) != (1 if self._back is None else 2):
            return False
        number = payload[1].bytes if self._back is not None else b""
        done = partial(self._done, number) if self._back is not None else None
        try:
            packet = self._codec.decode(payload[0].buffer, where=self.wire.where)
        except RunError as e:
            self.damaged += 1
            if self.damaged == 1:
                self._warn(f"{e.where}: {e.what}; dropped, and counted from now on without a message")
            if done is not None:
                done()
            return True
        self._arrived(packet, number, done)
        return True

    def _arrived(self, packet: Packet[Any], number: bytes, done: Callable[[], None] | None) -> None:
        if done is not None and not self.wire.pixels:
            self._waiting.append(number)
        whole, lost = resolve(packet, self._pictures.readers, done=done)
        if lost is not None:
            self._ledger.drop(lost, self.wire.reader, "overwritten before it was read")
        if whole is None:
            return
        if isinstance(self.target, Cell):
            self.target.packet = whole
            return
        dropped = self.target.put(whole, wait=False)
        if dropped is not None:
            self._ledger.drop(dropped, self.wire.reader, self.target.why)

    def _one_taken(self) -> None:
        if self._waiting:
            self._done(self._waiting.popleft())

    def _done(self, number: bytes) -> None:
        """Any thread may let go of a picture last, but a socket belongs to one."""
        self._taken.append(number)
        self._inbox.ring()

    def _say_taken(self) -> None:
        assert self._back is not None
        with contextlib.suppress(zmq.Again):  # the writer is not there yet, or not there again: the next time
            while self._taken:
                self._back.send_multipart([self._head, self._taken[0]], zmq.NOBLOCK)
                self._taken.popleft()


class Bridge:
    """All wires that begin or end in one worker process."""

    def __init__(self, plan: Plan, worker: str, post: Post, inbox: Inbox, pictures: Pictures) -> None:
        self._all = wires(plan)
        self.worker, self._post, self._inbox, self._pictures = worker, post, inbox, pictures
        self.leaving: dict[int, RemoteLink] = {}
        self.arriving: dict[int, Arrivals] = {}

    def connect(self, slots: dict[str, Slot], ready: threading.Condition, ledger: LedgerTap, *, warn: Callable[[str], None]) -> None:
        """Give the slots their links to and from other processes."""
        for wire in self._all:
            if wire.from_worker == self.worker:
                slot = slots[wire.writer]
                leaving = RemoteLink(wire, self._post, self._pictures, stop=slot.shared.stop)
                leaving.wake = self._inbox.ring
                self.leaving[wire.number] = leaving
                self._inbox.on[wire.number] = leaving.on_message
                (slot.watchers if wire.feedback else slot.outputs).append(leaving)
            elif wire.to_worker == self.worker:
                slot = slots[wire.reader]
                target: Link | Cell
                if wire.feedback:
                    target = slot.feedback[wire.port] = Cell()
                else:
                    target = Link(wire.writer, wire.reader, wire.port, wire.queue, ready=ready, freed=None)
                    slot.inputs.append(target)
                arrivals = Arrivals(wire, target, self._post, self._inbox, self._pictures, ledger, warn=warn)
                self.arriving[wire.number] = arrivals
                self._inbox.on[wire.number] = arrivals.on_message

    def reader_is_gone(self, worker: str, ledger: LedgerTap) -> None:
        for link in self.leaving.values():
            if link.wire.to_worker == worker:
                for packet in link.reader_is_gone():
                    ledger.drop(packet, link.reader, f"worker {worker} died with it")

    def writer_is_gone(self, node: str) -> None:
        """A node in another process will write no more, and cannot say so itself."""
        for arrivals in self.arriving.values():
            if arrivals.wire.writer == node and isinstance(arrivals.target, Link):
                arrivals.target.end()
