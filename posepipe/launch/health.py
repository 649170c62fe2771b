"""Whether a live studio does what it is for: the answer of /healthz."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from posepipe.pipeline.graph import Plan

from .books import Books
from .crew import Member, State

STALE_S = 5.0
"""A studio that has published nothing for so long is not healthy."""
_UP = (State.READY, State.RUNNING)


class Watched(Protocol):
    """What is read of a live studio (`Supervisor`) by those who look at it from outside."""

    plan: Plan
    books: Books
    crew: dict[str, Member]

    @property
    def seconds(self) -> float: ...
    @property
    def stopping(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Health:
    """reasons: why the studio is not healthy. missing: workers that it goes on without. since_instant_s: None before the first one."""

    reasons: tuple[str, ...]
    missing: tuple[str, ...]
    workers: Mapping[str, str]
    since_instant_s: float | None
    balance: int

    @property
    def ok(self) -> bool:
        return not self.reasons

    def as_json(self) -> dict[str, Any]:
        since = self.since_instant_s
        return {
            "status": "ok" if self.ok else "unhealthy",
            "reasons": self.reasons,
            "missing": self.missing,
            "workers": self.workers,
            "seconds_since_instant": None if since is None else round(since, 3),
            "ledger_balance": self.balance,
        }


def since_instant_s(books: Books, *, now_ns: int) -> float | None:
    """Seconds since it was heard that an instant was published; None before the first. now_ns: monotonic."""
    last_ns = books.end_to_end.last_ns
    return max(now_ns - last_ns, 0) / 1e9 if last_ns else None


def up(member: Member) -> bool:
    """The worker is open or working."""
    return member.state in _UP


def health(studio: Watched, *, now_ns: int | None = None) -> Health:
    """The studio now. It needs every worker on the way to a publishing sink, and of the cameras at least one; recorders and views
    may be away, as they may for the supervisor."""
    now_ns = time.monotonic_ns() if now_ns is None else now_ns
    sources = {n.name for n in studio.plan.sources}
    side = studio.books.ledger.side_nodes
    crew = list(studio.crew.values())
    down = [m for m in crew if not up(m) and m.state != State.DONE]
    cameras = [m for m in crew if set(m.nodes) <= sources]
    all_away = bool(cameras) and not any(map(up, cameras))
    needed = [m for m in down if not set(m.nodes) <= side and (m not in cameras or all_away)]
    since_s, balance = since_instant_s(studio.books, now_ns=now_ns), studio.books.ledger.balance
    reasons = [f"worker {m.name} is {m.state}" for m in needed]
    if studio.stopping:
        reasons.append("the studio is stopping")
    elif not studio.seconds:
        reasons.append("the studio has not started yet")
    elif any(n.cls.publishes for n in studio.plan.nodes):
        waited_s = studio.seconds if since_s is None else since_s
        if waited_s > STALE_S:
            reasons.append(f"no instant was published for {waited_s:.1f} s")
        elif since_s is None:
            reasons.append("no instant was published yet")
    if balance:
        reasons.append(f"the ledger is out of balance by {balance} frames")
    missing = tuple(m.name for m in down if m not in needed)
    return Health(tuple(reasons), missing, {m.name: str(m.state) for m in crew}, since_s, balance)
