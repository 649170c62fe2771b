"""Video files and streams through PyAV: presentation times known before decoding, planes handed on without a copy."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import numpy as np
from av.codec.context import ThreadType

from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.node import FrameLost
from posepipe.pipeline.packet import U8, Frame

_LOOKAHEAD = 20  # packets; deeper than the reordering of any H.264 or HEVC stream (16)
av.logging.set_level(av.logging.PANIC)  # decoder complaints reach the user as counted losses


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a source says of itself. `frames` is None when the container does not say (or the source is live)."""

    width: int
    height: int
    rate_hz: float
    frames: int | None
    codec: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture; the planes are views into the decoder's own buffers."""

    video_frame: av.VideoFrame

    def frame(self, *, camera: str, seq: int, t_capture_ns: int) -> Frame:
        v = self.video_frame
        full_range = v.format.name.startswith("yuvj") or int(v.color_range) == 2
        if v.format.name not in ("yuv420p", "yuvj420p", "nv12"):
            v = v.reformat(format="yuv420p")  # rare chroma layouts and grey: one conversion here keeps one layout behind
        half = (v.height + 1) // 2, (v.width + 1) // 2
        y = _plane(v, 0, v.height, v.width)
        if v.format.name == "nv12":
            planes: tuple[U8, ...] = (y, _plane(v, 1, half[0], 2 * half[1]).reshape(half[0], half[1], 2))
            return Frame(camera, seq, t_capture_ns, "nv12", v.width, v.height, planes, full_range)
        planes = (y, _plane(v, 1, *half), _plane(v, 2, *half))
        return Frame(camera, seq, t_capture_ns, "i420", v.width, v.height, planes, full_range)


def _pts(v: av.VideoFrame) -> int:
    return v.pts if v.pts is not None else -1


def _plane(v: av.VideoFrame, index: int, rows: int, columns: int) -> U8:
    plane = v.planes[index]
    view: U8 = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:rows, :columns]
    view.setflags(write=False)
    return view


def open_video(
    uri: str, *, camera: str, resolve: Callable[[str], Path], fps: float | None, options: dict[str, str], timeout_s: float
) -> RecordedVideo | LiveVideo:
    """Open a source. SourceError says what is wrong with it and what to do."""
    where = f"camera {camera}"
    if uri.startswith("/dev/"):
        asked = {**({"framerate": str(fps)} if fps else {}), **options}
        return LiveVideo(_open(uri, where=where, format="v4l2", options=asked, timeout=timeout_s), where=where)
    if "://" in uri:
        container = _open(uri, where=where, options=options, timeout=timeout_s)
        if container.duration is None:
            return LiveVideo(container, where=where)
        return RecordedVideo(container, where=where, fps=fps)
    path = resolve(uri)
    if not path.exists():
        beside = sorted(p.name for p in path.parent.glob("*.mp4")) if path.parent.is_dir() else []
        hint = f"beside it there is: {', '.join(beside)}" if beside else "check the path; it is relative to the studio file"
        raise SourceError(f"there is no file {path}", where=where, hint=hint)
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes)", where=where, hint="record or copy it again")
    return RecordedVideo(_open(str(path), where=where, options=options, timeout=timeout_s), where=where, fps=fps)


def _open(uri: str, *, where: str, format: str | None = None, options: dict[str, str], timeout: float) -> Any:
    try:
        container = av.open(uri, format=format, options=options, timeout=timeout if "://" in uri else None)
    except av.error.InvalidDataError:
        raise SourceError(
            f"{uri} is not a video that can be read",
            where=where,
            hint="truncated (no index), or not a video: copy it again, or: ffmpeg -i IN -c copy OUT",
        ) from None
    except (av.error.FFmpegError, OSError, ValueError) as e:
        what = f"{uri} cannot be opened: {getattr(e, 'strerror', None) or e}"
        raise SourceError(what, where=where, hint="is the camera on, the address right, and may this user open it?") from None
    if not container.streams.video:
        container.close()
        raise SourceError(f"{uri} has no video stream", where=where, hint="name a file with pictures")
    return container


class _Video:
    """A container's first video stream with one decoding thread (frame threads add two frames of latency)."""

    def __init__(self, container: Any, *, where: str) -> None:
        self._container, self._where = container, where
        self._stream = stream = container.streams.video[0]
        self.complaint = ""
        if stream.codec_context is None:
            container.close()
            raise SourceError(
                f"{container.name}: no decoder for its codec", where=where, hint="re-encode: ffmpeg -i IN -c:v libx264 OUT.mp4"
            )
        stream.codec_context.thread_type = ThreadType.NONE
        rate = stream.average_rate or stream.guessed_rate
        if not stream.width or not stream.height:
            container.close()
            raise SourceError(f"{container.name}: the picture size is unknown", where=where, hint="the file is damaged: copy it again")
        self.info = StreamInfo(stream.width, stream.height, float(rate) if rate else 0.0, stream.frames or None, stream.codec_context.name)

    def _decode(self, packet: Any) -> list[av.VideoFrame]:
        try:
            return list(self._stream.codec_context.decode(packet))
        except (av.error.InvalidDataError, av.error.EOFError):
            return []  # its picture will be missing: the reader counts it

    def close(self) -> None:
        self._container.close()


