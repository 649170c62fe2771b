"""capture.video: a file, an RTSP/HTTP stream or a V4L2 device as one camera. YUV is kept; decoding runs on the source's own thread."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.node import Context, NodeSettings, Source
from posepipe.pipeline.packet import Frame

from ._video import LiveVideo, RecordedVideo, StreamInfo, open_video


class CaptureVideo(Source):
    """One camera: a recording, a stream or a device.

    A recording acts as a live camera: a frame exists at its presentation time, is decoded after it, and carries it as its
    capture time. It plays once, or for as long as `--seconds` says. With `--offline` every frame is handed on in order,
    stamped with the recording's own time base (`speed` does not matter then). RTSP, HTTP and V4L2 streams are stamped when
    they arrive. (RTSP and V4L2 were not run for this release;
    MPEG-TS over TCP and files over HTTP were.)
    """

    use = "capture.video"

    class Settings(NodeSettings, frozen=True):
        uri: Annotated[str, Meta(description="file (also pull:NAME/FILE), rtsp://, http:// or a device such as /dev/video0", min_length=1)]
        fps: Annotated[float, Meta(description="recordings: resample to this rate; devices: ask for it", gt=0, le=1000)] | None = None
        speed: Annotated[float, Meta(description="recordings: play slower (0.5) or faster (2)", gt=0, le=100)] = 1.0
        loop: Annotated[bool, Meta(description="recordings: start again at the end")] = False
        options: Annotated[dict[str, str], Meta(description="options for FFmpeg, e.g. {rtsp_transport: tcp}")] = msgspec.field(
            default_factory=dict
        )
        timeout_s: Annotated[float, Meta(description="streams: give up when nothing arrives for this long", gt=0)] = 5.0

    settings: Settings
    info: StreamInfo
    _video: RecordedVideo | LiveVideo | None = None

    def open(self, ctx: Context) -> None:
        s = self.settings
        self._ctx, self._seq = ctx, 0
        self._video = open_video(s.uri, camera=ctx.key, resolve=ctx.resolve, fps=s.fps, options=s.options, timeout_s=s.timeout_s)
        self.info = self._video.info
        if isinstance(self._video, RecordedVideo):
            self._video.loop = (s.loop or ctx.loop) and not ctx.offline
            self._speed = 1.0 if ctx.offline else s.speed
        elif ctx.offline:
            raise SourceError(f"{s.uri} is a live stream", where=f"camera {ctx.key}", hint="--offline needs recordings; leave it out")

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
            if self._video.complaint and not self._ctx.stopping.is_set():
                self._ctx.warn(f"camera {self._ctx.key}: {self._video.complaint}")
            return None
        return picture.frame(camera=self._ctx.key, seq=seq, t_capture_ns=self._ctx.now_ns())

    def skip(self, until_s: float) -> int:
        if not isinstance(self._video, RecordedVideo):
            return 0
        passed = self._video.skip_to_key_frame(until_s * self._speed)
        self._seq += passed
        return passed

    def close(self) -> None:
        if self._video is not None:
            self._video.close()
