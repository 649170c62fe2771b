"""Outposts as the supervisor keeps them: a switchboard for their lines, and one thread for each life of a worker, which waits for its end."""

from __future__ import annotations

import platform
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

import msgspec

from posepipe import __version__
from posepipe.pipeline.clock import StudioClock
from posepipe.pipeline.errors import ClusterError, PosepipeError

from . import letters
from .letters import Line
from .nursery import Born, Died
from .outpost import Brief, Hello
from .switchboard import Switchboard

_LAST_WORDS_S = 1.0
_MOST_BYTES = 4096


class Abroad(ABC):
    """What all `Outposts` share. How a process on a host is reached, and ended, is for the engine underneath."""

    ip = ""

    def __init__(self, brief: Brief) -> None:
        self._brief = brief
        self._switchboard: Switchboard | None = None
        self._ears, self._bell = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def open(self, clock: StudioClock, secret: bytes, say: Callable[[str], None]) -> None:
        self.ip = self.connect()
        self._switchboard = Switchboard(self.ip, clock, say)
        where = self._switchboard
        self._brief = msgspec.structs.replace(self._brief, secret=secret, address=where.address, key=where.key)

    @abstractmethod
    def connect(self) -> str:
        """Have hosts. Returns the address of this one as they reach it."""

    @abstractmethod
    def reach(self, worker: str) -> Hello:
        """A process for that worker; the same place again when an earlier one has died."""

    @abstractmethod
    def serve(self, worker: str, brief: Brief) -> int:
        """Its life, from the brief to its exit status; minus the signal, if it was killed."""

    @abstractmethod
    def kill(self, worker: str) -> None: ...

    @abstractmethod
    def disconnect(self) -> None:
        """Leave nothing behind on any host."""

    def fileno(self) -> int:
        return self._ears.fileno()

    def spawn(self, worker: str, line: Line) -> None:
        threading.Thread(target=self._live, args=(worker, line), name=f"posepipe:{worker}", daemon=True).start()

    def news(self) -> Born | Died | None:
        name, status = msgspec.msgpack.decode(self._ears.recv(_MOST_BYTES), type=tuple[str, int | None])
        return Born(name, 0) if status is None else Died(name, 0, status)

    def close(self) -> None:
        if self._switchboard is not None:
            self._switchboard.close()
        self.disconnect()

    def _live(self, worker: str, line: Line) -> None:
        assert self._switchboard is not None
        key, status = b"", 1
        try:
            hello = self.reach(worker)
            _same(hello, worker)
            key = hello.key
            self._switchboard.expect(key, line)
            self._put(worker, None)
            status = self.serve(worker, self._brief)
            self._switchboard.let_finish(key, within_s=_LAST_WORDS_S)
        except PosepipeError as e:
            line.send(letters.Fault.of(e), wait=False)
        finally:
            self._switchboard.hang_up(key)
            line.close()
            self._put(worker, status)

    def _put(self, worker: str, status: int | None) -> None:
        try:
            self._bell.send(msgspec.msgpack.encode((worker, status)))
        except OSError:
            return  # the studio has ended meanwhile


def _same(hello: Hello, worker: str) -> None:
    here = ".".join(platform.python_version_tuple()[:2])
    if hello.posepipe != __version__ or not hello.python.startswith(f"{here}."):
        raise ClusterError(
            f"posepipe {hello.posepipe} on Python {hello.python} there, posepipe {__version__} on Python {platform.python_version()} here",
            where=f"worker {worker}",
            hint=f"the same on every host: pip install 'posepipe[cluster]=={__version__}' in a Python {here}",
        )
