"""A picture that is put into a ring arrives as it was, and a reader that was lapped notices; also across processes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ring_kit import HEIGHT, WIDTH, Rings, picture, put, same

from posepipe.pipeline.packet import PixelFormat
from posepipe.pipeline.ring import FrameRing, SlotRef
from posepipe.pipeline.ringends import RingReader, RingWriter


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 120),
    format=st.sampled_from(["i420", "nv12"]),
    pad=st.integers(0, 70),
    seq=st.integers(0, 2**62),
)
def test_a_picture_of_any_size_arrives_as_it_was(width: int, height: int, format: PixelFormat, pad: int, seq: int) -> None:
    ring = FrameRing.create(2, 200, 120)
    frame = picture(seq, width=width, height=height, format=format, pad=pad)
    ref = RingWriter(ring).put(frame)
    assert ref is not None
    arrived = RingReader(ring).frame(ref, camera="north")
    ring.close()
    assert arrived is not None
    assert same(arrived, frame)
    assert all(p.ctypes.data % 64 == 0 and p.strides[0] % 64 == 0 for p in arrived.planes)


def test_pictures_of_another_size_and_layout_follow_each_other_in_one_slot(rings: Rings) -> None:
    ring = rings.new(2)
    writer, reader = RingWriter(ring), RingReader(rings.again(ring))
    for seq, format in enumerate(("i420", "nv12", "nv12", "i420", "i420", "nv12")):
        frame = picture(seq, width=10 + 9 * seq, height=48 - 7 * seq, format=format)
        ref = writer.put(frame)
        assert ref is not None
        arrived = reader.frame(ref, camera="north")
        assert arrived is not None
        assert same(arrived, frame)


def test_a_reader_cannot_write(rings: Rings) -> None:
    ring = rings.new()
    frame = RingReader(rings.again(ring)).frame(put(RingWriter(ring), 1), camera="north")
    assert frame is not None
    for plane in frame.planes:
        with pytest.raises(ValueError, match="read-only"):
            plane[0, 0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            plane.setflags(write=True)
        with pytest.raises(ValueError, match="read-only"):
            np.copyto(plane, 0)
    memory, headers = ring.pixels(writable=False)
    with pytest.raises(TypeError):
        memory[0] = 1
    assert all(header.readonly for header in headers)


def test_a_lapped_reader_notices_before_and_after_use(rings: Rings) -> None:
    ring = rings.new(3)
    writer, reader = RingWriter(ring), RingReader(rings.again(ring))
    refs = [put(writer, seq) for seq in range(3)]
    frame = reader.frame(refs[0], camera="north")
    assert frame is not None
    assert frame.slot == refs[0]
    assert frame.whole
    put(writer, 3)
    assert not frame.whole
    assert reader.frame(refs[0], camera="north") is None
    other = reader.frame(refs[1], camera="north")
    assert other is not None
    assert other.whole


def test_a_slot_is_lost_to_readers_from_the_moment_it_is_written_into(rings: Rings) -> None:
    ring = rings.new(2)
    writer, reader = RingWriter(ring), RingReader(rings.again(ring))
    old, newer = put(writer, 0), put(writer, 1)
    planes = writer.slot(WIDTH, HEIGHT)
    assert planes is not None
    assert not reader.still_valid(old)
    assert reader.still_valid(newer)
    assert reader.frame(old, camera="north") is None


def test_a_slot_that_is_not_committed_is_handed_out_again(rings: Rings) -> None:
    ring = rings.new(3)
    writer, reader = RingWriter(ring), RingReader(rings.again(ring))
    kept = put(writer, 0), put(writer, 1)
    first = writer.slot(WIDTH, HEIGHT)  # then decoding failed
    second = writer.slot(WIDTH, HEIGHT)
    assert first is not None
    assert second is not None
    assert [p.ctypes.data for p in first] == [p.ctypes.data for p in second]
    ref = writer.commit(seq=7, t_capture_ns=8)
    assert all(reader.still_valid(r) for r in (*kept, ref))


def test_after_a_writer_killed_while_writing_the_next_one_goes_on(rings: Rings) -> None:
    ring = rings.new(3)
    killed, reader = RingWriter(ring), RingReader(rings.again(ring))
    old = put(killed, 0)
    half_written = killed.slot(WIDTH, HEIGHT)
    assert half_written is not None
    half_written[0][:] = 99
    writer = RingWriter(rings.again(ring))
    assert reader.still_valid(old)
    _, headers = ring.pixels(writable=False)
    assert not any(header[0] & 1 for header in headers)
    refs = [put(writer, seq) for seq in range(10, 13)]
    assert len({(r.index, r.generation) for r in (old, *refs)}) == 4
    for seq, ref in enumerate(refs, 10):
        frame = reader.frame(ref, camera="north")
        assert frame is not None
        assert same(frame, picture(seq))


def test_a_reference_into_an_earlier_ring_is_a_lapped_one(rings: Rings) -> None:
    before, after = rings.new(), rings.new()
    ref = put(RingWriter(before), 0)
    put(RingWriter(after), 0)
    reader = RingReader(after)
    assert reader.frame(ref, camera="north") is None
    assert not reader.still_valid(ref)


def test_who_waits_for_a_picture_hears_once_that_nobody_holds_it(rings: Rings) -> None:
    ring, heard = rings.new(), []
    ref = put(RingWriter(ring), 0)
    frame = RingReader(rings.again(ring)).frame(ref, camera="north", done=lambda: heard.append("done"))
    assert frame is not None
    renamed = replace(frame, camera="south")
    del frame
    assert heard == []
    assert renamed.whole
    del renamed
    assert heard == ["done"]


def test_a_picture_that_was_overwritten_is_not_held(rings: Rings) -> None:
    ring, heard = rings.new(2), []
    writer = RingWriter(ring)
    ref = put(writer, 0)
    put(writer, 1)
    put(writer, 2)
    assert RingReader(ring).frame(ref, camera="north", done=lambda: heard.append("done")) is None
    assert heard == [], "whoever asked knows already"


# two processes ------------------------------------------------------------------------------------------------------------------

_WRITE_AS_FAST_AS_POSSIBLE = """
import sys
from posepipe.pipeline.ring import FrameRing
from posepipe.pipeline.ringends import RingWriter

