"""Where worker processes come from: a process that was forked when everything was loaded and nothing had begun.

Its only thread waits for orders, so that a worker is born in milliseconds, with the plan, the rig and all modules in memory, and
never copies a lock that another thread held. When the supervisor is gone, however it went, the nursery ends its workers and
itself; and should the nursery be killed too, the kernel kills the workers (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from .letters import Line

_GRACE_S = 1.5
_POLL_MS = 200
_PR_SET_PDEATHSIG = 1
_MOST_BYTES = 4096

Work = Callable[[str, Line], None]
"""What a worker process does: its name, and its line to the supervisor."""


def can_fork() -> bool:
    """Worker processes need Linux: memfd, SCM_RIGHTS and PR_SET_PDEATHSIG. Elsewhere a studio runs in one process."""
    return sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class Born:
    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class Died:
    """status: exit code, or minus the signal that killed it."""

    name: str
    pid: int
    status: int


class Nursery:
    """The supervisor's end. Make it before the first thread."""

    def __init__(self, work: Work) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _keep(theirs, work)
        theirs.close()
        self._socket = ours

    def fileno(self) -> int:
        return self._socket.fileno()

    def spawn(self, name: str, line: Line) -> None:
        """Have a worker made; `line` is its end of the pair, and is closed here. `news` tells its pid."""
        socket.send_fds(self._socket, [name.encode()], [line.fileno()])
        line.close()

    def news(self) -> Born | Died | None:
        """The next birth or death (waits for it); None when the nursery itself has died."""
        try:
            data = self._socket.recv(_MOST_BYTES)
        except ConnectionResetError:
            return None
        if not data:
            return None
        name, pid, status = msgspec.msgpack.decode(data, type=tuple[str, int, int | None])
        return Born(name, pid) if status is None else Died(name, pid, status)

    def close(self) -> None:
        """Ends the workers that are left, and waits for the nursery."""
        self._socket.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _keep(orders: socket.socket, work: Work) -> None:
    """The nursery's life; never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ears, bell = os.pipe()
    os.set_blocking(bell, False)
    os.set_blocking(ears, False)
    signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.freeze()  # the workers share these pages as long as no collector writes to them
    children: dict[int, str] = {}
    poll = select.poll()
    poll.register(orders, select.POLLIN)
    poll.register(ears, select.POLLIN)
    while True:
        for fd, _ in poll.poll(_POLL_MS):
            if fd == ears:
                with contextlib.suppress(BlockingIOError):
                    os.read(ears, 4096)
                continue
            try:
                data, fds, _, _ = socket.recv_fds(orders, _MOST_BYTES, 1)
            except ConnectionResetError:
                data, fds = b"", []
            if not data:
                _end(children)
            name = data.decode()
            line = Line(socket.socket(fileno=fds[0]))
            pid = os.fork()
            if pid == 0:
                orders.close()
                _live(name, line, work)
            line.close()
            children[pid] = name
            _tell(orders, (name, pid, None))
        _bury(children, orders)


def _bury(children: dict[int, str], orders: socket.socket | None) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        name = children.pop(pid)
        if orders is not None:
            _tell(orders, (name, pid, os.waitstatus_to_exitcode(status)))


def _tell(orders: socket.socket, what: tuple[str, int, int | None]) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        orders.send(msgspec.msgpack.encode(what))


def _end(children: dict[int, str]) -> None:
    """The supervisor is gone. The workers read the end of their lines and finish their files; then they are killed."""
    until = time.monotonic() + _GRACE_S
    while children and time.monotonic() < until:
        _bury(children, None)
        time.sleep(0.02)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)
    os._exit(0)


def _live(name: str, line: Line, work: Work) -> None:
    """A worker's life; never returns."""
    code = 1
    try:
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        work(name, line)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
