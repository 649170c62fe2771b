"""A recording as a camera, asked for its frames as the runner asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clips import number_of
from node_kit import Studio

from posepipe.nodes.capture_video import CaptureVideo
from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.loans import Lend
from posepipe.pipeline.node import FrameLost
from posepipe.pipeline.packet import Frame

LOST = -1
OPEN: list[CaptureVideo] = []


class Camera:
    """An opened capture.video that is asked for frames as the runner asks."""

    def __init__(self, file: Path | str, *, loop: bool = False, offline: bool = False, lend: Lend | None = None, **settings: Any) -> None:
        self.studio = Studio()
        self.reasons: list[str] = []
        self.node = CaptureVideo(CaptureVideo.Settings(uri=str(file), **settings))
        OPEN.append(self.node)
        self.node.open(self.studio.context(key="north", loop=loop, offline=offline, lend=lend))

    def frames(self, most: int = 500) -> Iterator[tuple[float, Frame | None]]:
        """(due in seconds, frame or None where it was lost) up to the end."""
        for _ in range(most):
            due = self.node.due_s()
            assert due is not None
            try:
                frame = self.node.step()
            except FrameLost as lost:
                self.reasons.append(str(lost))
                yield due, None
                continue
            if frame is None:
                return
            yield due, frame

    def numbers(self, most: int = 500) -> list[int]:
        return [LOST if frame is None else number_of(frame) for _, frame in self.frames(most)]


def refused(file: Path | str, **settings: Any) -> str:
    with pytest.raises(SourceError) as caught:
        Camera(file, **settings)
    return str(caught.value)
