"""Shared by the tests of this room: made-up frames, frames of a recording, answers of a made-up server."""

from __future__ import annotations

import io
from email.message import Message
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import Frame, PixelFormat


def frame(y: NDArray[Any], u: Any = 128, v: Any = 128, *, form: PixelFormat = "i420", full_range: bool = False) -> Frame:
    """A frame as a decoder hands it on: rows padded, planes read-only."""
    h, w = y.shape
    chroma = [np.broadcast_to(np.asarray(c, np.uint8), (h // 2, w // 2)) for c in (u, v)]
    parts = [y, *chroma] if form == "i420" else [y, np.stack(chroma, -1)]
    planes = []
    for part in parts:
        padded = np.full((part.shape[0], part.shape[1] + 16, *part.shape[2:]), 77, np.uint8)
        padded[:, : part.shape[1]] = part
        padded.setflags(write=False)
        planes.append(padded[:, : part.shape[1]])
    return Frame("cam", 0, 0, form, w, h, tuple(planes), full_range)


def read_frames(folder: Path, *, every: int) -> dict[str, list[Frame]]:
    """Every n-th frame of the four cameras of a recording."""
    found: dict[str, list[Frame]] = {}
    for video in sorted(folder.glob("*.mp4")):
        with av.open(str(video)) as container:
            pictures = [p for i, p in enumerate(container.decode(video=0)) if i % every == 0]
        for i, p in enumerate(pictures):
            planes = tuple(np.frombuffer(x, np.uint8).reshape(-1, x.line_size)[:, : x.width] for x in p.planes)
            found.setdefault(video.stem, []).append(Frame(video.stem, i * every, 0, "i420", p.width, p.height, planes))
    return found


class Answer(io.BytesIO):
    """What a server sends back: a status, headers and a body, that may break off."""

    def __init__(
        self, body: bytes, *, status: int = 200, kind: str = "text/html", url: str = "", breaks: bool = False, **headers: str
    ) -> None:
        super().__init__(body)
        self.status, self._url, self._breaks = status, url, breaks
        self.headers = Message()
        self.headers["Content-Type"] = kind
        for name, value in headers.items():
            self.headers[name.replace("_", "-")] = value

    def geturl(self) -> str:
        return self._url

    def read(self, n: int | None = -1) -> bytes:
        block = super().read(n)
        if not block and self._breaks:
            raise ConnectionResetError("connection reset by peer")
        return block
