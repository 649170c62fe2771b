"""Messages between processes: a packet without its pixels, which stay in their slots.

    codec = Headers(Frame)                                          # one per link, for what its port carries
    data = codec.encode(packet)                                     # a few hundred bytes
    packet = codec.decode(data, where="link north -> instants")     # Packet[FrameRef]
    packet, lost = resolve(packet, {ring.id: reader})               # Packet[Frame], its planes views into the ring

Eight bytes in every version (``PPL``, the version, CRC-32 of the rest and the version), then MessagePack: the name of the
body's type and the packet, fields by name, arrays as [dtype, shape, little-endian bytes]. Any dataclass of numbers, strings,
tuples, mappings and arrays can be a body; `Frame` and `FrameSet` become references. What arrives is checked for its version,
its checksum, its type and the type of every field and array: a message that is not whole is one RunError and nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, get_args, get_origin

import msgspec
import numpy as np

from .errors import RunError
from .ledger import shares
from .packet import Frame, FrameId, FrameSet, Packet, Sync
from .ring import SlotRef

LINK_VERSION = 3
_MAGIC = b"PPL"
_HEAD = len(_MAGIC) + 1 + 4
_DTYPES = ("<f4", "<f8", "<i8", "<i4", "|u1", "|b1")


@dataclass(frozen=True, slots=True)
class FrameRef:
    """A frame that stayed in its slot."""

    camera: str
    seq: int
    t_capture_ns: int
    slot: SlotRef


@dataclass(frozen=True, slots=True)
class FrameSetRef:
    """An instant whose frames stayed in their slots."""

    seq: int
    t_capture_ns: int
    cameras: tuple[str, ...]
    frames: tuple[FrameRef, ...]
    sync: Sync


class Reader(Protocol):
    """Where pictures lie: a frame ring (`ringends.RingReader`), or the message itself (`carriage.Load`)."""

    def frame(self, ref: SlotRef, *, camera: str, done: Callable[[], None] | None = None) -> Frame | None: ...


class Headers:
    """Encodes and decodes the packets of one link. body: the type that the link's port carries."""

    def __init__(self, body: type) -> None:
        self._body = body
        on_the_wire = {Frame: FrameRef, FrameSet: FrameSetRef}.get(body, body)
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_encode_array)
        self._envelope = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])
        self._packet = msgspec.msgpack.Decoder(Packet[on_the_wire], dec_hook=_decode_array)  # type: ignore[valid-type]

    def encode(self, packet: Packet[Any]) -> bytes:
        """The frames of a `Frame` or `FrameSet` have to lie in slots."""
        body = packet.body
        if not isinstance(body, self._body):
            raise RunError(f"a {type(body).__name__} on a link that carries {self._body.__name__}", where=f"node {packet.source}")
        if isinstance(body, (Frame, FrameSet)):
            packet = _with(packet, _refer(body))
        rest = self._encoder.encode((self._body.__name__, packet))
        return b"".join((_MAGIC, bytes((LINK_VERSION,)), _checksum(LINK_VERSION, rest), rest))

    def decode(self, data: bytes | memoryview, *, where: str) -> Packet[Any]:
        """The packet, with `FrameRef` and `FrameSetRef` where frames were. RunError when the message is not one for this link.

        Arrays are read-only.
        """
        head, rest = bytes(data[:_HEAD]), data[_HEAD:]
        if len(head) < _HEAD or head[:3] != _MAGIC:
            raise RunError(
                f"{len(data)} bytes that are no posepipe message", where=where, hint="something else talks to this address, or cut it short"
            )
        version = head[3]
        if head[4:] != _checksum(version, rest):
            raise RunError(f"a message of {len(data)} bytes that is damaged or cut short (its checksum is wrong)", where=where)
        if version != LINK_VERSION:
            raise RunError(
                f"a peer speaks link version {version}, this is {LINK_VERSION}", where=where, hint="run the same posepipe on both sides"
            )
        try:
            name, raw = self._envelope.decode(rest)
            if name != self._body.__name__:
                raise RunError(
                    f"a peer sends {name}, this link carries {self._body.__name__}", where=where, hint="both ends need the same studio file"
                )
            packet: Packet[Any] = self._packet.decode(raw)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
            raise RunError(
                f"a message that does not read as {self._body.__name__}: {e}", where=where, hint="run the same posepipe on both sides"
            ) from None
        return packet


