"""Recordings through PyAV: presentation times known before decoding."""

from __future__ import annotations

import heapq
import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import av.error

from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.node import FrameLost

from ._live import LiveVideo, Reception, is_live, receive
from ._stream import Picture as Picture
from ._stream import Stream, open_stream
from ._stream import StreamInfo as StreamInfo

_LOOKAHEAD = 20  # packets; deeper than the reordering of any H.264 or HEVC stream (16)
_HELD_BACK = 2
_TIE_S = 1e-6


def _pts(v: av.VideoFrame) -> int:
    return v.pts if v.pts is not None else -1


def open_video(
    uri: str, *, camera: str, resolve: Callable[[str], Path], fps: float | None, options: dict[str, str], reception: Reception
) -> RecordedVideo | LiveVideo:
    """Open a source. SourceError says what is wrong with it and what to do."""
    where = f"camera {camera}"
    if is_live(uri):
        return receive(uri, where=where, fps=fps, options=options, reception=reception)
    if "://" in uri:
        container = open_stream(uri, where=where, options=options, timeout=reception.timeouts_s)
        if container.duration is None:
            return LiveVideo(container, where=where, reception=reception)
        return RecordedVideo(container, where=where, fps=fps)
    return open_file(uri, camera=camera, resolve=resolve, fps=fps, options=options)


def open_file(uri: str, *, camera: str, resolve: Callable[[str], Path], fps: float | None, options: dict[str, str]) -> RecordedVideo:
    """Open a recording on this machine. SourceError says what is wrong with it and what to do."""
    where = f"camera {camera}"
    path = resolve(uri)
    if not path.exists():
        beside = sorted(p.name for p in path.parent.glob("*.mp4")) if path.parent.is_dir() else []
        hint = f"beside it there is: {', '.join(beside)}" if beside else "check the path; it is relative to the studio file"
        raise SourceError(f"there is no file {path}", where=where, hint=hint)
    if path.is_dir():
        raise SourceError(f"{path} is a folder", where=where, hint="name the video file in it")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes)", where=where, hint="record or copy it again")
    _refuse_turned(path, where=where, options=options)
    return RecordedVideo(open_stream(str(path), where=where, options=options), where=where, fps=fps)


def _refuse_turned(path: Path, *, where: str, options: dict[str, str]) -> None:
    """Phones store pictures turned, with a note for the player. Calibrations are made of what players show: silent nonsense otherwise."""
    with open_stream(str(path), where=where, options=options) as container:
        try:
            frame = next(container.decode(video=0), None)
        except (av.error.FFmpegError, ValueError):
            return  # what cannot be decoded is told by the reader
        if frame is not None and frame.rotation:
            raise SourceError(
                f"{path} is stored turned by {frame.rotation} degrees (its display matrix says so)",
                where=where,
                hint="store it upright, as the calibration saw it: ffmpeg -i IN -c:v libx264 -crf 16 OUT.mp4",
            )


