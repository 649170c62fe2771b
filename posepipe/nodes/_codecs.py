"""How pictures are coded that travel to another host: JPEG for each plane, or an H.264 stream for each camera."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import av
import av.error
import cv2
import numpy as np
from av.codec.context import ThreadType
from av.video.codeccontext import VideoCodecContext

from posepipe.pipeline.carriage import Codec, Part, RawCodec, Sent
from posepipe.pipeline.errors import EngineError
from posepipe.pipeline.hosts import WireFormat
from posepipe.pipeline.packet import U8, Frame, PixelFormat
from posepipe.pipeline.ring import plane_layouts

_KEY_EVERY = 60
_SLOWEST_CRF = 51


def codec(form: WireFormat) -> Codec:
    """What one end of a link codes with. EngineError when this FFmpeg has no H.264 encoder."""
    if form.codec == "jpeg":
        return JpegCodec(form.quality)
    return H264Codec(form.quality) if form.codec == "h264" else RawCodec()


def _i420(frame: Frame) -> tuple[U8, ...]:
    """The planes, chroma apart."""
    if frame.format == "i420":
        return frame.planes
    y, uv = frame.planes
    return y, np.ascontiguousarray(uv[..., 0]), np.ascontiguousarray(uv[..., 1])


class JpegCodec:
    """Every plane is a grey JPEG of its own: no colour conversion at either end."""

    def __init__(self, quality: int) -> None:
        self._options = [cv2.IMWRITE_JPEG_QUALITY, quality]

    def encode(self, frame: Frame, *, alone: bool) -> tuple[PixelFormat, list[Part], bool]:
        coded = [cv2.imencode(".jpg", np.ascontiguousarray(plane), self._options)[1] for plane in _i420(frame)]
        return "i420", [np.asarray(data, np.uint8) for data in coded], True

    def decode(self, sent: Sent, camera: str, parts: Sequence[memoryview]) -> tuple[U8, ...] | None:
        planes = []
        for part in parts:
            try:
                plane = cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_GRAYSCALE)
            except cv2.error:
                return None
            if plane is None:
                return None
            plane.setflags(write=False)
            planes.append(np.asarray(plane, np.uint8))
        if [plane.shape for plane in planes] != [layout.shape for layout in plane_layouts(sent.width, sent.height, "i420")]:
            return None
        return tuple(planes)


class H264Codec:
    """One stream for each camera: no look-ahead, no reordering, so that every picture leaves at once and is decoded at once."""

    def __init__(self, quality: int) -> None:
        if "libx264" not in av.codecs_available:
            raise EngineError("this FFmpeg has no H.264 encoder (libx264)", where="wire: h264", hint="pip install av, or wire: jpeg")
        self._crf = min(10 + (100 - quality) / 2, _SLOWEST_CRF)
        self._encoders: dict[str, VideoCodecContext] = {}
        self._decoders: dict[str, VideoCodecContext] = {}
        self._count = 0

    def encode(self, frame: Frame, *, alone: bool) -> tuple[PixelFormat, list[Part], bool]:
        width, height = frame.width + frame.width % 2, frame.height + frame.height % 2  # the encoder takes even sides only
        encoder = self._encoders.get(frame.camera)
        if encoder is None or alone or (encoder.width, encoder.height) != (width, height):
            encoder = self._encoders[frame.camera] = self._encoder(width, height, full_range=frame.full_range)
        picture = av.VideoFrame(width, height, "yuv420p")
        for plane, target in zip(_i420(frame), picture.planes, strict=True):
            rows, columns = plane.shape
            view = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
            view[:rows, :columns] = plane
            view[rows : target.height, :columns] = plane[-1]
            view[: target.height, columns : target.width] = view[: target.height, columns - 1 : columns]
        self._count += 1
        picture.pts = self._count
        packets = encoder.encode(picture)
        return "i420", [b"".join(map(bytes, packets))], bool(packets and packets[0].is_keyframe)

    def _encoder(self, width: int, height: int, *, full_range: bool) -> VideoCodecContext:
        encoder = VideoCodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, 30), Fraction(30)
        encoder.gop_size = _KEY_EVERY
        encoder.thread_count = 1  # the cores belong to the studio
        encoder.color_range = 2 if full_range else 1
        encoder.options = {"preset": "superfast", "tune": "zerolatency", "crf": f"{self._crf:g}"}
        return encoder

    def decode(self, sent: Sent, camera: str, parts: Sequence[memoryview]) -> tuple[U8, ...] | None:
        if len(parts) != 1:
            return None
        if sent.alone or camera not in self._decoders:
            decoder = self._decoders[camera] = VideoCodecContext.create("h264", "r")
            decoder.thread_type = ThreadType.NONE
            decoder.flags |= av.codec.context.Flags.low_delay
        try:
            frames = self._decoders[camera].decode(av.Packet(bytes(parts[0])))
        except av.error.FFmpegError:
            return None
        picture = frames[0] if len(frames) == 1 else None
        if picture is None or picture.is_corrupt or picture.width < sent.width or picture.height < sent.height:
            return None
        planes = []
        for layout, plane in zip(plane_layouts(sent.width, sent.height, "i420"), picture.planes, strict=True):
            rows, columns = layout.shape
            view = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:rows, :columns]
            view.setflags(write=False)
            planes.append(view)
        return tuple(planes)
