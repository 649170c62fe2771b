"""With credits no picture is overwritten before its readers have released it, and nobody who is gone holds the writer up."""

from __future__ import annotations

import os
import select
import threading

from ring_kit import HEIGHT, WIDTH, Rings, picture, put, same

from posepipe.pipeline.ringends import RingReader, RingWriter


def test_with_credits_nothing_is_overwritten_before_it_is_released(rings: Rings) -> None:
    ring = rings.new(3, credits=True)
    writer, reader = RingWriter(ring), RingReader(rings.again(ring), seat=5)
    writer.seat(5)
    refs = [put(writer, seq) for seq in range(3)]
    assert writer.put(picture(3)) is None
    assert writer.slot(WIDTH, HEIGHT) is None
    assert not writer.wait_for_room(0)
    assert reader.release(refs[1])
    assert writer.wait_for_room(0)
    assert put(writer, 3).index == refs[1].index  # in any order: one slow picture does not hold the others
    assert writer.put(picture(4)) is None
    for seq in (0, 2):
        frame = reader.frame(refs[seq], camera="north")
        assert frame is not None
        assert same(frame, picture(seq))
        assert reader.release(refs[seq])
    assert reader.lapped == 0


def test_a_slot_is_free_when_the_last_of_its_readers_has_released_it(rings: Rings) -> None:
    ring = rings.new(2, credits=True)
    writer = RingWriter(ring)
    readers = [RingReader(rings.again(ring), seat=seat) for seat in (0, 15)]
    for seat in (0, 15):
        writer.seat(seat)
    refs = [put(writer, seq) for seq in range(2)]
    assert readers[0].release(refs[0])
    assert writer.put(picture(2)) is None
    assert readers[1].release(refs[0])
    assert put(writer, 2).index == refs[0].index


def test_a_reader_that_comes_later_owes_nothing_for_what_was_before(rings: Rings) -> None:
    ring = rings.new(2, credits=True)
    writer = RingWriter(ring)
    put(writer, 0)
    put(writer, 1)
    writer.seat(0)
    put(writer, 2)
    put(writer, 3)
    assert writer.put(picture(4)) is None


def test_what_a_dead_reader_held_comes_free_by_eviction_and_its_seat_can_be_given_again(rings: Rings) -> None:
    ring = rings.new(2, credits=True)
    supervisor = rings.again(ring)
    writer = RingWriter(ring)
    writer.seat(3)
    put(writer, 0)
    put(writer, 1)
    assert writer.put(picture(2)) is None
    supervisor.evict(3)
    assert writer.wait_for_room(0)
    put(writer, 2)
    writer.seat(3)
    successor = RingReader(rings.again(ring), seat=3)
    put(writer, 3)  # into the slot of the picture 1, which the dead reader never released
    held = put(writer, 4)
    assert writer.put(picture(5)) is None
    assert successor.release(held)
    put(writer, 5)


def test_a_reader_without_a_seat_holds_nobody_up(rings: Rings) -> None:
    ring = rings.new(2, credits=True)
    writer, onlooker = RingWriter(ring), RingReader(rings.again(ring))
    first = put(writer, 0)
    assert onlooker.release(first)
    for seq in range(1, 5):
        put(writer, seq)
    assert not onlooker.release(first)


def test_a_waiting_writer_is_woken_by_a_release(rings: Rings) -> None:
    ring = rings.new(2, credits=True)
    writer, reader = RingWriter(ring), RingReader(rings.again(ring), seat=0)
    writer.seat(0)
    refs = [put(writer, 0), put(writer, 1)]
    release = threading.Thread(target=reader.release, args=(refs[0],))
    release.start()
    assert writer.wait_for_room(30)
    release.join()


def test_a_release_and_an_eviction_ring_the_bell(rings: Rings) -> None:
    ring = rings.new(2, credits=True)
    writer, reader = RingWriter(ring), RingReader(rings.again(ring), seat=0)
    writer.seat(0)
    ref = put(writer, 0)
    for act in (lambda: reader.release(ref), lambda: rings.again(ring).evict(0)):
        assert not select.select([ring.fds[1]], [], [], 0)[0]
        act()
        assert os.read(ring.fds[1], 9) == b"\0"


def test_releases_that_nobody_waits_for_do_not_fill_the_bell(rings: Rings) -> None:
    ring = rings.new(2, credits=True)
    for _ in range(70_000):  # more than a pipe holds
        ring.ring_bell()
    writer = RingWriter(ring)
    writer.seat(0)
    put(writer, 0)
    put(writer, 1)
    assert not writer.wait_for_room(0.01)
