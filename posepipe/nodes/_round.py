"""One playing of a recording, from its first packet to its last."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any

import av
import av.error

from ._stream import Stream

_LOOKAHEAD = 20  # packets; deeper than the reordering of any H.264 or HEVC stream (16)
HELD_BACK = 2  # packets that a decoder which reorders takes before it gives its first picture


def pts_of(v: av.VideoFrame) -> int:
    """Presentation time in ticks, -1 where there is none."""
    return v.pts if v.pts is not None else -1


class Round(Stream):
    """The packets of a file whose presentation times are known (`times`, a heap of ticks) and those not decoded yet (`waiting`; None at the
    end). ready: pictures that are decoded. hidden: pictures that the file's edit list cuts off. delivered, lost: what `take` has done.
    """

    def __init__(self, container: Any, *, where: str) -> None:
        super().__init__(container, where=where)
        self.where = where
        self.tick_s = float(self._stream.time_base)
        self.promised: int = self._stream.frames
        codec = self._stream.codec_context
        # AVI has no presentation times: of reordered H.264 the packets' are guesses, and only the order of the pictures is right.
        self._by_order = container.format.name == "avi" and codec.name in ("h264", "hevc") and codec.has_b_frames
        self._fresh = True

    def begin(self) -> None:
        """Go to the start and read on until the first presentation times are known. FFmpegError, OSError where it cannot be gone back to."""
        if not self._fresh:
            self._container.seek(0, stream=self._stream, any_frame=False, backward=True)
            self._stream.codec_context.flush_buffers()
        self._fresh = False
        self._packets = self._container.demux(self._stream)
        self.waiting: deque[Any] = deque()
        self.times: list[int] = []
        self._ready: deque[av.VideoFrame] = deque()
        self._flushed = False
        self.delivered = self.lost = self.hidden = self.last = 0
        self._held_back = 0
        self.look_ahead()

    def make_ready(self, upcoming: int = HELD_BACK) -> None:
        """Decode the packets that a decoder that reorders has taken by the time its first picture is due, `upcoming` of them at most.

        With them, the first picture of a round costs what the others cost.
        """
        while self._held_back < min(upcoming, HELD_BACK) and self._stream.codec_context.has_b_frames:
            self._held_back += 1
            if self.waiting and self.waiting[0] is not None:
                self._ready.extend(f for f in self._decode(self.waiting.popleft()) if f.pts is not None)

    def let_go(self) -> None:
        """After the last picture: the decoder needs no other any more. `begin` must follow."""
        self._stream.codec_context.flush_buffers()

    def look_ahead(self) -> None:
        """Read packets until the next presentation times are known; None marks the end."""
        while len(self.times) < _LOOKAHEAD and not self.ends:
            try:
                packet = next(self._packets)
            except (StopIteration, av.error.FFmpegError, OSError):
                packet = None
            if packet is None or packet.size == 0:
                self.waiting.append(None)
                return
            self.waiting.append(packet)
            if packet.is_discard:
                self.hidden += 1  # cut off by the file's edit list: decoded for those that follow, never shown
            elif packet.pts is not None:
                heapq.heappush(self.times, packet.pts)
            elif not self.times and len(self.waiting) > _LOOKAHEAD:
                return

    @property
    def ends(self) -> bool:
        """Whether all presentation times that are left are known."""
        return bool(self.waiting) and self.waiting[-1] is None

    def rest(self) -> list[int]:
        """The presentation times of all pictures, by reading on to the end; `begin` must follow."""
        shown = [*self.times]
        for packet in self._packets:
            if packet.pts is not None and packet.size and not packet.is_discard:
                shown.append(packet.pts)
        return shown

    def take(self) -> av.VideoFrame | None:
        """Decode on to the next picture; None when it cannot be decoded."""
        due = heapq.heappop(self.times)
        self.last = due
        self.look_ahead()
        ready = self._ready
        while not self._flushed and not (ready and (self._by_order or pts_of(ready[-1]) >= due)):
            packet = self.waiting.popleft()
            self._flushed = packet is None
            ready.extend(f for f in self._decode(packet) if f.pts is not None)
            self.look_ahead()
        while ready and pts_of(ready[0]) < due and not self._by_order:
            ready.popleft()
        frame = ready.popleft() if ready and (self._by_order or pts_of(ready[0]) == due) else None
        if frame is None or frame.is_corrupt:
            self.lost += 1
            return None
        self.delivered += 1
        return frame

    def skip_to(self, packet: Any) -> int:
        """Pass over, without decoding, to a key frame among those that wait. Returns how many pictures that cost."""
        while self.waiting[0] is not packet:
            self.waiting.popleft()
        self._stream.codec_context.flush_buffers()
        self._ready.clear()
        passed = 0
        while self.times[0] < packet.pts:
            self.last = heapq.heappop(self.times)
            passed += 1
        self.look_ahead()
        self.lost += passed
        return passed

    def skip_all(self) -> int:
        """Pass over all pictures whose times are known."""
        passed, self.last = len(self.times), max(self.times)
        self.times.clear()
        self.lost += passed
        return passed
