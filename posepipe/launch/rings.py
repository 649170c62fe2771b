"""The frame rings of a studio: the supervisor holds them, so that they outlive both ends."""

from __future__ import annotations

from collections.abc import Mapping

from posepipe.pipeline.errors import RunError
from posepipe.pipeline.graph import Plan
from posepipe.pipeline.remote import wires
from posepipe.pipeline.ring import FrameRing

from . import letters
from .crew import Member, State

_SLOTS = 8


class RingHouse:
    """One ring for each camera whose pictures are looked at in another process of this machine."""

    def __init__(self, plan: Plan, crew: Mapping[str, Member]) -> None:
        self._crew = crew
        self._writer = {n.key or n.base: n.process for n in plan.sources}
        self._readers = {wire.to_worker for wire in wires(plan) if wire.pixels}
        self._rings: dict[str, FrameRing] = {}

    def room_for(self, camera: str, width: int, height: int) -> None:
        """There is a ring for pictures of that size from now on. RunError when the machine has no memory for it."""
        there = self._rings.get(camera)
        if (there is not None and there.width >= width and there.height >= height) or not self._readers:
            return
        try:
            self._rings[camera] = FrameRing.create(_SLOTS, width, height)
        except RunError as e:
            raise RunError(e.what, where=f"camera {camera}", hint=e.hint) from None
        if there is not None:
            there.close()
        self.hand_all(camera)

    def hand_all(self, camera: str) -> None:
        """A camera's ring to everybody who is open. It comes to its readers first: they know it when the first frame comes."""
        members = [m for m in self._crew.values() if m.state in (State.READY, State.RUNNING)]
        for member in sorted(members, key=lambda m: m.name == self._writer[camera]):
            self.hand(member, only=camera)

    def hand(self, member: Member, *, only: str | None = None) -> None:
        """Readers get every ring, the writer its own."""
        for camera, ring in self._rings.items():
            if only not in (None, camera) or member.line is None:
                continue
            writes = self._writer[camera] == member.name
            if (writes or member.name in self._readers) and member.line.send(letters.Ring(camera, writes), ring.fd):
                member.waits_for.add(ring.id)

    def close(self) -> None:
        for ring in self._rings.values():
            ring.close()
