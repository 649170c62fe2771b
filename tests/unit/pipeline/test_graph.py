"""What a studio file becomes: nodes in order, wired by the signatures of their steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
from memory_nodes import MEMORY, Harness, Number, Plus, Sink, Sum, Work
from msgspec import Meta

from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.graph import Plan, load_plan
from posepipe.pipeline.node import Caps, Latest, Node, NodeSettings, Port, Source, ports
from posepipe.pipeline.packet import Frame, FrameSet, Packet, Poses, ViewPoses

NODES = """capture: {use: mem.camera, each: {north: {}, south: {frames: 3}}, frames: 5}
instants: {use: mem.instants, from: capture}
work: {use: mem.work, from: instants, feedback: plus}
plus: {use: mem.plus, from: work, add: 7}
sink: {use: mem.sink, from: plus}
"""


@pytest.fixture
def plan(harness: Harness) -> Plan:
    return harness.plan(
        NODES, top="budgets: {work_p95_ms: 18, capture_p50_ms: 4.5, end_to_end_p99_ms: 100}\nengines: {runtime: stub}\nrig: a.toml"
    )


def test_nodes_entries_and_settings(plan: Plan) -> None:
    assert [n.name for n in plan.nodes] == ["capture/north", "capture/south", "instants", "work", "plus", "sink"]
    assert [(n.base, n.key) for n in plan.sources] == [("capture", "north"), ("capture", "south")]
    assert [n.settings.frames for n in plan.sources] == [5, 3], "an entry says more than its node"
    assert plan["plus"].settings.add == 7
    assert (plan.studio, plan.rig, plan.engines, plan.cameras) == ("hall", "a.toml", {"runtime": "stub"}, ("north", "south"))


def test_wires(plan: Plan) -> None:
    assert plan["instants"].inputs == {"frame": ("capture/north", "capture/south")}
    assert plan["work"].inputs == {"frames": ("instants",)}
    assert plan["work"].feedback == {"last": "plus"}
    assert plan["sink"].feedback == {}


def test_places_are_lines(plan: Plan) -> None:
    assert [plan[n].place.rpartition(":")[2] for n in ("capture/north", "capture/south", "work", "sink")] == ["6", "6", "8", "10"]
    assert plan.folder == Path(plan.file.name).parent


def test_budgets(plan: Plan) -> None:
    assert [(b.key, b.node, b.percentile, b.limit_ms) for b in plan.budgets] == [
        ("work_p95_ms", "work", "p95", 18.0),
        ("capture_p50_ms", "capture", "p50", 4.5),
        ("end_to_end_p99_ms", "end_to_end", "p99", 100.0),
    ]


def test_the_studio_is_called_like_its_file_when_it_has_no_name(harness: Harness) -> None:
    (harness.folder / "yard.yaml").write_text("nodes: {north: {use: mem.camera}}")
    plan = load_plan(harness.folder / "yard.yaml", MEMORY)
    assert plan.studio == "yard"
    assert plan.cameras == ("north",), "a camera without entries is called like its node"


def test_order_follows_the_wires_not_the_file(harness: Harness) -> None:
    plan = harness.plan("\n".join(reversed(NODES.strip().splitlines())))
    assert [n.base for n in plan.nodes] == ["capture", "capture", "instants", "work", "plus", "sink"]


def test_the_digest_is_that_of_the_content(harness: Harness) -> None:
    plan = harness.plan(NODES)
    assert harness.plan(NODES + "\n# a comment").sha256 == plan.sha256
    assert harness.plan(NODES.replace("add: 7", "add: 8")).sha256 != plan.sha256
    assert len(plan.sha256) == 64


# queues and processes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "want"),
    [
        ("", (2, "drop_oldest")),
        ("queue: {size: 5}", (5, "drop_oldest")),
        ("queue: {full: block}", (2, "block")),
        ("queue: {size: 1, full: drop_newest}", (1, "drop_newest")),
    ],
)
def test_queues(harness: Harness, written: str, want: tuple[int, str]) -> None:
    queue = harness.plan(NODES.replace("add: 7", f"add: 7, {written}")).nodes[4].queue
    assert (queue.size, queue.full) == want


def test_a_node_type_has_its_own_default_queue(plan: Plan) -> None:
    assert (plan["instants"].queue.size, plan["sink"].queue.size) == (8, 2)


@pytest.mark.parametrize(
    ("written", "want"), [("", "main"), ("process: own", "plus"), ("process: side", "side"), ("process: main", "main")]
)
def test_processes(harness: Harness, written: str, want: str) -> None:
    assert harness.plan(NODES.replace("add: 7", f"add: 7, {written}"))["plus"].process == want


def test_captures_have_a_worker_each(plan: Plan) -> None:
    assert [n.process for n in plan.sources] == ["capture/north", "capture/south"]


# what goes together -----------------------------------------------------------------------------------------------------------


def wrong(harness: Harness, nodes: str) -> str:
    with pytest.raises(GraphError) as caught:
        harness.plan(nodes)
    return str(caught.value).replace(f"{harness.folder}/", "")


def test_several_nodes_need_a_node_that_joins(harness: Harness) -> None:
    nodes = NODES + "more: {use: mem.plus, each: {a: {}, b: {}}, from: work}\nlast: {use: mem.sink, from: more}"
    assert (
        wrong(harness, nodes)
        == "hall.yaml:10: node 'last' takes one node at 'number', but 'more' is 2 (each)\n  -> put a sync.instant between them"
    )


def test_several_inputs_are_named(harness: Harness) -> None:
    assert (
        wrong(harness, NODES + "sum: {use: mem.sum, from: work}")
        == "hall.yaml:9: node 'sum' has several inputs\n  -> from: {left: ..., right: ...}"
    )
    assert (
        wrong(harness, NODES + "sum: {use: mem.sum, from: {left: work}}")
        == "hall.yaml:9: node 'sum' (mem.sum) also needs 'right'\n  -> from: {left: ..., right: ...}"
    )


def test_feedback_from_an_each_is_refused(harness: Harness) -> None:
    nodes = NODES.replace("feedback: plus", "feedback: more") + "more: {use: mem.plus, each: {a: {}, b: {}}, from: work}"
    assert wrong(harness, nodes) == "hall.yaml:6: node 'work' takes feedback from 'more', which is several (each)\n  -> name one node"


def test_feedback_closes_a_loop_and_from_does_not(harness: Harness) -> None:
    loop = "a: {use: mem.plus, from: c}\nb: {use: mem.plus, from: a}\nc: {use: mem.plus, from: b}\n"
    assert wrong(harness, NODES + loop) == (
        "hall.yaml:9: the graph has a cycle: a <- c <- b <- a\n  -> only feedback: may close a loop: on 'a', write feedback: c instead of from:"
    )


def test_a_type_that_nobody_makes_here_is_looked_for_among_the_node_types(harness: Harness) -> None:
    assert wrong(harness, "capture: {use: mem.camera}\nsink: {use: mem.sink, from: capture}") == (
        "hall.yaml:5: 'capture' gives Frame, but 'sink' (mem.sink) wants Number at 'number'\n  -> Number is made by node types: mem.plus, mem.sum, mem.work"
    )


# what a port says beyond its type ---------------------------------------------------------------------------------------------


def test_caps_travel_with_the_wires(plan: Plan) -> None:
    assert plan["instants"].caps_in == {"frame": Caps(cameras=("north", "south"))}
    assert plan["work"].caps == Caps(skeleton="coco17")
    assert plan["sink"].caps_in == {"number": Caps(skeleton="coco17")}


class Picky(Sink):
    use = "mem.picky"

    class Settings(NodeSettings, frozen=True):
        want: Annotated[str, Meta(min_length=2)] = "blazepose33"

    @classmethod
    def check(cls, settings: Any, inputs: Mapping[str, Caps]) -> None:
        have = inputs["number"].skeleton
        if have != settings.want:
            raise GraphError(f"wants {settings.want}, given is {have}", hint=f"want: {have}")


def test_a_node_refuses_what_it_cannot_work_with(harness: Harness) -> None:
    file = harness.folder / "hall.yaml"
    file.write_text("nodes:\n" + "".join(f"  {line}\n" for line in NODES.strip().splitlines()) + "  picky: {use: mem.picky, from: plus}\n")
    with pytest.raises(GraphError) as caught:
        load_plan(file, {**MEMORY, "mem.picky": Picky})
    assert str(caught.value) == f"{file}:7: node 'picky': wants blazepose33, given is coco17\n  -> want: coco17"


# the signature of step is the ports -------------------------------------------------------------------------------------------


def test_ports_of_a_node() -> None:
    inputs = ports(Sum).inputs
    assert inputs == (Port("left", Number, packet=True), Port("right", Number, packet=True))
    assert ports(Sum).output is Number
    assert ports(Work).feedback == (Port("last", Number, feedback=True, packet=True),)
    assert ports(Sink).output is None
    assert ports(Plus).inputs == (Port("number", Number),)


def test_outputs_that_may_be_none_or_several() -> None:
    class Maybe(Node):
        def step(self, a: Frame, b: Latest[Poses]) -> ViewPoses | None: ...

    class Several(Node):
        def step(self, a: Packet[Frame]) -> list[FrameSet]: ...  # type: ignore[empty-body]

    class Nothing(Node):
        def step(self, a: Frame): ...  # type: ignore[no-untyped-def]

    class Device(Source):
        def step(self) -> Frame | None: ...

    assert ports(Maybe).output is ViewPoses
    assert ports(Maybe).feedback == (Port("b", Poses, feedback=True),)
    assert ports(Several).output is FrameSet
    assert ports(Nothing).output is None
    assert (ports(Device).inputs, ports(Device).output) == ((), Frame)


def test_a_class_that_is_no_node_is_told() -> None:
    class Stepless(Node):
        use = "x.stepless"

    class Untyped(Node):
        use = "x.untyped"

        def step(self, a): ...  # type: ignore[no-untyped-def]

    with pytest.raises(GraphError, match=r"node type 'x\.stepless' \(.*Stepless\) has no method 'step'"):
        ports(Stepless)
    with pytest.raises(
        GraphError, match=r"node type 'x\.untyped': parameter 'a' of step has no type\n  -> the signature of step is its ports"
    ):
        ports(Untyped)


def test_only_a_source_has_no_input() -> None:
    class Alone(Node):
        use = "x.alone"

        def step(self, last: Latest[Poses]) -> Poses: ...  # type: ignore[empty-body]

    class Fed(Source):
        use = "x.fed"

        def step(self, a: Poses) -> Frame: ...  # type: ignore[empty-body]

    hint = "\n  -> a node without inputs is a Source, and only that"
    with pytest.raises(GraphError, match=r"node type 'x\.alone' has no input" + hint):
        ports(Alone)
    with pytest.raises(GraphError, match=r"node type 'x\.fed' is a source with the input 'a'" + hint):
        ports(Fed)
