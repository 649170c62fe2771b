"""A live studio that is only made up: what the supervisor would know of it, without a process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import studio_kit

from posepipe.launch import letters
from posepipe.launch.books import Books
from posepipe.launch.crew import Member, State
from posepipe.pipeline.packet import WHOLE, Sync, Tier
from posepipe.pipeline.restart import Patience, Restart


class MadeUp:
    """Three cameras with a worker each, `main` with instants, lift and publish, `view`; all running."""

    def __init__(self, folder: Path) -> None:
        self.plan = studio_kit.plan(folder)
        self.books = Books(self.plan, trace=False)
        self.crew = {
            worker: Member(worker, tuple(n.name for n in self.plan.nodes if n.process == worker), Patience(Restart()), state=State.RUNNING)
            for worker in dict.fromkeys(n.process for n in self.plan.nodes)
        }
        self.seconds = 10.0
        self.stopping = False

    def beat(
        self,
        worker: str,
        *,
        latency_ns: dict[str, list[int]] | None = None,
        end_to_end_ns: list[int] | None = None,
        seen: tuple[int, float] | None = None,
        published: tuple[tuple[int, float, Tier], ...] = (),
        sync: Sync | None = None,
        subscribers: int | None = None,
        strange: int = 0,
        waiting: int = 0,
        errors: int = 0,
    ) -> None:
        """What a worker would have said."""
        nodes = {
            node: letters.NodeBeat(np.array(ns, np.int64).tobytes(), waiting, errors, 0.0, False) for node, ns in (latency_ns or {}).items()
        }
        whole = np.array(end_to_end_ns or [], np.int64).tobytes()
        self.books.note(worker, letters.Beat(nodes, whole, [*published], seen, subscribers, strange, sync))

    def frames(self, *, captured: range, published: range, lost: range, reason: str = "queue full") -> None:
        """Frames of the first camera, by number."""
        camera = self.plan.cameras[0]
        self.books.count([("capture", (camera, seq)) for seq in captured])
        self.books.count([("came_back", [(camera, seq)], [WHOLE], True) for seq in published])
        self.books.count([("lost", [(camera, seq)], [WHOLE], "lift", reason) for seq in lost])
