"""The rings of a process: a camera's frames come into slots, a ring that is needed is asked for, and one that does not come is told."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest
from ring_kit import HEIGHT, WIDTH, picture, same

from posepipe.pipeline import pictures
from posepipe.pipeline.errors import RunError
from posepipe.pipeline.packet import Frame, FrameSet, Sync
from posepipe.pipeline.pictures import Pictures
from posepipe.pipeline.ring import FrameRing


class Supervisor:
    """Gives each camera that asks a ring that fits, and a reader its other end."""

    def __init__(self, *, slots: int = 2, reader: Pictures | None = None) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.slots, self.reader = slots, reader or Pictures(self.refuse)
        self.writer = Pictures(self.answer)

    def refuse(self, camera: str, width: int, height: int) -> None:
        raise AssertionError("a reader asks for no ring")

    def answer(self, camera: str, width: int, height: int) -> None:
        self.asked.append((camera, width, height))
        ring = FrameRing.create(self.slots, width, height)
        self.reader.give(camera, FrameRing.attach(os.dup(ring.fd)), writes=False)
        self.writer.give(camera, ring, writes=True)
        assert ring.fd == -1, "descriptors are not kept"

    def read(self, frame: Frame | None) -> Frame:
        assert frame is not None
        assert frame.slot is not None
        arrived = self.reader.readers[frame.slot.ring].frame(frame.slot, camera=frame.camera)
        assert arrived is not None
        return arrived


def instant(*frames: Frame) -> FrameSet:
    cameras = tuple(f.camera for f in frames)
    return FrameSet(1, 2, cameras, {f.camera: f for f in frames}, Sync(0, tuple(range(len(frames))), ()))


def of(camera: str, seq: int) -> Frame:
    return replace(picture(seq), camera=camera)


def test_a_camera_asks_for_its_ring_once() -> None:
    studio = Supervisor()
    for seq in range(5):
        put = studio.writer.in_slots(picture(seq), pin=False)
        assert same(studio.read(put), picture(seq))
    assert studio.asked == [("north", WIDTH, HEIGHT)]


def test_a_camera_that_gives_larger_pictures_asks_again_and_smaller_ones_fit() -> None:
    studio = Supervisor()
    for seq, (width, height) in enumerate([(20, 10), (10, 10), (20, 11), (21, 11), (4, 4)]):
        frame = picture(seq, width=width, height=height)
        assert same(studio.read(studio.writer.in_slots(frame, pin=False)), frame)
    assert studio.asked == [("north", 20, 10), ("north", 20, 11), ("north", 21, 11)]


def test_every_camera_has_a_ring_of_its_own() -> None:
    studio = Supervisor()
    put = studio.writer.in_slots(instant(of("north", 1), of("south", 2)), pin=False)
    assert put is not None
    assert [camera for camera, *_ in studio.asked] == ["north", "south"]
    assert same(studio.read(put.frames["south"]), of("south", 2))
    assert len({frame.slot.ring for frame in put.frames.values()}) == 2


def test_a_frame_that_lies_in_a_slot_is_handed_on_as_it_is() -> None:
    first = Supervisor()
    arrived = first.read(first.writer.in_slots(picture(1), pin=False))
    second = Supervisor()
    assert second.writer.in_slots(arrived, pin=False) is arrived
    assert second.asked == []


def test_a_frame_for_a_lossless_link_is_copied_out_of_a_slot_that_nobody_here_can_hold() -> None:
    first, second = Supervisor(), Supervisor()
    arrived = first.read(first.writer.in_slots(picture(1), pin=False))
    mine = second.writer.in_slots(arrived, pin=True)
    for seq in range(2, 9):
        first.writer.in_slots(picture(seq), pin=False)
    assert not arrived.whole
    assert same(second.read(mine), picture(1))


def test_what_is_pinned_stays_and_when_all_is_there_is_no_room() -> None:
    studio = Supervisor()
    held = [studio.writer.in_slots(picture(seq), pin=True) for seq in range(2)]
    assert studio.writer.in_slots(picture(2), pin=True) is None
    assert studio.writer.in_slots(picture(2), pin=False) is None
    assert held[0] is not None
    studio.writer.unpin(held[0])
    assert studio.writer.in_slots(picture(2), pin=True) is not None
    assert same(studio.read(held[1]), picture(1))


def test_an_instant_of_which_one_picture_finds_no_slot_holds_none() -> None:
    studio = Supervisor()
    for seq in range(2):
        assert studio.writer.in_slots(of("south", seq), pin=True) is not None
    for seq in range(9):
        assert studio.writer.in_slots(instant(of("north", seq), of("south", 9)), pin=True) is None
    assert studio.writer.in_slots(of("north", 99), pin=True) is not None, "the slots of north were given back each time"


def test_to_let_go_of_what_lies_in_another_ring_or_in_none_changes_nothing() -> None:
    studio, other = Supervisor(), Supervisor()
    for seq in range(2):
        studio.writer.in_slots(picture(seq), pin=True)
    studio.writer.unpin(picture(0))
    studio.writer.unpin(of("nobody", 0))
    foreign = other.writer.in_slots(picture(0), pin=True)
    assert foreign is not None
    studio.writer.unpin(foreign)
    assert studio.writer.in_slots(picture(2), pin=True) is None


def test_pictures_under_way_in_a_ring_that_was_replaced_can_still_be_read() -> None:
    studio = Supervisor()
    old = studio.writer.in_slots(picture(0, width=8, height=8), pin=True)
    new = studio.writer.in_slots(picture(1), pin=True)
    assert same(studio.read(old), picture(0, width=8, height=8))
    assert same(studio.read(new), picture(1))
    assert old is not None
    studio.writer.unpin(old)
    assert studio.writer.in_slots(picture(2), pin=True) is not None
    assert studio.writer.in_slots(picture(3), pin=True) is None, "what is let go of lay in the old ring"


def test_a_ring_may_come_on_another_thread() -> None:
    asked = threading.Event()
    writer = Pictures(lambda *_: asked.set())

    def supervisor() -> None:
        assert asked.wait(10)
        writer.give("south", FrameRing.create(2, WIDTH, HEIGHT), writes=True)
        writer.give("north", FrameRing.create(2, WIDTH, HEIGHT), writes=True)

    thread = threading.Thread(target=supervisor)
    thread.start()
    put = writer.in_slots(picture(1), pin=False)
    thread.join()
    assert put is not None
    assert put.planes == (), "the decoder has its buffer back"


def test_a_ring_that_does_not_come_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_RING_WITHIN_S", 0.01)
    with pytest.raises(RunError, match="no frame ring for 64x48 pictures within 0 s") as e:
        Pictures(lambda *_: None).in_slots(picture(1), pin=False)
    assert e.value.where == "camera north"
    assert "supervisor" in e.value.hint
