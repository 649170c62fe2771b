"""The writer's end of a link to another process: what leaves, what waits, and what is lost when nobody reads."""

from __future__ import annotations

import threading

import pytest
from memory_nodes import Harness, Number
from remote_kit import APART, PaperPost, a_plan, as_received, frame_packet, number_packet, pictures, wire
from ring_kit import picture, same
from runner_kit import until

from posepipe.pipeline.graph import Plan
from posepipe.pipeline.headers import Headers, resolve
from posepipe.pipeline.inbox import DATA, END, TAKEN
from posepipe.pipeline.links import Full
from posepipe.pipeline.packet import Frame, FrameSet
from posepipe.pipeline.remote import RemoteLink, wires


class Writer:
    def __init__(self, plan: Plan, number: int = 0, *, slots: int = 4) -> None:
        self.post, self.stop = PaperPost(), threading.Event()
        self.pictures, self.readers = pictures(slots=slots)
        self.link = RemoteLink(wire(plan, number), self.post, self.pictures, stop=self.stop)
        self.socket = self.post.to(self.link.wire.to_worker)
        self.woken = 0
        self.link.wake = self.wake

    def wake(self) -> None:
        self.woken += 1

    def numbers(self) -> list[bytes]:
        return [parts[2] for parts in self.socket.sent if len(parts) > 2]


# numbers ------------------------------------------------------------------------------------------------------------------------


def test_both_ends_count_the_same_wires_off_the_same_plan(harness: Harness) -> None:
    found = wires(harness.plan(APART))
    assert [(w.number, w.where, w.port, w.from_worker, w.to_worker) for w in found] == [
        (0, "link capture/north -> instants", "frame", "capture/north", "main"),
        (1, "link capture/south -> instants", "frame", "capture/south", "main"),
        (2, "link plus -> work", "last", "late", "main"),
        (3, "link work -> plus", "number", "main", "late"),
        (4, "link work -> view", "number", "main", "view"),
    ]
    assert [(w.body, w.pixels, w.feedback) for w in found[1:4]] == [(Frame, True, False), (Number, False, True), (Number, False, False)]
    assert found == wires(harness.plan(APART))


def test_a_plan_in_one_process_has_no_wires(harness: Harness) -> None:
    everything = (
        "north: {use: mem.camera, process: main}\ninstants: {use: mem.instants, from: north}\nwork: {use: mem.work, from: instants}"
    )
    assert wires(harness.plan(everything)) == ()
    apart = everything.replace("from: instants", "from: instants, process: own")
    assert [(w.body, w.pixels) for w in wires(harness.plan(apart))] == [(FrameSet, True)]


# what leaves --------------------------------------------------------------------------------------------------------------------


def test_a_frame_leaves_as_a_header_and_its_pixels_stay_in_the_ring(harness: Harness) -> None:
    writer = Writer(a_plan(harness))
    assert writer.link.put(frame_packet(3), wait=True) is None
    ((head, header),) = writer.socket.sent
    assert head == writer.post.head(DATA, 0)
    assert len(header) < 300
    packet, lost = resolve(Headers(Frame).decode(header, where="test"), writer.readers.readers)
    assert lost is None
    assert packet is not None
    assert same(packet.body, picture(3))
    writer.link.end()
    assert writer.socket.sent[1:] == [[writer.post.head(END, 0)]]


@pytest.mark.parametrize("full", ["drop_oldest", "drop_newest"])
def test_a_link_that_may_lose_waits_for_nobody(harness: Harness, full: Full) -> None:
    writer = Writer(a_plan(harness, size=1, full=full))
    for seq in range(9):
        assert writer.link.room
        assert writer.link.put(frame_packet(seq), wait=True) is None
    assert (len(writer.link), len(writer.socket.sent)) == (0, 9), "the queue is at the reader's end"
    assert writer.numbers() == []


