"""Recordings through PyAV: presentation times known before decoding."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import av.error

from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.node import FrameLost

from ._live import LiveVideo, Reception, is_live, receive
from ._round import HELD_BACK, Round
from ._stream import Decoding as Decoding
from ._stream import Picture as Picture
from ._stream import StreamInfo as StreamInfo
from ._stream import open_stream

_TIE_S = 1e-6


def open_video(
    uri: str,
    *,
    camera: str,
    resolve: Callable[[str], Path],
    fps: float | None,
    options: dict[str, str],
    reception: Reception,
    decoding: Decoding | None = None,
) -> RecordedVideo | LiveVideo:
    """Open a source. SourceError says what is wrong with it and what to do."""
    where = f"camera {camera}"
    if is_live(uri):
        return receive(uri, where=where, fps=fps, options=options, reception=reception, decoding=decoding)
    if "://" in uri:
        container = open_stream(uri, where=where, options=options, timeout=reception.timeouts_s, decoding=decoding)
        if container.duration is None:
            return LiveVideo(container, where=where, reception=reception)
        return RecordedVideo(container, where=where, fps=fps)
    return open_file(uri, camera=camera, resolve=resolve, fps=fps, options=options, decoding=decoding)


def open_file(
    uri: str, *, camera: str, resolve: Callable[[str], Path], fps: float | None, options: dict[str, str], decoding: Decoding | None = None
) -> RecordedVideo:
    """Open a recording on this machine. SourceError says what is wrong with it and what to do."""
    where = f"camera {camera}"
    path = resolve(uri)
    if not path.exists():
        beside = sorted(p.name for p in path.parent.glob("*.mp4")) if path.parent.is_dir() else []
        hint = f"beside it there is: {', '.join(beside)}" if beside else "check the path; it is relative to the studio file"
        raise SourceError(f"there is no file {path}", where=where, hint=hint)
    if path.is_dir():
        raise SourceError(f"{path} is a folder", where=where, hint="name the video file in it")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes)", where=where, hint="record or copy it again")
    _refuse_turned(path, where=where, options=options)

    def once() -> Any:
        return open_stream(str(path), where=where, options=options, decoding=decoding)

    return RecordedVideo(once(), where=where, fps=fps, again=once)


def _refuse_turned(path: Path, *, where: str, options: dict[str, str]) -> None:
    """Phones store pictures turned, with a note for the player. Calibrations are made of what players show: silent nonsense otherwise."""
    with open_stream(str(path), where=where, options=options) as container:
        try:
            frame = next(container.decode(video=0), None)
        except (av.error.FFmpegError, ValueError):
            return  # what cannot be decoded is told by the reader
        if frame is not None and frame.rotation:
            raise SourceError(
                f"{path} is stored turned by {frame.rotation} degrees (its display matrix says so)",
                where=where,
                hint="store it upright, as the calibration saw it: ffmpeg -i IN -c:v libx264 -crf 16 OUT.mp4",
            )


class RecordedVideo:
    """A file. Presentation times are read ahead of decoding, so that a frame can be due before it is decoded.

    `fps` picks, for each point of an even grid, the picture nearest to it. `again` opens the file once more: then the rounds of a loop are
    played in turn by two decoders, of which the one makes ready while the other plays its end, as in a recording that never stops.
    """

    def __init__(self, container: Any, *, where: str, fps: float | None, again: Callable[[], Any] | None = None) -> None:
        self._now = Round(container, where=where)
        self._next: Round | None = None
        self._open_again, self._loop = again, False
        self.complaint = ""
        self.round_s = 0.0  # a round of the loop lasts at least this long: cameras of different lengths start again together
        self.info = self._now.info
        self._period_s = 1.0 / self.info.rate_hz if self.info.rate_hz else 0.04
        self._grid_s = 1.0 / fps if fps else None
        if fps:
            frames = self.info.frames and round(self.info.frames * self._period_s * fps)
            self.info = StreamInfo(self.info.width, self.info.height, fps, frames, self.info.codec)
        self._base_s = 0.0
        self._pause_s = 0.0, 0.0
        self._slot = 0
        self._shown: tuple[float, av.VideoFrame | None] | None = None
        self._decodable = self._begun = False
        self._now.begin()
        if not self._now.times:
            self._now.close()
            if self._now.waiting and self._now.waiting[0] is not None:
                hint = "put it into a container: ffmpeg -framerate 30 -i IN -c copy OUT.mp4"
                raise SourceError(f"{container.name} has no time stamps", where=where, hint=hint)
            raise SourceError(f"{container.name} holds no frames", where=where, hint="record or copy it again")
        self._now.make_ready()
        self._first = self._now.times[0]
        if self._now.hidden and self.info.frames and not fps:
            self.info = replace(self.info, frames=self.info.frames - self._now.hidden)

    @property
    def loop(self) -> bool:
        """Whether the file starts again at its end."""
        return self._loop

    @loop.setter
    def loop(self, on: bool) -> None:
        self._loop = on
        if on and self._next is None:
            self._next = Round(self._open_again(), where=self._now.where) if self._open_again else self._now

    def close(self) -> None:
        """Close the file."""
        self._now.close()
        if self._next is not None:
            self._next.close()

    def _time_s(self, pts: int) -> float:
        return self._base_s + (pts - self._first) * self._now.tick_s

    def _end_s(self) -> float:
        """When the last picture that is known so far has been shown."""
        return self._time_s(max(self._now.times, default=self._now.last)) + self._period_s

    def next_s(self) -> float | None:
        """Seconds from the start at which the next picture exists, counted through loops; None at the end."""
        self._make_ready()
        more = bool(self._now.times) or self._again()
        if self._grid_s is not None:
            if self._pause_s[0] - _TIE_S <= self._slot * self._grid_s < self._pause_s[1] - _TIE_S:
                self._slot = math.ceil((self._pause_s[1] - _TIE_S) / self._grid_s)
            at_s = self._slot * self._grid_s
            last = not more or (self._now.ends and not self.loop)
            return at_s if not last or at_s < self._end_s() - _TIE_S else None
        return self._time_s(self._now.times[0]) if more else None

    def _make_ready(self) -> None:
        """With the end in sight, bring the next round to where the decoder of an endless recording would be."""
        if not self._loop or not self._now.ends or self._next is None or self._next is self._now or not self._decodable:
            return
        if not self._begun:
            self._begun = self._begin(self._next)
        else:
            self._next.make_ready(HELD_BACK - len(self._now.times))

    def _begin(self, playing: Round) -> bool:
        try:
            playing.begin()
        except (av.error.FFmpegError, OSError) as e:
            self._loop, self.complaint = False, f"cannot be played again: {getattr(e, 'strerror', None) or e}"
            return False
        return True

    def _again(self) -> bool:
        """At the end: start again when looping. Says so when the file held less than it promised."""
        ended = self._now
        had = ended.delivered + ended.lost
        if ended.promised and 0 < had + ended.hidden < ended.promised and not self.complaint and self._grid_s is None:
            self.complaint = f"ends after {had} of {ended.promised - ended.hidden} frames: the file is truncated"
        if not self._loop or not self._decodable or self._next is None:
            return False
        end_s = self._end_s()
        if not self._begun and not self._begin(self._next):
            return False
        self._now, self._next, self._begun = self._next, ended, False
        if ended is not self._now:
            ended.let_go()
        self._now.make_ready()
        self._base_s = max(end_s, self._base_s + self.round_s)
        self._pause_s = end_s, self._base_s
        if not self._now.times:
            self._loop, self.complaint = False, "cannot be played again: its server or container cannot go back to the start"
        return bool(self._now.times)

    def read(self, *, stopping: threading.Event) -> Picture | None:
        """The next picture, or None at the end. FrameLost when the file has it but it cannot be decoded."""
        if self.next_s() is None:
            return None
        return self._read_next() if self._grid_s is None else self._read_nearest(self._slot * self._grid_s)

    def _read_nearest(self, wanted_s: float) -> Picture:
        while self._now.times or self._again():
            next_s = self._time_s(self._now.times[0])
            if self._shown is not None and self._shown[0] + next_s > 2 * wanted_s - _TIE_S:
                break
            try:
                self._shown = next_s, self._read_next().video_frame
            except FrameLost:
                self._shown = next_s, None
        self._slot += 1
        if self._shown is None or self._shown[1] is None:
            raise FrameLost("corrupt picture")
        return Picture(self._shown[1])

    def _read_next(self) -> Picture:
        frame = self._now.take()
        if frame is None:
            raise FrameLost("corrupt picture")
        self._decodable = True
        return Picture(frame)

    def skip_rounds(self, until_s: float) -> int:
        """Before the first picture was read: go to the start of the round of the loop that is played at `until_s`. Returns how many
        frames that passed over."""
        if not self.loop:
            return 0
        shown = self._now.rest()
        end_s = self._time_s(max(shown)) + self._period_s
        round_s = max(end_s, self.round_s)
        rounds = max(int(until_s / round_s), 0)
        self._now.begin()
        self._now.make_ready()
        self._base_s = rounds * round_s
        self._pause_s = self._base_s - round_s + end_s, self._base_s
        if self._grid_s is None:
            return rounds * len(shown)
        self._slot = math.ceil((self._base_s - _TIE_S) / self._grid_s)
        return self._slot

    def skip_to_key_frame(self, until_s: float) -> int:
        """Pass over, without decoding, to the last key frame that is due by `until_s`, also to the start of the next round of a loop.

        Returns how many frames that cost; 0 when no such key frame is in sight: then decoding on is the fastest way.
        """
        if self._grid_s is None:
            return self._pass_over(until_s)
        slot = min(int(until_s / self._grid_s), int(self._end_s() / self._grid_s)) - 1
        if slot <= self._slot:
            return 0
        self._pass_over(slot * self._grid_s)
        passed, self._slot = slot - self._slot, slot
        return passed

    def _pass_over(self, until_s: float) -> int:
        now = self._now
        if not now.times:
            return 0
        if self.loop and now.ends and self._end_s() <= until_s:
            return now.skip_all()
        last = None
        for packet in now.waiting:
            if packet is not None and packet.is_keyframe and packet.pts is not None and self._time_s(packet.pts) <= until_s:
                last = packet
        return now.skip_to(last) if last is not None and last.pts > now.times[0] else 0
