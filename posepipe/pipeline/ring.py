"""Frames between processes: a ring of slots in shared memory, one writer, any number of readers, no name, no copy for a reader.

    ring = FrameRing.create(8, width=1920, height=1080)     # whoever has it hands `ring.fd` on (SCM_RIGHTS, pass_fds)
    writer = RingWriter(FrameRing.attach(fd))               # in the capture process
    ref = writer.put(frame)                                 # or slot(), decode into its planes, commit()
    reader = RingReader(FrameRing.attach(fd))               # in any other
    frame = reader.frame(ref, camera="north")               # views into the slot; None when the writer was faster
    ...
    usable = frame.lease.whole                              # False: overwritten meanwhile, what was made of it is void

A `SlotRef` travels in the header message (`headers`). The writer takes the oldest slot, and a reader that was too slow notices:
no reader, dead or slow, can hold up a camera. A lossless link pins its slots in the writer until its reader has said that it is
done (`remote`). This file is the memory and its descriptor, `ringends` the two ends.
"""

from __future__ import annotations

import mmap
import os
import secrets
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .errors import RunError
from .packet import PixelFormat
from .ringmemory import anonymous_memory, close, mapped

LAYOUT = 2
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
    """For a picture as it is shown, in every layout, and as a decoder makes it: in whole blocks of up to 128 pixels (`nodes._in_place`)."""
    return _round_up(HEADER_WORDS * 8 + (_round_up(width, 128) * (_round_up(height, 64) + 8) * 3) // 2 + 1024, _PAGE)


def _round_up(n: int, to: int) -> int:
    return -(-n // to) * to


class FrameRing:
    """A ring as its descriptor: what a supervisor holds and hands on. Maps no pixels.

    fd belongs to this object: `close` it after its ends are made; frames that are still held stay readable.
    """

    def __init__(self, fd: int, constants: list[int]) -> None:
        magic, layout, self.id, self.slots, self.slot_bytes, self.width, self.height = constants
        if magic != _MAGIC or layout != LAYOUT:
            what = f"a frame ring of layout {layout}, this is layout {LAYOUT}" if magic == _MAGIC else "shared memory that is no frame ring"
            raise RunError(what, hint=_SAME_BUILD)
        self.fd = fd
        self.size = _PAGE + self.slots * self.slot_bytes

    @classmethod
    def create(cls, slots: int, width: int, height: int) -> FrameRing:
        """A new ring for pictures of up to width x height. Its memory is taken here and now; RunError when the machine has not that much."""
        if slots < 2:
            raise RunError(f"a frame ring of {slots} slots", hint="one is read while the next is written: at least 2")
        constants = [_MAGIC, LAYOUT, secrets.randbits(62), slots, _slot_bytes(width, height), width, height]
        ring = cls(-1, constants)
        ring.fd = anonymous_memory(ring.size)
        np.frombuffer(mapped(ring.fd, _PAGE, writable=True), np.int64)[: len(constants)] = constants
        return ring

    @classmethod
    def attach(cls, fd: int) -> FrameRing:
        """The ring behind a descriptor that came from another process; takes it over. RunError when it is none."""
        size = os.fstat(fd).st_size
        if size < _PAGE:
            raise RunError(f"{size} bytes of shared memory that are no frame ring", hint=_SAME_BUILD)
        ring = cls(fd, np.frombuffer(mapped(fd, _PAGE, writable=False), np.int64)[:7].tolist())
        if size != ring.size:
            raise RunError(f"a frame ring of {ring.size} bytes came as {size} bytes", hint=_SAME_BUILD)
        return ring

    def pixels(self, *, writable: bool) -> tuple[mmap.mmap, list[memoryview]]:
        """The whole ring mapped, and the header of every slot in it: HEADER_WORDS words of 8 bytes."""
        memory = mapped(self.fd, self.size, writable=writable)
        words = memoryview(memory).cast("q")
        return memory, [words[self.slot_at(i) // 8 :][:HEADER_WORDS] for i in range(self.slots)]

    def slot_at(self, index: int) -> int:
        """Where a slot begins in the mapping, bytes."""
        return _PAGE + index * self.slot_bytes

    def close(self) -> None:
        close(self.fd)
        self.fd = -1
