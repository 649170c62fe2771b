"""A fault costs what it hit or stops the studio with the node named; nothing hangs."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from memory_nodes import Harness, dropped, got
from runner_kit import LINE, refused, until

from posepipe.pipeline.errors import EngineError, RunError, SourceError


def test_a_node_that_throws_on_one_packet_loses_that_packet(harness: Harness) -> None:
    def work(frames: Any) -> int:
        if frames.seq == 4:
            raise ZeroDivisionError("just once")
        return int(frames.seq)

    harness.hooks["work"] = work
    runner = harness.run(LINE, offline=True)
    assert [seq for seq, _ in got(runner)] == [i for i in range(12) if i != 4]
    assert dropped(runner) == {("work", "error: ZeroDivisionError"): 2}
    assert runner.slots["work"].errors == 1


def test_a_join_that_throws_on_one_frame_loses_that_frame(harness: Harness) -> None:
    def instants(frame: Any) -> None:
        if (frame.camera, frame.seq) == ("south", 4):
            raise ZeroDivisionError("just once")

    harness.hooks["instants"] = instants
    runner = harness.run(LINE, offline=True)
    assert dropped(runner)["instants", "error: ZeroDivisionError"] == 1


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("node", ["instants", "work", "sink"])
def test_a_node_that_always_throws_stops_the_studio_and_is_named(harness: Harness, node: str, offline: bool) -> None:
    def broken(_: Any) -> None:
        raise ZeroDivisionError("every time")

    harness.hooks[node] = broken
    nodes = LINE.replace("frames: 12", "frames: 100000").replace("each:", "queue: {size: 8}, each:")
    error = refused(harness, nodes.replace("from: capture}", "from: capture, queue: {size: 64, full: block}}"), offline=offline)
    assert str(error) == f"node {node}: 30 packets in a row failed: ZeroDivisionError: every time\n  -> the log above shows where"


def test_the_hint_of_an_error_is_kept(harness: Harness) -> None:
    def broken(_: Any) -> None:
        raise EngineError("the network takes 3 channels", hint="pull it again")

    harness.hooks["work"] = broken
    error = refused(harness, LINE.replace("frames: 12", "frames: 500"), offline=True)
    assert str(error) == "node work: 30 packets in a row failed: the network takes 3 channels\n  -> pull it again"


def test_a_node_that_fails_on_all_of_a_short_run_is_a_fault_too(harness: Harness) -> None:
    def broken(_: Any) -> None:
        raise ZeroDivisionError("every time")

    harness.hooks["work"] = broken
    error = refused(harness, LINE, offline=True)
    assert str(error).startswith("node work: 12 packets in a row failed: ZeroDivisionError: every time")


def test_live_a_camera_that_breaks_ends_and_the_others_go_on(harness: Harness) -> None:
    def north(seq: int) -> None:
        if seq == 3:
            raise OSError("cable out")

    harness.hooks["capture/north"] = north
    runner = harness.run(
        LINE.replace("from: capture}", "from: capture, queue: {size: 64}}").replace(
            "work, from: instants}", "work, from: instants, queue: {size: 64}}"
        )
    )
    assert [seq for seq, _ in got(runner)] == list(range(12))
    assert harness.warnings == ["capture/north has stopped: cable out; the studio goes on with the other cameras"]
    assert runner.shared.ledger.captured == 15


def test_offline_a_camera_that_breaks_is_a_fault(harness: Harness) -> None:
    def north(seq: int) -> None:
        if seq == 3:
            raise SourceError("cable out", where="camera north", hint="plug it in")

    harness.hooks["capture/north"] = north
    error = refused(harness, LINE, offline=True)
    assert str(error) == "camera north: cable out\n  -> plug it in"


def test_live_when_the_last_camera_breaks_the_studio_stops(harness: Harness) -> None:
    def camera(seq: int) -> None:
        if seq == 3:
            raise OSError("power cut")

    harness.hooks.update({"capture/north": camera, "capture/south": camera})
    error = refused(harness, LINE)
    assert str(error) == "the studio stopped: OSError: power cut\n  -> the log above shows where"


def test_a_node_that_hangs_is_named(harness: Harness) -> None:
    go_on = threading.Event()
    harness.hooks["work"] = lambda frames: go_on.wait(20)
    runner = harness.runner(LINE)
    runner.open()
    runner.start()
    until(lambda: len(runner.slots["work"].inputs[0]) > 0)
    try:
        with pytest.raises(RunError, match="did not stop within 0 s: main\n  -> a node hangs in step"):
            runner.finish(timeout_s=0.1)
    finally:
        go_on.set()


def test_a_join_that_throws_on_a_frame_and_keeps_it_all_the_same_stops_nothing(harness: Harness) -> None:
    def instants(seq: int) -> None:
        if seq == 4:
            raise ZeroDivisionError("just once")

    harness.hooks["leave instants"] = instants
    runner = harness.run(LINE, offline=True)
    assert dropped(runner) == {("instants", "error: ZeroDivisionError"): 1}
    assert runner.shared.ledger.published == 23
    assert [seq for seq, _ in got(runner)] == list(range(12))
