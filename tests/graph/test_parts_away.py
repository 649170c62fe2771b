"""A process that dies costs what it held, and when it is back its links go on; nothing else stops, and the ledger balances."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import zmq
from parts_kit import Crew, until

Make = Callable[..., Crew]


def endless(queue: str = "") -> str:
    """A live camera, main, and a sink, each in a process of its own."""
    return f"""north: {{use: mem.camera, frames: 1000000, period_s: null}}
    instants: {{use: mem.instants, from: north, queue: {{size: 4{queue}}}}}
    work: {{use: mem.work, from: instants, queue: {{size: 4}}}}
    sink: {{use: mem.sink, from: work, process: out, queue: {{size: 4{queue}}}}}"""


BLOCK = ", full: block"


def settled(studio: Crew) -> dict[tuple[str, str], int]:
    """After the stop: what a killed process held is given up, and every frame is in one account."""
    assert studio.ledger.balance == 0
    studio.ledger.give_up("out", "lost with worker out", before_ns=time.monotonic_ns())
    dropped = studio.dropped()
    assert studio.ledger.balance == studio.ledger.in_flight == 0
    assert studio.ledger.captured == studio.ledger.published + sum(dropped.values())
    return dropped


@pytest.mark.parametrize("queue", ["", BLOCK])
def test_a_reader_that_dies_is_missed_and_read_by_again_when_it_is_back(crew: Make, queue: str) -> None:
    studio = crew(endless(queue))
    studio.hooks["north"] = lambda _: time.sleep(0.001)
    studio.spawn()
    studio.start()
    before = studio.sink()
    until(lambda: len(before) > 5)
    studio.kill("out")
    until(lambda: studio.dropped().get(("sink", "worker out is down"), 0) > 5)
    assert not studio.members["main"].shared.stop.is_set()
    studio.spawn("out")
    studio.start("out")
    after = studio.sink()
    until(lambda: len(after) > 5)
    studio.stop()
    studio.finish()
    assert [seq for seq, _ in after] == sorted({seq for seq, _ in after})
    assert after[0][0] > before[-1][0]
    dropped = settled(studio)
    assert {reason for _, reason in dropped} <= {
        "worker out is down",
        "worker out died with it",
        "lost with worker out",
        "queue full (drop_oldest)",
        "overwritten before it was read",
    }
    assert studio.warnings == []


@pytest.mark.parametrize("queue", ["", BLOCK])
def test_a_camera_that_dies_comes_back_and_its_numbers_go_on(crew: Make, queue: str) -> None:
    studio = crew(endless(queue))
    studio.hooks["north"] = lambda _: time.sleep(0.001)
    studio.spawn()
    studio.start()
    got = studio.sink()
    until(lambda: len(got) > 5)
    studio.kill("north")
    last = got[-1][0]
    studio.spawn("north")
    studio.start("north", north=last + 1000)
    until(lambda: got[-1][0] > last + 1050)
    studio.stop()
    studio.finish()
    seen = [seq for seq, _ in got]
    assert seen == sorted(set(seen))
    later = [seq for seq in seen if seq >= last + 1000]
    if queue:
        assert later == list(range(last + 1000, seen[-1] + 1)), "lossless again, and not held up by what was under way"
    settled(studio)
    assert studio.warnings == []


def test_a_source_that_waits_for_a_reader_that_dies_goes_on(crew: Make) -> None:
    studio = crew(endless(BLOCK))
    stuck: list[int] = []

    def hang(number: object) -> None:
        stuck.append(1)
        until(lambda: studio.members.get("out") is None)

    studio.hooks["sink"] = hang
    studio.spawn()
    studio.start()
    link = studio.slot("work").outputs[0]
    camera = studio.slot("north").outputs[0]
    until(lambda: bool(stuck) and not link.room and not camera.room)
    studio.kill("out")
    until(lambda: link.room and studio.dropped().get(("sink", "worker out is down"), 0) > 5)
    assert studio.dropped()["sink", "worker out died with it"] >= 4
    studio.stop()
    studio.finish()
    settled(studio)


def test_a_writer_that_will_not_come_back_ends_its_readers(crew: Make) -> None:
    studio = crew(endless())
    studio.hooks["north"] = lambda _: time.sleep(0.001)
    studio.spawn()
    studio.start()
    got = studio.sink()
    until(lambda: len(got) > 5)
    studio.kill("north")
    for member in studio.members.values():
        member.bridge.writer_is_gone("north")
    studio.finish()
    reasons = ("overwritten before it was read", "queue full (drop_oldest)")
    assert {reason for _, reason in studio.dropped()} <= set(reasons)
    settled(studio)


def test_a_camera_in_the_middle_of_nothing_loses_its_frames_counted(crew: Make) -> None:
    """The process behind it was never started."""
    studio = crew(
        """north: {use: mem.camera, frames: 20}
        instants: {use: mem.instants, from: north}
        work: {use: mem.work, from: instants}
        sink: {use: mem.sink, from: work}"""
    )
    studio.spawn("main")
    studio.spawn("north")
    studio.kill("main")
    until(lambda: not studio.slot("north").outputs[0]._socket.poll(0, zmq.POLLOUT))
    studio.start("north")
    studio.finish()
    assert studio.dropped() == {("instants", "worker main is down"): 20}
    assert studio.ledger.in_flight == 0
