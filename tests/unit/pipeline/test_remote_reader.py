"""The reader's end of a link from another process: what comes is queued, counted or refused, and the writer hears what was taken."""

from __future__ import annotations

import gc
import threading
import zlib
from typing import Any

import pytest
from memory_nodes import Harness
from remote_kit import (
    APART,
    PaperInbox,
    PaperPost,
    a_plan,
    as_received,
    events,
    frame_packet,
    number_packet,
    pictures,
    wire,
)
from ring_kit import picture, same

from posepipe.pipeline.graph import Plan
from posepipe.pipeline.headers import Headers
from posepipe.pipeline.inbox import DATA, END, TAKEN
from posepipe.pipeline.ledger import LedgerTap
from posepipe.pipeline.links import Link
from posepipe.pipeline.node import Node
from posepipe.pipeline.packet import Frame, Packet
from posepipe.pipeline.remote import Arrivals, Bridge, RemoteLink
from posepipe.pipeline.worker import Cell, Shared, Slot


class Reader:
    def __init__(self, plan: Plan, number: int = 0, *, target: Link | Cell | None = None) -> None:
        self.wire = wire(plan, number)
        self.post, self.inbox, self.ledger, self.warnings = PaperPost(), PaperInbox(), LedgerTap(), list[str]()
        self.writer_pictures, self.pictures = pictures()
        link = Link(self.wire.writer, self.wire.reader, self.wire.port, self.wire.queue, ready=threading.Condition(), freed=None)
        self.target: Any = target or link
        inbox: Any = self.inbox
        self.arrivals = Arrivals(self.wire, self.target, self.post, inbox, self.pictures, self.ledger, warn=self.warnings.append)
        self.back = self.post.to(self.wire.from_worker)
        self.codec = Headers(self.wire.body)

    def message(self, packet: Packet[Any], number: int | None = None) -> list[bytes]:
        if isinstance(packet.body, Frame):
            body = self.writer_pictures.in_slots(packet.body, pin=number is not None)
            assert body is not None
            packet = Packet(packet.seq, packet.t_capture_ns, packet.source, body, packet.trace, packet.frames, packet.shares)
        return [self.codec.encode(packet), *([] if number is None else [number.to_bytes(8, "little")])]

    def receive(self, parts: list[bytes], kind: int = DATA) -> bool:
        return self.arrivals.on_message(kind, as_received(parts))

    def said(self) -> list[int]:
        """Numbers that the writer was told are taken."""
        self.inbox.handle()
        assert all(head == self.post.head(TAKEN, self.wire.number) for head, _ in self.back.sent)
        return [int.from_bytes(number, "little") for _, number in self.back.sent]


# queues -------------------------------------------------------------------------------------------------------------------------


def test_a_frame_arrives_as_a_view_of_its_slot(harness: Harness) -> None:
    reader = Reader(a_plan(harness))
    assert reader.receive(reader.message(frame_packet(3)))
    packet = reader.target.get()
    assert same(packet.body, picture(3))
    assert (packet.frames, packet.source) == ((("north", 3),), "north")


@pytest.mark.parametrize(("full", "kept", "lost"), [("drop_oldest", [3, 4], [0, 1, 2]), ("drop_newest", [0, 1], [2, 3, 4])])
def test_a_full_queue_drops_by_the_policy_of_its_port_and_is_counted(harness: Harness, full: Any, kept: list[int], lost: list[int]) -> None:
    reader = Reader(a_plan(harness, full=full), 1)
    for seq in range(5):
        assert reader.receive(reader.message(number_packet(seq)))
    assert [reader.target.get().seq for _ in range(2)] == kept
    assert events(reader.ledger) == [((("north", seq),), "sink", f"queue full ({full})") for seq in lost]
    assert reader.said() == []


def test_a_frame_that_was_overwritten_before_it_was_read_is_counted(harness: Harness) -> None:
    reader = Reader(a_plan(harness))
    late = reader.message(frame_packet(0))
    for seq in range(1, 5):
        reader.message(frame_packet(seq))
    assert reader.receive(late)
    assert len(reader.target) == 0
    assert events(reader.ledger) == [((("north", 0),), "instants", "overwritten before it was read")]
    assert reader.warnings == []


