"""The frame rings of one process: those that its cameras write, and those of other processes that it reads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from .errors import RunError
from .loans import Loan
from .packet import Frame, FrameSet
from .ring import FrameRing
from .ringends import RingReader, RingWriter

_RING_WITHIN_S = 5.0
B = TypeVar("B", Frame, FrameSet)


class Pictures:
    """Puts frames into slots for readers elsewhere, and knows the rings behind the slots that come from elsewhere.

    ask: called with (camera, width, height) when a camera has a picture and no ring that fits; a ring comes by `give`.
    """

    def __init__(self, ask: Callable[[str, int, int], None]) -> None:
        self._ask = ask
        self.readers: dict[int, RingReader] = {}
        self._writers: dict[str, RingWriter] = {}
        self._rings: dict[str, FrameRing] = {}
        self._came = threading.Condition()

    def give(self, camera: str, ring: FrameRing, *, writes: bool, replaces: int = 0) -> None:
        """A ring that came from the supervisor. replaces: the id of one that is read no longer."""
        with self._came:
            if writes:
                if camera not in self._rings or self._rings[camera].id != ring.id:  # its slots may be lent already
                    self._writers[camera] = RingWriter(ring)
                    self._rings[camera] = ring
            else:
                self.readers[ring.id] = RingReader(ring)
                self.readers.pop(replaces, None)
            self._came.notify_all()
        ring.close()  # both ends keep what they mapped

    def lend(self, camera: str, size: int) -> Loan | None:
        """Memory for a picture of that camera, in its ring if there is one (`loans.Lend`)."""
        writer = self._writers.get(camera)
        return writer.lend(size) if writer is not None else None

    def in_slots(self, body: B, *, pin: bool) -> B | None:
        """The body with every frame in a slot that other processes can read; None when no slot is free.

        What was copied is held no longer: its planes are only in the slot.
        """
        if isinstance(body, Frame):
            return self._in_slot(body, pin=pin)
        put = {camera: self._in_slot(frame, pin=pin) for camera, frame in body.frames.items()}
        there = replace(body, frames={camera: frame for camera, frame in put.items() if frame is not None})
        if len(there.frames) < len(put):
            self.unpin(there)
            return None
        return there

    def _in_slot(self, frame: Frame, *, pin: bool) -> Frame | None:
        if frame.slot is not None and not pin:
            return frame
        ref = self._writer(frame).put(frame, pin=pin)
        return None if ref is None else replace(frame, slot=ref, planes=(), lease=None)

    def _writer(self, frame: Frame) -> RingWriter:
        ring = self._rings.get(frame.camera)
        if ring is None or frame.width > ring.width or frame.height > ring.height:
            with self._came:
                self._ask(frame.camera, frame.width, frame.height)
                came = self._came.wait_for(lambda: self._rings.get(frame.camera) is not ring, _RING_WITHIN_S)
            if not came:
                raise RunError(
                    f"no frame ring for {frame.width}x{frame.height} pictures within {_RING_WITHIN_S:.0f} s",
                    where=f"camera {frame.camera}",
                    hint="the supervisor is stuck or out of memory: its log says which",
                )
        return self._writers[frame.camera]

    def unpin(self, body: Frame | FrameSet) -> None:
        """The reader of a lossless link has done with these pictures."""
        for frame in (body,) if isinstance(body, Frame) else body.frames.values():
            writer = self._writers.get(frame.camera)
            if writer is not None and frame.slot is not None:
                writer.unpin(frame.slot)
