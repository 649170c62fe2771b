"""A plan runs from opening to closing, and nothing is lost unseen on the way."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
from memory_nodes import Harness, dropped, got
from runner_kit import LINE, TWO, until

from posepipe.pipeline.errors import EngineError, GraphError, RunError
from posepipe.pipeline.runner import Runner

# nothing is lost unseen -------------------------------------------------------------------------------------------------------


def test_offline_every_frame_arrives_in_order(harness: Harness) -> None:
    runner = harness.run(LINE, offline=True)
    assert got(runner) == [(i, 10 * i) for i in range(12)]
    ledger = runner.shared.ledger
    assert (ledger.captured, ledger.published, ledger.dropped) == (24, 24, [])


def test_offline_a_slow_branch_loses_nothing_either(harness: Harness) -> None:
    begun = threading.Event()
    harness.hooks["view"] = lambda _: begun.wait(0.01)
    nodes = (
        LINE.replace("frames: 12", "frames: 60") + "view: {use: mem.view, from: work, process: own, queue: {size: 1, full: drop_oldest}}"
    )
    runner = harness.run(nodes, offline=True)
    assert got(runner) == got(runner, "view") == [(i, 10 * i) for i in range(60)]


@pytest.mark.parametrize(("full", "kept"), [("drop_oldest", [0, 10, 11]), ("drop_newest", [0, 1, 2])])
def test_live_a_full_queue_drops_by_its_policy(harness: Harness, full: str, kept: list[int]) -> None:
    working = threading.Event()

    def work(frames: Any) -> int:
        working.set()  # the first instant is worked on until all others have come
        until(lambda: runner.slots["work"].inputs[0].ended)
        return int(frames.seq)

    harness.hooks.update({"north": lambda seq: seq == 1 and working.wait(10), "work": work})
    runner = harness.runner(
        f"""north: {{use: mem.camera, frames: 12}}
        instants: {{use: mem.instants, from: north, process: join, queue: {{size: 12}}}}
        work: {{use: mem.work, from: instants, queue: {{size: 2, full: {full}}}}}
        sink: {{use: mem.sink, from: work}}""",
    )
    runner.open()
    runner.start()
    runner.finish(timeout_s=20)
    assert [seq for seq, _ in got(runner)] == kept
    assert dropped(runner) == {("work", f"queue full ({full})"): 9}
    assert runner.shared.ledger.skipped == runner.shared.ledger.dropped
    assert runner.shared.ledger.balance == 0


def test_live_a_lossless_queue_makes_the_camera_wait(harness: Harness) -> None:
    runner = harness.run(
        """north: {use: mem.camera, frames: 50}
        instants: {use: mem.instants, from: north, queue: {size: 2, full: block}}
        work: {use: mem.work, from: instants, process: own, queue: {size: 1, full: block}}
        sink: {use: mem.sink, from: work, process: own, queue: {size: 1, full: block}}"""
    )
    assert got(runner) == [(i, 10 * i) for i in range(50)]


def test_the_ledger_names_the_loss_on_the_way_to_the_publication(harness: Harness) -> None:
    def fails(_: Any) -> None:
        raise ValueError("no")

    harness.hooks.update({"view": fails, "sink": lambda number: number.seq == 3 and fails(number)})
    with pytest.raises(RunError, match="node view: 12 packets in a row failed"):
        harness.run(LINE + "view: {use: mem.view, from: work}", offline=True)
    harness.hooks["view"] = lambda number: number.seq == 3 and fails(number)
    runner = harness.run(LINE + "view: {use: mem.view, from: work}", offline=True)
    assert dropped(runner) == {("sink", "error: ValueError"): 2}
    assert len(runner.shared.ledger.skipped) == 2


def test_what_no_sink_takes_is_told(harness: Harness) -> None:
    runner = harness.run(TWO, offline=True)
    assert dropped(runner) == {("graph", "no sink publishes it"): 24}


def test_a_view_is_no_publication(harness: Harness) -> None:
    runner = harness.run(TWO + "work: {use: mem.work, from: instants}\nview: {use: mem.view, from: work}", offline=True)
    assert runner.shared.ledger.published == 0
    assert dropped(runner) == {("graph", "no sink publishes it"): 24}


def test_frames_that_a_camera_lost_are_counted(harness: Harness) -> None:
    nodes = LINE.replace("north: {}", "north: {lost: [0, 3, 4]}")
    runner = harness.run(nodes, offline=True)
    assert dropped(runner)["capture/north", "corrupt picture"] == 3
    assert runner.shared.ledger.captured == 24
    assert [seq for seq, _ in got(runner)] == list(range(12)), "south goes on alone"


def test_a_node_that_gives_nothing_loses_the_packet(harness: Harness) -> None:
    harness.hooks["work"] = lambda frames: None if frames.seq == 5 else frames.seq
    runner = harness.run(LINE, offline=True)
    assert [seq for seq, _ in got(runner)] == [i for i in range(12) if i != 5]
    assert dropped(runner) == {("work", "no result"): 2}


def test_a_camera_far_behind_is_asked_to_skip(harness: Harness) -> None:
    asked: list[float] = []
    harness.hooks["skip north"] = lambda until_s: asked.append(until_s) or (4 if len(asked) == 1 else 0)
    runner = harness.run(
        "north: {use: mem.camera, frames: 10, first_s: -20, period_s: 1.0}\ninstants: {use: mem.instants, from: north}\n"
        "work: {use: mem.work, from: instants}\nsink: {use: mem.sink, from: work}"
    )
    assert all(-1 < until_s < 10 for until_s in asked), "studio time now, not the time of the late frame"
    assert len(asked) == 6
    assert dropped(runner)["north", "decoder behind"] == 4
    assert runner.shared.ledger.captured == 10


# life -------------------------------------------------------------------------------------------------------------------------


def test_a_stop_finishes_what_is_under_way(harness: Harness) -> None:
    runner = harness.runner(
        LINE.replace("frames: 12", "frames: 1000000, period_s: 0.0005")
        .replace("from: capture}", "from: capture, queue: {size: 999, full: block}}")
        .replace("work, from: instants}", "work, from: instants, queue: {size: 999, full: block}}")
    )
    runner.open()
    runner.start()
    until(lambda: runner.snapshot().instants > 5)
    runner.stop()
    runner.finish(timeout_s=20)
    cameras = [runner.slots[f"capture/{c}"].latency.count for c in ("north", "south")]
    ledger = runner.shared.ledger
    assert ledger.captured == sum(cameras)
    assert len(got(runner)) == max(cameras), "every frame that was captured has arrived"
    assert (ledger.published, ledger.dropped, ledger.balance) == (sum(cameras), [], 0)
    assert not runner.running
    assert runner.snapshot().seconds > 0


def test_nodes_open_sinks_first_and_close_once(harness: Harness) -> None:
    harness.run(LINE, offline=True)
    names = ["sink", "work", "instants", "capture/south", "capture/north"]
    assert [line for line in harness.log if line.startswith("open")] == [f"open {n}" for n in names]
    assert sorted(line for line in harness.log if line.startswith("close")) == sorted(f"close {n}" for n in names)
    assert [line for line in harness.log if line.startswith("end")] == ["end capture/north", "end capture/south"] or [
        line for line in harness.log if line.startswith("end")
    ] == ["end capture/south", "end capture/north"]


def test_a_node_that_cannot_open_is_named_and_what_was_open_is_closed(harness: Harness) -> None:
    def absent(_: None) -> None:
        raise EngineError("no such network", hint="pull it")

    harness.hooks["open work"] = absent
    with pytest.raises(EngineError) as caught:
        harness.run(LINE, offline=True)
    assert str(caught.value).endswith("hall.yaml:6 (node work): no such network\n  -> pull it")
    assert harness.log == ["open sink", "open work", "close work", "close sink"]


def test_seconds_end_the_cameras(harness: Harness) -> None:
    runner = harness.run(LINE.replace("frames: 12", "frames: 1000000, period_s: 0.01"), seconds=0.2)
    assert runner.slots["capture/north"].latency.count == 20


def test_seconds_end_a_device_that_never_says_when(harness: Harness) -> None:
    runner = harness.run(LINE.replace("frames: 12", "frames: 1000000, period_s: null"), seconds=0.1)
    assert 0 < runner.slots["capture/north"].latency.count < 1_000_000


def test_a_frame_is_captured_when_it_was_due(harness: Harness) -> None:
    runner = harness.runner(LINE.replace("frames: 12", "frames: 4, period_s: 0.005"))
    times: list[int] = []
    harness.hooks["work"] = lambda frames: times.append(frames.t_capture_ns) or 1
    runner.open()
    runner.start()
    runner.finish()
    assert times == [runner.start_ns + i * 5_000_000 for i in range(4)]


def test_what_is_measured(harness: Harness) -> None:
    runner = harness.run(LINE, offline=True, trace=True)
    now = runner.snapshot()
    assert {n.name: n.count for n in now.nodes} == {"capture/north": 12, "capture/south": 12, "instants": 12, "work": 12, "sink": 12}
    assert (now.instants, now.captured, now.published, now.in_flight, now.balance) == (12, 24, 24, 0, 0)
    assert now.end_to_end_ms["max"] >= now.end_to_end_ms["p50"] > 0
    assert runner.shared.trace is not None
    events = [e for e in runner.shared.trace.chrome()["traceEvents"] if e["ph"] == "X"]
    assert [e["name"] for e in events if e["args"]["seq"] == 7 and not e["name"].startswith("capture")] == ["instants", "work", "sink"]
    for _, spans in itertools.groupby(events, key=lambda e: e["args"]["seq"]):
        ends = [e["ts"] + e["dur"] for e in spans]
        assert ends == sorted(ends), "a packet passes its nodes one after the other"


def test_a_plan_can_be_built_and_never_started(harness: Harness) -> None:
    runner = harness.runner(LINE)
    runner.open()
    runner.close()
    assert runner.seconds == 0
    assert not runner.running
    assert isinstance(runner, Runner)


def test_a_graph_error_of_a_node_names_its_line(harness: Harness) -> None:
    with pytest.raises(GraphError, match=r"hall\.yaml:4: node 'capture' \(mem\.camera\) has no setting 'frame'"):
        harness.plan("capture: {use: mem.camera, frame: 3}")
