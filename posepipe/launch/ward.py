"""Who of a studio's workers lives, who is started again, and who stays dead."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping

from posepipe.pipeline.errors import PosepipeError, RunError
from posepipe.pipeline.graph import Plan

from . import letters
from .books import Books
from .crew import Member, State
from .outpost import Outposts

_SETTLE_S = 1.0
"""What a killed worker held is accounted for when nothing was heard of it for so long."""
_LOST_AFTER_S = 15.0


class Ward:
    """Looks after the workers: those that die, those that fall silent, those whose time to be started again has come.

    began: whether the sources were told to start. stopping: whether the studio was asked to stop; nobody is started again then.
    spawn: starts a worker. fail: ends the studio.
    """

    def __init__(
        self,
        plan: Plan,
        crew: Mapping[str, Member],
        books: Books,
        *,
        outposts: Outposts | None,
        warn: Callable[[str], None],
        spawn: Callable[[Member], None],
        fail: Callable[[PosepipeError], None],
    ) -> None:
        self._crew, self._books, self._outposts = crew, books, outposts
        self._warn, self._spawn, self._fail = warn, spawn, fail
        self._sources = {n.name for n in plan.sources}
        self._sweeps: list[tuple[float, int, Member]] = []
        self.began = self.stopping = False

    def died(self, member: Member, status: int) -> None:
        """A worker whose last words were heard has ended with this exit status (negative: by a signal)."""
        now_s = time.monotonic()
        member.died_at_s = now_s
        if member.state in (State.DONE, State.FAILED):
            return
        failed = member.fault is not None or status != 0
        how = member.why or (f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}")
        member.why = ""
        if not self.began and member.fault is not None:  # a studio that cannot open is refused
            self._fail(member.fault)
            return
        self._tell_others(letters.Gone(member.name))
        self._sweeps.append((now_s + _SETTLE_S, time.monotonic_ns(), member))
        wait_s = None if self.stopping else member.patience.after_death(now_s, failed=failed)
        if wait_s is None:
            member.fault = member.fault or RunError(f"worker {member.name} {how}", where="the studio", hint="the log above may say why")
            self.give_up(member, quietly=self.stopping)
            return
        member.state, member.again_at_s = State.WAITING, now_s + wait_s
        member.restarts += 1
        fault = f": {member.fault.what}" if member.fault is not None else ""
        self._warn(f"worker {member.name} {how}{fault}; it is started again (restart {member.restarts})")

    def give_up(self, member: Member, *, quietly: bool = False) -> None:
        """It stays dead. A studio goes on without a camera, a recorder or a view, not without what leads to its publication."""
        member.state = State.FAILED
        for name in member.nodes:
            self._books.ended.add(name)
            self._tell_others(letters.Ended(name))
        if quietly:
            return
        sources_left = any(m.alive or m.state == State.WAITING for m in self._crew.values() if set(m.nodes) & self._sources)
        side = set(member.nodes) <= self._books.ledger.side_nodes
        if (set(member.nodes) <= self._sources and sources_left) or side:
            self._warn(
                f"worker {member.name} is given up: {member.fault.what if member.fault else 'it ended'}; the studio goes on without it"
            )
        else:
            self._fail(member.fault or RunError(f"worker {member.name} has ended", where="the studio"))

    def _tell_others(self, letter: letters.Letter) -> None:
        for other in self._crew.values():
            if other.alive and other.line is not None:
                other.line.send(letter)

    def judge(self, member: Member, beat: letters.Beat) -> None:
        """End a worker that has been in one call for longer than its restart policy allows."""
        restart = member.patience.restart
        key, limit_s = ("open_s", restart.open_s) if member.state == State.OPENING else ("hang_s", restart.hang_s)
        for name, node in beat.nodes.items():
            if node.busy_s > limit_s:
                self._kill(member, f"{name} has been in one call for {node.busy_s:.0f} s ({key}: {limit_s:g})")

    def _kill(self, member: Member, why: str) -> None:
        if member.host and self._outposts is not None and not member.why:
            member.why = f"was stopped: {why}"
            self._outposts.kill(member.name)
        elif member.pid and not member.why:
            member.why = f"was stopped: {why}"
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)

    def look_after(self, now_s: float) -> None:
        """What is due at this time (monotonic clock)."""
        for member in self._crew.values():
            if member.state == State.WAITING and now_s >= member.again_at_s:
                self._spawn(member)
            elif member.alive and now_s - member.last_beat_s > member.may_be_silent_s:
                self._kill(member, f"nothing was heard of it for {now_s - member.last_beat_s:.1f} s")
        for sweep in [s for s in self._sweeps if now_s >= s[0]]:
            self._sweeps.remove(sweep)
            _, before_ns, member = sweep
            self._books.ledger.give_up(member.nodes[-1], f"lost with worker {member.name}", before_ns=before_ns)
        self._books.ledger.give_up("graph", "lost on the way", before_ns=time.monotonic_ns() - int(_LOST_AFTER_S * 1e9))
