"""Workers on different hosts learn of each other: each says where it listens and its public key, and all are told whenever that changes."""

from __future__ import annotations

from collections.abc import Mapping

from posepipe.pipeline.graph import Plan
from posepipe.pipeline.remote import wires

from . import letters
from .crew import Member

_UNKNOWN = -1
"""What a member waits for until it has said where it listens. Tables count down from here; rings have ids from 0 up."""


class Introductions:
    """Kept by the supervisor."""

    def __init__(self, plan: Plan, crew: Mapping[str, Member]) -> None:
        self._crew = crew
        self._concerned = {worker for wire in wires(plan) if wire.between_hosts for worker in (wire.from_worker, wire.to_worker)}
        self._peers: dict[str, tuple[str, bytes]] = {}
        self._table = _UNKNOWN

    def begin(self, member: Member, *, ip: str) -> None:
        """A new process: has it listen at an address of this host (its own, if it is elsewhere)."""
        self._peers.pop(member.name, None)
        if member.name in self._concerned and member.line is not None:
            member.waits_for.add(_UNKNOWN)
            member.line.send(letters.Listen("" if member.host else ip))

    def listens(self, member: Member, address: str, key: bytes) -> None:
        self._peers[member.name] = address, key
        member.waits_for.discard(_UNKNOWN)
        self._table -= 1
        for other in self._crew.values():
            if other.name in self._concerned and other.alive and other.line is not None:
                other.waits_for.add(self._table)
                other.line.send(letters.Addresses(self._table, self._peers))
