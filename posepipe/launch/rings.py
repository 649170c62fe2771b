"""The frame rings of a studio: the supervisor holds them, so that they outlive both ends."""

from __future__ import annotations

from collections.abc import Mapping

from posepipe.pipeline.errors import RunError
from posepipe.pipeline.graph import Plan
from posepipe.pipeline.remote import wires
from posepipe.pipeline.ring import FrameRing

from . import letters
from .crew import Member, State

_SLOTS = 16  # a decoder holds up to half of them: what it predicts from, and what it shows later


class RingHouse:
    """A ring for every worker and every camera whose pictures it puts where another worker of this machine looks at them.

    A capture puts its own; a worker in the middle needs one only where a lossless link carries pictures on.
    """

    def __init__(self, plan: Plan, crew: Mapping[str, Member]) -> None:
        self._crew = crew
        within = [wire for wire in wires(plan) if wire.in_rings]
        self._readers = {wire.to_worker for wire in within}
        self._pinned = {
            worker: sum(w.queue.size for w in within if w.from_worker == worker and w.queue.full == "block")
            for worker in {w.from_worker for w in within}
        }
        self._rings: dict[tuple[str, str], FrameRing] = {}
        self._old: dict[tuple[str, str], int] = {}
        """Id of the ring that each one replaced, 0 for none."""

    def room_for(self, worker: str, camera: str, width: int, height: int) -> None:
        """That worker has a ring for pictures of that size from now on. RunError when the machine has no memory for it."""
        there = self._rings.get((worker, camera))
        if (there is not None and there.width >= width and there.height >= height) or worker not in self._pinned:
            return
        try:
            self._rings[worker, camera] = FrameRing.create(_SLOTS + self._pinned[worker], width, height)
        except RunError as e:
            raise RunError(e.what, where=f"camera {camera}", hint=e.hint) from None
        self._old[worker, camera] = there.id if there is not None else 0
        if there is not None:
            there.close()
        self.hand_all(worker, camera)

    def hand_all(self, worker: str, camera: str) -> None:
        """A ring to everybody who is open; to its readers first: they know it when the first frame comes."""
        members = [m for m in self._crew.values() if m.state in (State.READY, State.RUNNING)]
        for member in sorted(members, key=lambda m: m.name == worker):
            self._hand(member, worker, camera)

    def hand(self, member: Member) -> None:
        """To a worker that has just opened: every ring that it reads, and its own."""
        for worker, camera in self._rings:
            self._hand(member, worker, camera)

    def _hand(self, member: Member, worker: str, camera: str) -> None:
        ring = self._rings.get((worker, camera))
        if ring is None or member.line is None or member.host or (worker != member.name and member.name not in self._readers):
            return
        letter = letters.Ring(camera, worker == member.name, self._old[worker, camera])
        if member.line.send(letter, ring.fd):
            member.waits_for.add(ring.id)

    def close(self) -> None:
        for ring in self._rings.values():
            ring.close()
