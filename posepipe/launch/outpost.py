"""Workers on other hosts: what the supervisor asks of whatever starts them (`Outposts`), and what happens there (`Outpost`).

A worker elsewhere is not forked with everything in memory. It gets the text of the studio file and of the calibration, builds the
plan again, and compares: the same plan, of the same posepipe, or it does not begin.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
import zmq

from posepipe import __version__
from posepipe.pipeline.clock import FarClock, StudioClock
from posepipe.pipeline.errors import PosepipeError, RunError
from posepipe.pipeline.graph import Plan
from posepipe.pipeline.part import Surroundings
from posepipe.pipeline.yamlfile import variables

from . import letters, studio
from .letters import Line
from .nursery import Born, Died
from .switchboard import Extension
from .workshop import Job

_IN_TIME_S = 20.0
_UNSURE_NS = 2_000_000


class Outposts(Protocol):
    """Starts and ends workers on other hosts. ip: of this host, as the others reach it; known once it is open."""

    ip: str

    def open(self, clock: StudioClock, secret: bytes, say: Callable[[str], None]) -> None:
        """RunError when the hosts cannot be had. say: called with each stranger that is refused."""
        ...

    def fileno(self) -> int:
        """Readable when there are `news`."""
        ...

    def spawn(self, worker: str, line: Line) -> None:
        """Have a worker made that talks to the other end of `line`."""
        ...

    def kill(self, worker: str) -> None: ...

    def news(self) -> Born | Died | None:
        """The next birth or death. pid is 0."""
        ...

    def close(self) -> None: ...


class Hello(msgspec.Struct, frozen=True):
    """What an outpost says of itself. key: with which it will call."""

    posepipe: str
    python: str
    key: bytes
    pid: int


class Brief(msgspec.Struct, frozen=True):
    """All that a worker elsewhere needs to know. address, key: of the supervisor's switchboard; rig: files of the calibration."""

    file: str
    text: str
    overrides: tuple[str, ...]
    environment: dict[str, str]
    rig: dict[str, str]
    sha256: str
    seconds: float | None
    secret: bytes
    trace: bool
    loud: bool
    address: str
    key: bytes

    @classmethod
    def of(cls, plan: Plan, *, overrides: tuple[str, ...], seconds: float | None, trace: bool, loud: bool) -> Brief:
        """Everything but where to call, and the run's secret."""
        environment = {name: os.environ[name] for name in variables(plan.file.text) if name in os.environ}
        file = str(Path(plan.file.name).absolute())
        rig = studio.rig_files(plan)
        return cls(file, plan.file.text, overrides, environment, rig, plan.sha256, seconds, b"", trace, loud, "", b"")


class Outpost:
    """One worker process elsewhere, from its start. Its keys never leave it."""

    def __init__(self) -> None:
        self.public, self._private = zmq.curve_keypair()

    def hello(self) -> Hello:
        return Hello(__version__, platform.python_version(), self.public, os.getpid())

    def serve(self, worker: str, brief: Brief, *, ip: str) -> int:
        """Call the supervisor, and work until it says that it is over or falls silent. ip: of this host. The exit status."""
        clock = FarClock()
        extension = Extension(brief.address, server=brief.key, public=self.public, private=self._private, clock=clock)
        line = extension.line
        try:
            if not extension.in_time.wait(_IN_TIME_S):
                return 1  # nobody there to be told
            assert clock.error_ns is not None
            if clock.error_ns > _UNSURE_NS:
                where = f"the clock of worker {worker} is only known to {clock.error_ns / 1e6:.1f} ms"
                line.send(letters.Said(30, "", f"{where}: the network is slow or the host busy, and skew cannot be told finer than that"))
            line.send(letters.Said(20, "posepipe.clock", f"{worker}: studio time to +-{clock.error_ns / 1e3:.0f} us"))
            try:
                job = self._job(brief, clock, ip)
            except PosepipeError as e:
                line.send(letters.Fault.of(e))
                return 1
            job(worker, line)
            return 0
        finally:
            with contextlib.suppress(OSError):  # the supervisor hung up first
                line.socket.shutdown(socket.SHUT_RDWR)  # the listening thread may still be reading
            line.close()
            extension.join(2.0)
            if extension.deserted:
                os._exit(1)  # whatever else this process is for: its studio is gone, and nobody will ask for the status

    def _job(self, brief: Brief, clock: FarClock, ip: str) -> Job:
        plan = studio.load(Path(brief.file), overrides=brief.overrides, environment=brief.environment, text=brief.text)
        if plan.sha256 != brief.sha256:
            raise RunError(
                "the graph changed between restart of two workers: this one would run another than the studio does",
                where=plan.file.name,
                hint="stop the studio and run it again; the same posepipe and packages have to be on every host",
            )
        with tempfile.TemporaryDirectory() as folder:
            for name, text in brief.rig.items():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / name).write_text(text)
            whole = studio.complete(plan, rig_folder=Path(folder))
        around = Surroundings(whole.rig, whole.resolve, brief.seconds, print)  # the workshop puts its own `warn` there
        address = f"ipc://@posepipe-{os.getpid()}-"
        return Job(plan, around, clock, address.__add__, brief.secret, brief.trace, brief.loud, ip=ip, keys=(self.public, self._private))
