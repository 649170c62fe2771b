"""Inputs that a studio may leave out, and that cost nobody an instant when they fail."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from memory_nodes import MEMORY, Harness, Number, Sink, dropped
from runner_kit import TWO

from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Node, Port, Source, ports
from posepipe.pipeline.packet import Frame, Packet

STUDIO = TWO + "work: {use: mem.work, from: instants}\nextra: {use: mem.plus, from: work}\n"
BOTH = STUDIO + "sink: {use: mem.both, from: {number: work, extra: extra}}"


class Both(Sink):
    """Keeps what arrives, and the extra number where there is one."""

    use = "mem.both"

    def step(self, number: Packet[Number], extra: Number | None = None) -> None:  # type: ignore[override]
        self.ask(self.ctx.name, number)
        self.got.append((number.seq, Number(number.body.value, None if extra is None else extra.value)))


@pytest.fixture
def both(harness: Harness) -> Harness:
    harness.registry = {**MEMORY, "mem.both": Both}
    return harness


def extras(runner: Any) -> list[tuple[int, int | None]]:
    sink = runner.slots["sink"].node
    assert isinstance(sink, Both)
    return [(seq, number.seen) for seq, number in sink.got]


def test_a_port_that_may_be_left_out() -> None:
    class Wants(Node):
        def step(self, a: Frame, b: Packet[Frame] | None, c: Number | None = None) -> None: ...

    assert ports(Wants).inputs == (Port("a", Frame), Port("b", Frame, packet=True, optional=True), Port("c", Number, optional=True))
    assert ports(Wants).needed == (Port("a", Frame),)


def test_a_node_that_needs_nothing_is_refused() -> None:
    class Idle(Node):
        use = "x.idle"

        def step(self, a: Frame | None) -> None: ...

    class Device(Source):
        def step(self) -> Frame | None: ...

    with pytest.raises(GraphError, match=r"node type 'x\.idle': every input may be left out \(a\)\n  -> one at least has to be there"):
        ports(Idle)
    assert ports(Device).inputs == ()


@pytest.mark.parametrize("written", ["work", "{number: work}"])
@pytest.mark.parametrize("offline", [True, False])
def test_left_out_it_is_none(both: Harness, written: str, offline: bool) -> None:
    nodes = STUDIO.replace("frames: 12", "frames: 6") + f"sink: {{use: mem.both, from: {written}, queue: {{size: 12}}}}"
    left = extras(both.run(nodes.replace("from: capture", "from: capture, queue: {size: 12}"), offline=offline))
    assert left[-1] == (5, None)
    assert {seen for _, seen in left} == {None}


def test_given_it_meets_by_number(both: Harness) -> None:
    runner = both.run(BOTH, offline=True)
    assert extras(runner) == [(seq, 10 * seq + 1) for seq in range(12)]
    assert (runner.shared.ledger.published, runner.shared.ledger.dropped) == (24, [])


def test_where_it_failed_the_instant_is_published_without_it(both: Harness) -> None:
    def extra(number: Any) -> None:
        if number.value in (0, 40, 50, 110):
            raise ValueError("no")

    both.hooks["extra"] = extra
    runner = both.run(BOTH, offline=True)
    assert extras(runner) == [(seq, None if seq in (0, 4, 5, 11) else 10 * seq + 1) for seq in range(12)]
    assert dropped(runner) == {}
    assert [(d.node, d.reason, d.count) for d in runner.shared.ledger.skipped] == [("extra", "error: ValueError", 4)]


def test_live_a_worker_that_hangs_costs_no_instant(both: Harness) -> None:
    """The needed input goes on while the other one's worker is stuck; the last instants leave when it ends."""
    free = threading.Event()
    both.hooks["extra"] = lambda number: number.value == 0 and free.wait(20)
    both.hooks["sink"] = lambda number: number.seq == 30 and free.set()
    nodes = BOTH.replace("frames: 12", "frames: 60, period_s: 0.001").replace("from: work}\n", "from: work, process: own}\n", 1)
    nodes = nodes.replace("from: capture}", "from: capture, queue: {size: 60}}").replace(
        "extra: extra}}", "extra: extra}, queue: {size: 60}}"
    )
    runner = both.run(nodes.replace("{use: mem.work, from: instants}", "{use: mem.work, from: instants, queue: {size: 60}}"))
    assert [seq for seq, _ in extras(runner)] == list(range(60))
    assert all(seen is None for seq, seen in extras(runner) if 0 < seq < 15)
    assert dropped(runner) == {}


def wrong(harness: Harness, nodes: str) -> str:
    with pytest.raises(GraphError) as caught:
        harness.plan(nodes)
    return str(caught.value).replace(f"{harness.folder}/", "")


@pytest.mark.parametrize(
    ("written", "want"),
    [
        ("{extra: work}", "hall.yaml:8: node 'sink' (mem.both) also needs 'number'\n  -> from: {number: ...}"),
        ("{number: work, extras: work}", "hall.yaml:8: node 'sink' (mem.both) has no input 'extras'\n  -> did you mean 'extra'?"),
        ("{number: work, extra: instants}", "'instants' gives FrameSet, but 'sink' (mem.both) wants Number at 'extra'"),
    ],
)
def test_a_wrong_link_is_named(both: Harness, written: str, want: str) -> None:
    assert want in wrong(both, STUDIO + f"sink: {{use: mem.both, from: {written}}}")


def test_a_node_without_from_says_what_it_needs(both: Harness) -> None:
    want = "hall.yaml:8: node 'sink' (mem.both) needs from: for number\n  -> from: capture"
    assert wrong(both, STUDIO + "sink: {use: mem.both}") == want
