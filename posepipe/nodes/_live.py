"""Live video through PyAV: cameras on the network and devices. Every picture carries the time at which it was captured."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import av
import av.error

from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.node import FrameLost

from ._capture_time import CaptureClock
from ._stream import Decoding, Picture, Stream, open_stream

Transport = Literal["auto", "tcp", "udp"]

_LIVE_ONLY = ("rtsp", "rtsps", "rtp", "udp", "rtmp", "rtmps", "tcp")
_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
"""Servers that serve many: a connection that asks for nothing does no harm there."""
_OPEN_S = 4.0
_CONNECT_S, _ANSWER_S = 1.0, 0.7
_BACKLOG = 2000
_EDGE_NS = 4_000_000


@dataclass(frozen=True, slots=True)
class Reception:
    """How live streams are received. clock goes from connection to connection; system_ns: the system's Unix time."""

    timeout_s: float
    transport: Transport
    jitter_ms: float
    now_ns: Callable[[], int]
    clock: CaptureClock = field(default_factory=CaptureClock)
    system_ns: Callable[[], int] = time.time_ns

    @property
    def timeouts_s(self) -> tuple[float, float]:
        """For opening (asked for twice: to connect, and to learn what comes) and for every packet."""
        return max(self.timeout_s, _OPEN_S), self.timeout_s


def is_live(uri: str) -> bool:
    """Whether only a camera can be behind this address (http may also serve a recording: that is known once it is open)."""
    return uri.startswith("/dev/") or urlsplit(uri).scheme in _LIVE_ONLY


