"""Pictures that ride in messages between hosts: nothing changes on the way, and what later pictures need is asked for when it is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ring_kit import picture

from posepipe.pipeline.carriage import IN_MESSAGE, Carriage, RawCodec, Sent, Unloading
from posepipe.pipeline.errors import RunError
from posepipe.pipeline.headers import Headers, resolve
from posepipe.pipeline.packet import Frame, FrameSet, Packet, Sync
from posepipe.pipeline.ring import SlotRef


class Chain(RawCodec):
    """Raw, but as a video codec: a picture needs the one before, unless it is told not to."""

    def encode(self, frame: Frame, *, alone: bool) -> Any:
        form, parts, _ = super().encode(frame, alone=alone)
        return form, parts, alone


def views(parts: Sequence[Any]) -> list[memoryview]:
    return [memoryview(bytes(memoryview(p))) for p in parts]


def same(a: Frame, b: Frame) -> bool:
    return a == replace(b, planes=a.planes, slot=None) and all(np.array_equal(x, y) for x, y in zip(a.planes, b.planes, strict=True))


class Way:
    """Both ends of a link, and what the reader asks for."""

    def __init__(self) -> None:
        self.asked = 0
        self.carriage, self.unloading = Carriage(Chain()), Unloading(Chain(), self.ask)

    def ask(self) -> None:
        self.asked += 1

    def send(self, seq: int, camera: str = "north") -> list[memoryview]:
        packed = self.carriage.pack(replace(picture(seq), camera=camera))
        assert packed is not None
        return views(packed[1])

    def arrives(self, parts: list[memoryview], camera: str = "north") -> int | None:
        load = self.unloading.unpack(parts, where="link a -> b")
        frame = load.frame(place_in_message(0), camera=camera)
        return None if frame is None else frame.seq


def place_in_message(place: int) -> SlotRef:
    return SlotRef(IN_MESSAGE, place, 0)


@given(st.integers(1, 70), st.integers(1, 50), st.sampled_from(["i420", "nv12"]), st.integers(0, 3), st.integers(0, 9))
def test_raw_pictures_of_any_size_arrive_as_they_left(width: int, height: int, form: Any, pad: int, seq: int) -> None:
    frame = picture(seq, width=width, height=height, format=form, pad=pad)
    packed = Carriage(RawCodec()).pack(frame)
    assert packed is not None
    load = Unloading(RawCodec(), lambda: None).unpack(views(packed[1]), where="link")
    there = load.frame(place_in_message(0), camera="north")
    assert there is not None
    assert same(frame, there)
    assert not any(plane.flags.writeable for plane in there.planes)


def test_an_instant_goes_through_header_and_message() -> None:
    cameras = ("north", "south", "east")
    frames = {c: replace(picture(i), camera=c) for i, c in enumerate(cameras) if c != "east"}
    instant = FrameSet(7, 1000, cameras, frames, Sync(1, (0, 1), (2,)))
    packed = Carriage(RawCodec()).pack(instant)
    assert packed is not None
    body, parts = packed
    header = Headers(FrameSet)
    packet: Packet[Any] = Packet(7, 1000, "instants", body, (), instant.frame_ids)
    arrived = header.decode(header.encode(packet), where="link")
    load = Unloading(RawCodec(), lambda: None).unpack(views(parts), where="link")
    whole, lost = resolve(arrived, {IN_MESSAGE: load})
    assert lost is None
    assert whole is not None
    assert list(whole.body.frames) == ["north", "south"]
    assert all(same(frames[c], whole.body.frames[c]) for c in frames)
    assert whole.body.sync == instant.sync
    assert whole.body.whole


def test_the_first_picture_stands_alone_and_later_ones_follow() -> None:
    way = Way()
    assert [way.arrives(way.send(seq)) for seq in range(5)] == [0, 1, 2, 3, 4]
    assert way.asked == 0


def test_after_a_loss_all_is_lost_until_the_writer_has_begun_again() -> None:
    way = Way()
    way.arrives(way.send(0))
    way.send(1)
    assert way.arrives(way.send(2)) is None
    assert way.arrives(way.send(3)) is None
    assert way.asked == 1, "asked once"
    way.carriage.begin_again()
    assert way.arrives(way.send(4)) == 4
    assert way.arrives(way.send(5)) == 5


def test_a_reader_that_came_later_asks_at_once() -> None:
    way = Way()
    way.send(0)
    assert way.arrives(way.send(1)) is None
    assert way.asked == 1


def test_a_loss_of_one_camera_costs_the_others_nothing() -> None:
    way = Way()
    way.arrives(way.send(0, "north"), "north")
    way.arrives(way.send(0, "south"), "south")
    way.send(1, "north")
    assert way.arrives(way.send(1, "south"), "south") == 1
    assert way.arrives(way.send(2, "north"), "north") is None


def test_a_picture_that_is_overwritten_meanwhile_is_not_sent_and_the_next_stands_alone() -> None:
    class Lease:
        whole = True

    class Slow(Chain):
        def encode(self, frame: Frame, *, alone: bool) -> Any:
            lease.whole = False
            return super().encode(frame, alone=alone)

    way, lease = Way(), Lease()
    way.arrives(way.send(0))
    way.carriage._codec = Slow()
    assert way.carriage.pack(replace(picture(1), lease=lease)) is None
    way.carriage._codec = Chain()
    assert way.arrives(way.send(2)) == 2


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda parts: [], "its checksum is wrong"),
        (lambda parts: [memoryview(b"\0" * 40), *parts[1:]], "its checksum is wrong"),
        (lambda parts: parts[:-1], "2 parts"),
        (lambda parts: [*parts, parts[1]], "4 parts"),
    ],
)
def test_a_message_that_is_not_whole_is_one_error(harm: Any, says: str) -> None:
    way = Way()
    with pytest.raises(RunError) as error:
        way.unloading.unpack(harm(way.send(0)), where="link a -> b")
    assert error.value.what == f"pictures that are damaged or cut short: {says}"
    assert error.value.where == "link a -> b"


def test_planes_of_another_size_than_they_are_said_to_have_are_lost() -> None:
    sent = Sent(1, 1, "i420", 4, 4, False, 3, 0, True)
    assert RawCodec().decode(sent, "north", [memoryview(bytes(16)), memoryview(bytes(4)), memoryview(bytes(3))]) is None


def test_a_reference_beyond_the_message_is_lost() -> None:
    way = Way()
    assert way.unloading.unpack(way.send(0), where="link").frame(place_in_message(1), camera="north") is None
