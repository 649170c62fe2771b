"""`posepipe chaos STUDIO`: does the harm that the file lists to a running studio, and judges its recovery.

What is judged is seen from outside of what is harmed: the stream by a subscriber of its own on the publish address (a real
socket, so that what a customer's program must do after a kill, connecting again, is in the figures; a thread is enough for some
tens of messages a second, and shares the studio's clock), workers and frames by what the supervisor knows.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import zmq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from posepipe.pipeline.chaos import Entry, Kill, Skew, Stall, harmed_cameras, worker_of
from posepipe.pipeline.errors import GraphError, RunError
from posepipe.pipeline.graph import Plan
from posepipe.pipeline.node import Source

from . import letters, logs, studio
from .crew import State
from .nursery import can_fork
from .run import Done, run, writable
from .supervisor import Supervisor
from .verdict import Finding, Instant, Seen, judge

_LOOK_S = 0.01
_SPARE_S = 0.5
"""The studio runs so much longer than the last entry is judged: its end is not part of it."""


def chaos(path: Path, *, overrides: tuple[str, ...] = (), seconds: float | None = None, file: Path | None = None) -> tuple[bool, bool]:
    """Whether every entry passed, and whether the run was interrupted. file: gets the verdicts as JSON."""
    plan = studio.load(path, overrides=overrides)
    address, needs_s = _address(plan), _needs_s(plan, path, seconds)
    if not can_fork():
        raise GraphError("chaos needs worker processes, and those need Linux", where=str(path), hint="run it on Linux")
    writable(file)
    report = Report(plan)

    @contextlib.contextmanager
    def beside(running: Supervisor) -> Iterator[None]:
        with contextlib.closing(Subscriber(address, running)) as subscriber, contextlib.closing(Chaos(running, subscriber, report)):
            yield

    done: Done | None = None
    try:
        done = run(path, overrides=overrides, seconds=seconds or needs_s, beside=beside)
    except RunError as e:
        report.fault = e
    if done is not None:
        report.balance = done.figures["balance"]
    report.show(Console())
    if file is not None:
        file.write_text(json.dumps(report.data(), indent=2) + "\n")
    return report.ok, done is not None and done.interrupted


def _needs_s(plan: Plan, path: Path, seconds: float | None) -> float:
    if not plan.chaos:
        raise GraphError("there is no chaos: in it, so nothing can be judged", where=str(path), hint="see examples/chaos.yaml")
    last = plan.chaos[-1]
    if seconds is not None and last.judged_until_s > seconds:
        what = f"{last.text} comes at {last.at_s:g} s and is judged until {last.judged_until_s:g} s, but --seconds is {seconds:g}"
        raise GraphError(what, where=plan.file.place(("chaos",)), hint=f"--seconds {last.judged_until_s:g}, or leave it out")
    return last.judged_until_s + _SPARE_S


def _address(plan: Plan) -> str:
    """Where the stream can be heard on this machine."""
    publishing = next((n for n in plan.nodes if n.cls.publishes), None)
    bind = str(getattr(publishing.settings, "bind", "")) if publishing is not None else ""
    host, _, port = bind.rpartition(":")
    if publishing is None or not bind or (bind.startswith("tcp:") and port == "*"):
        what = "nothing publishes at an address that is known before the start, so nothing can be judged"
        raise GraphError(what, where=plan.file.name, hint="add a publish.zmq with a port, e.g. bind: tcp://127.0.0.1:5570")
    return f"tcp://127.0.0.1:{port}" if host in ("tcp://*", "tcp://0.0.0.0") else bind


class Subscriber:
    """Hears the stream as any other program does."""

    def __init__(self, address: str, running: Supervisor) -> None:
        self.instants: list[Instant] = []
        self._running, self._over = running, threading.Event()
        self._address, self._topic = address, f"skeleton/{running.plan.studio}".encode()
        self._thread = threading.Thread(target=self._hear, name="posepipe:chaos-subscriber", daemon=True)
        self._thread.start()

    def _hear(self) -> None:
        cameras, clock = self._running.plan.cameras, self._running.clock
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.linger = 0
            socket.subscribe(self._topic)
            socket.connect(self._address)
            while not self._over.is_set():
                if socket.poll(50):
                    _, raw = socket.recv_multipart()
                    message, now_s = msgpack.unpackb(raw), self._running.seconds
                    captured_s = now_s - (clock.now_ns() - message["t_capture_ns"]) / 1e9
                    self.instants.append(Instant(now_s, captured_s, frozenset(cameras[i] for i in message["sync"]["missing"])))

    def close(self) -> None:
        self._over.set()
        self._thread.join()


class Chaos:
    """Does one entry after the other to a running studio, and watches what comes of it."""

    def __init__(self, running: Supervisor, subscriber: Subscriber, report: Report) -> None:
        self._running, self._subscriber, self._report = running, subscriber, report
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go, name="posepipe:chaos", daemon=True)
        self._thread.start()

    def _go(self) -> None:
        for number, entry in enumerate(self._running.plan.chaos):
            if not self._until(entry.at_s):
                return
            logs.say(f"chaos at {entry.at_s:g} s: {entry.text}")
            seen = self._do(number, entry)
            if seen is None:
                return
            findings = judge(entry, seen, away=harmed_cameras(entry, self._running.plan.nodes))
            self._report.findings[number] = findings
            logs.say(f"chaos: {entry.text}: {'pass' if all(f.ok for f in findings) else 'FAIL'}")

    def _until(self, at_s: float) -> bool:
        """Wait for that moment of the run; False when the run ends before."""
        while self._running.seconds < at_s:
            if self._over.wait(_LOOK_S) or self._running.stopping:
                return False
        return True

    def _do(self, number: int, entry: Entry) -> Seen | None:
        """None when the studio was stopped meanwhile: that is no verdict."""
        member = self._running.crew[worker_of(entry, self._running.plan.nodes)]
        before, restarts = self._lost(entry), member.restarts
        seen = Seen(began_s=self._running.seconds)
        seen.until_s = seen.began_s + entry.judged_until_s - entry.at_s
        if member.state != State.RUNNING or member.pid <= 0:
            seen.not_done = f"worker {member.name} was {member.state}"
            return seen
        if isinstance(entry, Kill):
            os.kill(member.pid, signal.SIGKILL)
            seen.times = 1
        elif member.line is not None:
            member.line.send(_letter(number, entry, self._running.plan))
        while self._running.seconds < seen.until_s:
            if self._over.wait(_LOOK_S) or self._running.stopping:
                return None
            if member.state != State.RUNNING or (isinstance(entry, Kill) and member.restarts == restarts):
                seen.running_s = None
            elif seen.running_s is None:
                seen.running_s = self._running.seconds
        after = self._lost(entry)
        seen.lost = {camera: count - before[camera] for camera, count in after.items()}
        seen.times = seen.times or self._running.books.harmed.get(number, 0)
        seen.instants = list(self._subscriber.instants)
        return seen

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _lost(self, entry: Entry) -> dict[str, int]:
        """Frames that the cameras which are not harmed have lost so far."""
        nodes, lost = self._running.plan.nodes, self._running.books.ledger.lost_of
        cameras = {n.key or n.base: n.name for n in nodes if issubclass(n.cls, Source)}
        away = harmed_cameras(entry, nodes)
        return {camera: sum(lost.get(name, 0) for name in {camera, node}) for camera, node in cameras.items() if camera not in away}


def _letter(number: int, entry: Entry, plan: Plan) -> letters.Harm:
    skewed = isinstance(entry, Skew)
    node = next(n.name for n in plan.nodes if entry.target == ((n.key or n.base) if skewed and issubclass(n.cls, Source) else n.name))
    for_s = entry.for_ms / 1e3 if isinstance(entry, Stall) else entry.lasts_s
    return letters.Harm(number, entry.kind, node, for_s, getattr(entry, "by_ms", 0.0), getattr(entry, "share", 0.0))


class Report:
    """The verdicts, in the order of the entries."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.findings: dict[int, list[Finding]] = {}
        self.fault: RunError | None = None
        self.balance: int | None = None

    def passed(self, number: int) -> bool:
        findings = self.findings.get(number)
        return findings is not None and all(f.ok for f in findings)

    @property
    def ok(self) -> bool:
        return self.fault is None and self.balance == 0 and all(self.passed(i) for i in range(len(self.plan.chaos)))

    def _is_judged(self, number: int) -> bool:
        """A studio that failed has failed what was to come; one that was stopped has not."""
        return number in self.findings or self.fault is not None

    def _of(self, number: int) -> list[Finding]:
        why = f"the studio ended before: {self.fault.what}" if self.fault is not None else "the studio was stopped before"
        return self.findings.get(number, [Finding("is judged", why, False)])

    def data(self) -> dict[str, Any]:
        """As plain data (JSON)."""
        entries = [
            {
                "at_s": entry.at_s,
                "harm": entry.text,
                "ok": self.passed(i) if self._is_judged(i) else None,
                "findings": [{"expected": f.expected, "seen": f.seen, "ok": f.ok} for f in self._of(i)],
            }
            for i, entry in enumerate(self.plan.chaos)
        ]
        fault = None if self.fault is None else str(self.fault)
        return {"studio": self.plan.studio, "ok": self.ok, "entries": entries, "balance": self.balance, "fault": fault}

    def show(self, console: Console) -> None:
        table = Table(box=None, pad_edge=False)
        for heading in ("at", "harm", "expected", "seen", ""):
            table.add_column(heading)
        for i, entry in enumerate(self.plan.chaos):
            for row, finding in enumerate(self._of(i)):
                head = (f"{entry.at_s:g} s", entry.text) if row == 0 else ("", "")
                verdict = "[green]pass[/]" if finding.ok else "[red]FAIL[/]" if self._is_judged(i) else "[yellow]not judged[/]"
                table.add_row(*map(escape, (*head, finding.expected, finding.seen)), verdict)
        balanced = "[green]pass[/]" if self.balance == 0 else "[red]FAIL[/]"
        seen = f"balance {self.balance}" if self.balance is not None else "the studio failed"
        table.add_row("end", "", "every frame accounted for", seen, balanced)
        console.print(table)
        if self.fault is not None:
            console.print(f"the studio failed: {escape(str(self.fault))}")
        passed, unjudged = (sum(test(i) for i in range(len(self.plan.chaos))) for test in (self.passed, lambda i: not self._is_judged(i)))
        rest = f", {unjudged} not judged: it was stopped before" if unjudged else ""
        console.print(f"{self.plan.studio}: {passed} of {len(self.plan.chaos)} passed{rest}")