class Door:
    """Where a camera comes from: is it open?"""

    def __init__(self, uri: str) -> None:
        self._uri, self._url = uri, urlsplit(uri)
        self._has_answered = False

    def look(self) -> bool | None:
        """Whether a device is plugged in, or somebody serves at the address; None where only opening tells.

        An RTSP server has to answer: one that hangs still takes connections. That is held against those only that have answered
        before, so that a server which does not like the question is not waited for in vain.
        """
        url = self._url
        if self._uri.startswith("/dev/"):
            return Path(self._uri).exists()
        behind_proxy = url.scheme.startswith("http") and any(name.lower() in ("http_proxy", "https_proxy") for name in os.environ)
        if url.scheme not in _PORTS or not url.hostname or behind_proxy:
            return None
        try:
            with socket.create_connection((url.hostname, url.port or _PORTS[url.scheme]), timeout=_CONNECT_S) as connection:
                if url.scheme != "rtsp" or self._answers(connection):
                    return True
        except OSError:
            return False
        return not self._has_answered

    def _answers(self, connection: socket.socket) -> bool:
        """RFC 2326, 10.1: OPTIONS may be asked at any time and changes nothing; any answer will do, also a refusal."""
        connection.settimeout(_ANSWER_S)
        try:
            connection.sendall(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")
            answered = bool(connection.recv(1))
        except OSError:
            return False
        self._has_answered |= answered
        return answered


def receive(
    uri: str, *, where: str, fps: float | None, options: dict[str, str], reception: Reception, decoding: Decoding | None
) -> LiveVideo:
    """Open a camera. options go to FFmpeg and win over what the settings ask for."""
    if uri.startswith("/dev/"):
        asked = {**({"framerate": str(fps)} if fps else {}), **options}
        container = open_stream(uri, where=where, format="v4l2", options=asked, decoding=decoding)
        return LiveVideo(container, where=where, reception=reception)
    asked = {**ffmpeg_options(uri, reception), **options}
    container = open_stream(uri, where=where, options=asked, timeout=reception.timeouts_s, decoding=decoding)
    return LiveVideo(container, where=where, reception=reception)


def ffmpeg_options(uri: str, reception: Reception) -> dict[str, str]:
    """What FFmpeg is told about a stream.

    fpsprobesize: a rate is not measured before the start (0.4 s to the first picture instead of 1.2 s). `fflags nobuffer` and
    `flags low_delay` are left out: they make no picture earlier (measured), and the first throws the key picture away that came
    while the stream was opened.
    """
    asked = {"fpsprobesize": "0"}
    if urlsplit(uri).scheme in ("rtsp", "rtsps"):
        transport = {"rtsp_flags": "prefer_tcp"} if reception.transport == "auto" else {"rtsp_transport": reception.transport}
        asked |= {**transport, "allowed_media_types": "video", "max_delay": str(round(reception.jitter_ms * 1000))}
    return asked


class LiveVideo(Stream):
    """A stream that comes when it comes."""

    def __init__(self, container: Any, *, where: str, reception: Reception) -> None:
        super().__init__(container, where=where)
        self._reception, self._clock = reception, reception.clock
        self._clock.connected()
        self._packets = container.demux(self._stream)
        self._tick = self._stream.time_base
        self._held: deque[Any] = deque()
        self._ready: deque[av.VideoFrame] = deque()
        self._heard_ns = reception.now_ns()
        self._began = self._shown = False
        self._end: SourceError | None = None

    def read(self, *, stopping: threading.Event) -> Picture | None:
        """The next picture; None when the studio stops. SourceError when the stream ends, breaks off or is silent; FrameLost for a
        picture that arrived damaged."""
        if not self._began:
            self._catch_up(stopping)
        while not self._ready:
            if stopping.is_set():
                return None
            self._decode_on(self._held.popleft() if self._held else self._next())
        frame = self._ready.popleft()
        if frame.is_corrupt:
            raise FrameLost("corrupt picture")
        self._shown = True
        return Picture(frame, self._heard_ns if frame.pts is None else self._clock.stamp_ns(self._ns(frame.pts)))

    def _catch_up(self, stopping: threading.Event) -> None:
        """What came while the stream and the studio were opened is old: it is decoded, as far as later pictures build on it, but
        not shown. The present begins with the first packet that has to be waited for.
        """
        self._began = True
        edge_ns = max(_EDGE_NS, int(0.25e9 / self.info.rate_hz)) if self.info.rate_hz else _EDGE_NS
        while len(self._held) < _BACKLOG and not stopping.is_set():
            before_ns = self._reception.now_ns()
            try:
                self._held.append(self._next())
            except SourceError as e:
                self._end = e  # once what it sent has been shown
                return
            if self._heard_ns - before_ns >= edge_ns:
                self._clock.caught_up()
                for packet in self._needed_for_newest():
                    self._decode(packet)
                return

    def _needed_for_newest(self) -> list[Any]:
        """Takes all but the newest packet out of what is held: those from the last key picture on."""
        old = [self._held.popleft() for _ in range(len(self._held) - 1)]
        if self._held[0].is_keyframe:
            return []
        last_key = max((i for i, packet in enumerate(old) if packet.is_keyframe), default=0)
        return old[last_key:]

    def _next(self) -> Any:
        if self._end is not None:
            raise self._end
        begin_ns = self._reception.now_ns()
        try:
            packet = next(self._packets)
        except StopIteration:
            raise self._gone("the stream has ended") from None
        except av.error.ExitError:
            raise self._silent() from None
        except (av.error.FFmpegError, OSError) as e:
            raise self._gone(f"the stream broke off: {getattr(e, 'strerror', None) or e}") from None
        if self._reception.now_ns() - begin_ns >= self._reception.timeout_s * 1e9:
            raise self._silent()  # FFmpeg's time-out pushes out the picture that it held back: nothing has come
        self._heard_ns = self._reception.now_ns()
        if packet.pts is not None:
            self._clock.arrived(self._ns(packet.pts), self._heard_ns, self._told_ns(packet))
        return packet

    def _silent(self) -> SourceError:
        return self._gone(f"nothing for {(self._reception.now_ns() - self._heard_ns) / 1e9:.1f} s")

    def _gone(self, what: str) -> SourceError:
        return SourceError(what, where=self._where, hint="is the camera on, and the network up?")

    def _ns(self, pts: int) -> int:
        return int(pts * self._tick.numerator * 1_000_000_000 // self._tick.denominator)

    def _told_ns(self, packet: Any) -> int | None:
        """The sender's capture time, on the studio clock (FFmpeg's AVProducerReferenceTime: Unix microseconds, then flags)."""
        if not packet.has_sidedata("prft"):
            return None
        (unix_us,) = struct.unpack_from("=q", bytes(packet.get_sidedata("prft")))
        return int(unix_us) * 1000 - (self._reception.system_ns() - self._reception.now_ns())

    def _decode_on(self, packet: Any) -> None:
        try:
            self._ready.extend(self._stream.codec_context.decode(packet))
        except av.error.FFmpegError:
            if self._shown:  # before the first key picture there is nothing to lose
                raise FrameLost("corrupt picture") from None
