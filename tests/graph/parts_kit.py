"""Studios of memory nodes in several parts: each part with its own post, letter box and rings as in a process of its own, but on
threads of this one; ZeroMQ between them is real."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq
from memory_nodes import MEMORY, Harness, Hooked, Number, Sink

from posepipe.nodes.sync_instant import SyncInstant
from posepipe.pipeline.inbox import Inbox, Post
from posepipe.pipeline.ledger import Ledger, LedgerTap
from posepipe.pipeline.packet import Frame, FrameSet
from posepipe.pipeline.part import Part, Surroundings
from posepipe.pipeline.pictures import Pictures
from posepipe.pipeline.remote import Bridge
from posepipe.pipeline.ring import FrameRing
from posepipe.pipeline.runner import side_nodes
from posepipe.pipeline.worker import Shared, Slot


def until(true: Callable[[], bool]) -> None:
    """Wait for something that another thread is about to do."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


class Member:
    """One part and what is its own."""

    def __init__(self, crew: Crew, worker: str) -> None:
        self.worker, self.crew = worker, crew
        self.post = Post(crew.address, crew.secret)
        self.inbox = Inbox(self.post, worker)
        self.tap = LedgerTap()
        self.shared = Shared(offline=False, trace=None, ledger=self.tap)
        self.shared.after = lambda: crew.hear(self.tap)
        self.pictures = Pictures(lambda *asked: threading.Thread(target=crew.give_ring, args=(self, *asked)).start())

    def build(self) -> None:
        self.bridge = Bridge(self.crew.plan, self.worker, self.post, self.inbox, self.pictures)
        around = Surroundings(None, Path, None, self.crew.warnings.append)
        self.part = Part(self.crew.plan, around, self.shared, here=self.worker, bridge=self.bridge, inbox=self.inbox)

    def connected(self) -> None:
        """Before any thread of the part runs: nothing is lost only because the first packet was faster than the connection."""
        for link in self.bridge.leaving.values():
            assert link._socket.poll(20_000, zmq.POLLOUT)
        for arrivals in self.bridge.arriving.values():
            assert arrivals._back is None or arrivals._back.poll(20_000, zmq.POLLOUT)

    def close(self) -> None:
        self.part.close()
        self.crew.hear(self.tap)
        self.inbox.close()
        self.post.close()


class Crew:
    """All parts of one studio, and what their supervisor keeps: the rings and the ledger, which hears news in another order."""

    def __init__(self, folder: Path, nodes: str, *, slots: int) -> None:
        self.plan = Harness(folder, registry={**MEMORY, SyncInstant.use: SyncInstant}).plan(nodes)
        self.secret = b"\1\2\3\4\5\6\7\10"
        self._folder, self._slots = folder, slots
        self.ledger = Ledger(side_nodes=side_nodes(self.plan))
        self.warnings: list[str] = []
        self.members: dict[str, Member] = {}
        self._rings: dict[tuple[str, str], FrameRing] = {}
        self._lock = threading.Lock()
        self._news: list[Any] = []
        self._random = random.Random(1)

    def address(self, worker: str) -> str:
        return f"ipc://{self._folder}/{worker.replace('/', '-')}"

    @property
    def hooks(self) -> dict[str, Callable[[Any], Any]]:
        return Hooked.hooks

    # life -----------------------------------------------------------------------------------------------------------------------

    def spawn(self, *workers: str) -> None:
        """Those workers, or all, up to where they could start."""
        names = workers or tuple(dict.fromkeys(node.process for node in self.plan.nodes))
        for name in names:
            self.members[name] = Member(self, name)
            for (owner, camera), ring in self._rings.items():
                if owner != name:
                    self.members[name].pictures.give(camera, FrameRing.attach(os.dup(ring.fd)), writes=False)
        for name in names:
            self.members[name].build()
            self.members[name].part.open()
        for name in names:
            self.members[name].connected()

    def start(self, *workers: str, **next_seq: int) -> None:
        members = [self.members[name] for name in workers or self.members]
        start_ns = members[0].shared.clock.now_ns() + 20_000_000
        for member in members:
            member.part.start(start_ns, next_seq=next_seq)

    def run(self) -> None:
        """From the first frame to the last, and every account settled."""
        self.spawn()
        self.start()
        self.finish()
        assert self.ledger.in_flight == 0

    def stop(self) -> None:
        for member in self.members.values():
            member.part.stop()

    def finish(self) -> None:
        for member in self.members.values():
            assert member.part.drain(timeout_s=20) == [], f"{member.worker} is stuck"
            assert member.part.fault([], timeout_s=20) is None
        self.close()
        assert self.ledger.balance == 0

    def kill(self, worker: str) -> None:
        """As SIGKILL does it: no link is ended, no news are sent, and its supervisor tells the others."""
        member = self.members.pop(worker)
        for link in member.bridge.leaving.values():
            link.end = lambda: None  # type: ignore[method-assign]
        member.shared.after = lambda: None
        member.shared.fail(InterruptedError("killed"))
        assert member.part.drain(timeout_s=20) == []
        member.tap.take()
        member.inbox.close()
        member.post.context.destroy(linger=0)
        for other in self.members.values():
            other.bridge.reader_is_gone(worker, other.tap)

    def close(self) -> None:
        for member in self.members.values():
            member.shared.stop.set()
            member.part.drain(timeout_s=5)
            member.close()
        self.members.clear()
        self.deliver()

    # what a supervisor keeps ----------------------------------------------------------------------------------------------------

    def give_ring(self, member: Member, camera: str, width: int, height: int) -> None:
        """On a thread of its own: who asks waits."""
        ring = self._rings.get((member.worker, camera))
        if ring is None:
            ring = self._rings[member.worker, camera] = FrameRing.create(self._slots, width, height)
            for other in list(self.members.values()):
                if other is not member:
                    other.pictures.give(camera, FrameRing.attach(os.dup(ring.fd)), writes=False)
        member.pictures.give(camera, FrameRing.attach(os.dup(ring.fd)), writes=True)

    def hear(self, tap: LedgerTap) -> None:
        """Some of the news are played to the ledger at once, the others later."""
        with self._lock:
            self._news += msgspec.msgpack.decode(msgspec.msgpack.encode(tap.take()))
            self._random.shuffle(self._news)
            now, self._news = self._news[: len(self._news) // 2], self._news[len(self._news) // 2 :]
        self.ledger.apply(now)
        assert self.ledger.balance == 0

    def deliver(self) -> None:
        """All news that are there."""
        for member in self.members.values():
            self.hear(member.tap)
        with self._lock:
            self.ledger.apply(self._news)
            self._news.clear()
        assert self.ledger.balance == 0

    # looking in -----------------------------------------------------------------------------------------------------------------

    def slot(self, name: str) -> Slot:
        return self.members[self.plan[name].process].part.slots[name]

    def sink(self, name: str = "sink") -> list[tuple[int, Number]]:
        """What a sink got; it goes on growing."""
        node = self.slot(name).node
        assert isinstance(node, Sink)
        return node.got

    def dropped(self) -> dict[tuple[str, str], int]:
        self.deliver()
        return {(d.node, d.reason): d.count for d in self.ledger.dropped}


def shows(body: Frame | FrameSet) -> bool:
    """Whether the pictures are those of their numbers (see `memory_nodes.Camera`), as long as they are whole."""
    frames = [body] if isinstance(body, Frame) else list(body.frames.values())
    right = all((plane == frame.seq % 256).all() for frame in frames for plane in frame.planes)
    return right or not body.whole
