"""What the supervisor and its workers say to each other, over one socket pair each: message boundaries kept, descriptors passed along.

The pair has no name, so nothing is left of it; when one side is gone the other reads its end at once.
"""

from __future__ import annotations

import array
import mmap
import os
import socket
from typing import Any

import msgspec

from posepipe.pipeline import errors as tree
from posepipe.pipeline.errors import PosepipeError, RunError
from posepipe.pipeline.packet import Sync, Tier

_MOST_BYTES = 1 << 20
_BUFFER = 4 << 20


class Letter(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all of them."""


# from a worker ------------------------------------------------------------------------------------------------------------


class Opened(Letter, frozen=True):
    """Every node is open. infos: camera -> what its source says of itself (`StreamInfo` as a map)."""

    infos: dict[str, dict[str, Any]]
    runs_on: dict[str, str]


class Fault(Letter, frozen=True):
    """The worker ends because of an error."""

    kind: str
    what: str
    where: str
    hint: str

    @classmethod
    def of(cls, error: PosepipeError) -> Fault:
        return cls(type(error).__name__, error.what, error.where, error.hint)

    def error(self) -> PosepipeError:
        kind = getattr(tree, self.kind, RunError)
        return kind(self.what, where=self.where, hint=self.hint)


class Ask(Letter, frozen=True):
    """A camera has pictures of that size and no ring that fits."""

    camera: str
    width: int
    height: int


class Have(Letter, frozen=True):
    """A ring has been mapped, or everybody in a table of addresses has been connected to; by its number."""

    ring: int


class Listens(Letter, frozen=True):
    """Answer to `Listen`: where, and this process's public key."""

    address: str
    key: bytes


class NodeBeat(msgspec.Struct, frozen=True, array_like=True):
    """One node since the last beat. latency_ns: int64. busy_s: how long the call that is running has lasted."""

    latency_ns: bytes
    waiting: int
    errors: int
    busy_s: float
    ended: bool


class Beat(Letter, frozen=True):
    """The worker lives. seen: people and median reprojection error of the last skeletons made here, sync: how well their instant hung
    together; subscribers: None when nothing here publishes; strange: messages that were damaged or not for this studio, since the start."""

    nodes: dict[str, NodeBeat]
    end_to_end_ns: bytes
    quality: list[tuple[int, float, Tier]]
    seen: tuple[int, float] | None
    subscribers: int | None
    strange: int
    sync: Sync | None = None


class Entries(Letter, frozen=True):
    """Entries of the ledger."""

    events: list[tuple[Any, ...]]


class Spans(Letter, frozen=True):
    """Part of the trace: packets without bodies, as `Packet` maps, and captures."""

    packets: list[Any]
    captures: list[Any]


class Said(Letter, frozen=True):
    """A warning, or a line of the log (level of `logging`)."""

    level: int
    name: str
    text: str


class Newest(Letter, frozen=True):
    """Answer to `Echo`: a node's newest result for people to read, as JSON; empty when it has made nothing yet."""

    node: str
    seq: int
    text: str


class Harmed(Letter, frozen=True):
    """A `Harm` is over. times: how often it took effect."""

    number: int
    times: int


class Done(Letter, frozen=True):
    """All nodes have ended and everything that is known has been said."""


# from the supervisor ------------------------------------------------------------------------------------------------------


class Ring(Letter, frozen=True):
    """A frame ring; its descriptor comes along. replaces: the id of the one that is no longer used, 0 for none."""

    camera: str
    writes: bool
    replaces: int


class Listen(Letter, frozen=True):
    """Open a letter box for other hosts, at an address of this one (empty: you know it). `Listens` is the answer."""

    ip: str


class Addresses(Letter, frozen=True):
    """Everybody who can be reached from other hosts now: worker -> where it listens, its public key. `Have` is the answer."""

    number: int
    peers: dict[str, tuple[str, bytes]]


class Start(Letter, frozen=True):
    """Go. start_ns: second 0 on the studio clock; next_seq: camera -> first frame number after a restart; ended: nodes elsewhere
    that will write no more."""

    start_ns: int
    round_s: float
    next_seq: dict[str, int]
    ended: list[str]


class Stop(Letter, frozen=True):
    """The sources end; what is under way is finished."""


class Gone(Letter, frozen=True):
    """Another worker died."""

    worker: str


class Ended(Letter, frozen=True):
    """A node of another worker will write no more, and cannot say so itself."""

    node: str


class Echo(Letter, frozen=True):
    """Which result has this node made last?"""

    node: str


class Harm(Letter, frozen=True):
    """Do this to a node of yours (`pipeline.chaos`). by_ms: of a skew; share: of a loss or a damage."""

    number: int
    kind: str
    node: str
    for_s: float
    by_ms: float
    share: float


Any_ = (
    Opened
    | Fault
    | Ask
    | Have
    | Beat
    | Entries
    | Spans
    | Said
    | Newest
    | Done
    | Ring
    | Start
    | Stop
    | Gone
    | Ended
    | Echo
    | Harm
    | Harmed
    | Listen
    | Listens
    | Addresses
)
_encoder = msgspec.msgpack.Encoder(enc_hook=lambda value: value.item())
_decoder: msgspec.msgpack.Decoder[Letter] = msgspec.msgpack.Decoder(Any_)


class Line:
    """One side of a pair."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        # Read into again and again: a buffer made for each letter leaves holes in the heap. Its pages are taken when a letter is as long as that.
        self._into = mmap.mmap(-1, _MOST_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    @classmethod
    def pair(cls) -> tuple[Line, Line]:
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (a, b):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        return cls(a), cls(b)

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, letter: Letter, *fds: int, wait: bool = True) -> bool:
        """False when the other side is gone, or its buffer is full and `wait` is not."""
        flags = 0 if wait else socket.MSG_DONTWAIT
        try:
            if fds:
                socket.send_fds(self.socket, [_encoder.encode(letter)], list(fds), flags)
            else:
                self.socket.send(_encoder.encode(letter), flags)
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):
            return False
        return True

    def receive(self) -> tuple[Letter, list[int]] | None:
        """The next letter and the descriptors that came with it; None at the end. For one thread at a time."""
        try:
            size, beside, _, _ = self.socket.recvmsg_into([self._into], socket.CMSG_LEN(4 * array.array("i").itemsize))
        except ConnectionResetError:
            return None
        if not size:
            return None
        fds = array.array("i")
        for level, kind, data in beside:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) // fds.itemsize * fds.itemsize])
        return _decoder.decode(memoryview(self._into)[:size]), list(fds)

    def close(self) -> None:
        self.socket.close()


def close_fds(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
