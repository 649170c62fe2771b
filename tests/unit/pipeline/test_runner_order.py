"""What belongs together meets: branches by seq, feedback from the previous instant, and offline every run is the same run."""

from __future__ import annotations

import threading
import time
from typing import Any

from memory_nodes import Harness, Instants, Sink, dropped, got
from runner_kit import LINE, TWO, until

# feedback and joins -----------------------------------------------------------------------------------------------------------


def test_offline_feedback_is_exactly_the_previous_instant(harness: Harness) -> None:
    nodes = (
        LINE.replace("from: instants}", "from: instants, feedback: plus}")
        .replace("sink:", "plus: {use: mem.plus, from: work}\nsink:")
        .replace("from: work}\nsink: {use: mem.sink, from: work}", "from: work}\nsink: {use: mem.sink, from: plus}")
    )
    runner = harness.run(nodes.replace("frames: 12", "frames: 80"), offline=True)
    sink = runner.slots["sink"].node
    assert isinstance(sink, Sink)
    assert [number.seen for _, number in sink.got] == [None, *range(79)]


def test_offline_feedback_is_that_also_when_a_sink_is_slow(harness: Harness) -> None:
    harness.hooks["sink"] = lambda _: time.sleep(0.002)
    runner = harness.run(
        TWO.replace("frames: 12", "frames: 60")
        + "work: {use: mem.work, from: instants, feedback: plus}\nplus: {use: mem.plus, from: work}\nsink: {use: mem.sink, from: plus, process: own}",
        offline=True,
    )
    sink = runner.slots["sink"].node
    assert isinstance(sink, Sink)
    assert [number.seen for _, number in sink.got] == [None, *range(59)]


DIAMOND = TWO + (
    "work: {use: mem.work, from: instants}\nleft: {use: mem.plus, from: work}\n"
    "right: {use: mem.plus, from: work, add: 100, process: own}\nsum: {use: mem.sum, from: {left: left, right: right}}\nsink: {use: mem.sink, from: sum}"
)


def test_two_branches_meet_by_seq(harness: Harness) -> None:
    runner = harness.run(DIAMOND, offline=True)
    assert got(runner) == [(i, 20 * i + 101) for i in range(12)]
    assert runner.shared.ledger.published == 24


def test_offline_a_branch_may_run_far_ahead_of_the_other(harness: Harness) -> None:
    nodes = DIAMOND.replace("frames: 12", "frames: 150").replace("add: 100, process: own", "add: 100, process: own, queue: {size: 140}")
    ahead = threading.Event()

    def right(number: Any) -> None:
        if number.value == 0:
            ahead.wait(0.3)

    harness.hooks["right"] = right
    runner = harness.run(nodes, offline=True)
    assert [seq for seq, _ in got(runner)] == list(range(150))


def test_what_one_branch_lost_the_join_gives_up(harness: Harness) -> None:
    def right(number: Any) -> None:
        if number.value in (20, 30):
            raise ValueError("no")

    waiting: list[int] = []
    harness.hooks.update({"right": right, "sum": lambda _: waiting.append(len(runner.slots["sum"].joins))})
    runner = harness.runner(DIAMOND, offline=True)
    runner.open()
    runner.start()
    runner.finish(timeout_s=20)
    assert [seq for seq, _ in got(runner)] == [0, 1, *range(4, 12)]
    assert sum(dropped(runner).values()) == 4
    assert set(dropped(runner)) <= {("right", "error: ValueError"), ("sum", "its other input never came")}
    assert runner.shared.ledger.balance == 0
    assert waiting[-1] == 0, "what waits in vain is given up as soon as a later pair is complete"


def test_frames_of_both_ways_are_published_when_they_differ(harness: Harness) -> None:
    runner = harness.run(
        """north: {use: mem.camera, frames: 5}
        south: {use: mem.camera, frames: 5}
        a: {use: mem.instants, from: north}
        b: {use: mem.instants, from: south}
        left: {use: mem.work, from: a}
        right: {use: mem.work, from: b}
        sum: {use: mem.sum, from: {left: left, right: right}}
        sink: {use: mem.sink, from: sum}""",
        offline=True,
    )
    assert got(runner) == [(i, 20 * i) for i in range(5)]
    assert runner.shared.ledger.published == 10


# offline every run is the same run --------------------------------------------------------------------------------------------


def test_two_offline_runs_give_the_same(harness: Harness) -> None:
    """Also when the threads get on differently: the cameras are slowed down by turns."""
    nodes = (
        LINE.replace("from: instants}", "from: instants, feedback: work}")
        .replace("north: {}", "north: {lost: [2, 9]}")
        .replace("frames: 12", "frames: 40")
    )
    seen: list[Any] = []
    orders: list[list[tuple[str, int]]] = []
    for slow in ("capture/north", "capture/south"):
        order: list[tuple[str, int]] = []
        harness.hooks.clear()
        harness.hooks.update(
            {slow: lambda seq: time.sleep(0.002 * (seq % 3)), "instants": lambda f, order=order: order.append((f.camera, f.seq))}
        )
        runner = harness.run(nodes, offline=True)
        sink = runner.slots["sink"].node
        assert isinstance(sink, Sink)
        seen.append(sink.got)
        orders.append(order)
    assert seen[0] == seen[1]


def test_offline_no_camera_gets_ahead_in_memory(harness: Harness) -> None:
    runner = harness.runner(LINE.replace("frames: 12", "frames: 100, period_s: 0.01"), offline=True)
    south = runner.slots["capture/south"]

    def slow(seq: int) -> None:
        if seq == 0:
            until(lambda: len(south.outputs[0]) == south.outputs[0].queue.size)

    harness.hooks["capture/north"] = slow
    runner.open()
    runner.start()
    runner.finish(timeout_s=20)
    instants = runner.slots["instants"].node
    assert isinstance(instants, Instants)
    assert instants.most_waiting <= 2
    assert len(got(runner)) == 100
