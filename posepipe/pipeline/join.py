"""Instants that meet: what came at the several inputs of one node, by seq, until it can be answered."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from .ledger import merged
from .node import Port
from .packet import Packet

Row = dict[str, Packet[Any]]
"""Port -> what came there, of one instant."""
_KEEP = 64
_PATIENCE = 16
"""Live, so many instants later one is answered without the inputs that may be left out: whoever gives them hangs, or is being restarted."""


class Join:
    """The instants that wait at one node. ports: all of it; wired: the names of those that the studio feeds.

    An instant leaves when it is complete, and those before it then leave, too: nothing more comes of them. What lacks an input that
    a studio may leave out (`Port.optional`) leaves complete as soon as that input has gone past it or ended. keep: an instant that
    many numbers behind the newest is given up.
    """

    def __init__(self, ports: tuple[Port, ...], wired: Collection[str], *, offline: bool) -> None:
        self._wired = [p for p in ports if p.name in wired]
        self._offline = offline
        self.keep = _KEEP
        self._rows: dict[int, Row] = {}
        self._at: dict[str, int] = {}
        self._ended: set[str] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, port: str, packet: Packet[Any]) -> list[tuple[Row, bool]]:
        """A packet has come: the rows that leave, in order, and whether they are to be answered (else they are lost)."""
        self._rows.setdefault(packet.seq, {})[port] = packet
        self._at[port] = packet.seq
        return self._leave(packet.seq)

    def end(self, port: str) -> list[tuple[Row, bool]]:
        """Nothing comes at that port any more."""
        self._ended.add(port)
        return self._leave(None)

    def rest(self) -> list[Row]:
        """Everything that waits, at the end."""
        rows, self._rows = list(self._rows.values()), {}
        return rows

    def packet(self, row: Row) -> Packet[Any]:
        """One packet for all of a row: trace and time of the last to come, frames of all, the body of the first port."""
        last = max(row.values(), key=lambda p: p.trace[-1].t_out_ns)
        frames, parts = merged(row.values())
        return replace(last, body=next(row[p.name].body for p in self._wired if p.name in row), frames=frames, shares=parts)

    def _leave(self, newest: int | None) -> list[tuple[Row, bool]]:
        answered = {seq for seq, row in self._rows.items() if self._nothing_comes(seq, row, newest)}
        last = max(answered, default=None)
        leaving = [seq for seq in self._rows if (last is not None and seq <= last) or (newest is not None and seq <= newest - self.keep)]
        return [(self._rows.pop(seq), seq in answered) for seq in sorted(leaving)]

    def _nothing_comes(self, seq: int, row: Row, newest: int | None) -> bool:
        missing = [p for p in self._wired if p.name not in row]
        if not all(p.optional for p in missing):
            return False
        if newest is not None and seq <= newest - (self.keep if self._offline else _PATIENCE):
            return True
        return all(p.name in self._ended or self._at.get(p.name, seq) > seq for p in missing)