@pytest.mark.parametrize("full", ["drop_oldest", "block"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_packet_for_a_worker_that_is_down_is_given_back(harness: Harness, full: Full, number: int) -> None:
    writer = Writer(a_plan(harness, full=full), number, slots=2)
    writer.socket.nobody_there = True
    for seq in range(9):
        packet = frame_packet(seq) if number == 0 else number_packet(seq)
        lost = writer.link.put(packet, wait=True)
        assert lost is not None
        assert (lost.frames, writer.link.why) == (packet.frames, f"worker {writer.link.wire.to_worker} is down")
        assert (len(writer.link), writer.link.room) == (0, True)
    writer.socket.nobody_there = False
    assert writer.link.put(frame_packet(9) if number == 0 else number_packet(9), wait=True) is None
    writer.socket.nobody_there = True
    writer.link.end()


# block --------------------------------------------------------------------------------------------------------------------------


def test_a_lossless_link_has_room_again_when_the_reader_has_done(harness: Harness) -> None:
    writer = Writer(a_plan(harness, size=2, full="block"))
    for seq in range(2):
        assert writer.link.room
        assert writer.link.put(frame_packet(seq), wait=True) is None
    assert not writer.link.room
    first, second = writer.numbers()
    assert writer.link.on_message(TAKEN, as_received([second]))
    assert (writer.link.room, writer.woken) == (True, 1), "in any order"
    writer.link.on_message(TAKEN, as_received([second]))
    writer.link.on_message(TAKEN, as_received([b"\xff" * 8]))
    assert len(writer.link) == 1, "a message that came twice, or damaged, makes no room"
    writer.link.on_message(TAKEN, as_received([first]))
    assert len(writer.link) == 0


def test_the_pictures_of_a_lossless_link_stay_until_the_reader_has_done(harness: Harness) -> None:
    writer = Writer(a_plan(harness, size=9, full="block"), slots=3)
    for seq in range(3):
        assert writer.link.put(frame_packet(seq), wait=True) is None
    lost = writer.link.put(frame_packet(3), wait=False)
    assert lost is not None
    assert (lost.seq, writer.link.why) == (3, "no free slot in the frame ring")
    for parts, seq in zip(writer.socket.sent, range(3), strict=True):
        packet, _ = resolve(Headers(Frame).decode(parts[1], where="test"), writer.readers.readers)
        assert packet is not None
        assert same(packet.body, picture(seq))
    writer.link.on_message(TAKEN, as_received([writer.numbers()[1]]))
    assert writer.link.put(frame_packet(4), wait=True) is None


def test_a_worker_that_emits_several_at_once_goes_over_the_size_instead_of_waiting(harness: Harness) -> None:
    writer = Writer(a_plan(harness, size=1, full="block"), 1)
    for seq in range(3):
        assert writer.link.put(number_packet(seq), wait=False) is None
    assert len(writer.link) == 3


def test_a_source_waits_for_room_and_goes_on_when_there_is_some(harness: Harness) -> None:
    writer = Writer(a_plan(harness, size=1, full="block"))
    writer.link.put(frame_packet(0), wait=True)
    thread = threading.Thread(target=writer.link.put, args=(frame_packet(1),), kwargs={"wait": True}, daemon=True)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    writer.link.on_message(TAKEN, as_received(writer.numbers()))
    thread.join(5)
    assert not thread.is_alive()
    assert len(writer.socket.sent) == 2


@pytest.mark.parametrize("stops", [False, True])
def test_a_source_waits_for_a_slot_where_the_ring_is_smaller_than_the_queue(harness: Harness, stops: bool) -> None:
    writer = Writer(a_plan(harness, size=9, full="block"), slots=2)
    for seq in range(2):
        writer.link.put(frame_packet(seq), wait=True)
    lost: list[object] = []
    thread = threading.Thread(target=lambda: lost.append(writer.link.put(frame_packet(2), wait=True)), daemon=True)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    if stops:
        writer.stop.set()
        writer.link.stop()
    else:
        writer.link.on_message(TAKEN, as_received(writer.numbers()[:1]))
    thread.join(5)
    assert [packet is None for packet in lost] == [not stops]
    assert len(writer.socket.sent) == (2 if stops else 3)


@pytest.mark.parametrize("how", ["stop", "gone"])
def test_a_source_that_waits_is_let_go_at_a_stop_and_when_its_reader_dies(harness: Harness, how: str) -> None:
    writer = Writer(a_plan(harness, size=1, full="block"))
    writer.link.put(frame_packet(0), wait=True)
    thread = threading.Thread(target=writer.link.put, args=(frame_packet(1),), kwargs={"wait": True}, daemon=True)
    thread.start()
    if how == "stop":
        writer.stop.set()
        assert writer.link.stop() == []
    else:
        until(lambda: bool(writer.link.reader_is_gone()))
    thread.join(5)
    assert not thread.is_alive()


def test_what_was_under_way_to_a_reader_that_died_is_given_back_and_its_slots_are_free(harness: Harness) -> None:
    writer = Writer(a_plan(harness, size=4, full="block"), slots=2)
    for seq in range(2):
        writer.link.put(frame_packet(seq), wait=True)
    assert [packet.frames for packet in writer.link.reader_is_gone()] == [(("north", 0),), (("north", 1),)]
    assert (len(writer.link), writer.woken) == (0, 2)
    assert writer.link.reader_is_gone() == []
    for seq in range(2, 4):
        assert writer.link.put(frame_packet(seq), wait=True) is None
    for number in writer.numbers()[:2]:
        writer.link.on_message(TAKEN, as_received([number]))
    assert len(writer.link) == 2, "what the dead reader still had to say is nothing to what was sent since"


def test_what_an_earlier_life_sent_is_not_taken_for_what_this_one_sent(harness: Harness) -> None:
    plan = a_plan(harness, size=9, full="block")
    killed = Writer(plan, 1)
    for seq in range(5):
        killed.link.put(number_packet(seq), wait=False)
    writer = Writer(plan, 1)
    for seq in range(5):
        writer.link.put(number_packet(seq), wait=False)
    for number in killed.numbers():
        writer.link.on_message(TAKEN, as_received([number]))
    assert len(writer.link) == 5


@pytest.mark.parametrize(("kind", "payload"), [(DATA, [b"x"]), (END, []), (TAKEN, []), (TAKEN, [b"1", b"2"]), (7, [b"1"])])
def test_a_message_that_no_reader_sends_is_not_known(harness: Harness, kind: int, payload: list[bytes]) -> None:
    writer = Writer(a_plan(harness, full="block"))
    writer.link.put(frame_packet(0), wait=True)
    assert not writer.link.on_message(kind, as_received(payload))
    assert len(writer.link) == 1


def test_feedback_waits_for_nobody_whatever_the_queue_of_the_node(harness: Harness) -> None:
    plan = harness.plan(APART.replace("feedback: plus", "feedback: plus, queue: {size: 1, full: block}"))
    writer = Writer(plan, 2)
    assert writer.link.wire.feedback
    for seq in range(5):
        assert writer.link.room
        assert writer.link.put(number_packet(seq, ()), wait=False) is None
