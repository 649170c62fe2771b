"""A live stream without a network: the packets of a clip, arriving when the test says, with errors where the test says."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import av
import av.error
from av.packet import PacketSideData, PktSideDataT
from node_kit import T0_NS

from posepipe.nodes._live import LiveVideo, Reception

SILENT_NS = 2_000_000_000
Event = float | Exception | None
"""How long a packet is waited for (seconds), or what happens instead; None: the stream ends."""


@dataclass
class Air:
    """Time, and what comes through it. told_us: error of the sender's clock in microseconds, None when it does not report."""

    events: list[Event]
    told_us: int | None = None
    now_ns: int = T0_NS
    opened_with: list[dict[str, Any]] = field(default_factory=list)

    def reception(self, **other: Any) -> Reception:
        given = {"timeout_s": 2.0, "transport": "auto", "jitter_ms": 50.0, "now_ns": lambda: self.now_ns, **other}
        return Reception(**{"system_ns": lambda: self.now_ns, **given})


class Container:
    """A PyAV container of a clip whose packets come as `air` says; its first picture was captured at T0_NS."""

    def __init__(self, clip: Path, air: Air) -> None:
        self._real, self._air = av.open(str(clip)), air
        self.name, self.duration, self.streams, self.format = "rtsp://camera/1", None, self._real.streams, self._real.format

    def demux(self, stream: Any) -> Iterator[Any]:
        packets = self._real.demux(stream)
        for event in self._air.events:
            if isinstance(event, av.error.ExitError):
                self._air.now_ns += SILENT_NS
            if isinstance(event, Exception):
                raise event
            if event is None:
                return
            self._air.now_ns += round(event * 1e9)
            packet = next(packets)
            if self._air.told_us is not None and packet.pts is not None:
                captured_us = T0_NS // 1000 + int(packet.pts * packet.time_base * 1_000_000)
                told = PacketSideData(get_args(PktSideDataT).index("prft"), 16)
                told.update(struct.pack("=qi4x", captured_us + self._air.told_us, 24))
                packet.set_sidedata(told)
            yield packet

    def close(self) -> None:
        self._real.close()


def live(clip: Path, air: Air, **reception: Any) -> LiveVideo:
    return LiveVideo(Container(clip, air), where="camera north", reception=air.reception(**reception))


def pictures(video: LiveVideo, most: int = 100) -> Iterator[Any]:
    """Until the stream breaks off."""
    for _ in range(most):
        picture = video.read(stopping=threading.Event())
        assert picture is not None
        yield picture
