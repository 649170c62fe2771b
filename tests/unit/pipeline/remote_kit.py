"""Post that is only written down: what the ends of a remote link send, and a letter box into which a test puts what it likes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq
from memory_nodes import Harness, Number
from ring_kit import picture

from posepipe.pipeline.graph import Plan
from posepipe.pipeline.inbox import Handler, Post
from posepipe.pipeline.ledger import LedgerTap
from posepipe.pipeline.links import Full
from posepipe.pipeline.packet import Frame, FrameId, Packet, Span
from posepipe.pipeline.pictures import Pictures
from posepipe.pipeline.remote import Wire, wires
from posepipe.pipeline.ring import FrameRing

SECRET = b"8 bytes."


APART = (
    "capture: {use: mem.camera, each: {north: {}, south: {}}}\ninstants: {use: mem.instants, from: capture}\n"
    "work: {use: mem.work, from: instants, feedback: plus}\nplus: {use: mem.plus, from: work, process: late}\n"
    "sink: {use: mem.sink, from: plus, process: late}\nview: {use: mem.view, from: work, process: own}"
)


def a_plan(harness: Harness, *, size: int = 2, full: Full = "drop_oldest") -> Plan:
    """Wire 0 carries frames to main, wire 1 numbers to late."""
    queue = f"queue: {{size: {size}, full: {full}}}"
    return harness.plan(
        f"north: {{use: mem.camera}}\ninstants: {{use: mem.instants, from: north, {queue}}}\n"
        f"work: {{use: mem.work, from: instants}}\nsink: {{use: mem.sink, from: work, process: late, {queue}}}"
    )


class PaperSocket:
    def __init__(self) -> None:
        self.sent: list[list[bytes]] = []
        self.nobody_there = False

    def send_multipart(self, parts: Sequence[bytes], flags: int) -> None:
        assert flags == zmq.NOBLOCK
        if self.nobody_there:
            raise zmq.Again
        self.sent.append(list(parts))


class PaperPost(Post):
    def __init__(self) -> None:
        super().__init__(lambda worker: worker, SECRET)
        self.sockets: dict[str, PaperSocket] = {}

    def to(self, worker: str) -> Any:
        return self.sockets.setdefault(worker, PaperSocket())


@dataclass
class PaperInbox:
    on: dict[int, Handler] = field(default_factory=dict)
    owed: list[Callable[[], None]] = field(default_factory=list)
    rings: int = 0

    def ring(self) -> None:
        self.rings += 1

    def handle(self) -> None:
        for pay in self.owed:
            pay()


def as_received(parts: Sequence[bytes]) -> list[zmq.Frame]:
    return [zmq.Frame(part) for part in parts]


def wire(plan: Plan, number: int = 0) -> Wire:
    return wires(plan)[number]


def events(ledger: LedgerTap) -> list[tuple[Any, ...]]:
    """What was lost: (frames, node, reason)."""
    return [(frames, node, reason) for kind, frames, _, node, reason in ledger.take() if kind == "lost"]


def pictures(*, slots: int = 4) -> tuple[Pictures, Pictures]:
    """Those of the writing process and those of the reading one; a ring for whoever asks."""

    def answer(camera: str, width: int, height: int) -> None:
        ring = FrameRing.create(slots, width, height)
        reader.give(camera, FrameRing.attach(os.dup(ring.fd)), writes=False)
        writer.give(camera, ring, writes=True)

    writer, reader = Pictures(answer), Pictures(answer)
    return writer, reader


def frame_packet(seq: int) -> Packet[Frame]:
    frame = picture(seq)
    return Packet(seq, frame.t_capture_ns, "north", frame, (Span("north", 1, 2),), frame.frame_ids)


def number_packet(seq: int, frames: tuple[FrameId, ...] | None = None) -> Packet[Number]:
    return Packet(seq, 1000 + seq, "work", Number(10 * seq), (Span("work", 1, 2),), (("north", seq),) if frames is None else frames)
