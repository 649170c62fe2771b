"""The ledger: every captured frame ends in exactly one account, published or dropped with (node, reason).

A frame may be on several branches at once (publish, record, view), in several processes. It starts with one whole share; a
packet that forks divides the shares of its frames among the branches, and whoever ends a branch gives its share back with what
became of it. A frame is settled when all of it has come back: *published* when any branch reached a publishing sink, else
*dropped* with the first reason given (one given on the way to a publishing sink goes before one given on a side branch).
Shares come back in any order, so no two processes have to agree on one (weight throwing: Mattern 1989, Huang 1989).
`captured - published - dropped - in flight = 0` at every moment, and in flight is 0 after a stop.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .packet import WHOLE, FrameId, Packet

_REMEMBER = 4096
Event = tuple[Any, ...]
"""A call of the ledger on its way to the process that keeps it: the method's name and its arguments."""


@dataclass(frozen=True, slots=True)
class Drop:
    node: str
    reason: str
    count: int


@dataclass(slots=True)
class _Account:
    since_ns: int
    back: int = 0
    published: bool = False
    why: tuple[str, str] | None = None


def shares(packet: Packet[Any]) -> tuple[int, ...]:
    """The share of each of its frames that a packet carries; one that was never forked carries them whole."""
    return packet.shares or (WHOLE,) * len(packet.frames)


