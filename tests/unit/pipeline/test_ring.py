from __future__ import annotations

import gc
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.pipeline import ringmemory
from posepipe.pipeline.errors import RunError
from posepipe.pipeline.packet import Frame, PixelFormat
from posepipe.pipeline.ring import FrameRing, SlotRef, plane_layouts
from posepipe.pipeline.ringends import RingReader, RingWriter

WIDTH, HEIGHT = 64, 48
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Rings:
    """Rings that are closed after the test; `again` attaches as another process would."""

    def __init__(self) -> None:
        self._closing = ExitStack()

    def new(self, slots: int = 3, *, credits: bool = False) -> FrameRing:
        return self._kept(FrameRing.create(slots, WIDTH, HEIGHT, credits=credits))

    def again(self, ring: FrameRing) -> FrameRing:
        return self._kept(FrameRing.attach(tuple(os.dup(fd) for fd in ring.fds)))

    def _kept(self, ring: FrameRing) -> FrameRing:
        self._closing.callback(ring.close)
        return ring

    def close(self) -> None:
        self._closing.close()


@pytest.fixture
def rings() -> Iterator[Rings]:
    made = Rings()
    yield made
    made.close()


def picture(seq: int, *, width: int = WIDTH, height: int = HEIGHT, format: PixelFormat = "i420", pad: int = 0) -> Frame:
    """Random planes; `pad` makes strided views of wider rows."""
    rng = np.random.default_rng(seq)
    planes = []
    for layout in plane_layouts(width, height, format):
        wide = rng.integers(0, 256, (layout.shape[0], layout.shape[1] + pad, *layout.shape[2:]), np.uint8)
        planes.append(wide[:, : layout.shape[1]])
    return Frame("north", seq, 1_700_000_000_000_000_000 + seq, format, width, height, tuple(planes), bool(seq % 2))


def put(writer: RingWriter, seq: int) -> SlotRef:
    ref = writer.put(picture(seq))
    assert ref is not None
    return ref


def same(a: Frame, b: Frame) -> bool:
    metadata = [(f.camera, f.seq, f.t_capture_ns, f.format, f.width, f.height, f.full_range) for f in (a, b)]
    return metadata[0] == metadata[1] and all(np.array_equal(p, q) for p, q in zip(a.planes, b.planes, strict=True))


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
    assert reader.still_valid(refs[0])
    put(writer, 3)
    assert not reader.still_valid(refs[0])
    assert reader.frame(refs[0], camera="north") is None
    assert not reader.release(refs[0])
    assert reader.lapped == 2
    assert reader.frame(refs[1], camera="north") is not None
    assert reader.release(refs[1])
    assert reader.lapped == 2


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
    assert reader.lapped == 1


# credits ------------------------------------------------------------------------------------------------------------------------


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


# what can go wrong --------------------------------------------------------------------------------------------------------------


def test_a_ring_needs_two_slots() -> None:
    with pytest.raises(RunError, match="a frame ring of 1 slots") as e:
        FrameRing.create(1, WIDTH, HEIGHT)
    assert "at least 2" in e.value.hint


def test_a_picture_that_outgrew_the_ring_is_refused(rings: Rings) -> None:
    ring = rings.new()
    with pytest.raises(RunError, match="a picture of 65x48 for a frame ring of 64x48") as e:
        RingWriter(ring).slot(65, 48)
    assert "new ring" in e.value.hint


@pytest.mark.parametrize("size", [0, 100, 1 << 20])
def test_memory_that_is_no_ring_is_refused(size: int) -> None:
    fd = os.memfd_create("other")
    os.ftruncate(fd, size)
    with pytest.raises(RunError, match="no frame ring"):
        FrameRing.attach((fd,))
    os.close(fd)


def test_a_ring_of_another_layout_is_refused(rings: Rings) -> None:
    ring = rings.new()
    memory, _ = ring.pixels(writable=True)
    np.frombuffer(memory, np.int64)[1] = 7
    with pytest.raises(RunError, match="a frame ring of layout 7, this is layout 1") as e:
        rings.again(ring)
    assert "same posepipe" in e.value.hint


def test_a_ring_with_credits_needs_its_bell(rings: Rings) -> None:
    ring = rings.new(credits=True)
    with pytest.raises(RunError, match=f"{ring.size} bytes and 3 descriptors came as {ring.size} bytes and 1"):
        FrameRing.attach(ring.fds[:1])


def test_calls_that_make_no_sense_say_so(rings: Rings) -> None:
    live, lossless = rings.new(), rings.new(credits=True)
    with pytest.raises(RunError, match="no credits"):
        RingWriter(live).seat(0)
    with pytest.raises(RunError, match="no credits"):
        RingReader(live, seat=0)
    with pytest.raises(RunError, match="no credits"):
        live.evict(0)
    with pytest.raises(RunError, match="seat 16"):
        RingWriter(lossless).seat(16)
    with pytest.raises(RunError, match="seat -1"):
        lossless.evict(-1)
    with pytest.raises(RunError, match="commit without a slot"):
        RingWriter(live).commit(seq=0, t_capture_ns=0)
    with pytest.raises(RunError, match="slot 3 of a frame ring of 3"):
        RingReader(live).frame(SlotRef(live.id, 3, 2), camera="north")


