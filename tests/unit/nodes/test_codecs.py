"""How pictures are coded between hosts: what comes out looks like what went in, and damage is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from posepipe.nodes._codecs import H264Codec, codec
from posepipe.pipeline.carriage import Carriage, Sent, Unloading
from posepipe.pipeline.hosts import WireFormat
from posepipe.pipeline.packet import Frame, PixelFormat
from posepipe.pipeline.ring import SlotRef

FIRST = SlotRef(-1, 0, 0)


def moving(seq: int, *, width: int = 160, height: int = 120, form: PixelFormat = "i420") -> Frame:
    """A wave that moves, with colour."""
    y, x = np.mgrid[:height, :width]
    luma = (128 + 90 * np.sin((x + 3 * seq) / 11) * np.cos(y / 17)).astype(np.uint8)
    u = (100 + (y[::2, ::2] + seq) % 60).astype(np.uint8)
    v = (90 + (x[::2, ::2] + seq) % 60).astype(np.uint8)
    planes = (luma, u, v) if form == "i420" else (luma, np.stack([u, v], axis=-1))
    return Frame("north", seq, 1000 + seq, form, width, height, planes)


def parts_of(carriage: Carriage, frame: Frame) -> list[memoryview]:
    packed = carriage.pack(frame)
    assert packed is not None
    return [memoryview(bytes(memoryview(part))) for part in packed[1]]


def apart(frame: Frame) -> Sequence[Any]:
    return frame.planes if frame.format == "i420" else (frame.planes[0], frame.planes[1][..., 0], frame.planes[1][..., 1])


@pytest.mark.parametrize("name", ["jpeg", "h264"])
@pytest.mark.parametrize("form", ["i420", "nv12"])
@pytest.mark.parametrize("size", [(160, 120), (161, 121), (2, 2), (1, 1)])
def test_pictures_arrive_much_as_they_left(name: Any, form: PixelFormat, size: tuple[int, int]) -> None:
    coded = WireFormat(name, 90)
    carriage, unloading = Carriage(codec(coded)), Unloading(codec(coded), lambda: pytest.fail("nothing was lost"))
    for seq in range(4):
        frame = moving(seq, width=size[0], height=size[1], form=form)
        there = unloading.unpack(parts_of(carriage, frame), where="link").frame(FIRST, camera="north")
        assert there is not None
        assert (there.seq, there.t_capture_ns, there.width, there.height, there.format) == (seq, 1000 + seq, *size, "i420")
        for before, after in zip(apart(frame), there.planes, strict=True):
            assert before.shape == after.shape
            assert not after.flags.writeable
            assert np.abs(before.astype(int) - after).mean() < 2.5


@pytest.mark.parametrize("name", ["jpeg", "h264"])
def test_a_lower_quality_takes_less_of_the_network(name: Any) -> None:
    sizes = []
    for quality in (95, 60, 20):
        carriage = Carriage(codec(WireFormat(name, quality)))
        sizes.append(sum(part.nbytes for seq in range(5) for part in parts_of(carriage, moving(seq))))
    assert sizes[0] > sizes[1] > sizes[2]


def test_h264_begins_again_when_it_is_asked_to_and_when_the_size_changes() -> None:
    encoder = H264Codec(80)
    assert [encoder.encode(moving(seq), alone=seq in (0, 3))[2] for seq in range(5)] == [True, False, False, True, False]
    assert encoder.encode(moving(5, width=80), alone=False)[2]


def test_h264_takes_each_camera_for_itself() -> None:
    encoder = H264Codec(80)
    assert encoder.encode(moving(0), alone=True)[2]
    assert encoder.encode(replace(moving(0), camera="south"), alone=False)[2], "its first picture"
    assert not encoder.encode(moving(1), alone=False)[2]


@pytest.mark.parametrize("name", ["jpeg", "h264"])
def test_bytes_that_are_no_picture_are_lost(name: Any) -> None:
    form, parts, alone = codec(WireFormat(name)).encode(moving(0), alone=True)
    noise = [memoryview(np.random.default_rng(1).integers(0, 256, memoryview(part).nbytes, np.uint8)) for part in parts]
    sent = Sent(0, 0, form, 160, 120, False, len(parts), 0, alone)
    assert codec(WireFormat(name)).decode(sent, "north", noise) is None
    assert codec(WireFormat(name)).decode(sent, "north", [memoryview(b"") for _ in parts]) is None


@pytest.mark.parametrize("name", ["jpeg", "h264"])
def test_a_picture_of_another_size_is_lost(name: Any) -> None:
    form, parts, alone = codec(WireFormat(name)).encode(moving(0), alone=True)
    sent = Sent(0, 0, form, 320, 240, False, len(parts), 0, alone)
    assert codec(WireFormat(name)).decode(sent, "north", [memoryview(bytes(memoryview(p))) for p in parts]) is None
