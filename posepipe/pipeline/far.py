"""Links to processes on other hosts: tcp, encrypted, and only with those that the supervisor has introduced.

Every process makes a pair of keys when it starts; the private half never leaves it. Where it listens and its public half go to
the supervisor, which tells everybody (`letters.Addresses`); so a process that is started again is found again, and the keys of
its earlier life open no door any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zmq

from .doorkeeper import Doorkeeper
from .errors import RunError

_LINGER_MS = 500
_MOST_WAITING = 8
"""So many messages at least wait in a socket for the network before the next is lost: pictures are large and soon old."""
_MOST_ARRIVED = 64
_HANDSHAKE_WITHIN_MS = 2000


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a process listens, and its public key (Z85)."""

    address: str
    key: bytes


class FarSocket:
    """What a link writes to: a socket that follows its peer from life to life. Any thread may use it."""

    def __init__(self, far: Far, worker: str, *, most_waiting: int) -> None:
        self._far, self._worker, self._most = far, worker, most_waiting
        self._lock = threading.Lock()
        self._peer: Peer | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def follow(self) -> None:
        """Connect to where the peer is now."""
        with self._lock:
            peer = self._far.peers.get(self._worker)
            if peer == self._peer:
                return
            if self._socket is not None:
                self._socket.close(linger=0)
            self._peer, self._socket = peer, self._far.connect(peer, self._most) if peer is not None else None

    def send_multipart(self, parts: Sequence[Any], flags: int) -> None:
        with self._lock:
            if self._socket is None:
                raise zmq.Again
            self._socket.send_multipart(parts, flags)

    @property
    def connecting(self) -> bool:
        """There is a peer, and it cannot be written to yet."""
        with self._lock:
            return self._socket is not None and not self._socket.poll(0, zmq.POLLOUT)


class Far:
    """Everything of one process that concerns other hosts. say: called with each refusal, once for an address."""

    def __init__(self, context: zmq.Context[Any], say: Callable[[str], None], *, keys: tuple[bytes, bytes] | None = None) -> None:
        self._context = context
        self.public, self._private = keys or zmq.curve_keypair()
        self.doorkeeper = Doorkeeper(context, say)
        self.peers: Mapping[str, Peer] = {}
        self._sockets: list[FarSocket] = []
        self._closed = False

    def listen(self, ip: str) -> tuple[zmq.Socket[bytes], Peer]:
        """Open this process's own letter box on a port that the system chooses. RunError when the address is not this host's."""
        inbox: zmq.Socket[bytes] = self._context.socket(zmq.PULL)
        inbox.rcvhwm = _MOST_ARRIVED
        self.doorkeeper.guard(inbox, public=self.public, private=self._private)
        try:
            inbox.bind(f"tcp://{ip}:*")
        except zmq.ZMQError as e:
            inbox.close(linger=0)
            raise RunError(f"cannot listen at {ip}: {e.strerror}", where="the studio", hint="is that an address of this host?") from None
        return inbox, Peer(inbox.getsockopt_string(zmq.LAST_ENDPOINT), self.public)

    def to(self, worker: str, *, most_waiting: int = 0) -> FarSocket:
        """A way to a worker, wherever it will be. most_waiting: messages that its link may want to have under way."""
        self._sockets.append(FarSocket(self, worker, most_waiting=max(most_waiting + 1, _MOST_WAITING)))
        return self._sockets[-1]

    def know(self, peers: Mapping[str, Peer], *, within_s: float) -> bool:
        """Who else there is, by worker; those that are not among them are let in no more. Waits until all of those that this process
        writes to, and that are known, are connected; False when some are not by then."""
        self.peers = peers
        self.doorkeeper.allow(peer.key for peer in peers.values())
        try:
            for one in self._sockets:
                one.follow()
            until = time.monotonic() + within_s
            while not (done := not any(one.connecting for one in self._sockets)) and time.monotonic() < until:
                time.sleep(0.005)
        except zmq.ZMQError:
            if self._closed:  # the studio is over, and somebody came late
                return False
            raise
        return done

    def connect(self, peer: Peer, most_waiting: int) -> zmq.Socket[bytes]:
        """An encrypted way to a peer, which has to prove that the key is its own. Nothing waits in it for one that is not there."""
        way: zmq.Socket[bytes] = self._context.socket(zmq.PUSH)
        way.immediate = True
        way.linger = _LINGER_MS
        way.sndhwm = most_waiting
        way.handshake_ivl = _HANDSHAKE_WITHIN_MS
        way.reconnect_ivl, way.reconnect_ivl_max = 20, 500
        way.heartbeat_ivl, way.heartbeat_timeout = 1000, 3000  # a cable that is pulled says nothing
        way.curve_publickey, way.curve_secretkey, way.curve_serverkey = self.public, self._private, peer.key
        way.connect(peer.address)
        return way

    def close(self) -> None:
        """Before the context."""
        self._closed = True
        self.doorkeeper.close()
