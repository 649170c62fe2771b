"""Pictures of a recording, spread evenly over its time: what networks are verified and quantised with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import av.error
import numpy as np

from ..pipeline.errors import EngineError
from ..pipeline.packet import U8, Frame
from .assets import Asset


def pictures(recording: Asset, *, instants: int) -> Iterator[Frame]:
    """`instants` frames of every camera of a recording, evenly spread, always the same ones; camera after camera.

    A frame is good until the next one is asked for. Raises PullError when the recording is not here, EngineError when it is a network or
    has no pictures that can be read.
    """
    for video in _videos(recording):
        yield from _of(video, instants)


def sizes_px(recording: Asset) -> list[tuple[int, int]]:
    """Width and height of the pictures of every camera of a recording. Raises as `pictures`."""
    sizes = []
    for video in _videos(recording):
        try:
            with av.open(str(video)) as container:
                stream = container.streams.video[0]
                sizes.append((stream.width, stream.height))
        except (av.error.FFmpegError, OSError, IndexError) as e:
            raise EngineError(f"cannot be read: {e}", where=str(video), hint="`posepipe pull` fetches it again") from e
    return sizes


def _videos(recording: Asset) -> list[Path]:
    if recording.kind != "recording":
        raise EngineError(f"{recording.name} is a network", hint="name a recording; `posepipe pull` lists them")
    videos = sorted(p for f in recording.files if (p := recording.path(f.name)).suffix == ".mp4")
    if not videos:
        raise EngineError("there is no video in this recording", where=recording.name, hint="name another; `posepipe pull` lists them")
    return videos


def _of(video: Path, instants: int) -> Iterator[Frame]:
    try:
        with av.open(str(video)) as container:
            count = sum(1 for p in container.demux(video=0) if p.size)
        wanted = set(np.linspace(0, count - 1, min(instants, count)).round().astype(int).tolist())
        with av.open(str(video)) as container:
            container.streams.video[0].thread_count = 1
            for i, picture in enumerate(container.decode(video=0)):
                if i in wanted:
                    yield _frame(picture, video.stem, i)
    except (av.error.FFmpegError, OSError) as e:
        raise EngineError(f"cannot be read: {e}", where=str(video), hint="`posepipe pull` fetches it again") from e


def _frame(picture: av.VideoFrame, camera: str, seq: int) -> Frame:
    full_range = picture.format.name.startswith("yuvj") or int(picture.color_range) == 2
    if picture.format.name not in ("yuv420p", "yuvj420p"):
        picture = picture.reformat(format="yuv420p")
    half = (picture.height + 1) // 2, (picture.width + 1) // 2
    shapes = ((picture.height, picture.width), half, half)
    planes: list[U8] = []
    for plane, (rows, columns) in zip(picture.planes, shapes, strict=True):
        planes.append(np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:rows, :columns])
    return Frame(camera, seq, 0, "i420", picture.width, picture.height, tuple(planes), full_range)