writer = RingWriter(FrameRing.attach(int(sys.argv[1])))
for seq in range(20_000):
    for plane in writer.slot(64, 48):
        plane[:] = seq % 251
    writer.commit(seq=seq, t_capture_ns=seq)
"""


def _process(code: str, ring: FrameRing) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, str(ring.fd)], pass_fds=(ring.fd,), stdout=subprocess.PIPE, stdin=subprocess.PIPE)


def test_what_passed_as_whole_was_never_torn(rings: Rings) -> None:
    ring = rings.new(2)
    reader = RingReader(ring)
    _, headers = ring.pixels(writable=False)
    good = 0
    with _process(_WRITE_AS_FAST_AS_POSSIBLE, ring) as process:
        ended = False
        while not ended:
            ended = process.poll() is not None
            for index in range(ring.slots):
                ref = SlotRef(ring.id, index, headers[index][0])
                frame = reader.frame(ref, camera="north") if ref.generation and not ref.generation & 1 else None
                if frame is None:
                    continue
                values = {int(v) for plane in frame.planes for v in (plane.min(), plane.max())}
                if frame.whole:
                    good += 1
                    assert values == {frame.seq % 251} == {frame.t_capture_ns % 251}
        assert process.returncode == 0
    assert good > 0


_HOLD = """
import sys
from posepipe.pipeline.ring import FrameRing, SlotRef
from posepipe.pipeline.ringends import RingReader

reader = RingReader(FrameRing.attach(int(sys.argv[1])))
frame = reader.frame(SlotRef(*map(int, sys.stdin.readline().split())), camera="north")
print(frame.seq, flush=True)
sys.stdin.read()
"""


def test_a_reader_that_is_killed_while_it_holds_a_picture_holds_up_nobody(rings: Rings) -> None:
    ring = rings.new(2)
    writer = RingWriter(ring)
    ref = put(writer, 7)
    with _process(_HOLD, ring) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{ref.ring} {ref.index} {ref.generation}\n".encode())
        process.stdin.flush()
        assert process.stdout.readline() == b"7\n"
        process.kill()
    assert [put(writer, seq).generation for seq in (8, 9, 10)] == [2, 4, 4]
