"""Pictures that ride in the message, because the reader is on another host and no memory is shared with it.

A message of such a link is [head, header, (number), manifest, part...]. The header is that of any link: its references name places
in the manifest (ring `IN_MESSAGE`) instead of slots. The manifest says of each picture what it is and how many parts it takes.

Pictures that are coded after earlier ones (H.264) are numbered for each camera; where one is missing, the reader counts the
following as lost and asks the writer to begin again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import msgspec
import numpy as np

from .errors import RunError
from .packet import U8, Frame, FrameSet, PixelFormat
from .ring import SlotRef, plane_layouts

IN_MESSAGE = -1
_CHECKSUM = 4
_LARGEST_SIDE = 1 << 15
Part = bytes | memoryview | U8


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """One picture of a message. number: of the pictures of that camera on that link; alone: it needs no earlier one."""

    seq: int
    t_capture_ns: int
    format: PixelFormat
    width: int
    height: int
    full_range: bool
    parts: int
    number: int
    alone: bool


class Codec(Protocol):
    """Codes the pictures of one end of one link; keeps what it needs for each camera."""

    def encode(self, frame: Frame, *, alone: bool) -> tuple[PixelFormat, list[Part], bool]:
        """The pixels as message parts, the format that they will have, and whether they need no earlier picture.

        alone: they must not need one.
        """
        ...

    def decode(self, sent: Sent, camera: str, parts: Sequence[memoryview]) -> tuple[U8, ...] | None:
        """The planes, as in `Frame`; None when the parts are no such picture."""
        ...


class RawCodec:
    """Pixels as they are."""

    def encode(self, frame: Frame, *, alone: bool) -> tuple[PixelFormat, list[Part], bool]:
        return frame.format, [np.ascontiguousarray(plane) for plane in frame.planes], True

    def decode(self, sent: Sent, camera: str, parts: Sequence[memoryview]) -> tuple[U8, ...] | None:
        shapes = [layout.shape for layout in plane_layouts(sent.width, sent.height, sent.format)]
        if [part.nbytes for part in parts] != [int(np.prod(shape)) for shape in shapes]:
            return None
        planes = tuple(np.frombuffer(part, np.uint8).reshape(shape) for part, shape in zip(parts, shapes, strict=True))
        for plane in planes:
            plane.setflags(write=False)
        return planes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Sent])


class Carriage:
    """The writer's end: puts pictures into messages. `pack` belongs to one thread, `begin_again` to any."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._round = 0
        self._in_round: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    def begin_again(self) -> None:
        """The reader has lost something, or is a new one: the next picture of every camera needs no earlier one."""
        self._round += 1

    def pack(self, body: Frame | FrameSet) -> tuple[Frame | FrameSet, list[Part]] | None:
        """The body with its frames in places of the message, and the parts that follow the header. None when a picture was overwritten
        while it was coded."""
        frames = [body] if isinstance(body, Frame) else list(body.frames.values())
        manifest: list[Sent] = []
        parts: list[Part] = []
        for frame in frames:
            sent, own = self._pack(frame)
            manifest.append(sent)
            parts += own
        if not body.whole:
            self.begin_again()
            return None
        data = _encoder.encode(manifest)
        placed = [replace(frame, slot=SlotRef(IN_MESSAGE, place, 0)) for place, frame in enumerate(frames)]
        there = placed[0] if isinstance(body, Frame) else replace(body, frames={frame.camera: frame for frame in placed})
        return there, [_checksum(data) + data, *parts]

    def _pack(self, frame: Frame) -> tuple[Sent, list[Part]]:
        now = self._round
        form, parts, alone = self._codec.encode(frame, alone=self._in_round.get(frame.camera) != now)
        self._in_round[frame.camera] = now
        number = self._numbers[frame.camera] = self._numbers.get(frame.camera, -1) + 1
        size = frame.width, frame.height
        return Sent(frame.seq, frame.t_capture_ns, form, *size, frame.full_range, len(parts), number, alone), parts


def _checksum(data: bytes | memoryview) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM, "little")


class Unloading:
    """The reader's end. ask: called when a picture was lost that later ones need."""

    def __init__(self, codec: Codec, ask: Callable[[], None]) -> None:
        self._codec, self._ask = codec, ask
        self._next: dict[str, int | None] = {}

    def unpack(self, payload: Sequence[memoryview], *, where: str) -> Load:
        """The pictures of a message, to be decoded as they are asked for. RunError when it is not whole."""
        data = payload[0] if payload else memoryview(b"")
        try:
            if data[:_CHECKSUM] != _checksum(data[_CHECKSUM:]):
                raise ValueError("its checksum is wrong")
            manifest = _decoder.decode(data[_CHECKSUM:])
            if sum(sent.parts for sent in manifest) != len(payload) - 1:
                raise ValueError(f"{len(payload) - 1} parts")
            if any(not 0 < side <= _LARGEST_SIDE for sent in manifest for side in (sent.width, sent.height)):
                raise ValueError("pictures of no possible size")
        except (msgspec.MsgspecError, ValueError) as e:
            raise RunError(f"pictures that are damaged or cut short: {e}", where=where) from None
        return Load(self, manifest, payload[1:])

    def take(self, sent: Sent, camera: str, parts: Sequence[memoryview]) -> Frame | None:
        if not sent.alone and self._next.get(camera) != sent.number:
            self._lose(camera)
            return None
        planes = self._codec.decode(sent, camera, parts)
        if planes is None:
            self._lose(camera)
            return None
        self._next[camera] = sent.number + 1
        return Frame(camera, sent.seq, sent.t_capture_ns, sent.format, sent.width, sent.height, planes, sent.full_range)

    def _lose(self, camera: str) -> None:
        if self._next.get(camera, 0) is not None:  # once for each loss: until the writer has begun again, all that comes is lost
            self._ask()
        self._next[camera] = None


class Load:
    """The pictures of one message, by their places."""

    def __init__(self, unloading: Unloading, manifest: list[Sent], parts: Sequence[memoryview]) -> None:
        self._unloading, self._manifest = unloading, manifest
        ends = np.cumsum([sent.parts for sent in manifest]).tolist()
        self._parts = [parts[end - sent.parts : end] for sent, end in zip(manifest, ends, strict=True)]

    def frame(self, ref: SlotRef, *, camera: str, done: Callable[[], None] | None = None) -> Frame | None:
        """As `RingReader.frame`: None when the picture cannot be had."""
        if not 0 <= ref.index < len(self._manifest):
            return None
        return self._unloading.take(self._manifest[ref.index], camera, self._parts[ref.index])
