"""Frames between processes: a ring of slots in shared memory, one writer, any number of readers, no name, no copy for a reader.

    ring = FrameRing.create(8, width=1920, height=1080)     # whoever has it hands `ring.fds` on: pass_fds, or SCM_RIGHTS
    writer = RingWriter(FrameRing.attach(fds))              # in the capture process
    ref = writer.put(frame)                                 # or slot(), decode into its planes, commit()
    reader = RingReader(FrameRing.attach(fds))              # in any other
    frame = reader.frame(ref, camera="north")               # views into the slot; None when the writer was faster
    ...
    usable = reader.release(ref)                            # False: overwritten meanwhile, what was made of it is void

A `SlotRef` travels in the header message (`headers`). Live, the writer takes the oldest slot, and a reader that was too slow
notices. With `credits` the writer takes no slot that a seated reader has still to release, and the slots of a reader that died
come free by `evict`. This file is the memory and its descriptors, `ringends` the two ends.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .errors import RunError
from .packet import I64, PixelFormat
from .ringmemory import anonymous_memory, close_all, mapped

LAYOUT = 1
SEATS = 16
FORMATS: tuple[PixelFormat, ...] = ("i420", "nv12")
HEADER_WORDS = 16
_MAGIC = int.from_bytes(b"pposring", "little") >> 1
_PAGE = mmap.ALLOCATIONGRANULARITY
_ALIGN = 64
_SAME_BUILD = "all processes of a studio need the same posepipe"


@dataclass(frozen=True, slots=True)
class SlotRef:
    """One committed picture; good for as long as the slot's generation is this one."""

    ring: int
    index: int
    generation: int


@dataclass(frozen=True, slots=True)
class PlaneLayout:
    """Where a plane lies in its slot. offset and stride in bytes."""

    shape: tuple[int, ...]
    offset: int
    stride: int


@lru_cache(maxsize=32)
def plane_layouts(width: int, height: int, format: PixelFormat) -> tuple[PlaneLayout, ...]:
    """The planes of a picture behind the slot's header; rows and planes begin at multiples of 64 bytes, odd sizes round chroma up."""
    half = (height + 1) // 2, (width + 1) // 2
    shapes: tuple[tuple[int, ...], ...] = ((height, width), half, half) if format == "i420" else ((height, width), (*half, 2))
    planes, end = [], HEADER_WORDS * 8
    for shape in shapes:
        planes.append(PlaneLayout(shape, end, _round_up(shape[1] * (shape[2] if len(shape) == 3 else 1), _ALIGN)))
        end += planes[-1].stride * shape[0]
    return tuple(planes)


def _slot_bytes(width: int, height: int) -> int:
    last = (plane_layouts(width, height, format)[-1] for format in FORMATS)
    return _round_up(max(plane.offset + plane.stride * plane.shape[0] for plane in last), _PAGE)


def _round_up(n: int, to: int) -> int:
    return -(-n // to) * to


class FrameRing:
    """A ring as its descriptors: what a supervisor holds and hands on. Maps no pixels.

    fds: the memory; with credits also the two ends of the bell that tells a waiting writer of a free slot. They belong to this
    object: `close` it after its ends; frames that are still held stay readable.
    """

    def __init__(self, fds: tuple[int, ...], constants: list[int]) -> None:
        magic, layout, self.id, self.slots, self.slot_bytes, self.width, self.height, credits = constants
        if magic != _MAGIC or layout != LAYOUT:
            what = f"a frame ring of layout {layout}, this is layout {LAYOUT}" if magic == _MAGIC else "shared memory that is no frame ring"
            raise RunError(what, hint=_SAME_BUILD)
        self.fds = fds
        self.credits = bool(credits)
        self._row_bytes = _round_up(8 * self.slots, _ALIGN)
        self._slots_at = _PAGE + _round_up(8 * SEATS + SEATS * self._row_bytes, _PAGE)
        self.size = self._slots_at + self.slots * self.slot_bytes
        self._seats: I64 | None = None

    @classmethod
    def create(cls, slots: int, width: int, height: int, *, credits: bool = False) -> FrameRing:
        """A new ring for pictures of up to width x height. Its memory is taken here and now; RunError when the machine has not that much."""
        if slots < 2:
            raise RunError(f"a frame ring of {slots} slots", hint="one is read while the next is written: at least 2")
        constants = [_MAGIC, LAYOUT, secrets.randbits(62), slots, _slot_bytes(width, height), width, height, int(credits)]
        ring = cls((), constants)
        memory = anonymous_memory(ring.size)
        np.frombuffer(mapped(memory, _PAGE, writable=True), np.int64)[: len(constants)] = constants
        ring.fds = (memory, *os.pipe()) if credits else (memory,)
        for end in ring.fds[1:]:
            os.set_blocking(end, False)
        return ring

    @classmethod
    def attach(cls, fds: tuple[int, ...]) -> FrameRing:
        """The ring behind descriptors that came from another process, in the order of `fds`; takes them over. RunError when it is none."""
        size = os.fstat(fds[0]).st_size
        if size < _PAGE:
            raise RunError(f"{size} bytes of shared memory that are no frame ring", hint=_SAME_BUILD)
        ring = cls(tuple(fds), np.frombuffer(mapped(fds[0], _PAGE, writable=False), np.int64)[:8].tolist())
        wanted = 3 if ring.credits else 1
        if size != ring.size or len(fds) != wanted:
            raise RunError(
                f"a frame ring of {ring.size} bytes and {wanted} descriptors came as {size} bytes and {len(fds)}", hint=_SAME_BUILD
            )
        return ring

    def evict(self, seat: int) -> None:
        """A reader is gone: what it had not released comes free. Any process may call it; only then may the seat be given again."""
        if self._seats is None:
            self._seats = self.credit_words()[0]
        self._seats[seat_number(seat)] = 0
        self.ring_bell()

    def pixels(self, *, writable: bool) -> tuple[mmap.mmap, list[memoryview]]:
        """The whole ring mapped, and the header of every slot in it: HEADER_WORDS words of 8 bytes."""
        memory = mapped(self.fds[0], self.size, writable=writable)
        words = memoryview(memory).cast("q")
        return memory, [words[self.slot_at(i) // 8 :][:HEADER_WORDS] for i in range(self.slots)]

    def slot_at(self, index: int) -> int:
        """Where a slot begins in the mapping, bytes."""
        return self._slots_at + index * self.slot_bytes

    def credit_words(self) -> tuple[I64, I64]:
        """seats [SEATS]: 1 where a reader sits; released [SEATS, slots]: the generation that it gave back last.

        All that a reader ever writes, each in cache lines of its own: one process stores a word at a time, so plain stores do.
        """
        if not self.credits:
            raise RunError("this frame ring has no credits", hint="create it with credits=True for links that must not lose frames")
        words = mapped(self.fds[0], self._slots_at - _PAGE, writable=True, offset=_PAGE)
        seats: I64 = np.ndarray((SEATS,), np.int64, words)
        return seats, np.ndarray((SEATS, self.slots), np.int64, words, 8 * SEATS, (self._row_bytes, 8))

    def ring_bell(self) -> None:
        """Wake the writer, if it waits for room."""
        with contextlib.suppress(BlockingIOError):  # full of earlier rings: it will wake
            os.write(self.fds[2], b"\0")

    def close(self) -> None:
        close_all(self.fds)
        self.fds = ()


def seat_number(seat: int) -> int:
    if not 0 <= seat < SEATS:
        raise RunError(f"seat {seat} at a frame ring", hint=f"there are seats 0 to {SEATS - 1}")
    return seat
