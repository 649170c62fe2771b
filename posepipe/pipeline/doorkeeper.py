"""Who may speak to a process from another host: only those whose keys are on the list. Everybody else is turned away, logged and counted.

CURVE (CurveZMQ, ZeroMQ RFC 26) proves that a peer has the private half of the public key that it shows; this is the other half of
the decision, a ZAP handler (ZeroMQ RFC 27): is that key one of ours? Whoever comes without a key, or does not know ours, is
already refused by the handshake; the socket's monitor tells of that. A handshake that nobody finishes is neither: it is ended.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

ZAP_DOMAIN = b"posepipe"
_ZAP = "inproc://zeromq.zap.01"
_LOOK_EVERY_MS = 100
_HANDSHAKE_WITHIN_MS = 500
"""Who is asked to come again is not told so: the connection has to be ended first."""
_INTRODUCED_WITHIN_S = 1.5
"""A peer may knock before the supervisor has named it here: it is asked to come again, and is a stranger only after so long."""
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
"""Not `EVENT_HANDSHAKE_FAILED_NO_DETAIL`: so end handshakes that took too long or were hung up on, one of our own on a host that stood still
among them. Whoever it was showed no wrong key, got nothing, and is judged when he comes again."""


class Doorkeeper:
    """One for each ZeroMQ context, made before the first socket that it guards. say: called once for each address that is refused."""

    def __init__(self, context: zmq.Context[Any], say: Callable[[str], None]) -> None:
        self.refused = 0
        self._say, self._said = say, set[str]()
        self._allowed: frozenset[bytes] = frozenset()
        self._zap: zmq.Socket[bytes] = context.socket(zmq.REP)
        self._zap.linger = 0
        self._zap.bind(_ZAP)
        self._watched: dict[zmq.Socket[bytes], _Callers] = {}
        self._unknown: dict[bytes, _Unknown] = {}
        self._nameless: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="posepipe:doorkeeper", daemon=True)
        self._thread.start()

    def allow(self, keys: Iterable[bytes]) -> None:
        """From now on these and no others (public keys in Z85). Connections that stand are not ended."""
        self._allowed = frozenset(keys)

    def guard(self, door: zmq.Socket[bytes], *, public: bytes, private: bytes) -> None:
        """Let this socket, not yet bound, take encrypted connections only, from allowed keys only."""
        door.curve_server = True
        door.curve_publickey, door.curve_secretkey = public, private
        door.zap_domain = ZAP_DOMAIN
        door.handshake_ivl = _HANDSHAKE_WITHIN_MS
        self._watched[door.get_monitor_socket(_EVENTS)] = _Callers()

    def close(self) -> None:
        """After the sockets that it guards."""
        self._over.set()
        self._thread.join(2.0)
        for watched in (self._zap, *self._watched):
            watched.close(linger=0)

    def _keep(self) -> None:
        while not self._over.is_set():
            poller = zmq.Poller()
            for one in (self._zap, *list(self._watched)):
                poller.register(one, zmq.POLLIN)
            for one, _ in poller.poll(_LOOK_EVERY_MS):
                with contextlib.suppress(zmq.Again):
                    if one is self._zap:
                        self._answer()
                    else:
                        self._hear(one, self._watched[one])
            self._look_after(time.monotonic())

    def _answer(self) -> None:
        version, request, _, address, _, mechanism, *credentials = self._zap.recv_multipart(zmq.NOBLOCK)
        key = z85.encode(credentials[0]) if mechanism == b"CURVE" and len(credentials) == 1 else b""
        good = key in self._allowed
        self._zap.send_multipart([version, request, b"200" if good else b"300", b"OK" if good else b"not of this studio", key, b""])
        if not good:
            unknown = self._unknown.setdefault(key, _Unknown(address.decode(errors="replace"), time.monotonic()))
            unknown.attempts += 1

    def _look_after(self, now_s: float) -> None:
        for key, unknown in list(self._unknown.items()):
            if now_s - unknown.since_s > _INTRODUCED_WITHIN_S:
                del self._unknown[key]
                if key not in self._allowed:
                    self._refuse(unknown.address, "its key is not one of this studio's", attempts=unknown.attempts)
        for why, since_s in list(self._nameless.items()):
            if now_s - since_s > _INTRODUCED_WITHIN_S:
                del self._nameless[why]
                self._tell("somebody who hung up at once", why)

    def _hear(self, monitor: zmq.Socket[bytes], callers: _Callers) -> None:
        event = parse_monitor_message(monitor.recv_multipart(zmq.NOBLOCK))
        kind, value = event["event"], event["value"]
        if kind == zmq.EVENT_ACCEPTED:
            callers.came(value)
        elif kind == zmq.EVENT_DISCONNECTED:
            address = callers.went(value)
            if callers.failed is not None:
                self._refuse(address, callers.failed)
                callers.failed = None
        else:
            callers.failed = "it has no key, or not the right one"

    def _refuse(self, address: str, why: str, *, attempts: int = 1) -> None:
        self.refused += attempts
        if address:
            self._nameless.pop(why, None)  # whoever hung up too soon to be seen has come again
            self._tell(address, why)
        else:
            self._nameless.setdefault(why, time.monotonic())

    def _tell(self, who: str, why: str) -> None:
        if who not in self._said:
            self._said.add(who)
            self._say(f"{who} was refused: {why}; further attempts from there are counted without a message")


@dataclass(slots=True)
class _Unknown:
    address: str
    since_s: float
    attempts: int = 0


class _Callers:
    """Addresses of the connections of one socket, by descriptor: a monitor tells of a refusal without saying whose. Empty: unknown."""

    def __init__(self) -> None:
        self.failed: str | None = None
        self._addresses: dict[int, str] = {}

    def came(self, fd: int) -> None:
        try:
            with socket.socket(fileno=os.dup(fd)) as connection:
                self._addresses[fd] = connection.getpeername()[0]
        except OSError:
            self._addresses[fd] = ""

    def went(self, fd: int) -> str:
        return self._addresses.pop(fd, "")
