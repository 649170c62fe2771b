"""Links between nodes: bounded queues with a policy for when they are full."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from .packet import Packet

Full = Literal["drop_oldest", "keep_newest", "drop_newest", "block"]

# A packet that finds another waiting counts for six that find none; at sixty the reader is behind for good.
_CROWDED, _BEHIND = 6, 60


class Queue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`queue:` of a node: how many packets may wait on each link into it, and what happens to one more.

    keep_newest: drop_oldest, with room for one alone while the reader does not catch up: what waits makes up for a hiccup of the reader,
    and is only late for one that is always too slow.
    """

    size: int = 2
    full: Full = "drop_oldest"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError("a queue holds at least 1 packet")


class Link:
    """A queue into one port of one node.

    `ready` belongs to the worker that reads, `freed` to the worker that writes (None for a source). A worker looks at `room`
    before it runs a writer, so that two workers can never wait for each other; a source waits inside `put`.
    `put` returns the packet that was lost, if any.
    """

    __slots__ = ("_behind", "_items", "ended", "freed", "high_water", "port", "queue", "reader", "ready", "stopped", "taken", "writer")

    def __init__(
        self, writer: str, reader: str, port: str, queue: Queue, *, ready: threading.Condition, freed: threading.Condition | None
    ) -> None:
        self.writer, self.reader, self.port, self.queue = writer, reader, port, queue
        self.ready, self.freed = ready, freed
        self._items: deque[Packet[Any]] = deque()
        self._behind = 0
        self.ended = False
        self.stopped = False
        self.high_water = 0
        self.taken: Callable[[], None] | None = None
        """Called for each packet that leaves; a writer in another process waits for that."""

    def __len__(self) -> int:
        return len(self._items)

    @property
    def head_ns(self) -> int:
        """Capture time of the oldest packet; only the reader asks, when it is not empty."""
        return self._items[0].t_capture_ns

    @property
    def why(self) -> str:
        """Why `put` lost a packet."""
        return f"queue full ({self.queue.full})"

    @property
    def room(self) -> bool:
        """Whether a writer in the same worker may run."""
        return self.queue.full != "block" or len(self._items) < self.queue.size

    def put(self, packet: Packet[Any], *, wait: bool) -> Packet[Any] | None:
        lost = None
        with self.ready:
            if len(self._items) >= self._count_and_size():
                if self.queue.full == "drop_newest":
                    return packet
                if self.queue.full != "block":
                    lost = self._items.popleft()
                elif wait:
                    while len(self._items) >= self.queue.size and not self.stopped:
                        self.ready.wait(0.5)
            self._items.append(packet)
            self.high_water = max(self.high_water, len(self._items))
            self.ready.notify_all()
        return lost

    def _count_and_size(self) -> int:
        """How many may wait now that one more comes; notes for keep_newest whether it found another."""
        if self.queue.full != "keep_newest":
            return self.queue.size
        self._behind = min(self._behind + _CROWDED, _BEHIND) if self._items else max(self._behind - 1, 0)
        return self.queue.size if self._behind < _BEHIND else 1

    def get(self) -> Packet[Any]:
        with self.ready:
            packet = self._items.popleft()
            if self.queue.full == "block":
                self.ready.notify_all()
        if self.queue.full == "block" and self.freed is not None and self.freed is not self.ready:
            with self.freed:
                self.freed.notify_all()
        if self.taken is not None:
            self.taken()
        return packet

    def end(self) -> None:
        """The writer will write no more."""
        with self.ready:
            self.ended = True
            self.ready.notify_all()

    def stop(self) -> list[Packet[Any]]:
        """Empty the link at a stop; what was waiting is returned for the ledger."""
        with self.ready:
            self.stopped = True
            left = list(self._items)
            self._items.clear()
            self.ready.notify_all()
        return left
