"""Studios of memory nodes whose parts lie on different hosts, as far as their links can tell: tcp, keys, pictures in messages."""

from __future__ import annotations

from pathlib import Path

from parts_kit import Crew, Member

from posepipe.nodes._codecs import codec
from posepipe.pipeline.far import Far, Peer
from posepipe.pipeline.part import Part, Surroundings
from posepipe.pipeline.remote import Bridge, wires

HERE = "127.0.0.1"


class FarMember(Member):
    def __init__(self, crew: FarCrew, worker: str) -> None:
        super().__init__(crew, worker)
        self.far: Far | None = None
        if any(wire.between_hosts and worker in (wire.from_worker, wire.to_worker) for wire in wires(crew.plan)):
            self.far = self.post.far = Far(self.post.context, crew.warnings.append)
            crew.peers[worker] = self.inbox.listen_far(self.far, HERE)

    def build(self) -> None:
        self.bridge = Bridge(self.crew.plan, self.worker, self.post, self.inbox, self.pictures, codecs=codec)
        around = Surroundings(None, Path, None, self.crew.warnings.append)
        self.part = Part(self.crew.plan, around, self.shared, here=self.worker, bridge=self.bridge, inbox=self.inbox)


class FarCrew(Crew):
    """A supervisor of several hosts also tells everybody where everybody listens."""

    def __init__(self, folder: Path, nodes: str) -> None:
        super().__init__(folder, nodes, slots=8)
        self.peers: dict[str, Peer] = {}

    def spawn(self, *workers: str) -> None:
        names = workers or tuple(dict.fromkeys(node.process for node in self.plan.nodes))
        for name in names:
            self.members[name] = FarMember(self, name)
        for name in names:
            self.members[name].build()
            self.members[name].part.open()
        self.introduce()

    def introduce(self) -> None:
        far = [member.far for member in self.members.values() if isinstance(member, FarMember) and member.far is not None]
        for one in far:
            one.know(self.peers, within_s=0)
        assert all(one.know(self.peers, within_s=10) for one in far)

    def kill(self, worker: str) -> None:
        member = self.members[worker]
        assert isinstance(member, FarMember)
        if member.far is not None:
            member.far.close()
        super().kill(worker)
