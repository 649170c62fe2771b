"""Links that cross from one process to another. Nodes and packets do not know.

The writer's end encodes a packet to a header of a few hundred bytes and sends it to the inbox of the reader's process; pixels
stay in the ring of their camera, or, between hosts, ride along (`carriage`). The reader's end puts the packet into an ordinary `Link` with the policy of the port. A link
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

from .carriage import IN_MESSAGE, Carriage, Codec, Load, RawCodec, Unloading
from .errors import RunError
from .far import FarSocket
from .graph import Plan
from .headers import Headers, resolve
from .hosts import WireFormat
from .inbox import AGAIN, DATA, END, TAKEN, Inbox, Post
from .ledger import LedgerTap
from .links import Link, Queue
from .packet import Frame, FrameSet, Packet
from .pictures import Pictures
from .worker import Cell, Slot

_LOOK_AGAIN_S = 0.25
_END_WITHIN_S = 1.0
_NUMBER_BYTES = 8


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
    between_hosts: bool
    """At least one end is not where the supervisor is: tcp, and pixels in the message. (Two workers of one far host, too.)"""
    form: WireFormat

    @property
    def where(self) -> str:
        return f"link {self.writer} -> {self.reader}"

    @property
    def pixels(self) -> bool:
        return self.body in (Frame, FrameSet)

    @property
    def in_rings(self) -> bool:
        """Its pictures stay in shared memory."""
        return self.pixels and not self.between_hosts

    @property
    def carries(self) -> bool:
        """Its pictures ride in the message."""
        return self.pixels and self.between_hosts


Codecs = Callable[[WireFormat], Codec]


def _way(post: Post, worker: str, wire: Wire) -> zmq.Socket[bytes] | FarSocket:
    return post.to_far(worker, most_waiting=wire.queue.size) if wire.between_hosts else post.to(worker)


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
                ends = up.process, node.process, bool(up.host or node.host)
                found.append(Wire(len(found), name, node.name, port, node.queue, up.ports.output, feedback, *ends, node.wire))
    return tuple(found)


class RemoteLink:
    """The writer's end. Used by the one thread that runs the writer, except `taken`."""

    def __init__(self, wire: Wire, post: Post, pictures: Pictures, *, stop: threading.Event, carriage: Carriage | None = None) -> None:
        self.wire, self.queue = wire, wire.queue
        self.writer, self.reader, self.port = wire.writer, wire.reader, wire.port
        self._post, self._pictures, self._stop = post, pictures, stop
        self._socket = _way(post, wire.to_worker, wire)
        self._carriage = carriage
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
        cargo: list[Any] = []
        sent = packet
        if self._carriage is not None:
            packed = self._carriage.pack(packet.body)
            if packed is None:
                self.why = "overwritten while it was read"
                return packet
            sent, cargo = replace(packet, body=packed[0]), packed[1]
        elif self.wire.pixels:
            body = self._in_slots(packet.body, wait=wait and self._blocks)
            if body is None:
                self.why = "no free slot in the frame ring"
                return packet
            sent = packet = replace(packet, body=body)
        parts = [self._head, self._codec.encode(sent)]
        if self._blocks:
            parts.append(self._sent.to_bytes(_NUMBER_BYTES, "little"))
            with self._room:
                self._under_way[self._sent] = packet
            self._sent += 1
        if self._send(parts + cargo):
            return None
        if self._blocks:
            self.taken(self._sent - 1)
        if self._carriage is not None:
            self._carriage.begin_again()
        full = ", or the network to it is too slow" if self.wire.between_hosts else ""
        self.why = f"worker {self.wire.to_worker} is down{full}"
        return packet

    def _in_slots(self, body: Any, *, wait: bool) -> Any:
        """A ring may have fewer slots than its lossless links have places: who can wait, waits for one."""
        there = self._pictures.in_slots(body, pin=self._blocks)
        while there is None and wait and not self._stop.is_set():
            with self._room:
                self._room.wait(_LOOK_AGAIN_S)
            there = self._pictures.in_slots(body, pin=self._blocks)
        return there

    def _send(self, parts: list[Any]) -> bool:
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def taken(self, number: int) -> None:
        """The reader has done with packet `number` (block)."""
        with self._room:
            packet = self._under_way.pop(number, None)
            if packet is not None and self.wire.in_rings:
                self._pictures.unpin(packet.body)
            self._room.notify_all()
        self.wake()

    def on_message(self, kind: int, payload: Sequence[zmq.Frame]) -> bool:
        if kind == AGAIN and not payload and self._carriage is not None:
            self._carriage.begin_again()
            return True
        if kind != TAKEN or len(payload) != 1:
            return False
        self.taken(int.from_bytes(payload[0].bytes, "little"))
        return True

    def reader_is_gone(self) -> list[Packet[Any]]:
        """The reader's process died: nothing that is under way to it will be taken. Returns what was lost with it."""
        if self._carriage is not None:
            self._carriage.begin_again()
        with self._room:
            lost = list(self._under_way.items())
        for number, _ in lost:
            self.taken(number)
        return [packet for _, packet in lost]

    def end(self) -> None:
        """Say that nothing more comes. A network that is full takes it a little later; a reader that is down is told by the supervisor."""
        until = time.monotonic() + _END_WITHIN_S
        while not self._send([self._end]) and self.wire.between_hosts and time.monotonic() < until:
            time.sleep(0.01)

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
        codec: Codec | None = None,
    ) -> None:
        self.wire, self.target = wire, target
        self._inbox, self._pictures, self._ledger, self._warn = inbox, pictures, ledger, warn
        self._codec = Headers(wire.body)
        self._back: zmq.Socket[bytes] | FarSocket | None = None
        self._head, self._again = post.head(TAKEN, wire.number), [post.head(AGAIN, wire.number)]
        self._waiting: deque[bytes] = deque()
        self._owed: deque[list[bytes]] = deque()
        self.damaged = 0
        self._blocks = isinstance(target, Link) and wire.queue.full == "block"
        self._unloading = Unloading(codec, partial(self._owe, self._again)) if codec is not None else None
        if self._blocks or codec is not None:
            self._back = _way(post, wire.from_worker, wire)
            inbox.owed.append(self._pay)
        if isinstance(target, Link) and self._blocks and not wire.in_rings:
            target.taken = self._one_taken

    def on_message(self, kind: int, payload: Sequence[zmq.Frame]) -> bool:
        if kind == END and not payload:
            if isinstance(self.target, Link):
                self.target.end()
            return True
        own = 2 if self._blocks else 1
        if kind != DATA or len(payload) < own or (len(payload) > own and self._unloading is None):
            return False
        if self._blocks and len(payload[1].buffer) != _NUMBER_BYTES:
            return False
        number = payload[1].bytes if self._blocks else b""
        try:
            packet = self._codec.decode(payload[0].buffer, where=self.wire.where)
            load = self._unloading.unpack([p.buffer for p in payload[own:]], where=self.wire.where) if self._unloading is not None else None
            self._arrived(packet, number, load)
        except RunError as e:
            self.damaged += 1
            if self.damaged == 1:
                self._warn(f"{e.where}: {e.what}; dropped, and counted from now on without a message")
            if self._blocks:
                self._done(number)
        return True

    def _arrived(self, packet: Packet[Any], number: bytes, load: Load | None) -> None:
        if load is not None:
            whole, lost = resolve(packet, {IN_MESSAGE: load})
            why = "cannot be decoded without pictures that were lost"
        else:
            done = partial(self._done, number) if self._blocks and self.wire.in_rings else None
            whole, lost = resolve(packet, self._pictures.readers, done=done)
            why = "overwritten before it was read"
        if lost is not None:
            self._ledger.drop(lost, self.wire.reader, why)
        if self._blocks and not self.wire.in_rings:
            if whole is None:
                self._done(number)
            else:
                self._waiting.append(number)
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
        self._owe([self._head, number])

    def _owe(self, message: list[bytes]) -> None:
        """Any thread may let go of a picture last, but a socket belongs to one."""
        self._owed.append(message)
        self._inbox.ring()

    def _pay(self) -> None:
        assert self._back is not None
        with contextlib.suppress(zmq.Again):  # the writer is not there yet, or not there again: the next time
            while self._owed:
                self._back.send_multipart(self._owed[0], zmq.NOBLOCK)
                self._owed.popleft()


class Bridge:
    """All wires that begin or end in one worker process. codecs: what codes pictures between hosts; needed where there are any."""

    def __init__(
        self, plan: Plan, worker: str, post: Post, inbox: Inbox, pictures: Pictures, *, codecs: Codecs = lambda _: RawCodec()
    ) -> None:
        self._all = wires(plan)
        self._codecs = codecs
        self.worker, self._post, self._inbox, self._pictures = worker, post, inbox, pictures
        self.leaving: dict[int, RemoteLink] = {}
        self.arriving: dict[int, Arrivals] = {}

    def connect(self, slots: dict[str, Slot], ready: threading.Condition, ledger: LedgerTap, *, warn: Callable[[str], None]) -> None:
        """Give the slots their links to and from other processes."""
        for wire in self._all:
            if wire.from_worker == self.worker:
                slot = slots[wire.writer]
                carriage = Carriage(self._codecs(wire.form)) if wire.carries else None
                leaving = RemoteLink(wire, self._post, self._pictures, stop=slot.shared.stop, carriage=carriage)
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
                codec = self._codecs(wire.form) if wire.carries else None
                arrivals = Arrivals(wire, target, self._post, self._inbox, self._pictures, ledger, warn=warn, codec=codec)
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
