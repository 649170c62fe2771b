"""A studio in parts with real ZeroMQ and real rings between them: every policy, feedback, and nothing lost unseen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from parts_kit import Crew, shows, until

Make = Callable[..., Crew]

LINE = (
    "capture: {{use: mem.camera, each: {{north: {{}}, south: {{}}}}, frames: {frames}, period_s: {period_s}}}\n"
    "instants: {{use: mem.instants, from: capture, queue: {{size: {size}, full: {full}}}}}\n"
    "work: {{use: mem.work, from: instants, process: late, queue: {{size: {size}, full: {full}}}}}\n"
    "sink: {{use: mem.sink, from: work, process: out, queue: {{size: {size}, full: {full}}}}}"
)


def line(frames: int = 40, period_s: float = 0.0005, size: int = 64, full: str = "drop_oldest") -> str:
    """Two cameras in processes of their own, main, late and out."""
    return LINE.format(frames=frames, period_s=period_s, size=size, full=full)


def sharp(frames: Any) -> int:
    assert shows(frames)
    return int(frames.seq)


@pytest.mark.parametrize("full", ["drop_oldest", "drop_newest", "block"])
def test_every_frame_goes_through_all_processes_in_order(crew: Make, full: str) -> None:
    studio = crew(line(full=full), slots=100)
    studio.hooks["work"] = sharp
    studio.spawn()
    studio.start()
    got = studio.sink()
    studio.finish()
    assert [(seq, number.value) for seq, number in got] == [(i, i) for i in range(40)]
    assert (studio.ledger.captured, studio.ledger.published, studio.dropped(), studio.ledger.in_flight) == (80, 80, {}, 0)
    assert studio.warnings == []


@pytest.mark.parametrize("full", ["drop_oldest", "drop_newest"])
@pytest.mark.parametrize("node", ["work", "sink"])
def test_a_full_queue_drops_by_its_policy(crew: Make, full: str, node: str) -> None:
    """The node is at its first packet until all the others have been sent."""
    studio = crew(
        f"""north: {{use: mem.camera, frames: 60, period_s: 0.0005}}
        instants: {{use: mem.instants, from: north, queue: {{size: 99}}}}
        work: {{use: mem.work, from: instants, process: late, queue: {{size: {2 if node == "work" else 99}, full: {full}}}}}
        sink: {{use: mem.sink, from: work, process: out, queue: {{size: {2 if node == "sink" else 99}, full: {full}}}}}""",
        slots=70,
    )
    before = {"work": "instants", "sink": "work"}[node]

    def wait(body: Any) -> int:
        until(lambda: studio.slot(before).ended)
        return int(body.seq)

    studio.hooks[node] = wait
    studio.spawn()
    studio.start()
    got, queue = studio.sink(), studio.slot(node).inputs[0]
    studio.finish()
    kept = [seq for seq, _ in got]
    assert studio.dropped() == {(node, f"queue full ({full})"): 60 - len(kept)}
    assert kept == sorted(set(kept))
    assert 2 <= len(kept) < 60
    if full == "drop_oldest":
        assert kept[-2:] == [58, 59]
    else:
        assert kept[:2] == [0, 1]
    assert queue.high_water <= 2
    assert (studio.ledger.published, studio.ledger.in_flight) == (len(kept), 0)


@pytest.mark.parametrize(("size", "slots"), [(1, 4), (2, 5), (5, 8)])
def test_a_lossless_studio_loses_nothing_and_its_cameras_wait(crew: Make, size: int, slots: int) -> None:
    studio = crew(line(frames=60, period_s=0.0001, size=size, full="block"), slots=slots)
    under_way: list[int] = []

    def slow(frames: Any) -> int:
        under_way.extend(len(studio.slot(f"capture/{camera}").outputs[0]) for camera in frames.frames)
        return sharp(frames)

    studio.hooks["work"] = slow
    studio.spawn()
    studio.start()
    got = studio.sink()
    studio.finish()
    assert [seq for seq, _ in got] == list(range(60))
    assert (studio.dropped(), studio.ledger.published) == ({}, 120)
    assert max(under_way) <= size


def test_pictures_that_were_overwritten_are_lost_and_no_wrong_one_is_used(crew: Make) -> None:
    studio = crew(line(frames=200, period_s=0.0002, size=4), slots=2)
    studio.hooks["work"] = sharp
    studio.spawn()
    studio.start()
    got, work = studio.sink(), studio.slot("work")
    studio.finish()
    assert work.errors == 0, "what a whole picture shows is that picture"
    reasons = {reason for _, reason in studio.dropped()}
    assert reasons <= {"overwritten before it was read", "overwritten while it was read", "queue full (drop_oldest)", "worker main is down"}
    assert studio.ledger.published + sum(studio.dropped().values()) == 400
    assert studio.ledger.in_flight == 0
    assert len(got) > 0


def test_a_picture_that_is_overwritten_while_a_node_looks_at_it_is_void(crew: Make) -> None:
    studio = crew(
        """north: {use: mem.camera, frames: 5}
        instants: {use: mem.instants, from: north, process: late}
        work: {use: mem.work, from: instants, process: late, queue: {size: 9}}
        sink: {use: mem.sink, from: work, process: late}""",
        slots=2,
    )
    looking = []

    def look(frames: Any) -> int:
        looking.append(frames.seq)
        until(lambda: studio.slot("north").ended)
        return 0

    studio.hooks.update({"north": lambda seq: seq == 1 and until(lambda: bool(looking)), "work": look})
    studio.run()
    assert looking[0] == 0
    assert studio.dropped()["work", "overwritten while it was read"] >= 1
    assert studio.ledger.published + sum(studio.dropped().values()) == 5


def test_feedback_comes_from_another_process_and_costs_no_account(crew: Make) -> None:
    studio = crew(
        """north: {use: mem.camera, frames: 30}
        instants: {use: mem.instants, from: north}
        work: {use: mem.work, from: instants, feedback: plus}
        plus: {use: mem.plus, from: work, process: late}
        sink: {use: mem.sink, from: plus, process: late}"""
    )

    def after_the_one_before(seq: int) -> None:
        if 0 < seq < 30:
            until(lambda: len(studio.sink()) == seq)
            if seq == 29:
                until(lambda: (packet := studio.slot("work").feedback["last"].packet) is not None and packet.seq == 28)

    studio.hooks["north"] = after_the_one_before
    studio.spawn()
    studio.start()
    got = studio.sink()
    studio.finish()
    seen = [-1 if number.seen is None else number.seen for _, number in got]
    assert len(seen) == 30
    assert all(before < seq for seq, before in enumerate(seen)), "feedback is of an earlier instant"
    assert seen == sorted(seen)
    assert seen[-1] == 28
    assert (studio.dropped(), studio.ledger.published, studio.ledger.in_flight) == ({}, 30, 0)


def test_branches_in_several_processes_are_one_account(crew: Make) -> None:
    studio = crew(
        line(full="block", size=4)
        + "\nview: {use: mem.view, from: work, process: own, queue: {size: 1}}\nlook: {use: mem.view, from: work, process: late}",
        slots=99,
    )
    studio.hooks["view"] = lambda _: until(lambda: studio.slot("work").ended)
    studio.spawn()
    studio.start()
    got = studio.sink()
    studio.finish()
    assert len(got) == 40
    assert (studio.ledger.published, studio.dropped(), studio.ledger.in_flight) == (80, {}, 0)
    assert {(d.node, d.reason) for d in studio.ledger.skipped} == {("view", "queue full (drop_oldest)")}


def test_a_join_of_two_processes_meets_by_number(crew: Make) -> None:
    studio = crew(
        """north: {use: mem.camera, frames: 30}
        instants: {use: mem.instants, from: north, queue: {size: 64}}
        work: {use: mem.work, from: instants, queue: {size: 64}}
        left: {use: mem.plus, from: work, process: own, queue: {size: 64}}
        right: {use: mem.plus, from: work, add: 100, process: own, queue: {size: 64}}
        sum: {use: mem.sum, from: {left: left, right: right}, process: late, queue: {size: 64}}
        sink: {use: mem.sink, from: sum, process: late, queue: {size: 64}}""",
        slots=64,
    )
    studio.spawn()
    studio.start()
    got = studio.sink()
    studio.finish()
    assert [(seq, number.value) for seq, number in got] == [(i, 20 * i + 101) for i in range(30)]
    assert (studio.dropped(), studio.ledger.published, studio.ledger.in_flight) == ({}, 30, 0)