def divided(packet: Packet[Any], branches: int) -> list[tuple[int, ...]]:
    """The shares of a packet for each of its branches (at least one)."""
    whole = shares(packet)
    part = tuple(share // branches for share in whole)
    rest = tuple(share - (branches - 1) * one for share, one in zip(whole, part, strict=True))
    return [rest, *[part] * (branches - 1)]


def merged(packets: Iterable[Packet[Any]]) -> tuple[tuple[FrameId, ...], tuple[int, ...]]:
    """Frames and shares of several packets as those of one; a frame that came on two ways goes on with both shares."""
    sums: dict[FrameId, int] = {}
    for packet in packets:
        for frame, share in zip(packet.frames, shares(packet), strict=True):
            sums[frame] = sums.get(frame, 0) + share
    return tuple(sums), tuple(sums.values())


class LedgerTap:
    """What a node's surroundings know of the ledger. In a worker process, entries wait here until `take` sends them on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Event] = []

    def capture(self, frame: FrameId) -> None:
        """A frame exists."""
        self._note(("capture", frame))

    def capture_lost(self, count: int, node: str, reason: str) -> None:
        """Frames that the camera had and that never became a picture here."""
        self._note(("capture_lost", count, node, reason))

    def drop(self, packet: Packet[Any], node: str, reason: str) -> None:
        """One branch loses the frames of a packet."""
        if packet.frames:
            self._note(("lost", packet.frames, shares(packet), node, reason))

    def consume(self, packet: Packet[Any], *, published: bool) -> None:
        """One branch has reached a sink."""
        if packet.frames:
            self._note(("came_back", packet.frames, shares(packet), published))

    def _note(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)

    def take(self) -> list[Event]:
        with self._lock:
            events, self._events = self._events, []
        return events

    def put_back(self, events: list[Event]) -> None:
        """They could not be sent: they go with the next ones."""
        with self._lock:
            self._events[:0] = events


@dataclass
class Ledger(LedgerTap):
    """The accounts themselves. Thread safe; every call is a few dictionary operations."""

    side_nodes: frozenset[str] = frozenset()
    """Nodes from which no way leads to a publishing sink."""
    captured: int = 0
    published: int = 0
    _open: dict[FrameId, _Account] = field(default_factory=dict)
    _dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    _skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lost_of: Counter[str] = field(default_factory=Counter)
    _ended: OrderedDict[FrameId, tuple[str, str] | None] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        super().__init__()

    def apply(self, events: Iterable[Sequence[Any]]) -> None:
        """Entries that came from another process. Frame ids may come as lists."""
        for kind, *arguments in events:
            if kind == "capture":
                self._note(("capture", tuple(arguments[0])))
            elif kind == "capture_lost":
                self._note((kind, *arguments))
            else:
                self._note((kind, tuple(map(tuple, arguments[0])), *arguments[1:]))

    def _note(self, event: Event) -> None:
        with self._lock:
            kind, *arguments = event
            getattr(self, f"_{kind}")(*arguments)

    def _capture(self, frame: FrameId) -> None:
        if frame not in self._ended:  # the news that it has ended may have come first
            self._account(frame)

    def _account(self, frame: FrameId) -> _Account:
        """News of a frame may overtake the news that it was captured."""
        account = self._open.get(frame)
        if account is None:
            account = self._open[frame] = _Account(time.monotonic_ns())
            self.captured += 1
        return account

    def _capture_lost(self, count: int, node: str, reason: str) -> None:
        self.captured += count
        self._dropped[node, reason] += count
        self._lost_of[node] += count

    def _lost(self, frames: Sequence[FrameId], parts: Sequence[int], node: str, reason: str) -> None:
        self._skipped[node, reason] += 1
        for frame, share in zip(frames, parts, strict=True):
            if frame in self._ended:
                continue
            account = self._account(frame)
            if account.why is None or (account.why[0] in self.side_nodes and node not in self.side_nodes):
                account.why = node, reason
            self._give_back(frame, account, share)

    def _came_back(self, frames: Sequence[FrameId], parts: Sequence[int], published: bool) -> None:
        for frame, share in zip(frames, parts, strict=True):
            if frame in self._ended:
                why = self._ended[frame]
                if published and why is not None:  # it was late, not lost, or had got through the worker that was killed
                    self._dropped[why] -= 1
                    self._lost_of[frame[0]] -= 1
                    self._ended[frame] = None
                    self.published += 1
                continue
            account = self._account(frame)
            account.published |= published
            self._give_back(frame, account, share)

    def _give_back(self, frame: FrameId, account: _Account, share: int) -> None:
        account.back += share
        if account.back < WHOLE:
            return
        del self._open[frame]
        self._end(account, frame, ("graph", "no sink publishes it"))

    @property
    def in_flight(self) -> int:
        return len(self._open)

    @property
    def dropped(self) -> list[Drop]:
        """Frames lost for good, most first."""
        with self._lock:
            return [Drop(node, reason, n) for (node, reason), n in self._dropped.most_common() if n]

    @property
    def skipped(self) -> list[Drop]:
        """Packets that single links or nodes lost, also where another branch published the frames."""
        with self._lock:
            return [Drop(node, reason, n) for (node, reason), n in self._skipped.most_common()]

    @property
    def lost_of(self) -> dict[str, int]:
        """Frames lost for good, by camera; those that never became a picture by the name of their source node."""
        with self._lock:
            return dict(self._lost_of)

    @property
    def balance(self) -> int:
        """captured - published - dropped - in flight; anything but 0 is a bug."""
        with self._lock:
            return self.captured - self.published - sum(self._dropped.values()) - len(self._open)

    def give_up(self, node: str, reason: str, *, before_ns: int) -> int:
        """Account for open frames that were first heard of before that moment (monotonic ns): a killed process held them.

        Returns how many. One that is published after all is moved to its right account.
        """
        with self._lock:
            gone = [frame for frame, account in self._open.items() if account.since_ns < before_ns]
            for frame in gone:
                self._end(self._open.pop(frame), frame, (node, reason))
        return len(gone)

    def close(self, node: str = "graph", reason: str = "in flight at the stop") -> None:
        """Account for what is still held somewhere when the studio stops."""
        with self._lock:
            for frame, account in self._open.items():
                self._end(account, frame, (node, reason))
            self._open.clear()

    def _end(self, account: _Account, frame: FrameId, why: tuple[str, str]) -> None:
        end = None if account.published else account.why or why
        self._remember(frame, end)
        if end is None:
            self.published += 1
        else:
            self._dropped[end] += 1
            self._lost_of[frame[0]] += 1

    def _remember(self, frame: FrameId, end: tuple[str, str] | None) -> None:
        """A frame that is settled stays settled, whatever a duplicated message says later."""
        self._ended[frame] = end
        if len(self._ended) > _REMEMBER:
            self._ended.popitem(last=False)
