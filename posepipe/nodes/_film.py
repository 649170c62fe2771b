"""Pictures become an MP4 file that is readable at every moment: also after a kill, also when the disk is full."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

from posepipe.pipeline.packet import U8

_FRAGMENT_S = 2.0
_TICKS = 1000
_SIZE_64 = 1


class _WholeFragments:
    """What the muxer writes to. Bytes go to the file in whole fragments (ISO 14496-12: a moof box and its mdat), one write each.

    A fragment that does not fit is cut off again, and OSError says why.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._waiting = bytearray()
        self._end = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self._waiting += data
        end = self._complete()
        if end and self.error is None:
            self._put(bytes(self._waiting[:end]))
            del self._waiting[:end]
        return len(data)

    def _complete(self) -> int:
        """Length of the whole fragments at the beginning of what waits."""
        at = end = 0
        while at + 16 <= len(self._waiting):
            size = int.from_bytes(self._waiting[at : at + 4], "big")
            if size == _SIZE_64:
                size = int.from_bytes(self._waiting[at + 8 : at + 16], "big")
            if at + size > len(self._waiting):
                break
            kind = bytes(self._waiting[at + 4 : at + 8])
            at += size
            if kind != b"moof":
                end = at
        return end

    def _put(self, data: bytes) -> None:
        try:
            done = os.write(self._fd, data)
            while done < len(data):
                done += os.write(self._fd, data[done:])
            self._end += done
        except OSError as e:
            self.error = e
            os.ftruncate(self._fd, self._end)

    def close(self) -> None:
        os.close(self._fd)


class Film:
    """An H.264 film (MPEG-4 where this FFmpeg has no encoder for it) in fragments of two seconds; what was drawn later than that is
    lost by a kill. Pictures are shown at the times that they are given.
    """

    def __init__(self, path: Path, *, fps: float) -> None:
        self._fps = fps
        self._file = _WholeFragments(path)
        self._container: Any = av.open(self._file, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"})
        self._stream: VideoStream | None = None
        self._first_ns = 0
        self._last_tick = -1

    def add(self, picture: U8, t_ns: int) -> None:
        """Append a picture [h,w,3] BGR, of the size of the first one. OSError when the disk does not take it."""
        if self._stream is None:
            self._stream, self._first_ns = self._begin(picture), t_ns
        frame = av.VideoFrame.from_ndarray(np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), np.uint8), format="yuv420p")
        self._last_tick = frame.pts = max(round((t_ns - self._first_ns) * _TICKS / 1e9), self._last_tick + 1)
        frame.time_base = Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))
        if self._file.error is not None:
            raise self._file.error

    def _begin(self, picture: U8) -> VideoStream:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream: VideoStream = self._container.add_stream(codec, rate=Fraction(self._fps).limit_denominator(_TICKS))
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.codec_context.gop_size = max(1, round(_FRAGMENT_S * self._fps))
        stream.codec_context.thread_count = 1  # the cores belong to the studio
        if codec == "libx264":
            stream.options = {"preset": "superfast", "crf": "21", "tune": "zerolatency"}
        else:
            stream.bit_rate = picture.size * 2
        return stream

    def close(self) -> None:
        """Write what the encoder still holds. OSError when the disk does not take it."""
        try:
            if self._stream is not None and self._file.error is None:
                self._container.mux(self._stream.encode())
            self._container.close()
        finally:
            self._file.close()
        if self._file.error is not None:
            raise self._file.error
