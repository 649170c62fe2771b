"""A pinned picture is not overwritten before its lossless links have done with it, and nobody else holds the writer up."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ring_kit import HEIGHT, WIDTH, Rings, picture, put, same

from posepipe.pipeline.ring import FrameRing, SlotRef
from posepipe.pipeline.ringends import RingReader, RingWriter


def test_a_pinned_picture_is_never_overwritten(rings: Rings) -> None:
    ring = rings.new(3)
    writer, reader = RingWriter(ring), RingReader(rings.again(ring))
    pinned = put(writer, 0, pin=True)
    for seq in range(1, 20):
        assert put(writer, seq).index != pinned.index
    frame = reader.frame(pinned, camera="north")
    assert frame is not None
    assert same(frame, picture(0))
    writer.unpin(pinned)
    put(writer, 20)
    put(writer, 21)
    put(writer, 22)
    assert not frame.whole


def test_when_every_slot_is_pinned_there_is_none_to_write_into(rings: Rings) -> None:
    writer = RingWriter(rings.new(2))
    refs = [put(writer, seq, pin=True) for seq in range(2)]
    assert writer.put(picture(2)) is None
    assert writer.put(picture(2), pin=True) is None
    assert writer.slot(WIDTH, HEIGHT) is None
    writer.unpin(refs[1])
    assert put(writer, 2).index == refs[1].index, "in any order: one slow picture does not hold the others"


def test_a_slot_is_free_when_the_last_of_its_links_has_done_with_it(rings: Rings) -> None:
    writer = RingWriter(rings.new(2))
    ref = put(writer, 0, pin=True)
    assert put(writer, 0, pin=True) == ref
    put(writer, 1, pin=True)
    writer.unpin(ref)
    assert writer.put(picture(2)) is None
    writer.unpin(ref)
    assert put(writer, 2).index == ref.index


def test_to_have_done_with_an_earlier_picture_frees_nothing(rings: Rings) -> None:
    other, writer = RingWriter(rings.new(2)), RingWriter(rings.new(2))
    old = put(writer, 0)
    put(writer, 1)
    now = put(writer, 2, pin=True)
    assert now.index == old.index
    put(writer, 3, pin=True)
    for ref in (old, SlotRef(now.ring + 1, now.index, now.generation), SlotRef(now.ring, 9, 2), put(other, 0)):
        writer.unpin(ref)
        assert writer.put(picture(4)) is None
    writer.unpin(now)
    assert put(writer, 4).index == now.index


def test_to_have_done_twice_frees_it_once(rings: Rings) -> None:
    writer = RingWriter(rings.new(2))
    first = put(writer, 0, pin=True)
    put(writer, 1, pin=True)
    writer.unpin(first)
    writer.unpin(first)
    again = put(writer, 2, pin=True)
    writer.unpin(first)
    assert writer.put(picture(3)) is None
    writer.unpin(again)
    assert put(writer, 3).index == again.index


@pytest.mark.parametrize("pins", [(False, False), (False, True), (True, False), (True, True)])
def test_a_picture_for_several_links_is_copied_once(rings: Rings, pins: tuple[bool, bool]) -> None:
    ring = rings.new(2)
    writer = RingWriter(ring)
    frame = picture(5)
    first = writer.put(frame, pin=pins[0])
    for plane in frame.planes:
        plane[:] = 0  # had it been copied again, it would be black
    assert writer.put(frame, pin=pins[1]) == first
    assert first is not None
    arrived = RingReader(ring).frame(first, camera="north")
    assert arrived is not None
    assert same(arrived, picture(5))


def test_a_looped_recording_gives_the_same_number_at_another_time_another_slot(rings: Rings) -> None:
    writer = RingWriter(rings.new(3))
    first = put(writer, 5)
    later = picture(5)
    object.__setattr__(later, "t_capture_ns", later.t_capture_ns + 1)
    second = writer.put(later)
    assert second is not None
    assert second.index != first.index


def test_a_new_writer_knows_of_no_pins(rings: Rings) -> None:
    ring = rings.new(2)
    killed = RingWriter(ring)
    refs = [put(killed, seq, pin=True) for seq in range(2)]
    reader = RingReader(ring)
    put(RingWriter(rings.again(ring)), 2)
    assert [reader.still_valid(ref) for ref in refs] == [False, True], "what is overwritten is noticed"


@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(2, 5),
    steps=st.lists(st.tuples(st.sampled_from(["put", "pin", "again", "unpin", "stale"]), st.integers(0, 9)), max_size=40),
)
def test_whatever_is_pinned_and_let_go_the_pinned_pictures_stay(slots: int, steps: list[tuple[str, int]]) -> None:
    ring = FrameRing.create(slots, 4, 2)
    writer, reader = RingWriter(ring), RingReader(ring)
    pins: Counter[SlotRef] = Counter()
    last: SlotRef | None = None
    everything: list[SlotRef] = []
    seq = 0
    for what, n in steps:
        held = list(+pins)
        if what in ("put", "pin") or (what == "again" and last is None):
            seq += 1
        if what in ("put", "pin", "again"):
            new = what != "again" or last is None
            ref = writer.put(picture(seq, width=4, height=2), pin=what != "put")
            full = new and len({ref.index for ref in held}) == slots
            assert (ref is None) == full
            if ref is None:
                seq -= 1
                continue
            last = ref
            everything.append(ref)
            pins[ref] += what != "put"
        elif what == "unpin" and held:
            ref = held[n % len(held)]
            writer.unpin(ref)
            pins[ref] -= 1
        elif what == "stale" and (gone := [ref for ref in everything if not pins[ref]]):
            writer.unpin(gone[n % len(gone)])
        assert all(reader.still_valid(ref) for ref in +pins)
    ring.close()


def test_a_link_may_have_done_on_any_thread(rings: Rings) -> None:
    writer = RingWriter(rings.new(4))
    for start in range(0, 400, 4):
        refs = [put(writer, start + i, pin=True) for i in range(4)]
        assert writer.put(picture(start + 9)) is None
        threads = [threading.Thread(target=writer.unpin, args=(ref,)) for ref in refs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