class LiveVideo(_Video):
    """A stream that comes when it comes."""

    def __init__(self, container: Any, *, where: str) -> None:
        super().__init__(container, where=where)
        self._packets = container.demux(self._stream)
        self._ready: deque[av.VideoFrame] = deque()

    def read(self, *, stopping: threading.Event) -> Picture | None:
        """The next picture, None when the stream has ended or fell silent (`complaint`)."""
        while not self._ready and not stopping.is_set():
            try:
                packet = next(self._packets)
            except StopIteration:
                self.complaint = "the stream has ended"
                return None
            except (av.error.FFmpegError, OSError) as e:
                self.complaint = f"the stream broke off: {getattr(e, 'strerror', None) or e}"
                return None
            self._ready.extend(self._decode(packet))
        return Picture(self._ready.popleft()) if self._ready else None


class RecordedVideo(_Video):
    """A file. Presentation times are read ahead of decoding, so that a frame can be due before it is decoded.

    `fps` picks, for each point of an even grid, the picture nearest to it.
    """

    def __init__(self, container: Any, *, where: str, fps: float | None) -> None:
        super().__init__(container, where=where)
        self.loop = False
        self._period_s = 1.0 / self.info.rate_hz if self.info.rate_hz else 0.04
        self._grid_s = 1.0 / fps if fps else None
        if fps:
            frames = self.info.frames and round(self.info.frames * self._period_s * fps)
            self.info = StreamInfo(self.info.width, self.info.height, fps, frames, self.info.codec)
        self._time_base = float(self._stream.time_base)
        self._base_s = 0.0
        self._slot = 0
        self._delivered = self._lost = 0
        self._shown: av.VideoFrame | None = None
        self._rewind()
        self._first = self._times[0] if self._times else 0
        if not self._times:
            container.close()
            raise SourceError(f"{container.name} holds no frames", where=where, hint="record or copy it again")

    def _rewind(self) -> None:
        self._packets = self._container.demux(self._stream)
        self._waiting: deque[Any] = deque()
        self._times: list[int] = []
        self._ready: deque[av.VideoFrame] = deque()
        self._flushed = False
        self._last = 0
        self._look_ahead()

    def _look_ahead(self) -> None:
        while len(self._times) < _LOOKAHEAD and not (self._waiting and self._waiting[-1] is None):
            try:
                packet = next(self._packets)
            except (StopIteration, av.error.FFmpegError, OSError):
                packet = None
            if packet is None or packet.size == 0:
                self._waiting.append(None)
                return
            self._waiting.append(packet)
            if packet.pts is not None:
                heapq.heappush(self._times, packet.pts)

    def next_s(self) -> float | None:
        """Seconds from the start at which the next picture exists, counted through loops; None at the end."""
        if not self._times and not self._again():
            return None
        if self._grid_s is not None:
            return self._slot * self._grid_s
        return self._base_s + (self._times[0] - self._first) * self._time_base

    def _again(self) -> bool:
        """At the end: start again when looping. Says so when the file held less than it promised."""
        promised = self._stream.frames
        if promised and self._delivered + self._lost < promised and not self.complaint and self._grid_s is None:
            self.complaint = f"ends after {self._delivered + self._lost} of {promised} frames: the file is truncated"
        if not self.loop or not self._delivered:
            return False
        self._base_s += (self._last - self._first) * self._time_base + self._period_s
        self._container.seek(0, stream=self._stream, any_frame=False, backward=True)
        self._stream.codec_context.flush_buffers()
        self._delivered = self._lost = 0
        self._rewind()
        return bool(self._times)

    def read(self, *, stopping: threading.Event) -> Picture | None:
        """The next picture, or None at the end. FrameLost when the file has it but it cannot be decoded."""
        if self._grid_s is None:
            return self._read_next()
        wanted_s = self._slot * self._grid_s
        if self.next_s() is None:
            return None
        while self._times and self._ahead_s(wanted_s) <= 0.0:
            picture = self._read_next()
            self._shown = picture.video_frame if picture else self._shown
            if not self._times and not self._again():
                break
        if self._shown is None:
            return None
        self._slot += 1
        return Picture(self._shown)

    def _ahead_s(self, wanted_s: float) -> float:
        """How far the next picture lies behind the point where it stops being the nearest to `wanted_s`."""
        return self._base_s + (self._times[0] - self._first) * self._time_base - wanted_s - 0.5 * self._period_s

    def _read_next(self) -> Picture | None:
        if not self._times and not self._again():
            return None
        due = heapq.heappop(self._times)
        self._last = due
        self._look_ahead()
        while not self._ready and not self._flushed:
            packet = self._waiting.popleft()
            self._flushed = packet is None
            self._ready.extend(f for f in self._decode(packet) if f.pts is not None)
            self._look_ahead()
        while self._ready and _pts(self._ready[0]) < due:
            self._ready.popleft()
        frame = self._ready.popleft() if self._ready and _pts(self._ready[0]) == due else None
        if frame is None or frame.is_corrupt:
            self._lost += 1
            raise FrameLost("corrupt picture")
        self._delivered += 1
        return Picture(frame)

    def skip_to_key_frame(self) -> int:
        """Pass over packets up to the next key frame (or the end) without decoding them. Returns how many pictures that cost."""
        if self._grid_s is not None or not self._times:
            return 0
        passed = 0
        self._waiting.popleft() if self._waiting[0] is not None else None
        while self._waiting and self._waiting[0] is not None and not self._waiting[0].is_keyframe:
            self._waiting.popleft()
            self._look_ahead()
        head = self._waiting[0] if self._waiting else None
        self._stream.codec_context.flush_buffers()
        self._ready.clear()
        while self._times and (head is None or self._times[0] < head.pts):
            self._last = heapq.heappop(self._times)
            passed += 1
            self._look_ahead()
        self._lost += passed
        return passed