def test_feedback_is_the_newest_that_came(harness: Harness) -> None:
    cell = Cell()
    reader = Reader(harness.plan(APART), 2, target=cell)
    for seq in range(3):
        assert reader.receive(reader.message(number_packet(seq, ())))
    assert cell.packet is not None
    assert (cell.packet.seq, cell.packet.body.value) == (2, 20)
    assert reader.receive([], END)
    assert cell.packet.seq == 2
    assert reader.ledger.take() == []


def test_the_end_ends_the_link(harness: Harness) -> None:
    reader = Reader(a_plan(harness), 1)
    reader.receive(reader.message(number_packet(0)))
    assert reader.receive([], END)
    assert (reader.target.ended, len(reader.target)) == (True, 1)


# block --------------------------------------------------------------------------------------------------------------------------


def test_a_packet_of_a_lossless_link_is_taken_when_the_node_takes_it(harness: Harness) -> None:
    reader = Reader(a_plan(harness, full="block"), 1)
    for seq in range(4):
        reader.receive(reader.message(number_packet(seq), number=100 + seq))
    assert reader.said() == []
    for done in range(1, 5):
        reader.target.get()
        assert reader.said() == [100, 101, 102, 103][:done]
    assert events(reader.ledger) == []


def test_a_picture_of_a_lossless_link_is_taken_when_nobody_looks_at_it_any_more(harness: Harness) -> None:
    reader = Reader(a_plan(harness, full="block"))
    for seq in range(2):
        reader.receive(reader.message(frame_packet(seq), number=100 + seq))
    first, second = reader.target.get(), reader.target.get()
    gc.disable()
    try:
        assert reader.said() == []
        held = second.body
        del second
        assert reader.said() == []
        del held
        assert reader.said() == [101]
        del first
        assert reader.said() == [101, 100]
    finally:
        gc.enable()


def test_who_lets_go_of_a_picture_on_another_thread_wakes_the_one_that_may_say_so(harness: Harness) -> None:
    reader = Reader(a_plan(harness, full="block"))
    reader.receive(reader.message(frame_packet(0), number=100))
    held = [reader.target.get()]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert reader.back.sent == [], "a socket belongs to one thread"
    assert reader.inbox.rings == 1
    assert reader.said() == [100]


def test_a_lossless_picture_that_is_gone_all_the_same_is_counted_and_taken(harness: Harness) -> None:
    """A capture process that was started again knows of no pins."""
    reader = Reader(a_plan(harness, full="block"))
    message = reader.message(frame_packet(0), number=100)
    reader.pictures.readers.clear()
    assert reader.receive(message)
    assert reader.said() == [100]
    assert events(reader.ledger) == [((("north", 0),), "instants", "overwritten before it was read")]


def test_what_cannot_be_said_yet_is_said_later_and_nobody_waits_for_that(harness: Harness) -> None:
    reader = Reader(a_plan(harness, full="block"), 1)
    for seq in range(3):
        reader.receive(reader.message(number_packet(seq), number=100 + seq))
    reader.back.nobody_there = True
    reader.target.get()
    reader.target.get()
    assert reader.said() == []
    reader.back.nobody_there = False
    reader.target.get()
    assert reader.said() == [100, 101, 102]


# not for this link --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [b"", b"x", b"PPL\x02garbage that is long enough", b"\x00" * 300])
def test_damaged_messages_are_told_once_and_counted(harness: Harness, damaged: bytes) -> None:
    reader = Reader(a_plan(harness), 1)
    good = reader.message(number_packet(0))
    for _ in range(5):
        assert reader.receive([damaged])
    assert reader.receive(good)
    assert reader.arrivals.damaged == 5
    (warning,) = reader.warnings
    assert warning.startswith("link work -> sink: ")
    assert warning.endswith("; dropped, and counted from now on without a message")
    assert reader.target.get().seq == 0


