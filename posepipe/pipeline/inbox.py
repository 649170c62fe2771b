"""The letter box of a worker process: everything that other processes of the studio send it arrives on one ZeroMQ socket.

A message is [head, payload...]. head: the studio's secret (8 bytes, made for each run, so that nobody else on the machine or
the network can speak up by accident), what it is (1 byte), the number of the wire it belongs to (2 bytes) and the CRC-32 of these:
no damage turns a packet into the end of a link.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from .errors import RunError
from .far import Far, FarSocket, Peer

DATA, END, TAKEN, AGAIN = range(4)
SECRET_BYTES = 8
_HEAD = struct.Struct(f"<{SECRET_BYTES}sBHI")
_CHECKSUM_BYTES = 4
_AT_ONCE = 256
_LINGER_MS = 500

Handler = Callable[[int, Sequence[zmq.Frame]], bool]


class Post:
    """Where the workers of a studio live, and how to write to them. address: worker of this host -> ZeroMQ endpoint. far: set before
    the first link to another host."""

    def __init__(self, address: Callable[[str], str], secret: bytes) -> None:
        self.address, self.secret = address, secret
        self.context: zmq.Context[Any] = zmq.Context()
        self.far: Far | None = None

    def head(self, kind: int, wire: int) -> bytes:
        said = _HEAD.pack(self.secret, kind, wire, 0)[:-_CHECKSUM_BYTES]
        return said + zlib.crc32(said).to_bytes(_CHECKSUM_BYTES, "little")

    def to(self, worker: str) -> zmq.Socket[bytes]:
        """A socket that writes to a worker; it belongs to one thread. Nothing waits in it for a worker that is not there."""
        socket: zmq.Socket[bytes] = self.context.socket(zmq.PUSH)
        socket.immediate = True
        socket.linger = _LINGER_MS
        socket.reconnect_ivl = 10
        socket.reconnect_ivl_max = 100
        socket.connect(self.address(worker))
        return socket

    def to_far(self, worker: str, *, most_waiting: int = 0) -> FarSocket:
        """The same for a worker of another host."""
        assert self.far is not None
        return self.far.to(worker, most_waiting=most_waiting)

    def close(self) -> None:
        if self.far is not None:
            self.far.close()
        self.context.destroy(linger=_LINGER_MS)


class Inbox:
    """Messages from other processes, handled on the thread of the one worker that waits for them.

    on: wire number -> handler(kind, payload), which says whether it knows such a message. `foreign` counts those that nobody knew:
    of another studio, or damaged where it says what they are. owed: called each time before messages are handled.
    """

    def __init__(self, post: Post, worker: str) -> None:
        self._secret = post.secret
        self._socket: zmq.Socket[bytes] = post.context.socket(zmq.PULL)
        address = post.address(worker)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as e:
            raise RunError(
                f"cannot listen at {address}: {e.strerror}",
                where=f"worker {worker}",
                hint="another run of this studio holds it: posepipe ps shows it, posepipe stop ends it",
            ) from None
        self._doors = [self._socket]
        self._far: Far | None = None
        self.on: dict[int, Handler] = {}
        self.owed: list[Callable[[], None]] = []
        self.foreign = 0
        self._ears, bell = os.pipe()
        self._bell: int | None = bell
        for end in (self._ears, bell):
            os.set_blocking(end, False)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._ears, zmq.POLLIN)

    @property
    def strange(self) -> int:
        """What came here and was not for this studio: messages, and attempts to connect from other hosts."""
        return self.foreign + (self._far.doorkeeper.refused if self._far is not None else 0)

    def listen_far(self, far: Far, ip: str) -> Peer:
        """Also hear other hosts, from now on; before the thread that waits here begins."""
        door, here = far.listen(ip)
        self._far = far
        self._doors.append(door)
        self._poller.register(door, zmq.POLLIN)
        return here

    def ring(self) -> None:
        """Wake the waiting thread; any thread may, also when there is none any more."""
        bell = self._bell
        if bell is not None:
            with contextlib.suppress(BlockingIOError):  # full of earlier rings: it will wake
                os.write(bell, b"\0")

    def wait(self, timeout_s: float) -> None:
        """Until a message is there, somebody rings, or the time is up."""
        for source, _ in self._poller.poll(math.ceil(max(timeout_s, 0) * 1e3)):
            if source == self._ears:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._ears, 4096)

    def handle(self) -> None:
        """Everything that has arrived, at most some hundred messages."""
        for pay in self.owed:
            pay()
        for door in self._doors:
            self._handle(door)

    def _handle(self, door: zmq.Socket[bytes]) -> None:
        for _ in range(_AT_ONCE):
            try:
                head, *payload = door.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            handler = None
            if len(head.buffer) == _HEAD.size:
                secret, kind, wire, checksum = _HEAD.unpack(head.buffer)
                if secret == self._secret and checksum == zlib.crc32(head.buffer[:-_CHECKSUM_BYTES]):
                    handler = self.on.get(wire)
            if handler is None or not handler(kind, payload):
                self.foreign += 1

    def close(self) -> None:
        for door in self._doors:
            door.close(linger=0)
        os.close(self._ears)
        bell, self._bell = self._bell, None
        if bell is not None:
            os.close(bell)


class Doorbell(threading.Condition):
    """The condition of a worker that also hears its inbox: whoever notifies it wakes the poll."""

    def __init__(self, inbox: Inbox) -> None:
        super().__init__(threading.RLock())
        self._inbox = inbox
        self._asleep = False

    def sleep(self, timeout_s: float) -> None:
        """Wait for news of either kind; called with the lock held, which is given away meanwhile."""
        self._asleep = True
        held = self._release_save()  # type: ignore[attr-defined]
        try:
            self._inbox.wait(timeout_s)
        finally:
            self._acquire_restore(held)  # type: ignore[attr-defined]
            self._asleep = False

    def notify_all(self) -> None:
        super().notify_all()
        if self._asleep:
            self._inbox.ring()
