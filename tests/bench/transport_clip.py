"""An H.264 clip for `bench_transport`, and what a decoded picture costs on its way into a slot."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np

from posepipe.nodes._in_place import decode_into, let_go
from posepipe.nodes._video import Picture
from posepipe.pipeline.loans import Lend
from posepipe.pipeline.packet import Frame
from posepipe.pipeline.ring import FrameRing
from posepipe.pipeline.ringends import RingWriter


class Clip:
    """An H.264 file, decoded by one thread, round and round."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def made(cls, path: Path) -> Clip:
        """A second and a half of 1920x1080: a moving pattern with noise."""
        noise = np.random.default_rng(0).integers(0, 24, (1620 + 64, 1920 + 64), np.uint8)
        ramp = (np.add.outer(np.arange(1620), np.arange(1920)) // 8).astype(np.uint8) // 2
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "23"})
            stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
            for i in range(45):
                picture = ramp + noise[i : i + 1620, i : i + 1920] + np.uint8(i)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "yuv420p")))
            out.mux(stream.encode(None))
        return cls(path)

    def for_ever(self, lend: Lend | None = None) -> Iterator[Picture]:
        while True:
            with av.open(str(self.path)) as container:
                decoder = container.streams.video[0].codec_context
                decoder.thread_type = "NONE"
                if lend is not None and not decode_into(decoder, lend):
                    raise SystemExit("this FFmpeg cannot decode into the ring")
                for video_frame in container.decode(video=0):
                    yield Picture(video_frame)
                let_go(decoder)


def ways_to_copy(clip: Clip, *, frames: int = 60) -> dict[str, float]:
    """Median microseconds from a decoded picture to a slot, and by PyAV's own array for comparison."""
    pictures = clip.for_ever()
    first = next(pictures).frame(camera="", seq=0, t_capture_ns=0)
    ring = FrameRing.create(8, first.width, first.height)
    count = itertools.count()
    writer = RingWriter(ring)

    def by_array(picture: Picture) -> None:
        whole = picture.video_frame.to_ndarray()
        planes = writer.slot(first.width, first.height)
        assert planes is not None
        begin = 0
        flat = whole.reshape(-1)
        for plane in planes:
            np.copyto(plane, flat[begin : begin + plane.size].reshape(plane.shape))
            begin += plane.size

    def put(picture: Picture) -> None:
        frame: Frame = picture.frame(camera="", seq=next(count), t_capture_ns=0)  # a ring copies the same frame only once
        writer.put(frame)

    ways: dict[str, Callable[[Picture], object]] = {
        "put": put,
        "to_ndarray": lambda p: p.video_frame.to_ndarray(),
        "to_ndarray, then copy": by_array,
    }
    names = list(ways)
    took: dict[str, list[float]] = {"decode": [], **{name: [] for name in ways}}
    for i in range(frames):
        begin = time.perf_counter()
        picture = next(pictures)
        took["decode"].append((time.perf_counter() - begin) * 1e6)
        for name in (*names[i % 3 :], *names[: i % 3]):  # in turns: the first one finds the picture in the nearest cache
            begin = time.perf_counter()
            ways[name](picture)
            took[name].append((time.perf_counter() - begin) * 1e6)
    ring.close()
    return {name: float(np.median(us)) for name, us in took.items()}
