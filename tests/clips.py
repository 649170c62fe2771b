"""Small videos that the tests encode themselves. Every picture carries its number in its brightness, so that what was decoded can be told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np

from posepipe.pipeline.packet import Frame

av.logging.set_level(av.logging.PANIC)
_FIRST, _STEP = 30, 3


def picture(number: int, *, width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """I420 planes stacked [h * 3 / 2, w]: the right half is the number, the left half is texture."""
    image = np.full((height * 3 // 2, width), 128, np.uint8)
    image[:height] = _FIRST + _STEP * (number % 64)
    image[:height, : width // 2] = np.random.default_rng(number).integers(40, 200, (height, width // 2))
    return image


def number_of(frame: Frame) -> int:
    """Which picture a frame shows (modulo 64)."""
    right = frame.planes[0][:, frame.width * 5 // 8 : frame.width * 7 // 8]
    return round((float(right.mean()) - _FIRST) / _STEP)


def encode(
    path: Path,
    count: int = 30,
    *,
    fps: int = 30,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    b_frames: int = 2,
    times_ms: Iterable[int] | None = None,
    blank: bool = False,
    options: Mapping[str, str] | None = None,
    container: str | None = None,
) -> Path:
    """A clip of `count` numbered pictures at `fps`, or at `times_ms`; `blank`: all the same grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = list(times_ms) if times_ms is not None else None
    with av.open(str(path), "w", format=container) as out:
        fixed = {"sc_threshold": "0"} if codec == "libx264" else {}  # key pictures where `gop` says, and nowhere else
        stream: Any = out.add_stream(codec, rate=fps, options={**fixed, **(options or {})})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        if codec in ("libx264", "libx265", "mpeg4", "mpeg2video"):
            stream.gop_size, stream.codec_context.max_b_frames = gop, b_frames
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        even = (size[0] + 1) // 2 * 2, (size[1] + 1) // 2 * 2
        for i in range(len(times) if times is not None else count):
            image = np.full((even[1] * 3 // 2, even[0]), 128, np.uint8) if blank else picture(i, width=even[0], height=even[1])
            frame = av.VideoFrame.from_ndarray(image, format="yuv420p").reformat(width=size[0], height=size[1], format=pix_fmt)
            frame.pts = i if times is None else times[i]
            frame.time_base = Fraction(1, fps) if times is None else Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def rewrite(source: Path, target: Path, change: Callable[[int, Any], Any], *, options: Mapping[str, str] | None = None) -> Path:
    """The same packets in another file; `change(index in decoding order, packet)` answers with the packet to write, or None."""
    with av.open(str(source)) as read, av.open(str(target), "w", options=dict(options or {})) as out:
        video = read.streams.video[0]
        stream = out.add_stream_from_template(video)
        for i, packet in enumerate(p for p in read.demux(video) if p.size):
            changed = change(i, packet)
            if changed is not None:
                changed.stream = stream
                out.mux(changed)
    return target


def damaged(packet: Any) -> Any:
    """A packet of the same time and size that holds noise."""
    noise = av.Packet(np.random.default_rng(packet.size).integers(0, 256, packet.size).astype(np.uint8).tobytes())
    noise.pts, noise.dts, noise.time_base, noise.duration, noise.is_keyframe = (
        packet.pts,
        packet.dts,
        packet.time_base,
        packet.duration,
        packet.is_keyframe,
    )
    return noise
