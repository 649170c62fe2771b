"""What recordings and live streams have in common: opened through PyAV, YUV planes handed on without a copy."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import av
import av.error
import av.logging
import numpy as np
from av.codec.context import ThreadType

from posepipe.pipeline.errors import GraphError, SourceError
from posepipe.pipeline.loans import Lend
from posepipe.pipeline.packet import U8, Frame

from ._in_place import decode_into, let_go

_log = logging.getLogger("posepipe.capture")
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
class Decoding:
    """How pictures are decoded.

    deblock: False leaves out the filter that smooths the edges of blocks (H.264, HEVC, VP9; ITU-T H.264, 8.7). Later pictures are predicted
    from what is not smoothed then, so they drift from what the camera meant until the next key picture. lend: memory to decode into.
    """

    deblock: bool = True
    lend: Lend | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture; the planes are views into the decoder's own buffers. t_capture_ns: studio time, None for a recording's."""

    video_frame: av.VideoFrame
    t_capture_ns: int | None = None

    def frame(self, *, camera: str, seq: int, t_capture_ns: int) -> Frame:
        v = self.video_frame
        full_range = v.format.name.startswith("yuvj") or int(v.color_range) == 2
        if v.format.name not in ("yuv420p", "yuvj420p", "nv12"):
            v = v.reformat(format="yuv420p")  # rare chroma layouts and grey: one conversion here keeps one layout behind
        width, height, parts = v.width, v.height, v.planes
        half = (height + 1) // 2, (width + 1) // 2
        y = _plane(parts[0], height, width)
        if v.format.name == "nv12":
            planes: tuple[U8, ...] = (y, _plane(parts[1], half[0], 2 * half[1]).reshape(half[0], half[1], 2))
            return Frame(camera, seq, t_capture_ns, "nv12", width, height, planes, full_range)
        planes = (y, _plane(parts[1], *half), _plane(parts[2], *half))
        return Frame(camera, seq, t_capture_ns, "i420", width, height, planes, full_range)


def _plane(plane: Any, rows: int, columns: int) -> U8:
    view: U8 = np.ndarray((rows, columns), np.uint8, plane, 0, (plane.line_size, 1))
    view.setflags(write=False)
    return view


def open_stream(
    uri: str,
    *,
    where: str,
    format: str | None = None,
    options: dict[str, str],
    timeout: float | tuple[float, float] | None = None,
    decoding: Decoding | None = None,
) -> Any:
    """A PyAV container with pictures in it. SourceError says what is wrong; GraphError when it is the address in the studio file."""
    try:
        container = av.open(uri, format=format, options=options, timeout=timeout)
    except (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError):
        raise GraphError(
            f"{shown(uri)} does not let this user in",
            where=where,
            hint="write rtsp://USER:PASSWORD@HOST/...; ${NAME} takes a word from the environment",
        ) from None
    except av.error.ProtocolNotFoundError:
        known = "rtsp, rtsps, rtmp, rtp, udp, tcp, http, https; a camera that speaks another needs FFmpeg with it"
        raise GraphError(f"{shown(uri)}: no such kind of address", where=where, hint=f"known here: {known}") from None
    except av.error.InvalidDataError:
        raise SourceError(
            f"{shown(uri)} is not a video that can be read",
            where=where,
            hint="truncated (the index at its end is missing), or not a video: copy it again from where it was recorded",
        ) from None
    except av.error.ExitError:
        raise SourceError(f"{shown(uri)} does not answer", where=where, hint="is the camera on, and the address right?") from None
    except (av.error.FFmpegError, OSError, ValueError) as e:
        what = f"{shown(uri)} cannot be opened: {getattr(e, 'strerror', None) or e}"
        raise SourceError(what, where=where, hint="is the camera on, the address right, and may this user open it?") from None
    if not container.streams.video:
        container.close()
        raise SourceError(f"{shown(uri)} has no video stream", where=where, hint="name a file with pictures")
    decoder = container.streams.video[0].codec_context
    if decoder is not None and decoding is not None:
        if not decoding.deblock:
            decoder.options = {"skip_loop_filter": "all"}
        if decoding.lend is not None and not decode_into(decoder, decoding.lend):
            _log.info("%s: its decoder has memory of its own, so every picture is copied into the frame ring", where)
    return container


def shown(uri: str) -> str:
    """An address as it may be shown: without its password."""
    password = urlsplit(uri).password if "://" in uri else None
    return uri.replace(f":{password}@", ":***@", 1) if password else uri


class Stream:
    """A container's first video stream with one decoding thread (frame threads add two frames of latency)."""

    def __init__(self, container: Any, *, where: str) -> None:
        self._container, self._where = container, where
        self._stream = stream = container.streams.video[0]
        if stream.codec_context is None:
            container.close()
            raise SourceError(
                f"{shown(container.name)}: no decoder for its codec", where=where, hint="re-encode: ffmpeg -i IN -c:v libx264 OUT.mp4"
            )
        stream.codec_context.thread_type = ThreadType.NONE
        rate = stream.average_rate or stream.guessed_rate
        if not stream.width or not stream.height:
            self.close()
            what = f"{shown(container.name)}: the picture size is unknown"
            raise SourceError(
                what, where=where, hint="a file is damaged: copy it again; a stream sent no key picture in time: more of them"
            )
        rate_hz = float(rate) if rate else 0.0
        frames = stream.frames or (round(container.duration / av.time_base * rate_hz) if container.duration and rate_hz else None)
        self.info = StreamInfo(stream.width, stream.height, rate_hz, frames, stream.codec_context.name)

    def _decode(self, packet: Any) -> list[av.VideoFrame]:
        try:
            return list(self._stream.codec_context.decode(packet))
        except av.error.FFmpegError:
            return []  # its picture will be missing: the reader counts it

    def close(self) -> None:
        let_go(self._stream.codec_context)
        self._container.close()
