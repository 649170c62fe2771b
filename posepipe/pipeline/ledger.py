"""The ledger: every captured frame ends in exactly one account, published or dropped with (node, reason).

A frame may be on several branches at once (publish, record, view). It is *published* when any branch reached a
publishing sink, else *dropped* with the first reason given (one given on the way to a publishing sink goes before one given
on a side branch); it is settled when no branch holds it any more.
`captured - published - dropped - in flight = 0` at every moment, and in flight is 0 after a stop.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from .packet import FrameId


@dataclass(frozen=True, slots=True)
class Drop:
    node: str
    reason: str
    count: int


@dataclass(slots=True)
class _Account:
    branches: int = 1
    published: bool = False
    why: tuple[str, str] | None = None


class Ledger:
    """Thread safe; every call is a few dictionary operations."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.side_nodes: frozenset[str] = frozenset()
        """Nodes from which no way leads to a publishing sink."""
        self._open: dict[FrameId, _Account] = {}
        self.captured = 0
        self.published = 0
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._skipped: Counter[tuple[str, str]] = Counter()

    def capture(self, frame: FrameId) -> None:
        """A frame exists."""
        with self._lock:
            self.captured += 1
            self._open[frame] = _Account()

    def capture_lost(self, count: int, node: str, reason: str) -> None:
        """Frames that the camera had and that never became a picture here."""
        with self._lock:
            self.captured += count
            self._dropped[node, reason] += count

    def fork(self, frames: Iterable[FrameId], branches: int) -> None:
        """A packet goes to `branches` consumers; 0 means nobody takes it."""
        if branches == 1:
            return
        with self._lock:
            for frame in frames:
                self._open[frame].branches += branches - 1
                self._settle(frame)

    def drop(self, frames: Iterable[FrameId], node: str, reason: str) -> None:
        """One branch loses the frames."""
        with self._lock:
            lost = False
            for frame in frames:
                account = self._open[frame]
                account.branches -= 1
                if account.why is None or (account.why[0] in self.side_nodes and node not in self.side_nodes):
                    account.why = node, reason
                lost = True
                self._settle(frame)
            if lost:
                self._skipped[node, reason] += 1

    def consume(self, frames: Iterable[FrameId], *, published: bool) -> None:
        """One branch has reached a sink."""
        with self._lock:
            for frame in frames:
                account = self._open[frame]
                account.branches -= 1
                account.published |= published
                self._settle(frame)

    def _settle(self, frame: FrameId) -> None:
        account = self._open[frame]
        if account.branches > 0:
            return
        del self._open[frame]
        if account.published:
            self.published += 1
        else:
            self._dropped[account.why or ("graph", "no sink publishes it")] += 1

    @property
    def in_flight(self) -> int:
        return len(self._open)

    @property
    def dropped(self) -> list[Drop]:
        """Frames lost for good, most first."""
        with self._lock:
            return [Drop(node, reason, n) for (node, reason), n in self._dropped.most_common()]

    @property
    def skipped(self) -> list[Drop]:
        """Packets that single links or nodes lost, also where another branch published the frames."""
        with self._lock:
            return [Drop(node, reason, n) for (node, reason), n in self._skipped.most_common()]

    @property
    def balance(self) -> int:
        """captured - published - dropped - in flight; anything but 0 is a bug."""
        with self._lock:
            return self.captured - self.published - sum(self._dropped.values()) - len(self._open)

    def close(self, node: str = "graph", reason: str = "in flight at the stop") -> None:
        """Account for what is still held somewhere when the studio stops."""
        with self._lock:
            for account in self._open.values():
                if account.published:
                    self.published += 1
                else:
                    self._dropped[account.why or (node, reason)] += 1
            self._open.clear()