class RecordedVideo(Stream):
    """A file. Presentation times are read ahead of decoding, so that a frame can be due before it is decoded.

    `fps` picks, for each point of an even grid, the picture nearest to it.
    """

    def __init__(self, container: Any, *, where: str, fps: float | None) -> None:
        super().__init__(container, where=where)
        self.loop = False
        self.complaint = ""
        self.round_s = 0.0  # a round of the loop lasts at least this long: cameras of different lengths start again together
        self._period_s = 1.0 / self.info.rate_hz if self.info.rate_hz else 0.04
        self._grid_s = 1.0 / fps if fps else None
        if fps:
            frames = self.info.frames and round(self.info.frames * self._period_s * fps)
            self.info = StreamInfo(self.info.width, self.info.height, fps, frames, self.info.codec)
        self._time_base = float(self._stream.time_base)
        codec = self._stream.codec_context
        # AVI has no presentation times: of reordered H.264 the packets' are guesses, and only the order of the pictures is right.
        self._by_order = container.format.name == "avi" and codec.name in ("h264", "hevc") and codec.has_b_frames
        self._base_s = 0.0
        self._pause_s = 0.0, 0.0
        self._slot = 0
        self._shown: tuple[float, av.VideoFrame | None] | None = None
        self._decodable = False
        self._rewind()
        if not self._times:
            container.close()
            if self._waiting and self._waiting[0] is not None:
                hint = "put it into a container: ffmpeg -framerate 30 -i IN -c copy OUT.mp4"
                raise SourceError(f"{container.name} has no time stamps", where=where, hint=hint)
            raise SourceError(f"{container.name} holds no frames", where=where, hint="record or copy it again")
        self._first = self._times[0]
        if self._hidden and self.info.frames and not fps:
            self.info = replace(self.info, frames=self.info.frames - self._hidden)

    def _rewind(self) -> None:
        self._packets = self._container.demux(self._stream)
        self._waiting: deque[Any] = deque()
        self._times: list[int] = []
        self._ready: deque[av.VideoFrame] = deque()
        self._flushed = False
        self._delivered = self._lost = self._hidden = 0
        self._last = 0
        self._look_ahead()
        if self._stream.codec_context.has_b_frames:
            # a decoder that reorders holds packets back at any other time: with them, the first frame of a round costs what the others cost
            for _ in range(_HELD_BACK):
                if self._waiting and self._waiting[0] is not None:
                    self._ready.extend(f for f in self._decode(self._waiting.popleft()) if f.pts is not None)

    def _look_ahead(self) -> None:
        """Read packets until the next presentation times are known; None marks the end."""
        while len(self._times) < _LOOKAHEAD and not (self._waiting and self._waiting[-1] is None):
            try:
                packet = next(self._packets)
            except (StopIteration, av.error.FFmpegError, OSError):
                packet = None
            if packet is None or packet.size == 0:
                self._waiting.append(None)
                return
            self._waiting.append(packet)
            if packet.is_discard:
                self._hidden += 1  # cut off by the file's edit list: decoded for those that follow, never shown
            elif packet.pts is not None:
                heapq.heappush(self._times, packet.pts)
            elif not self._times and len(self._waiting) > _LOOKAHEAD:
                return

    def _time_s(self, pts: int) -> float:
        return self._base_s + (pts - self._first) * self._time_base

    def _end_s(self) -> float:
        """When the last picture that is known so far has been shown."""
        return self._time_s(max(self._times, default=self._last)) + self._period_s

    def next_s(self) -> float | None:
        """Seconds from the start at which the next picture exists, counted through loops; None at the end."""
        more = bool(self._times) or self._again()
        if self._grid_s is not None:
            if self._pause_s[0] - _TIE_S <= self._slot * self._grid_s < self._pause_s[1] - _TIE_S:
                self._slot = math.ceil((self._pause_s[1] - _TIE_S) / self._grid_s)
            at_s = self._slot * self._grid_s
            last = not more or (self._waiting[-1] is None and not self.loop)
            return at_s if not last or at_s < self._end_s() - _TIE_S else None
        return self._time_s(self._times[0]) if more else None

    def _again(self) -> bool:
        """At the end: start again when looping. Says so when the file held less than it promised."""
        promised, had = self._stream.frames, self._delivered + self._lost
        if promised and 0 < had + self._hidden < promised and not self.complaint and self._grid_s is None:
            self.complaint = f"ends after {had} of {promised - self._hidden} frames: the file is truncated"
        if not self.loop or not self._decodable:
            return False
        end_s = self._end_s()
        try:
            self._container.seek(0, stream=self._stream, any_frame=False, backward=True)
        except (av.error.FFmpegError, OSError) as e:
            self.loop, self.complaint = False, f"cannot be played again: {getattr(e, 'strerror', None) or e}"
            return False
        self._base_s = max(end_s, self._base_s + self.round_s)
        self._pause_s = end_s, self._base_s
        self._stream.codec_context.flush_buffers()
        self._rewind()
        if not self._times:
            self.loop, self.complaint = False, "cannot be played again: its server or container cannot go back to the start"
        return bool(self._times)

    def read(self, *, stopping: threading.Event) -> Picture | None:
        """The next picture, or None at the end. FrameLost when the file has it but it cannot be decoded."""
        if self.next_s() is None:
            return None
        return self._read_next() if self._grid_s is None else self._read_nearest(self._slot * self._grid_s)

    def _read_nearest(self, wanted_s: float) -> Picture:
        while self._times or self._again():
            next_s = self._time_s(self._times[0])
            if self._shown is not None and self._shown[0] + next_s > 2 * wanted_s - _TIE_S:
                break
            try:
                self._shown = next_s, self._read_next().video_frame
            except FrameLost:
                self._shown = next_s, None
        self._slot += 1
        if self._shown is None or self._shown[1] is None:
            raise FrameLost("corrupt picture")
        return Picture(self._shown[1])

    def _read_next(self) -> Picture:
        due = heapq.heappop(self._times)
        self._last = due
        self._look_ahead()
        while not self._flushed and not (self._ready and (self._by_order or _pts(self._ready[-1]) >= due)):
            packet = self._waiting.popleft()
            self._flushed = packet is None
            self._ready.extend(f for f in self._decode(packet) if f.pts is not None)
            self._look_ahead()
        while self._ready and _pts(self._ready[0]) < due and not self._by_order:
            self._ready.popleft()
        frame = self._ready.popleft() if self._ready and (self._by_order or _pts(self._ready[0]) == due) else None
        if frame is None or frame.is_corrupt:
            self._lost += 1
            raise FrameLost("corrupt picture")
        self._delivered += 1
        self._decodable = True
        return Picture(frame)

    def skip_rounds(self, until_s: float) -> int:
        """Before the first picture was read: go to the start of the round of the loop that is played at `until_s`. Returns how many
        frames that passed over."""
        if not self.loop:
            return 0
        shown = [*self._times]
        for packet in self._packets:
            if packet.pts is not None and packet.size and not packet.is_discard:
                shown.append(packet.pts)
        end_s = self._time_s(max(shown)) + self._period_s
        round_s = max(end_s, self.round_s)
        rounds = max(int(until_s / round_s), 0)
        self._container.seek(0, stream=self._stream, any_frame=False, backward=True)
        self._stream.codec_context.flush_buffers()
        self._rewind()
        self._base_s = rounds * round_s
        self._pause_s = self._base_s - round_s + end_s, self._base_s
        if self._grid_s is None:
            return rounds * len(shown)
        self._slot = math.ceil((self._base_s - _TIE_S) / self._grid_s)
        return self._slot

    def skip_to_key_frame(self, until_s: float) -> int:
        """Pass over, without decoding, to the last key frame that is due by `until_s`, also to the start of the next round of a loop.

        Returns how many frames that cost; 0 when no such key frame is in sight: then decoding on is the fastest way.
        """
        if self._grid_s is None:
            return self._pass_over(until_s)
        slot = min(int(until_s / self._grid_s), int(self._end_s() / self._grid_s)) - 1
        if slot <= self._slot:
            return 0
        self._pass_over(slot * self._grid_s)
        passed, self._slot = slot - self._slot, slot
        return passed

    def _pass_over(self, until_s: float) -> int:
        if not self._times:
            return 0
        last = None
        for packet in self._waiting:
            if packet is not None and packet.is_keyframe and packet.pts is not None and self._time_s(packet.pts) <= until_s:
                last = packet
        if self.loop and self._waiting[-1] is None and self._end_s() <= until_s:
            passed, self._last = len(self._times), max(self._times)
            self._times.clear()
            self._lost += passed
            return passed
        if last is None or last.pts <= self._times[0]:
            return 0
        while self._waiting[0] is not last:
            self._waiting.popleft()
        self._stream.codec_context.flush_buffers()
        self._ready.clear()
        passed = 0
        while self._times[0] < last.pts:
            self._last = heapq.heappop(self._times)
            passed += 1
        self._look_ahead()
        self._lost += passed
        return passed
