"""The two ends of a frame ring: the writer, in the process that decodes, and the readers, in any other.

Every slot has a generation, which makes it a sequence lock: odd while it is written, even and new when it is committed. A
picture is whole if the generation is that of the reference before the first look and after the last. It is one aligned 8-byte
word, stored by a native memoryview: one move (`struct.pack_into("<q")` would write it byte by byte). `memory_fence` keeps the order.

An end belongs to one thread; `lend` and `unpin` may be called by another.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from .errors import RunError
from .loans import Loan
from .packet import U8, Frame, PixelFormat
from .ring import FORMATS, HEADER_WORDS, FrameRing, PlaneLayout, SlotRef, plane_layouts
from .ringmemory import memory_fence

# Words of a slot's header; from _PLANES on the offset (from the slot's start) and the row stride of each plane, in bytes.
_HEADER_BYTES = HEADER_WORDS * 8
_SPARE = 6  # slots that are never lent: a decoder that keeps all it got must not take the camera's last ones
_GENERATION, _SEQ, _T_CAPTURE, _WIDTH, _HEIGHT, _FORMAT, _FULL_RANGE, _PLANES = range(8)


def _views(memory: mmap.mmap, begin: int, layouts: tuple[PlaneLayout, ...], offsets: list[int]) -> tuple[U8, ...]:
    """The planes of the slot that begins there; offsets: those of each plane from the slot's start, and its row stride, in turn."""
    return tuple(
        np.ndarray(plane.shape, np.uint8, memory, begin + offset, (stride, 1) if len(plane.shape) == 2 else (stride, 2, 1))
        for plane, offset, stride in zip(layouts, offsets[::2], offsets[1::2], strict=False)
    )


class RingWriter:
    """Writes pictures into slots.

    A slot that a killed writer left half written was never referred to, and is used again. What readers still hold of the old
    writer may then be overwritten, and they notice.
    """

    def __init__(self, ring: FrameRing) -> None:
        self._ring = ring
        self._memory, self._headers = ring.pixels(writable=True)
        self._fence = memory_fence()
        self._open: int | None = None
        self._order = list(range(ring.slots))  # the slot committed longest ago first
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        room = ring.slot_bytes - _HEADER_BYTES
        self._loans = [Loan(self._base + ring.slot_at(i) + _HEADER_BYTES, room, self._memory) for i in range(ring.slots)]
        # The views into a slot are made once per picture size: a cold processor is slow at everything but copying.
        self._geometry: list[tuple[tuple[int, int, int], list[int]] | None] = [None] * ring.slots
        self._planes: list[tuple[U8, ...]] = [()] * ring.slots
        self._pins: dict[int, tuple[int, int]] = {}  # slot -> generation, how many lossless links still need it
        self._taking = threading.RLock()
        self._last: tuple[tuple[int, int], SlotRef] | None = None
        for header in self._headers:
            header[_GENERATION] += header[_GENERATION] & 1

    def put(self, frame: Frame, *, pin: bool = False) -> SlotRef | None:
        """Put a picture into a slot, once however often it is asked for: copied, or where it is when it was made in a slot that was lent.
        None when every slot is pinned."""
        with self._taking:
            if self._last is None or self._last[0] != (frame.seq, frame.t_capture_ns) or not self._stands(self._last[1]):
                if not self._is_here(frame):
                    planes = self.slot(frame.width, frame.height, frame.format)
                    if planes is None:
                        return None
                    for plane, source in zip(planes, frame.planes, strict=True):
                        np.copyto(plane, source)
                ref = self.commit(seq=frame.seq, t_capture_ns=frame.t_capture_ns, full_range=frame.full_range)
                self._last = (frame.seq, frame.t_capture_ns), ref
            ref = self._last[1]
            if pin:
                _, count = self._pins.get(ref.index, (0, 0))
                self._pins[ref.index] = ref.generation, count + 1
            return ref

    def lend(self, size: int) -> Loan | None:
        """Memory for a picture (`loans.Lend`); None when it would take more than a slot, and while no more than a few slots are free."""
        if size > self._ring.slot_bytes - _HEADER_BYTES:
            return None
        with self._taking:
            free = self._free(_SPARE + 1)
            if len(free) <= _SPARE:
                return None
            self._begin(free[0])
            self._order.remove(free[0])
            self._order.append(free[0])
            return self._loans[free[0]]

    def _stands(self, ref: SlotRef) -> bool:
        """Whether the slot has not been lent to somebody since."""
        return bool(self._headers[ref.index][_GENERATION] == ref.generation)

    def _is_here(self, frame: Frame) -> bool:
        """Open the slot in which a picture was made, if it was in one. Not one that was shown before: its readers may still look."""
        # Not `__array_interface__`: every time it leaves its keys in Python's table of names, which grows by that.
        begins = [plane.ctypes.data - self._base for plane in frame.planes]
        index = (begins[0] - self._ring.slot_at(0)) // self._ring.slot_bytes
        if not 0 <= index < self._ring.slots or self._open is not None or not self._headers[index][_GENERATION] & 1:
            return False
        at = self._ring.slot_at(index)
        offsets = [number for begin, plane in zip(begins, frame.planes, strict=True) for number in (begin - at, plane.strides[0])]
        if self._describe(index, (frame.width, frame.height, FORMATS.index(frame.format)), offsets):
            self._planes[index] = ()
        self._open = index
        return True

    def slot(self, width: int, height: int, format: PixelFormat = "i420") -> tuple[U8, ...] | None:
        """Planes to decode into (shapes as in `Frame`, contents undefined), None when every slot is pinned.

        A slot that is not committed is what the next call hands out. RunError for a picture that is larger than the ring's.
        """
        if width > self._ring.width or height > self._ring.height:
            raise RunError(
                f"a picture of {width}x{height} for a frame ring of {self._ring.width}x{self._ring.height}",
                hint="the camera changed its size: make a new ring and hand it on",
            )
        with self._taking:
            if self._open is None:
                free = self._free(1)
                if not free:
                    return None
                self._begin(free[0])
                self._open = free[0]
            layouts = plane_layouts(width, height, format)
            offsets = [number for plane in layouts for number in (plane.offset, plane.stride)]
            if self._describe(self._open, (width, height, FORMATS.index(format)), offsets) or not self._planes[self._open]:
                self._planes[self._open] = _views(self._memory, self._ring.slot_at(self._open), layouts, offsets)
            return self._planes[self._open]

    def _begin(self, index: int) -> None:
        """From now on nobody finds a picture there. (It may be odd already: lent, and never shown.)"""
        self._headers[index][_GENERATION] |= 1
        self._fence()

    def _describe(self, index: int, geometry: tuple[int, int, int], offsets: list[int]) -> bool:
        """Say in the slot's header where its planes lie. False when it says so already."""
        if self._geometry[index] == (geometry, offsets):
            return False
        for word, number in enumerate((*geometry, 0, *offsets), _WIDTH):
            self._headers[index][word] = number
        self._geometry[index] = geometry, offsets
        return True

    def commit(self, *, seq: int, t_capture_ns: int, full_range: bool = False) -> SlotRef:
        """The slot holds its picture: readers may look."""
        index = self._open
        if index is None:
            raise RunError("a commit without a slot", hint="take one with slot() first")
        header = self._headers[index]
        header[_SEQ], header[_T_CAPTURE], header[_FULL_RANGE] = seq, t_capture_ns, full_range
        generation = header[_GENERATION] + 1
        self._fence()
        header[_GENERATION] = generation
        with self._taking:
            self._open = None
            self._order.remove(index)
            self._order.append(index)
        return SlotRef(self._ring.id, index, generation)

    def unpin(self, ref: SlotRef) -> None:
        """A lossless link has done with that picture. Any thread may."""
        with self._taking:
            if ref.ring == self._ring.id and self._pins.get(ref.index, (0, 0))[0] == ref.generation:
                generation, count = self._pins.pop(ref.index)
                if count > 1:
                    self._pins[ref.index] = generation, count - 1

    def _free(self, most: int) -> list[int]:
        """The first slots, `most` at the most, that are neither pinned nor held by whom they were lent to; committed longest ago first."""
        free = (i for i in self._order if i != self._open and i not in self._pins and not self._loans[i].busy)
        return list(islice(free, most))


