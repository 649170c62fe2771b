"""A plan as text, Graphviz and Mermaid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from posepipe.pipeline import draw
from posepipe.pipeline.graph import Plan, load_plan
from posepipe.pipeline.node import Caps, Latest, Node, NodeSettings, Source
from posepipe.pipeline.packet import Actions, Frame, FrameSet, Packet, Poses


class Capture(Source):
    use = "kit.capture"

    def step(self) -> Frame | None: ...


class Instants(Node):
    use = "kit.instants"
    fan_in = True
    default_queue = (8, "drop_oldest")

    def step(self, frame: Frame) -> list[FrameSet]: ...  # type: ignore[empty-body]


class Lift(Node):
    use = "kit.lift"

    @classmethod
    def caps(cls, settings: NodeSettings, inputs: object) -> Caps:
        return Caps(skeleton="coco17")

    def step(self, frames: FrameSet, last: Latest[Poses]) -> Poses: ...  # type: ignore[empty-body]


class View(Node):
    use = "kit.view"
    own_process = True

    def step(self, frames: FrameSet, poses: Packet[Poses]) -> None: ...


KIT = {cls.use: cls for cls in (Capture, Instants, Lift, View)}
STUDIO = """
studio: hall "A" <1>
nodes:
  capture: {use: kit.capture, each: {north: {}, south: {}}}
  instants: {use: kit.instants, from: capture}
  pose3d: {use: kit.lift, from: instants, feedback: pose3d, queue: {size: 5, full: block}}
  view: {use: kit.view, from: {frames: instants, poses: pose3d}}
budgets: {pose3d_p95_ms: 18.5}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    file = tmp_path / "studio.yaml"
    file.write_text(STUDIO)
    return load_plan(file, KIT)


ARROWS = {
    ("capture/north", "instants", False),
    ("capture/south", "instants", False),
    ("instants", "pose3d", False),
    ("pose3d", "pose3d", True),
    ("instants", "view", False),
    ("pose3d", "view", False),
}


def test_text(plan: Plan) -> None:
    lines = draw.text(plan).splitlines()
    assert lines[0] == 'studio hall "A" <1>: 2 cameras (north, south)'
    flat = [" ".join(line.split()) for line in lines]
    assert "capture x2 kit.capture -> Frame 2 workers of their own" in flat
    assert "pose3d kit.lift -> Poses, coco17 worker main" in flat
    at = flat.index("pose3d kit.lift -> Poses, coco17 worker main")
    assert flat[at + 1 : at + 3] == ["<- instants: FrameSet, queue 5 block", "<- pose3d: Poses, feedback: the newest"]
    assert "view kit.view -> sink worker view" in flat
    assert "<- capture x2: Frame, queue 8 drop_oldest" in flat
    assert lines[-1] == "budget pose3d p95: 18.5 ms"
    assert max(map(len, lines)) <= 80


def test_bodies_and_labels_are_named(tmp_path: Path) -> None:
    class Stand(Lift):
        use = "kit.stand"

        @classmethod
        def caps(cls, settings: NodeSettings, inputs: object) -> Caps:
            return Caps(skeleton="coco17", body="posepipe.adult")

    class Act(Node):
        use = "kit.act"

        @classmethod
        def caps(cls, settings: NodeSettings, inputs: object) -> Caps:
            return Caps(actions=("walking", "boxing"))

        def step(self, poses: Poses) -> Actions: ...  # type: ignore[empty-body]

    file = tmp_path / "studio.yaml"
    file.write_text(STUDIO.replace("kit.lift", "kit.stand").replace("  view:", "  act: {use: kit.act, from: pose3d}\n  view:"))
    drawn = draw.text(load_plan(file, {**KIT, "kit.stand": Stand, "kit.act": Act}))
    assert re.search(r"pose3d +kit\.stand +-> Poses, coco17, body posepipe\.adult +worker", drawn)
    assert re.search(r"act +kit\.act +-> Actions, 2 labels +worker", drawn)


def test_dot(plan: Plan) -> None:
    text = draw.dot(plan)
    arrows = {(a, b, "dashed" in rest) for a, b, rest in re.findall(r'^  "([^"]+)" -> "([^"]+)" \[(.*)\];$', text, re.MULTILINE)}
    assert arrows == ARROWS
    assert r'digraph "hall \"A\" <1>" {' in text
    assert r'label="FrameSet\n5 block"' in text
    clusters = re.findall(r'label="worker ([^"]+)"', text)
    assert clusters == ["capture/north", "capture/south", "main", "view"]
    assert text.count("{") == text.count("}")


def test_mermaid(plan: Plan) -> None:
    text = draw.mermaid(plan)
    names = dict(re.findall(r'^    (n\d+)\["(.*?)<br/>', text, re.MULTILINE))
    assert set(names.values()) == {n.name for n in plan.nodes}
    arrows = re.findall(r'^  (n\d+) (-\.|--) "[^"]*" (?:\.->|-->) (n\d+)$', text, re.MULTILINE)
    assert {(names[a], names[b], how == "-.") for a, how, b in arrows} == ARROWS
    assert len(re.findall(r"^  subgraph ", text, re.MULTILINE)) == 4 == len(re.findall(r"^  end$", text, re.MULTILINE))
    assert "FrameSet<br/>5 block" in text
    assert "Poses, coco17" in text
