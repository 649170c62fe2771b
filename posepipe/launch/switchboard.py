"""Lines between the supervisor and workers on other hosts: the same letters, over tcp, encrypted, with a clock.

The supervisor and the worker each keep an ordinary `Line`; a thread at either end carries what they say (`Switchboard`, `Extension`).
A worker that hears nothing for 1.5 s hangs up, as if the supervisor had died: then it ends by itself. Descriptors do not travel.

The studio's clock is carried to the worker as NTP does it (RFC 5905, section 8): the worker asks for the time, halves the way,
and believes the fastest of several answers. Its error is at most half of that answer's round trip.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from posepipe.pipeline.clock import FarClock, StudioClock
from posepipe.pipeline.doorkeeper import Doorkeeper

from .letters import Line

LETTER, BEAT, TIME, BYE = b"L", b"B", b"T", b"Q"
SILENT_S = 1.5
_FIRST_WORD_S = 20.0
_BEAT_S = 0.25
_POLL_MS = 100
_MOST_BYTES = 1 << 20
_LINGER_MS = 500
_MOST_WAITING = 10_000
_CLOCK_EVERY_S = 10.0
_ROUND_TRIPS = 16
_TIMES = struct.Struct("<qq")


@dataclass(slots=True)
class _Call:
    line: Line
    route: bytes = b""


class Switchboard(threading.Thread):
    """The supervisor's end of all of them. say: called once for each address that is refused."""

    def __init__(self, ip: str, clock: StudioClock, say: Callable[[str], None]) -> None:
        super().__init__(name="posepipe:switchboard", daemon=True)
        self._clock = clock
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.doorkeeper = Doorkeeper(self._context, say)
        self._router: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._router.linger = _LINGER_MS
        self._router.sndhwm = self._router.rcvhwm = _MOST_WAITING
        self.key, private = zmq.curve_keypair()
        self.doorkeeper.guard(self._router, public=self.key, private=private)
        self._router.bind(f"tcp://{ip}:*")
        self.address = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._calls: dict[bytes, _Call] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.start()

    def expect(self, key: bytes, line: Line) -> None:
        """A worker with that public key will call; what it says comes out of `line`'s other end."""
        with self._lock:
            self._calls[key] = _Call(line)
            self.doorkeeper.allow(self._calls)

    def let_finish(self, key: bytes, *, within_s: float) -> None:
        """Wait for the last words of a worker that has ended: they may be later than the news of its end."""
        until = time.monotonic() + within_s
        while key in self._calls and time.monotonic() < until:
            time.sleep(0.01)

    def hang_up(self, key: bytes) -> None:
        """That worker is dead. The other end of its line reads its end."""
        with self._lock:
            call = self._calls.pop(key, None)
            self.doorkeeper.allow(self._calls)
        if call is not None:
            call.line.close()

    def run(self) -> None:
        next_beat_s = 0.0
        while not self._over.is_set():
            with self._lock:
                calls = {call.line.fileno(): (key, call) for key, call in self._calls.items() if call.route and call.line.fileno() >= 0}
            poller = zmq.Poller()
            for one in (self._router, *calls):
                poller.register(one, zmq.POLLIN)
            for source, _ in poller.poll(_POLL_MS):
                if source is self._router:
                    self._hear()
                else:
                    self._carry(*calls[source])
            if time.monotonic() >= next_beat_s:
                next_beat_s = time.monotonic() + _BEAT_S
                for _, call in calls.values():
                    self._send(call, BEAT)

    def _send(self, call: _Call, *data: bytes) -> None:
        self._router.send_multipart([call.route, b"".join(data)])

    def _hear(self) -> None:
        route, message = self._router.recv_multipart(copy=False)
        key = str(message.get("User-Id")).encode()
        with self._lock:
            call = self._calls.get(key)
        if call is None:  # its last words, after it was given up
            return
        call.route = route.bytes
        kind, data = message.bytes[:1], message.bytes[1:]
        if kind == TIME:
            self._send(call, TIME, data, self._clock.now_ns().to_bytes(8, "little"))
        elif kind == LETTER:
            try:
                call.line.socket.send(data)
            except OSError:
                self.hang_up(key)
        elif kind == BYE:
            self.hang_up(key)

    def _carry(self, key: bytes, call: _Call) -> None:
        try:
            data = call.line.socket.recv(_MOST_BYTES)
        except OSError:
            data = b""
        if data:
            self._send(call, LETTER, data)
        else:
            self._send(call, BYE)
            self.hang_up(key)

    def close(self) -> None:
        """Tell everybody who is left to go."""
        self._over.set()
        self.join(2.0)
        for call in self._calls.values():
            if call.route:
                self._send(call, BYE)
            call.line.close()
        self._router.close()
        self.doorkeeper.close()
        self._context.destroy(linger=_LINGER_MS)


class Extension(threading.Thread):
    """The worker's end. `line` is what the worker talks to; `clock` is right once `in_time` is set."""

    def __init__(self, address: str, *, server: bytes, public: bytes, private: bytes, clock: FarClock) -> None:
        super().__init__(name="posepipe:extension", daemon=True)
        self.line, self._inner = Line.pair()
        self._clock = clock
        self.in_time = threading.Event()
        self.deserted = False
        """The supervisor fell silent without a word."""
        self._best: tuple[int, int] | None = None
        self._left = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._dealer: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._dealer.linger = _LINGER_MS
        self._dealer.sndhwm = self._dealer.rcvhwm = _MOST_WAITING
        self._dealer.curve_serverkey, self._dealer.curve_publickey, self._dealer.curve_secretkey = server, public, private
        self._dealer.connect(address)
        self.start()

    def run(self) -> None:
        heard_s, patience_s, ask_s = time.monotonic(), _FIRST_WORD_S, 0.0
        poller = zmq.Poller()
        poller.register(self._dealer, zmq.POLLIN)
        poller.register(self._inner.fileno(), zmq.POLLIN)
        going = True
        while going and time.monotonic() - heard_s < patience_s:
            if time.monotonic() >= ask_s:
                ask_s, self._left, self._best = time.monotonic() + _CLOCK_EVERY_S, _ROUND_TRIPS, None
                self._ask()
            for source, _ in poller.poll(_POLL_MS):
                if source is self._dealer:
                    heard_s, patience_s = time.monotonic(), SILENT_S
                    going = self._hear() and going
                else:
                    going = self._carry() and going
        self.deserted = going
        self._inner.close()
        self._dealer.close(linger=0 if going else _LINGER_MS)
        self._context.term()

    def _hear(self) -> bool:
        message = self._dealer.recv()
        kind, data = message[:1], message[1:]
        if kind == LETTER:
            try:
                self._inner.socket.send(data)
            except OSError:
                return False
        elif kind == TIME:
            self._time(*_TIMES.unpack(data))
        return kind != BYE

    def _carry(self) -> bool:
        data = self._inner.socket.recv(_MOST_BYTES)
        self._dealer.send(LETTER + data if data else BYE)
        return bool(data)

    def _ask(self) -> None:
        self._dealer.send(TIME + time.monotonic_ns().to_bytes(8, "little"))

    def _time(self, asked_ns: int, studio_ns: int) -> None:
        """One answer. The way there is taken to be as long as the way back."""
        trip_ns = time.monotonic_ns() - asked_ns
        if self._best is None or trip_ns < self._best[0]:
            self._best = trip_ns, studio_ns - asked_ns - trip_ns // 2
        self._left -= 1
        if self._left > 0:
            self._ask()
        else:
            self._clock.learn(self._best[1], error_ns=self._best[0] // 2)
            self.in_time.set()