@dataclass(slots=True)
class Lease:
    """A picture in a slot while somebody holds its frame. done: called when nobody does any more."""

    reader: RingReader
    ref: SlotRef
    done: Callable[[], None] | None = None

    @property
    def whole(self) -> bool:
        """Whether everything that was read of that picture until now was it, and nothing newer."""
        return self.reader.still_valid(self.ref)

    def __del__(self) -> None:
        if self.done is not None:
            self.done()


class RingReader:
    """Looks at pictures in their slots."""

    def __init__(self, ring: FrameRing) -> None:
        self._ring = ring
        self._memory, self._headers = ring.pixels(writable=False)
        self._fence = memory_fence()
        self._geometry: list[tuple[int, int, int, list[int]] | None] = [None] * ring.slots
        self._planes: list[tuple[U8, ...]] = [()] * ring.slots

    def frame(self, ref: SlotRef, *, camera: str, done: Callable[[], None] | None = None) -> Frame | None:
        """The picture as read-only views into its slot; None when it has been overwritten or is of an earlier ring.

        done: called when the frame is held by nobody any more.
        """
        if ref.ring == self._ring.id and not 0 <= ref.index < self._ring.slots:
            raise RunError(
                f"slot {ref.index} of a frame ring of {self._ring.slots}", where=f"camera {camera}", hint="report this: it is a bug"
            )
        if not self.still_valid(ref):
            return None
        self._fence()
        _, seq, t_capture_ns, width, height, format_, full_range, *offsets = self._headers[ref.index].tolist()
        if not self.still_valid(ref):
            return None
        geometry = (width, height, format_, offsets)
        if self._geometry[ref.index] != geometry:
            layouts = plane_layouts(width, height, FORMATS[format_])
            self._planes[ref.index] = _views(self._memory, self._ring.slot_at(ref.index), layouts, offsets)
            self._geometry[ref.index] = geometry
        lease = Lease(self, ref, done)
        return Frame(camera, seq, t_capture_ns, FORMATS[format_], width, height, self._planes[ref.index], bool(full_range), ref, lease)

    def still_valid(self, ref: SlotRef) -> bool:
        """Whether everything that was read of that picture until now was it, and nothing newer."""
        self._fence()
        return ref.ring == self._ring.id and self._headers[ref.index][_GENERATION] == ref.generation
