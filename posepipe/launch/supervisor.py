"""The supervisor: one process for each worker of a plan, kept alive, listened to, accounted for, and stopped in order.

It decodes, computes and publishes nothing itself. Workers come from a nursery; each has a line to the supervisor, on which it
beats, sends its ledger entries and figures, and hears its orders. Frame rings belong to the supervisor, so that they outlive both ends.
"""

from __future__ import annotations

import logging
import os
import secrets
import selectors
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from posepipe.nodes._video import StreamInfo
from posepipe.pipeline.clock import StudioClock
from posepipe.pipeline.errors import PosepipeError, RunError, stopped_by
from posepipe.pipeline.graph import Plan
from posepipe.pipeline.part import Surroundings
from posepipe.pipeline.restart import Patience, strictest
from posepipe.pipeline.snapshot import Snapshot

from . import letters
from .books import Books
from .crew import Member, State
from .heap import make_room_for_names, one_heap
from .introductions import Introductions
from .letters import Line
from .machine import memory_mb, processor_s
from .nursery import Born, Died, Nursery
from .outpost import Outposts
from .rings import RingHouse
from .ward import Ward
from .workshop import Job

_TICK_S = 0.05
_OPEN_WITHIN_S = 120.0
_WEIGH_EVERY_S = 5.0