def resolve(
    packet: Packet[Any], readers: Mapping[int, Reader], *, done: Callable[[], None] | None = None
) -> tuple[Packet[Any] | None, Packet[Any] | None]:
    """Put views into the slots in place of the references; what is left of the packet, and what of it had been overwritten by then.

    readers: ring id -> its reader; a ring that this process does not have (any more) counts as overwritten. A set goes on without
    the cameras that were lost, which are then missing in it; no packet is left when no frame is. done: called when nobody holds
    any of its pictures any more.
    """
    body = packet.body
    if not isinstance(body, (FrameRef, FrameSetRef)):
        return packet, None
    refs = (body,) if isinstance(body, FrameRef) else body.frames
    each = _after(len(refs), done) if done is not None else None
    found = {ref.camera: _look(ref, readers, each) for ref in refs}
    frames = {camera: frame for camera, frame in found.items() if frame}
    gone = {(ref.camera, ref.seq) for ref in refs if ref.camera not in frames}
    lost = _part(packet, gone, within=True) if gone else None
    if not frames:
        return None, lost
    if isinstance(body, FrameRef):
        return _with(packet, frames[body.camera]), None
    sync = body.sync if not gone else _without(body.sync, {body.cameras.index(camera) for camera, _ in gone}, frames)
    instant = FrameSet(body.seq, body.t_capture_ns, body.cameras, frames, sync)
    return _with(_part(packet, gone, within=False) if gone else packet, instant), lost


def _with(packet: Packet[Any], body: object) -> Packet[Any]:
    """`dataclasses.replace`, which costs 20 us on a processor that has just woken up."""
    return Packet(packet.seq, packet.t_capture_ns, packet.source, body, packet.trace, packet.frames, packet.shares)


def _part(packet: Packet[Any], of: Container[FrameId], *, within: bool) -> Packet[Any]:
    """A packet that answers only for the frames that are, or are not, among those."""
    kept = [(f, share) for f, share in zip(packet.frames, shares(packet), strict=True) if (f in of) == within]
    return replace(packet, frames=tuple(f for f, _ in kept), shares=tuple(share for _, share in kept))


def _look(ref: FrameRef, readers: Mapping[int, Reader], done: Callable[[], None] | None) -> Frame | None:
    reader = readers.get(ref.slot.ring)
    frame = reader.frame(ref.slot, camera=ref.camera, done=done) if reader is not None else None
    if frame is None and done is not None:
        done()
    return frame


def _after(count: int, done: Callable[[], None]) -> Callable[[], None]:
    """Call it that often, and `done` is called."""
    if not count:
        done()
    left = [count]

    def one() -> None:
        left[0] -= 1
        if not left[0]:
            done()

    return one


def _without(sync: Sync, lost: set[int], frames: Mapping[str, Frame]) -> Sync:
    times = [frame.t_capture_ns for frame in frames.values()]
    views = tuple(v for v in sync.views if v not in lost)
    return replace(sync, skew_ns=max(times) - min(times), views=views, missing=tuple(sorted({*sync.missing, *lost})))


def _refer(body: Frame | FrameSet) -> FrameRef | FrameSetRef:
    if isinstance(body, FrameSet):
        return FrameSetRef(body.seq, body.t_capture_ns, body.cameras, tuple(map(_reference, body.frames.values())), body.sync)
    return _reference(body)


def _reference(frame: Frame) -> FrameRef:
    if frame.slot is None:
        raise RunError(f"frame {frame.seq} of camera {frame.camera} lies in no slot", hint="report this: it is a bug")
    return FrameRef(frame.camera, frame.seq, frame.t_capture_ns, frame.slot)


def _checksum(version: int, rest: bytes | memoryview) -> bytes:
    return zlib.crc32(rest, version).to_bytes(4, "little")


def _encode_array(array: object) -> tuple[str, tuple[int, ...], memoryview]:
    if not isinstance(array, np.ndarray):
        raise _cannot_travel(f"a {type(array).__name__}")
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    if little.dtype.str not in _DTYPES:
        raise _cannot_travel(f"an array of {array.dtype}")
    return little.dtype.str, array.shape, little.reshape(-1).view(np.uint8).data


def _cannot_travel(what: str) -> RunError:
    return RunError(
        f"{what} cannot travel between processes", hint="place both nodes in one process, or send numbers, strings and arrays of them"
    )


def _decode_array(kind: Any, message: Any) -> Any:
    """An array of the dtype that its field is annotated with; what is raised here reaches `decode` as a ValidationError with the path."""
    if get_origin(kind) is not np.ndarray:
        raise TypeError(f"nothing is known of {kind}")
    (wanted,) = get_args(get_args(kind)[1])
    dtype, shape, data = message
    if dtype not in _DTYPES or not issubclass(np.dtype(dtype).type, wanted):
        raise ValueError(f"an array of {dtype}, expected {wanted.__name__}")
    if any(n < 0 for n in shape):
        raise ValueError(f"an array of shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape)
