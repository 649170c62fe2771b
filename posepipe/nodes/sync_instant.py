"""sync.instant: frames of several cameras that were captured at the same time become one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Annotated

from msgspec import Meta

from posepipe.nodes._certificate import Certificate, SyncEstimator
from posepipe.nodes._sync_alarm import SyncAlarm
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Caps, Context, Node, NodeSettings
from posepipe.pipeline.packet import Frame, FrameSet, Sync

_COMPLAIN_AFTER = 60
_GONE_AFTER = 15  # instants: half a second at 30 fps


@dataclass(slots=True)
class _Open:
    """An instant that still waits for cameras."""

    t_ns: int
    arrived_ns: int
    frames: dict[str, Frame] = field(default_factory=dict)


class SyncInstant(Node):
    """Joins the frames of all cameras that were captured at the same time to one instant.

    A frame joins the open instant nearest in time (within `window_ms`). An instant leaves when it is complete, when every
    camera that it lacks has moved on or ended, or `wait_ms` after its first frame arrived; it is then marked with what it
    lacks. Live, a camera from which nothing came while 15 instants left is not waited for until it is back. Instants leave in order. Fewer than `min_views` cameras: the frames are dropped, counted. `seq` follows the
    cameras' own frame counters, so an instant that no camera delivered leaves a gap. Every instant carries the sync certificate:
    each camera's offset, drift and completeness, and a warning says when a camera is about to leave the window (docs/sync.md).
    """

    use = "sync.instant"
    fan_in = True
    default_queue = (8, "drop_oldest")

    class Settings(NodeSettings, frozen=True):
        window_ms: Annotated[float, Meta(description="frames this close in capture time are one instant", gt=0, le=1000)] = 8.0
        wait_ms: Annotated[float, Meta(description="longest wait for a late camera, from the first frame's arrival", ge=0, le=10_000)] = (
            20.0
        )
        min_views: Annotated[int, Meta(description="fewest cameras that make an instant", ge=1, le=64)] = 2

    settings: Settings

    @classmethod
    def check(cls, settings: Settings, inputs: Mapping[str, Caps]) -> None:
        cameras = inputs["frame"].cameras
        if settings.min_views > len(cameras):
            have = f"{len(cameras)} camera{'s come' if len(cameras) > 1 else ' comes'} in: {', '.join(cameras)}"
            raise GraphError(f"min_views is {settings.min_views}, but only {have}", hint=f"min_views: {len(cameras)} or fewer")

    def open(self, ctx: Context) -> None:
        self._ctx = ctx
        self._window_ns = int(self.settings.window_ms * 1e6)
        self._wait_ns = int(self.settings.wait_ms * 1e6)
        self._cameras = ctx.caps["frame"].cameras
        self._active = set(self._cameras)
        self._newest: dict[str, int] = {}
        self._silent_for = dict.fromkeys(self._cameras, 0)  # instants that left since a camera's last frame
        self._open: list[_Open] = []
        self._left_ns = -1
        self._last_seq: dict[str, int] = {}
        self._seq = -1
        self._too_few = 0
        self._estimator = SyncEstimator(len(self._cameras))
        self._alarm = SyncAlarm(ctx.name, self._cameras, self.settings.window_ms)
        self._certified = self._on_the_way(self.certificate)

    @property
    def certificate(self) -> Certificate:
        """The newest sync certificate; its cameras are those that come in, in their order. New about once a second."""
        return self._estimator.certificate

    def step(self, frame: Frame) -> list[FrameSet]:
        t = frame.t_capture_ns
        self._newest[frame.camera] = max(t, self._newest.get(frame.camera, t))
        self._silent_for[frame.camera] = 0
        fitting = [o for o in self._open if abs(t - o.t_ns) <= self._window_ns and frame.camera not in o.frames]
        if fitting:
            min(fitting, key=lambda o: abs(t - o.t_ns)).frames[frame.camera] = frame
        elif t <= self._left_ns + self._window_ns:
            self._ctx.drop(frame, "late: its instant had left")
        else:
            self._open.append(_Open(t, self._ctx.now_ns(), {frame.camera: frame}))
            self._open.sort(key=lambda o: o.t_ns)
        return self._leave()

    def wake_ns(self) -> int | None:
        if self._ctx.offline or not self._open:  # offline nothing is late: a missing frame is known when its camera moves on or ends
            return None
        return min(o.arrived_ns for o in self._open) + self._wait_ns

    def on_time(self, now_ns: int) -> list[FrameSet]:
        return self._leave(before_ns=max((o.t_ns for o in self._open if o.arrived_ns + self._wait_ns <= now_ns), default=-1))

    def on_end(self, source: str) -> list[FrameSet]:
        self._active.discard(source.rpartition("/")[2])
        return self._leave()

    def _leave(self, before_ns: int = -1) -> list[FrameSet]:
        out = []
        while self._open and (self._open[0].t_ns <= before_ns or self._complete(self._open[0])):
            leaving = self._open.pop(0)
            self._left_ns = leaving.t_ns
            for camera in self._cameras:
                self._silent_for[camera] += camera not in leaving.frames
            seq = self._number(leaving.frames)
            if len(leaving.frames) >= self.settings.min_views:
                self._too_few = 0
                out.append(self._frame_set(seq, leaving.frames))
            else:
                self._lose(leaving)
        return out

    def _complete(self, o: _Open) -> bool:
        return all(c in o.frames or self._newest.get(c, -1) > o.t_ns + self._window_ns or self._gone(c) for c in self._active)

    def _gone(self, camera: str) -> bool:
        """A camera that was unplugged costs the others `wait_ms` for half a second, not until somebody comes. Counted in instants, so a
        slow camera is no silent one."""
        return not self._ctx.offline and self._silent_for[camera] >= _GONE_AFTER

    def _number(self, frames: dict[str, Frame]) -> int:
        """The next instant number: on by as many as the cameras' own counters went on."""
        ahead = [f.seq - self._last_seq[c] for c, f in frames.items() if c in self._last_seq]
        self._seq = self._seq + max(1, min(ahead)) if ahead else max(self._seq + 1, min(f.seq for f in frames.values()))
        self._last_seq.update({c: f.seq for c, f in frames.items()})
        return self._seq

    def _frame_set(self, seq: int, frames: dict[str, Frame]) -> FrameSet:
        cameras = self._ctx.cameras
        times = sorted(f.t_capture_ns for f in frames.values())
        median_ns = (times[(len(times) - 1) // 2] + times[len(times) // 2]) // 2  # floats would lose 128 ns
        views = tuple(i for i, c in enumerate(cameras) if c in frames)
        missing = tuple(i for i, c in enumerate(cameras) if c in self._cameras and c not in frames)
        ordered = {c: frames[c] for c in cameras if c in frames}
        self._certify(median_ns, frames)
        return FrameSet(seq, median_ns, cameras, ordered, Sync(times[-1] - times[0], views, missing, *self._certified))

    def _certify(self, median_ns: int, frames: dict[str, Frame]) -> None:
        if self._estimator.add(median_ns, [(frames[c].t_capture_ns - median_ns) * 1e-6 if c in frames else nan for c in self._cameras]):
            self._certified = self._on_the_way(self.certificate)
            for text in self._alarm.texts(self.certificate, ended=set(self._cameras) - self._active):
                self._ctx.warn(text)

    def _on_the_way(self, certificate: Certificate) -> tuple[tuple[float | None, ...], ...]:
        """Offset, drift and completeness of every camera of the studio, rounded as they travel."""
        columns = ((certificate.offset_ms, 3), (certificate.drift_ppm, 2), (certificate.complete, 3))
        figures = {c: i for i, c in enumerate(self._cameras)}
        return tuple(
            tuple(_rounded(float(column[figures[c]]), decimals) if c in figures else None for c in self._ctx.cameras)
            for column, decimals in columns
        )

    def _lose(self, o: _Open) -> None:
        for frame in o.frames.values():
            self._ctx.drop(frame, "too few views")
        self._too_few += 1
        if self._too_few == _COMPLAIN_AFTER and len(self._newest) > 1:
            spread_ms = (max(self._newest.values()) - min(self._newest.values())) / 1e6
            self._ctx.warn(
                f"{self._ctx.name}: {_COMPLAIN_AFTER} instants in a row had fewer than min_views={self.settings.min_views} cameras within "
                f"window_ms={self.settings.window_ms:g}; the cameras' newest frames lie {spread_ms:.1f} ms apart: are they synced?"
            )


def _rounded(value: float, decimals: int) -> float | None:
    return None if value != value else round(value, decimals) + 0.0  # no -0.0
