"""capture.video: a file, an RTSP/HTTP stream or a V4L2 device as one camera. YUV is kept; decoding runs on the source's own thread."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.node import Context, FrameLost, NodeSettings, Source
from posepipe.pipeline.packet import Frame

from ._capture_time import CaptureClock
from ._live import Door, LiveVideo, Reception, Transport, is_live
from ._stream import StreamInfo, shown
from ._video import Decoding, RecordedVideo, open_video


class CaptureVideo(Source):
    """One camera: a recording, a stream or a device.

    A recording acts as a live camera: a frame exists at its presentation time, is decoded after it, and carries it as its
    capture time. It plays once, or for as long as `--seconds` says. With `--offline` every frame is handed on in order,
    stamped with the recording's own time base (`speed` does not matter then).

    A stream or device that is not there, falls silent or breaks off is tried again for as long as the studio runs. Its frames
    are stamped with the camera's own clock where RTP sender reports tell it and it can be right, else with the arrival of the
    least delayed packet and the stream's time stamps. (RTSP was tested against GStreamer's server; V4L2 devices were not run
    for this release.)
    """

    use = "capture.video"

    class Settings(NodeSettings, frozen=True):
        uri: Annotated[str, Meta(description="file (also pull:NAME/FILE), rtsp://, http:// or a device such as /dev/video0", min_length=1)]
        fps: Annotated[float, Meta(description="recordings: resample to this rate; devices: ask for it", gt=0, le=1000)] | None = None
        speed: Annotated[float, Meta(description="recordings: play slower (0.5) or faster (2)", gt=0, le=100)] = 1.0
        loop: Annotated[bool, Meta(description="recordings: start again at the end")] = False
        transport: Annotated[Transport, Meta(description="RTSP: how pictures travel; auto is tcp where the camera can, else udp")] = "auto"
        jitter_ms: Annotated[float, Meta(description="RTSP over udp: wait so long for packets that others overtook", ge=0, le=5000)] = 50.0
        timeout_s: Annotated[float, Meta(description="streams: lost when nothing arrives for this long", gt=0, le=60)] = 2.0
        clock: Annotated[
            Literal["auto", "arrival"],
            Meta(description="streams: auto believes the camera's own clock where it tells it; arrival never does"),
        ] = "auto"
        deblock: Annotated[
            bool, Meta(description="smooth the edges of blocks as the codec asks; false: a quarter less decoding, shakier, see docs")
        ] = True
        options: Annotated[dict[str, str], Meta(description="options for FFmpeg, e.g. {user_agent: studio}; they win")] = msgspec.field(
            default_factory=dict
        )

    settings: Settings
    info: StreamInfo

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._video: RecordedVideo | LiveVideo | None = None
        self._live, self._door = is_live(settings.uri), Door(settings.uri)
        self._clock = CaptureClock(sender=settings.clock == "auto")
        self._said: set[str] = set()
        self._newest_ns = 0

    @property
    def live(self) -> bool:
        return self._live

    @property
    def address(self) -> str:
        return shown(self.settings.uri)

    def reachable(self) -> bool | None:
        return self._door.look()

    def open(self, ctx: Context) -> None:
        s = self.settings
        self._ctx, self._seq = ctx, 0
        if ctx.offline and self._live:
            raise SourceError(
                f"{shown(s.uri)} is a live stream", where=f"camera {ctx.key}", hint="--offline needs recordings; leave it out"
            )
        reception = Reception(s.timeout_s, s.transport, s.jitter_ms, ctx.now_ns, self._clock)
        self._video = open_video(
            s.uri,
            camera=ctx.key,
            resolve=ctx.resolve,
            fps=s.fps,
            options=s.options,
            reception=reception,
            decoding=Decoding(s.deblock, ctx.lend),
        )
        self._live = isinstance(self._video, LiveVideo)
        self.info = self._video.info
        if isinstance(self._video, RecordedVideo):
            self._video.loop = (s.loop or ctx.loop) and not ctx.offline
            self._speed = 1.0 if ctx.offline else s.speed
        elif ctx.offline:
            raise SourceError(
                f"{shown(s.uri)} is a live stream", where=f"camera {ctx.key}", hint="--offline needs recordings; leave it out"
            )
        elif ctx.rig is not None:  # a camera that comes late, or comes back as another, was not there when the others were checked
            ctx.rig.check_videos({ctx.key: (self.info.width, self.info.height)}, where=f"camera {ctx.key}")

    def begin_rounds_together(self, round_s: float) -> None:
        """A recording that is played again waits until this long after its last start (seconds of the recording)."""
        if isinstance(self._video, RecordedVideo):
            self._video.round_s = round_s

    def due_s(self) -> float | None:
        if isinstance(self._video, LiveVideo):
            return None
        assert self._video is not None
        next_s = self._video.next_s()
        return next_s / self._speed if next_s is not None else 0.0

    def step(self) -> Frame | None:
        assert self._video is not None
        seq = self._seq
        self._seq += 1  # counts also the frames that turn out to be lost
        picture = self._video.read(stopping=self._ctx.stopping)
        if picture is None:
            if isinstance(self._video, RecordedVideo) and self._video.complaint and not self._ctx.stopping.is_set():
                self._ctx.warn(f"camera {self._ctx.key}: {self._video.complaint}")
            return None
        t_ns = picture.t_capture_ns
        if t_ns is None:
            t_ns = self._ctx.now_ns()
        else:
            self._tell_clock()
            if t_ns <= self._newest_ns:
                raise FrameLost("stamped before an earlier frame")
            self._newest_ns = t_ns
        return picture.frame(camera=self._ctx.key, seq=seq, t_capture_ns=t_ns)

    def _tell_clock(self) -> None:
        """Say once whose time the stamps are, and once what is wrong with the camera's."""
        camera, ahead_s = f"camera {self._ctx.key}", self._clock.ahead_ns / 1e9
        if self._clock.by not in self._said:
            self._said.add(self._clock.by)
            own = "its own clock (RTP sender reports)" if self._clock.by == "sender" else "the arrival of its packets"
            self._ctx.log.info("%s: capture times are by %s", camera, own)
        if ahead_s and "fault" not in self._said:
            self._said.add("fault")
            off = f"{ahead_s:.3g} s ahead" if ahead_s > 0 else f"{-ahead_s:.3g} s behind"
            self._ctx.warn(
                f"{camera}: its clock is {off} of this machine's, so its frames are stamped on arrival; give both the same time server, "
                "or write clock: arrival"
            )

    def skip(self, until_s: float) -> int:
        if not isinstance(self._video, RecordedVideo):
            return 0
        passed = self._video.skip_to_key_frame(until_s * self._speed)
        self._seq += passed
        return passed

    def resume(self, until_s: float) -> None:
        if isinstance(self._video, RecordedVideo):
            self._seq += self._video.skip_rounds(until_s * self._speed)
        super().resume(until_s)

    def close(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None