def test_memory_that_cannot_be_had_is_one_message_and_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    monkeypatch.setattr(os, "close", lambda fd, close=os.close: (closed.append(fd), close(fd)))
    with pytest.raises(RunError, match="no 24 MiB of shared memory for frames: No space left on device") as e:
        FrameRing.create(8, 1920, 1080)
    assert "fewer slots" in e.value.hint
    assert len(closed) == 1


# nothing stays ------------------------------------------------------------------------------------------------------------------


@linux
@pytest.mark.parametrize("has_memfd", [True, False])
def test_the_memory_has_no_name_that_a_kill_could_leave(has_memfd: bool, rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_memfd:
        monkeypatch.delattr(os, "memfd_create")
    ring = rings.new()
    assert os.readlink(f"/proc/self/fd/{ring.fds[0]}").endswith(" (deleted)")
    assert os.fstat(ring.fds[0]).st_nlink == 0
    frame = RingReader(rings.again(ring)).frame(put(RingWriter(ring), 4), camera="north")
    assert frame is not None
    assert same(frame, picture(4))


@linux
def test_nobody_can_shrink_the_ring_under_the_others(rings: Rings) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(rings.new().fds[0], 0)


def test_a_picture_that_is_held_outlives_the_ring() -> None:
    ring = FrameRing.create(2, WIDTH, HEIGHT)
    frame = RingReader(ring).frame(put(RingWriter(ring), 4), camera="north")
    ring.close()
    del ring
    assert frame is not None
    assert same(frame, picture(4))


@linux
def test_descriptors_and_mappings_stay_constant_over_pictures_and_go_with_the_ring() -> None:
    def held() -> tuple[int, int]:
        with open("/proc/self/maps") as maps:
            return len(os.listdir("/proc/self/fd")), sum("posepipe-ring" in line for line in maps)

    gc.collect()  # rings of earlier tests that only a cycle still holds
    before = held()
    ring = FrameRing.create(3, WIDTH, HEIGHT, credits=True)
    writer, reader = RingWriter(ring), RingReader(ring, seat=0)
    writer.seat(0)
    held_by_both = held()
    for seq in range(300):
        ref = put(writer, seq)
        frame = reader.frame(ref, camera="north")
        assert reader.release(ref)
    assert held() == held_by_both
    ring.close()
    del ring, writer, reader, frame
    assert held() == before


# two processes ------------------------------------------------------------------------------------------------------------------

_WRITE_AS_FAST_AS_POSSIBLE = """
import sys
from posepipe.pipeline.ring import FrameRing
from posepipe.pipeline.ringends import RingWriter

writer = RingWriter(FrameRing.attach(tuple(map(int, sys.argv[1:]))))
for seq in range(20_000):
    for plane in writer.slot(64, 48):
        plane[:] = seq % 251
    writer.commit(seq=seq, t_capture_ns=seq)
"""


def _process(code: str, ring: FrameRing) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, ring.fds)], pass_fds=ring.fds, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )


def test_what_is_released_as_good_was_never_torn(rings: Rings) -> None:
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
                if reader.release(ref):
                    good += 1
                    assert values == {frame.seq % 251} == {frame.t_capture_ns % 251}
        assert process.returncode == 0
    assert good > 0


_HOLD = """
import sys
from posepipe.pipeline.ring import FrameRing
from posepipe.pipeline.ringends import RingReader

reader = RingReader(FrameRing.attach(tuple(map(int, sys.argv[1:]))), seat=0)
print("here", flush=True)
sys.stdin.read()
"""


def test_a_killed_reader_leaves_nothing_behind_but_what_eviction_frees(rings: Rings) -> None:
    ring = rings.new(2, credits=True)
    writer = RingWriter(ring)
    writer.seat(0)
    with _process(_HOLD, ring) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        put(writer, 0)
        put(writer, 1)
        process.kill()
    assert writer.put(picture(2)) is None
    ring.evict(0)
    assert put(writer, 2).generation == 4


# order --------------------------------------------------------------------------------------------------------------------------


def test_where_stores_may_change_places_a_compiled_fence_keeps_them(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ringmemory.platform, "machine", lambda: "aarch64")
    fence = ringmemory.memory_fence()
    assert "fence seq_cst" in fence.inspect_llvm(())  # type: ignore[attr-defined]
    ring = rings.new()
    frame = RingReader(rings.again(ring)).frame(put(RingWriter(ring), 2), camera="north")
    assert frame is not None
    assert same(frame, picture(2))
