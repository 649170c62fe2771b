"""Pictures are made where other processes read them, and are the same pictures: whatever the codec, and however few slots there are."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from capture_kit import Camera
from clips import encode, number_of

from posepipe.nodes import _in_place
from posepipe.pipeline.loans import Loan
from posepipe.pipeline.packet import Frame
from posepipe.pipeline.pictures import Pictures
from posepipe.pipeline.ring import FrameRing
from posepipe.pipeline.ringends import RingReader, RingWriter

pytestmark = [
    pytest.mark.usefixtures("closed"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere pictures are copied"),
]

PYRAMID = {"options": {"bf": "8", "b-pyramid": "normal", "b_strategy": "0"}, "b_frames": 8, "gop": 30}


class Shelf:
    """A ring, its writer, and a reader as another process would have one. lent: how often memory was asked for, and given."""

    def __init__(self, slots: int, width: int = 64, height: int = 48) -> None:
        ring = FrameRing.create(slots, width, height)
        self.writer, self.reader = (end(FrameRing.attach(os.dup(ring.fd))) for end in (RingWriter, RingReader))
        ring.close()
        self.asked = self.given = 0

    def lend(self, size: int) -> Loan | None:
        loan = self.writer.lend(size)
        self.asked += 1
        self.given += loan is not None
        return loan

    def through(self, frame: Frame) -> Frame:
        """The frame as another process has it."""
        ref = self.writer.put(frame)
        assert ref is not None
        there = self.reader.frame(ref, camera=frame.camera)
        assert there is not None
        return there

    def lies_in(self, frame: Frame) -> bool:
        base = self.writer._base
        return base <= int(frame.planes[0].ctypes.data) < base + self.writer._ring.size


def pixels(frame: Frame) -> list[bytes]:
    return [plane.tobytes() for plane in frame.planes]


def pictures(camera: Camera) -> Iterator[Frame]:
    return (frame for _, frame in camera.frames() if frame is not None)


@pytest.mark.parametrize("slots", [5, 8, 30])
@pytest.mark.parametrize(
    ("name", "how", "in_place"),
    [
        ("h264.mp4", {}, True),
        ("odd.mp4", {"size": (66, 50)}, True),
        ("pyramid.mp4", PYRAMID, True),
        ("interlaced.mp4", {"options": {"flags": "+ildct+ilme", "x264-params": "interlaced=1"}, "size": (64, 64)}, True),
        ("h265.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=0"}}, True),
        ("mpeg4.avi", {"codec": "mpeg4", "b_frames": 0, "options": {"qscale": "1", "flags": "+qscale"}}, False),
        ("vp8.webm", {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "1M"}}, True),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"lag-in-frames": "16", "b": "1M"}}, True),
        ("full.mp4", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}, True),
        ("fine.mp4", {"pix_fmt": "yuv444p"}, False),
    ],
)
def test_what_arrives_is_what_was_decoded(tmp_path: Path, name: str, how: dict[str, Any], in_place: bool, slots: int) -> None:
    file = encode(tmp_path / name, **how)
    plain = [pixels(frame) for frame in pictures(Camera(file))]
    width, height = how.get("size", (64, 48))
    shelf = Shelf(slots, width, height)
    seen, made_there = [], 0
    for frame in pictures(Camera(file, lend=shelf.lend)):
        made_there += shelf.lies_in(frame)
        seen.append(pixels(shelf.through(frame)))
    assert seen == plain
    assert len(seen) == 30
    if slots == 30 and in_place:
        assert made_there == 30
    if not in_place and name == "fine.mp4":
        assert made_there == shelf.asked == 0


def test_a_picture_is_read_where_it_was_made(tmp_path: Path) -> None:
    shelf = Shelf(24)
    camera = Camera(encode(tmp_path / "h264.mp4"), lend=shelf.lend)
    for frame in pictures(camera):
        assert shelf.lies_in(frame)
        before = frame.planes[0].ctypes.data - shelf.writer._base
        there = shelf.through(frame)
        ref = there.slot
        offset = shelf.writer._headers[ref.index][7]
        assert shelf.writer._ring.slot_at(ref.index) + offset == before, "not copied"


def test_who_holds_a_picture_keeps_it(tmp_path: Path) -> None:
    """The decoder asks for memory again and again, and is never given what somebody in this process still looks at."""
    file = encode(tmp_path / "h264.mp4")
    plain = [pixels(frame) for frame in pictures(Camera(file))]
    shelf = Shelf(10)
    held = list(pictures(Camera(file, lend=shelf.lend)))
    assert [pixels(frame) for frame in held] == plain
    assert 0 < sum(shelf.lies_in(frame) for frame in held) <= 6, "the rest has memory of the decoder's own"


def test_the_last_picture_of_another_process_stays_readable_for_a_while(tmp_path: Path) -> None:
    shelf = Shelf(16)
    recent: list[tuple[Frame, list[bytes]]] = []
    for frame in pictures(Camera(encode(tmp_path / "pyramid.mp4", **PYRAMID), lend=shelf.lend)):
        expected = pixels(frame)
        recent = [*recent, (shelf.through(frame), expected)][-4:]
        del frame
        assert all(there.whole and pixels(there) == expected for there, expected in recent)


def test_a_loop_and_a_closed_camera_let_go_of_everything(tmp_path: Path) -> None:
    shelf = Shelf(24)
    camera = Camera(encode(tmp_path / "h264.mp4", 12), loop=True, lend=shelf.lend)
    numbers = []
    for _, frame in camera.frames(40):
        assert frame is not None
        numbers.append(number_of(shelf.through(frame)))
        del frame
    assert numbers == [*range(12)] * 3 + [0, 1, 2, 3]
    assert shelf.given > 30
    assert any(loan.busy for loan in shelf.writer._loans)
    camera.node.close()
    assert not any(loan.busy for loan in shelf.writer._loans)
    assert not _in_place._memories


def test_a_ring_that_comes_later_is_written_from_then_on(tmp_path: Path) -> None:
    shelf, there = Shelf(24), False
    camera = Camera(encode(tmp_path / "h264.mp4"), lend=lambda size: shelf.lend(size) if there else None)
    made = []
    for frame in pictures(camera):
        there = there or frame.seq == 9
        made.append(shelf.lies_in(frame))
        assert number_of(shelf.through(frame)) == frame.seq
    assert not any(made[:9])
    assert all(made[16:])


def test_a_ring_that_is_given_twice_and_one_that_is_replaced_spoil_no_picture(tmp_path: Path) -> None:
    """The second letter of the same ring changes nothing; what a decoder still predicts from stays mapped when its ring is gone."""
    rings = [FrameRing.create(20, 64, 48) for _ in range(2)]
    shelf = Pictures(lambda *_: None)

    def give(k: int) -> None:
        shelf.give("north", FrameRing.attach(os.dup(rings[k].fd)), writes=True)
        shelf.give("north", FrameRing.attach(os.dup(rings[k].fd)), writes=False)

    file = encode(tmp_path / "pyramid.mp4", **PYRAMID)
    plain = [pixels(frame) for frame in pictures(Camera(file))]
    give(0)
    seen = []
    for frame in pictures(Camera(file, lend=lambda size: shelf.lend("north", size))):
        if frame.seq in (5, 12):
            give(0)
        if frame.seq == 20:
            give(1)
            gc.collect()
        put = shelf.in_slots(frame, pin=False)
        assert put is not None
        there = shelf.readers[put.slot.ring].frame(put.slot, camera="north")
        assert there is not None
        assert there.whole
        seen.append(pixels(there))
    assert seen == plain
    for ring in rings:
        ring.close()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_lender_that_fails_costs_no_picture(tmp_path: Path, error: type[BaseException]) -> None:
    def broken(size: int) -> Loan | None:
        raise error("broken")

    assert Camera(encode(tmp_path / "h264.mp4"), lend=broken).numbers() == list(range(30))


@pytest.mark.parametrize("what", ["_buffer_in_a_frame", "_library", "_context_of"])
def test_an_ffmpeg_that_is_not_as_expected_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def away(*_: Any) -> int:
        if what == "_library":
            raise OSError("not loaded")
        return 0

    _in_place._ffmpeg.cache_clear()
    monkeypatch.setattr(_in_place, what, away)
    try:
        shelf = Shelf(24)
        camera = Camera(encode(tmp_path / "h264.mp4"), lend=shelf.lend)
        assert [number_of(shelf.through(frame)) for frame in pictures(camera)] == list(range(30))
        assert shelf.asked == 0
    finally:
        _in_place._ffmpeg.cache_clear()


def test_pictures_make_no_types_anew(tmp_path: Path) -> None:
    """A type of array that nobody holds goes with the next collection, and is made anew for the next picture."""
    shelf = Shelf(24)
    frames = Camera(encode(tmp_path / "h264.mp4"), lend=shelf.lend).frames(10)
    next(frames)
    gc.collect()
    gc.disable()
    try:
        for _ in frames:
            pass
        made = [weakref.ref(one) for one in ctypes.Array.__subclasses__()]
        gc.collect()
    finally:
        gc.enable()
    assert shelf.given >= 10
    assert all(one() is not None for one in made)


def test_memory_that_is_not_there_is_read_as_nothing() -> None:
    assert _in_place._read(8, 16) == b""
    here = np.arange(4, dtype=np.uint64)
    assert _in_place._read(here.ctypes.data, 32) == here.tobytes()


def test_a_context_is_found_by_its_class(tmp_path: Path) -> None:
    with av.open(str(encode(tmp_path / "h264.mp4"))) as container:
        context = container.streams.video[0].codec_context
        ffmpeg = _in_place._ffmpeg()
        assert ffmpeg is not None
        assert _in_place._context_of(context, ffmpeg)
        assert _in_place.decode_into(context, lambda size: None)
        assert sum(1 for _ in container.decode(video=0)) == 30
        _in_place.let_go(context)
