"""Nodes that live in memory, and a harness that runs studios made of them: no camera, file, model or socket.

What a node does to a packet is a hook of the test: `Harness.hooks["name"] = function(body)`; it may raise, block, or answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from posepipe.pipeline.graph import Plan, Registry, load_plan
from posepipe.pipeline.node import Caps, Context, FrameLost, Latest, Node, NodeSettings, Source
from posepipe.pipeline.packet import Frame, FrameSet, Packet, Sync
from posepipe.pipeline.runner import Runner


@dataclass(frozen=True, slots=True)
class Number:
    """What the nodes calculate: a value, and the feedback that was there when it was made."""

    value: int
    seen: int | None = None


class Hooked(Node):
    """Base: keeps what happened, and asks the test what to do."""

    log: ClassVar[list[str]] = []
    hooks: ClassVar[dict[str, Callable[[Any], Any]]] = {}

    def open(self, ctx: Context) -> None:
        self.ctx = ctx
        self.log.append(f"open {ctx.name}")
        self.ask(f"open {ctx.name}", None)

    def close(self) -> None:
        self.log.append(f"close {self.ctx.name}" if hasattr(self, "ctx") else "close")

    def ask(self, name: str, given: Any) -> Any:
        return self.hooks[name](given) if name in self.hooks else None


class Camera(Hooked, Source):
    """`frames` pictures, due every `period_s` (None: a live device), from `first_s` on; asks the hook of its name before each."""

    use = "mem.camera"

    class Settings(NodeSettings, frozen=True):
        frames: int = 12
        period_s: float | None = 0.0001
        first_s: float = 0.0
        lost: tuple[int, ...] = ()

    settings: Settings

    def open(self, ctx: Context) -> None:
        self.seq = 0
        super().open(ctx)

    def due_s(self) -> float | None:
        return None if self.settings.period_s is None else self.settings.first_s + self.seq * self.settings.period_s

    def step(self) -> Frame | None:
        seq = self.seq
        self.ask(self.ctx.name, seq)
        if seq >= self.settings.frames:
            return None
        self.seq += 1
        if seq in self.settings.lost:
            raise FrameLost("corrupt picture")
        pixels = np.full((2, 2), seq % 256, np.uint8)
        return Frame(self.ctx.key, seq, self.ctx.now_ns(), "i420", 2, 2, (pixels, pixels[:1, :1], pixels[:1, :1]))

    def skip(self, until_s: float) -> int:
        skipped = self.ask(f"skip {self.ctx.name}", until_s) or 0
        self.seq += skipped
        return int(skipped)


class Instants(Hooked):
    """Frames of the same number become one instant, once every camera has given one, moved on or ended."""

    use = "mem.instants"
    fan_in = True
    default_queue = (8, "drop_oldest")

    def open(self, ctx: Context) -> None:
        super().open(ctx)
        self.rows: dict[int, dict[str, Frame]] = {}
        self.newest = dict.fromkeys(ctx.caps["frame"].cameras, -1)
        self.most_waiting = 0

    def step(self, frame: Frame) -> list[FrameSet]:
        self.ask(self.ctx.name, frame)
        self.rows.setdefault(frame.seq, {})[frame.camera] = frame
        self.newest[frame.camera] = frame.seq
        self.most_waiting = max(self.most_waiting, len(self.rows))
        if len(self.rows[frame.seq]) == 1:
            self.ask(f"leave {self.ctx.name}", frame.seq)
        return self.leave()

    def on_end(self, source: str) -> list[FrameSet]:
        self.log.append(f"end {source}")
        self.newest.pop(source.rpartition("/")[2])
        return self.leave()

    def leave(self) -> list[FrameSet]:
        done = sorted(seq for seq in self.rows if all(newest >= seq for newest in self.newest.values()))
        out = []
        for seq in done:
            row = self.rows.pop(seq)
            views = tuple(i for i, c in enumerate(self.ctx.cameras) if c in row)
            missing = tuple(i for i, c in enumerate(self.ctx.cameras) if c not in row)
            times = [f.t_capture_ns for f in row.values()]
            out.append(FrameSet(seq, max(times), self.ctx.cameras, row, Sync(max(times) - min(times), views, missing)))
        return out


class Work(Hooked):
    """Makes a number of an instant; a hook may answer with another (or with None: lost)."""

    use = "mem.work"

    @classmethod
    def caps(cls, settings: NodeSettings, inputs: object) -> Caps:
        return Caps(skeleton="coco17")

    def step(self, frames: FrameSet, last: Latest[Packet[Number]]) -> Number | None:
        if self.ctx.name in self.hooks:
            answer = self.ask(self.ctx.name, frames)
            if not isinstance(answer, int):
                return None
            return Number(answer, None if last is None else last.seq)
        return Number(frames.seq * 10, None if last is None else last.seq)


class Plus(Hooked):
    use = "mem.plus"

    class Settings(NodeSettings, frozen=True):
        add: int = 1

    settings: Settings

    def step(self, number: Number) -> Number:
        self.ask(self.ctx.name, number)
        return Number(number.value + self.settings.add, number.seen)


class Sum(Hooked):
    """Two inputs that meet by seq."""

    use = "mem.sum"

    def step(self, left: Packet[Number], right: Packet[Number]) -> Number:
        assert left.seq == right.seq
        self.ask(self.ctx.name, left.seq)
        return Number(left.body.value + right.body.value)


class Sink(Hooked):
    """Keeps what arrives, in order."""

    use = "mem.sink"
    publishes = True

    def open(self, ctx: Context) -> None:
        self.got: list[tuple[int, Number]] = []
        super().open(ctx)

    def step(self, number: Packet[Number]) -> None:
        self.ask(self.ctx.name, number)
        self.got.append((number.seq, number.body))


class View(Sink):
    use = "mem.view"
    publishes = False

    def step(self, number: Packet[Number]) -> None:
        super().step(number)


MEMORY = {cls.use: cls for cls in (Camera, Instants, Work, Plus, Sum, Sink, View)}


@dataclass
class Harness:
    """Makes and runs one studio after the other."""

    folder: Path
    warnings: list[str] = field(default_factory=list)
    registry: Registry = field(default_factory=lambda: MEMORY)

    @property
    def hooks(self) -> dict[str, Callable[[Any], Any]]:
        return Hooked.hooks

    @property
    def log(self) -> list[str]:
        return Hooked.log

    def plan(self, nodes: str, top: str = "") -> Plan:
        file = self.folder / "hall.yaml"
        file.write_text(f"studio: hall\n{top}\nnodes:\n" + "".join(f"  {line.strip()}\n" for line in nodes.strip().splitlines()))
        return load_plan(file, self.registry)

    def runner(self, nodes: str, **options: Any) -> Runner:
        return Runner(self.plan(nodes), rig=None, resolve=Path, warn=self.warnings.append, **options)

    def run(self, nodes: str, **options: Any) -> Runner:
        """To its end; the ledger of every run balances."""
        runner = self.runner(nodes, **options)
        try:
            runner.open()
            runner.start()
            runner.finish(timeout_s=20)
        finally:
            runner.close()
            assert runner.shared.ledger.balance == 0
            assert runner.shared.ledger.in_flight == 0
        return runner


def got(runner: Runner, sink: str = "sink") -> list[tuple[int, int]]:
    """(seq, value) of what a sink got."""
    node = runner.slots[sink].node
    assert isinstance(node, Sink)
    return [(seq, number.value) for seq, number in node.got]


def dropped(runner: Runner) -> dict[tuple[str, str], int]:
    return {(d.node, d.reason): d.count for d in runner.shared.ledger.dropped}
