"""The memory of a ring: what can go wrong with it is refused in words, and nothing of it stays behind."""

from __future__ import annotations

import gc
import os
import sys

import numpy as np
import pytest
from ring_kit import HEIGHT, WIDTH, Rings, picture, put, same

from posepipe.pipeline import ringmemory
from posepipe.pipeline.errors import RunError
from posepipe.pipeline.ring import FrameRing, SlotRef
from posepipe.pipeline.ringends import RingReader, RingWriter

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


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
        FrameRing.attach(fd)
    os.close(fd)


def test_a_ring_of_another_layout_is_refused(rings: Rings) -> None:
    ring = rings.new()
    memory, _ = ring.pixels(writable=True)
    np.frombuffer(memory, np.int64)[1] = 7
    with pytest.raises(RunError, match="a frame ring of layout 7, this is layout 2") as e:
        rings.again(ring)
    assert "same posepipe" in e.value.hint


def test_a_ring_that_came_cut_short_is_refused() -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    whole = FrameRing.create(2, WIDTH, HEIGHT)
    with open(os.dup(whole.fd), "rb") as memory:
        first_page = memory.read(page)
    fd = os.memfd_create("cut")
    os.write(fd, first_page)
    with pytest.raises(RunError, match=f"a frame ring of {whole.size} bytes came as {page} bytes"):
        FrameRing.attach(fd)
    os.close(fd)
    whole.close()


def test_calls_that_make_no_sense_say_so(rings: Rings) -> None:
    ring = rings.new()
    with pytest.raises(RunError, match="commit without a slot"):
        RingWriter(ring).commit(seq=0, t_capture_ns=0)
    with pytest.raises(RunError, match="slot 3 of a frame ring of 3"):
        RingReader(ring).frame(SlotRef(ring.id, 3, 2), camera="north")


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
    assert os.readlink(f"/proc/self/fd/{ring.fd}").endswith(" (deleted)")
    assert os.fstat(ring.fd).st_nlink == 0
    frame = RingReader(rings.again(ring)).frame(put(RingWriter(ring), 4), camera="north")
    assert frame is not None
    assert same(frame, picture(4))


@linux
def test_nobody_can_shrink_the_ring_under_the_others(rings: Rings) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(rings.new().fd, 0)


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
    ring = FrameRing.create(3, WIDTH, HEIGHT)
    writer, reader = RingWriter(ring), RingReader(ring)
    held_by_both = held()
    for seq in range(300):
        ref = put(writer, seq, pin=True)
        frame = reader.frame(ref, camera="north")
        writer.unpin(ref)
    assert held() == held_by_both
    ring.close()
    del ring, writer, reader, frame
    assert held() == before


# order --------------------------------------------------------------------------------------------------------------------------


def test_where_stores_may_change_places_a_compiled_fence_keeps_them(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ringmemory.platform, "machine", lambda: "aarch64")
    fence = ringmemory.memory_fence()
    assert "fence seq_cst" in fence.inspect_llvm(())  # type: ignore[attr-defined]
    ring = rings.new()
    frame = RingReader(rings.again(ring)).frame(put(RingWriter(ring), 2), camera="north")
    assert frame is not None
    assert same(frame, picture(2))