def test_a_peer_of_another_version_is_named(harness: Harness) -> None:
    reader = Reader(a_plan(harness), 1)
    rest = reader.message(number_packet(0))[0][8:]
    reader.receive([b"PPL\x09" + zlib.crc32(rest, 9).to_bytes(4, "little") + rest])
    assert reader.warnings[0].startswith("link work -> sink: a peer speaks link version 9, this is 3; dropped")


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_message_does_not_keep_its_place_in_a_lossless_link(harness: Harness, number: int) -> None:
    reader = Reader(a_plan(harness, full="block"), number)
    assert reader.receive([b"garbage", (7).to_bytes(8, "little")])
    assert reader.said() == [7]
    good = frame_packet(0) if number == 0 else number_packet(0)
    reader.receive(reader.message(good, number=8))
    reader.target.get()
    assert reader.said() == [7, 8]


@pytest.mark.parametrize("full", ["drop_oldest", "block"])
@pytest.mark.parametrize(
    ("kind", "parts"), [(DATA, []), (DATA, [b"1", b"2", b"3"]), (END, [b"x"]), (TAKEN, [b"12345678"]), (3, [b"x"]), (255, [])]
)
def test_a_message_that_no_writer_sends_is_not_known(harness: Harness, full: Any, kind: int, parts: list[bytes]) -> None:
    reader = Reader(a_plan(harness, full=full), 1)
    assert not reader.receive(parts, kind)
    assert (reader.target.ended, len(reader.target), reader.arrivals.damaged, reader.warnings) == (False, 0, 0, [])


# all wires of a worker ----------------------------------------------------------------------------------------------------------


class Main:
    """Worker main of a plan, its slots without a runner."""

    def __init__(self, plan: Plan, worker: str = "main") -> None:
        self.ledger, self.inbox = LedgerTap(), PaperInbox()
        shared = Shared(offline=False, trace=None, ledger=self.ledger)
        self.slots = {n.name: Slot(n, Node(n.settings), shared) for n in plan.nodes if n.process == worker}
        inbox: Any = self.inbox
        self.bridge = Bridge(plan, worker, PaperPost(), inbox, pictures()[0])
        self.bridge.connect(self.slots, threading.Condition(), self.ledger, warn=str)


def test_every_slot_gets_its_links_to_and_from_other_processes(harness: Harness) -> None:
    main = Main(harness.plan(APART))
    assert sorted(main.inbox.on) == [0, 1, 2, 3, 4]
    assert [(link.writer, link.queue.size) for link in main.slots["instants"].inputs] == [("capture/north", 8), ("capture/south", 8)]
    work = main.slots["work"]
    assert [(link.reader, type(link)) for link in work.outputs] == [("plus", RemoteLink), ("view", RemoteLink)]
    assert (list(work.feedback), work.watchers) == (["last"], [])
    late = Main(harness.plan(APART), "late")
    assert [link.reader for link in late.slots["plus"].watchers] == ["work"], "feedback carries no frame's account"
    assert late.slots["plus"].outputs == []
    assert sorted(late.inbox.on) == [2, 3]
    view = Main(harness.plan(APART), "view")
    assert (sorted(view.inbox.on), view.slots["view"].outputs) == ([4], [])


def test_what_was_under_way_to_a_worker_that_died_is_counted_as_lost_with_it(harness: Harness) -> None:
    plan = harness.plan(APART.replace("plus, from: work", "plus, from: work, queue: {full: block}"))
    main = Main(plan)
    plus, view = main.slots["work"].outputs
    for seq in range(2):
        plus.put(number_packet(seq), wait=False)
        view.put(number_packet(seq), wait=False)
    main.bridge.reader_is_gone("view", main.ledger)
    assert events(main.ledger) == []
    main.bridge.reader_is_gone("late", main.ledger)
    assert events(main.ledger) == [((("north", seq),), "plus", "worker late died with it") for seq in range(2)]


def test_a_writer_that_will_not_come_back_ends_its_links_and_no_others(harness: Harness) -> None:
    main = Main(harness.plan(APART))
    main.bridge.writer_is_gone("capture/south")
    main.bridge.writer_is_gone("plus")
    assert [link.ended for link in main.slots["instants"].inputs] == [False, True]