class Supervisor:
    """One live run of one plan in worker processes. Make it before the process has a second thread."""

    offline = False

    def __init__(
        self,
        plan: Plan,
        *,
        rig: Any,
        resolve: Callable[[str], Path],
        seconds: float | None = None,
        trace: bool = False,
        warn: Callable[[str], None] | None = None,
        loud: bool = False,
        outposts: Outposts | None = None,
    ) -> None:
        self.plan = plan
        self.warn = warn or logging.getLogger("posepipe").warning
        self.clock = StudioClock()
        self.books = Books(plan, trace=trace)
        self.trace = self.books.trace
        self._infos: dict[str, StreamInfo] = {}
        self._runs_on: dict[str, str] = {}
        self._newest: dict[str, letters.Newest] = {}
        self.memory_mb: float | None = 0.0
        self.opened_with_s = 0.0
        self._weigh_at_s = 0.0
        self._round_s = 0.0
        self._start_ns = 0
        self._began_ns = self._ended_ns = 0
        self._stop_asked = False
        self._fault: PosepipeError | None = None
        self._changed = threading.Condition()
        by_worker: dict[str, list[str]] = {}
        for node in plan.nodes:
            by_worker.setdefault(node.process, []).append(node.name)
        self.crew = {
            worker: Member(worker, tuple(names), Patience(strictest([plan[n].restart for n in names])), host=plan[names[0]].host)
            for worker, names in by_worker.items()
        }
        self._source_names = {n.name for n in plan.sources}
        self._rings = RingHouse(plan, self.crew)
        self._introductions = Introductions(plan, self.crew)
        self._outposts = outposts
        self._ward = Ward(plan, self.crew, self.books, outposts=outposts, warn=self.warn, spawn=self._spawn, fail=self._fail)
        token, self._secret = secrets.token_hex(6), secrets.token_bytes(8)
        job = Job(
            plan,
            Surroundings(rig, resolve, seconds, self.warn),
            self.clock,
            _Address(f"ipc://@posepipe-{token}-"),
            self._secret,
            trace,
            loud,
        )
        self._nursery = Nursery(job)
        one_heap(give_back_large=True)
        make_room_for_names()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._nursery.fileno(), selectors.EVENT_READ, self._nursery)
        self._thread = threading.Thread(target=self._watch, name="posepipe:supervisor", daemon=True)
        self._closed = False

    # what the outside asks for --------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start every worker and wait until all nodes are open and all rings are mapped. The first fault ends it."""
        if self._outposts is not None:
            self._outposts.open(self.clock, self._secret, self.warn)
            self._selector.register(self._outposts.fileno(), selectors.EVENT_READ, self._outposts)
        for member in self.crew.values():
            self._spawn(member)
        self._thread.start()
        until = time.monotonic() + _OPEN_WITHIN_S
        with self._changed:
            done = self._changed.wait_for(lambda: self._fault or self._all_ready() or self._stop_asked, until - time.monotonic())
        if self._fault is not None:
            raise self._fault
        if not done:
            slow = ", ".join(m.name for m in self.crew.values() if m.state != State.READY)
            raise RunError(f"not open after {_OPEN_WITHIN_S:.0f} s: {slow}", where="the studio", hint="a node hangs in open")

    def _all_ready(self) -> bool:
        return all(m.state == State.READY and not m.waits_for for m in self.crew.values())

    def opened(self) -> Mapping[str, StreamInfo]:
        """What the opened sources say of themselves, by camera."""
        return self._infos

    def begin_rounds_together(self, round_s: float) -> None:
        """Recordings that are looped start each round at the same moment: after so many seconds of recording."""
        self._round_s = round_s

    def runs_on(self) -> Mapping[str, str]:
        return self._runs_on

    def subscribers(self) -> int:
        """Connected subscribers of the publishing node that has fewest; 0 when nothing publishes."""
        return min(self.books.subscribers.values(), default=0)

    def start(self) -> None:
        self.opened_with_s = processor_s([self._nursery.pid, *(m.pid for m in self.crew.values() if m.pid)])
        self._began_ns = time.monotonic_ns()
        self._ward.began = True
        self._start_ns = self.clock.now_ns() + 50_000_000
        for member in self.crew.values():
            if member.state == State.READY:
                self._send_start(member)

    @property
    def running(self) -> bool:
        return self._fault is None and any(m.alive or m.state == State.WAITING for m in self.crew.values())

    @property
    def stopping(self) -> bool:
        return self._stop_asked

    def stop(self) -> None:
        """Planned stop: the sources end, what is under way is finished."""
        self._stop_asked = self._ward.stopping = True  # the watching thread tells the workers: this may be called by a signal handler

    def finish(self, *, timeout_s: float = 10.0) -> None:
        """Wait for the drain, end what is left, settle the ledger. RunError when a part of the studio that it cannot do without failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._fault is not None or not self.running, timeout_s)
        self._ended_ns = time.monotonic_ns()
        stuck = [m.name for m in self.crew.values() if m.alive]
        self.close()
        self.books.ledger.close()
        if self._fault is not None:
            raise stopped_by(self._fault)
        if stuck:
            names = ", ".join(stuck)
            raise RunError(f"did not stop within {timeout_s:.0f} s: {names}", where="the studio stopped", hint="a node hangs in step")

    def close(self) -> None:
        """End every process of the studio. Nothing of it is left then: no socket file, no named memory."""
        if self._closed:
            return
        self._closed = True
        if self._thread.is_alive():
            self._thread.join(2.0)
        for member in self.crew.values():
            if member.line is not None:
                member.line.close()
                member.line = None
        self._nursery.close()
        if self._outposts is not None:
            self._outposts.close()
        self._rings.close()
        self._selector.close()

    @property
    def seconds(self) -> float:
        return ((self._ended_ns or time.monotonic_ns()) - self._began_ns) / 1e9 if self._began_ns else 0.0

    def snapshot(self, newest: int = 1 << 16) -> Snapshot:
        """The studio now; latencies over the `newest` packets of each node."""
        trouble = tuple(text for member in self.crew.values() if (text := member.trouble))
        return self.books.snapshot(seconds=self.seconds, newest=newest, trouble=trouble)

    def newest(self, node: str, *, within_s: float) -> letters.Newest | None:
        """What a node has made last, for people to read; None when its worker does not answer in time."""
        member = self.crew[self.plan[node].process]
        with self._changed:
            self._newest.pop(node, None)
            if member.line is None or not member.line.send(letters.Echo(node), wait=False):
                return None
            self._changed.wait_for(lambda: node in self._newest, within_s)
            return self._newest.get(node)

    # watching -------------------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            self._watch_on()
        except Exception as e:
            logging.getLogger("posepipe.supervisor").exception("%s", e)
            self._fail(stopped_by(e))

    def _watch_on(self) -> None:
        told, look_at_s = False, 0.0
        while not self._closed:
            for key, _ in self._selector.select(_TICK_S):
                if isinstance(key.data, Member):
                    self._hear(key.data)
                else:
                    self._hear_of_births(key.data)
            if self._stop_asked and not told:
                told = True
                self._tell_to_stop()
            now_s = time.monotonic()
            if now_s >= look_at_s:
                look_at_s = now_s + _TICK_S
                self._weigh(now_s)
                self._ward.look_after(now_s)
            with self._changed:
                self._changed.notify_all()

    def _tell_to_stop(self) -> None:
        for member in self.crew.values():
            if member.state == State.WAITING:
                self._ward.give_up(member, quietly=True)
            elif member.line is not None and (set(member.nodes) & self._source_names or not self._began_ns):
                member.line.send(letters.Stop())

    def _spawn(self, member: Member) -> None:
        ours, theirs = Line.pair()
        member.line, member.state, member.pid, member.fault = ours, State.OPENING, 0, None
        member.last_beat_s = time.monotonic()
        member.waits_for.clear()
        self._selector.register(ours.fileno(), selectors.EVENT_READ, member)
        where = self._nursery if not member.host else self._outposts
        assert where is not None, "a run without a cluster refuses a studio that names hosts"
        where.spawn(member.name, theirs)
        self._introductions.begin(member, ip=self._outposts.ip if self._outposts is not None else "")

    def _hear_of_births(self, where: Nursery | Outposts) -> None:
        match where.news():
            case Born(name, pid):
                self.crew[name].pid = pid
            case Died(name, pid, status):
                self._died(self.crew[name], status)
            case None:
                self._selector.unregister(self._nursery.fileno())
                self._fail(RunError("the process that makes the workers has died", where="the studio", hint="was it killed? run it again"))

    def _hear(self, member: Member) -> None:
        if member.line is None:
            return
        heard = member.line.receive()
        if heard is None:
            self._hang_up(member)
            return
        letter, fds = heard
        letters.close_fds(fds)
        member.last_beat_s = time.monotonic()
        match letter:
            case letters.Beat():
                self._note(member, letter)
            case letters.Entries(events):
                self.books.count(events)
            case letters.Opened(infos, runs_on):
                self._runs_on.update(runs_on)
                for camera, info in infos.items():
                    self._infos[camera] = msgspec.convert(info, StreamInfo)
                    self._room_for(member, camera, self._infos[camera].width, self._infos[camera].height)
                member.state = State.READY
                self._rings.hand(member)
                if self._began_ns:
                    self._send_start(member)
            case letters.Ask(camera, width, height):
                self._room_for(member, camera, width, height)
                self._rings.hand_all(member.name, camera)
            case letters.Listens(address, key):
                self._introductions.listens(member, address, key)
            case letters.Have(ring):
                member.waits_for.discard(ring)
            case letters.Spans(packets, captures):
                self.books.spans(packets, captures)
            case letters.Said(level, name, text):
                if name:
                    logging.getLogger(name).log(level, "%s", text)
                else:
                    self.warn(text)
            case letters.Harmed(number, times):
                self.books.harmed[number] = times
            case letters.Newest(node):
                self._newest[node] = letter
            case letters.Fault():
                member.fault = letter.error()
                if member.host:
                    member.fault.where = f"host {member.host}: {member.fault.where}"
            case letters.Done():
                member.state = State.DONE
            case _:
                raise AssertionError(letter)

    def _room_for(self, member: Member, camera: str, width: int, height: int) -> None:
        try:
            self._rings.room_for(member.name, camera, width, height)
        except RunError as e:
            self._fail(e)

    def _hang_up(self, member: Member) -> None:
        if member.line is not None:
            self._selector.unregister(member.line.fileno())
            member.line.close()
            member.line = None

    def _note(self, member: Member, beat: letters.Beat) -> None:
        self.books.note(member.name, beat)
        self._ward.judge(member, beat)

    # life and death -------------------------------------------------------------------------------------------------------------------

    def _send_start(self, member: Member) -> None:
        next_seq = {n.name: self.books.next_seq.get(n.key or n.base, 0) for n in self.plan.sources if n.process == member.name}
        ended = [n for n in self.books.ended if n not in member.nodes]
        if member.line is not None and member.line.send(letters.Start(self._start_ns, self._round_s, next_seq, ended)):
            member.state = State.RUNNING

    def _died(self, member: Member, status: int) -> None:
        while member.line is not None:  # what it said before it died
            self._hear(member)
        self._ward.died(member, status)

    def _fail(self, error: PosepipeError) -> None:
        with self._changed:
            self._fault = self._fault or error
            self._changed.notify_all()

    def _weigh(self, now_s: float) -> None:
        if now_s >= self._weigh_at_s:
            self._weigh_at_s = now_s + _WEIGH_EVERY_S
            pids = [os.getpid(), self._nursery.pid, *(m.pid for m in self.crew.values() if m.alive and m.pid)]
            self.memory_mb = max(self.memory_mb or 0.0, memory_mb(pids))


class _Address:
    """Where a worker listens. Linux keeps these names outside the file system: the process gone, the name gone."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __call__(self, worker: str) -> str:
        return self._prefix + worker
