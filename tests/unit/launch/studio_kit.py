"""A studio of plain Python nodes for the tests of this room: no camera, no model, no socket, no waiting."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from posepipe.pipeline.graph import Plan, Registry, load_plan
from posepipe.pipeline.ledger import Drop
from posepipe.pipeline.node import Caps, Context, FrameLost, Node, NodeSettings, Source
from posepipe.pipeline.packet import Frame, FrameSet, Packet, Poses, Sync
from posepipe.pipeline.runner import Runner
from posepipe.pipeline.snapshot import NodeView, Snapshot

PIXELS = np.zeros((4, 4), np.uint8)


class Capture(Source):
    use = "kit.capture"

    class Settings(NodeSettings, frozen=True, kw_only=True):
        frames: int = 12
        corrupt: int = -1

    settings: Settings

    def open(self, ctx: Context) -> None:
        self._ctx, self._next = ctx, 0

    def step(self) -> Frame | None:
        seq = self._next
        if seq == self.settings.frames:
            return None
        self._next += 1
        if seq == self.settings.corrupt:
            raise FrameLost("corrupt frame")
        return Frame(self._ctx.key, seq, self._ctx.now_ns(), "i420", 4, 4, (PIXELS, PIXELS[::2, ::2], PIXELS[::2, ::2]))


class Instants(Node):
    use = "kit.instants"
    fan_in = True

    def open(self, ctx: Context) -> None:
        self._ctx = ctx
        self._waiting: dict[int, dict[str, Frame]] = {}

    def step(self, frame: Frame) -> list[FrameSet]:
        row = self._waiting.setdefault(frame.seq, {})
        row[frame.camera] = frame
        if len(row) < len(self._ctx.cameras):
            return []
        del self._waiting[frame.seq]
        views = tuple(range(len(row)))
        return [FrameSet(frame.seq, frame.t_capture_ns, self._ctx.cameras, row, Sync(0, views, ()))]


class Lift(Node):
    use = "kit.lift"

    @classmethod
    def caps(cls, settings: NodeSettings, inputs: object) -> Caps:
        return Caps(skeleton="coco17")

    def step(self, instants: FrameSet) -> Poses:
        joints, error_px = np.zeros((2, 17), np.float32), np.array([9.0, 11.0], np.float32)
        ids, xyz, used = np.arange(2), np.zeros((2, 17, 3), np.float32), np.zeros((2, 17), np.uint8)
        return Poses(instants.cameras, "coco17", instants.sync, "algebraic", ids, xyz, joints + 1, joints, error_px, used)


class Publish(Node):
    use = "kit.publish"
    publishes = True

    def step(self, poses: Packet[Poses]) -> None:
        pass


class View(Node):
    use = "kit.view"

    def step(self, poses: Poses) -> None:
        pass


KIT: Registry = {cls.use: cls for cls in (Capture, Instants, Lift, Publish, View)}

STUDIO = """
studio: hall
nodes:
  capture: {use: kit.capture, each: {CAMERAS}, frames: 12}
  instants: {use: kit.instants, from: capture, queue: {full: block}}
  lift: {use: kit.lift, from: instants, queue: {full: block}}
  publish: {use: kit.publish, from: lift, queue: {full: block}}
  view: {use: kit.view, from: lift, process: own, queue: {full: block}}
"""


def plan(folder: Path, *, cameras: int = 3, budgets: str = "", replace: tuple[str, str] = ("", "")) -> Plan:
    """The kit's studio with so many cameras (cam01, cam02, ...)."""
    entries = ", ".join(f"cam{i + 1:02}: {{}}" for i in range(cameras))
    text = STUDIO.replace("CAMERAS", entries) + (f"budgets: {{{budgets}}}\n" if budgets else "")
    file = folder / "studio.yaml"
    file.write_text(text.replace(*replace) if replace[0] else text)
    return load_plan(file, KIT)


def ran(plan: Plan, *, offline: bool = False) -> Runner:
    """The runner of a plan that was run to its end; its links are lossless, so every run is the same."""
    runner = Runner(plan, rig=None, resolve=Path, offline=offline)
    runner.open()
    runner.start()
    runner.finish(timeout_s=60)
    return runner


def snapshot(plan: Plan, **other: object) -> Snapshot:
    """An invented moment of a plan."""
    ms = {"p50": 4.0, "p95": 6.5, "p99": 9.25, "max": 12.0}
    fields: dict[str, object] = {
        "nodes": tuple(NodeView(n.name, n.use, 300, 30.0, ms, 0, 0, n.queue if n.inputs else None) for n in plan.nodes),
        "end_to_end_ms": {"p50": 41.2, "p95": 63.0, "p99": 90.1, "max": 120.0},
        "captured": 1000,
        "published": 960,
        "dropped": (Drop("lift", "queue full (drop_oldest)", 20), Drop("capture/cam02", "corrupt frame", 12)),
        "skipped": (Drop("lift", "queue full (drop_oldest)", 5),),
        "in_flight": 8,
        "balance": 0,
        "people": 2,
        "reproj_px": 11.3,
        "median_people": 1.0,
        "median_reproj_px": 8.25,
        "instants": 240,
        "seconds": 10.0,
    }
    return Snapshot(**{**fields, **other})  # type: ignore[arg-type]
