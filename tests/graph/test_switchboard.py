"""Lines to other hosts: the same letters in the same order both ways, the studio's time, an end that is noticed, and no strangers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import zmq
from parts_kit import until

from posepipe.launch import letters
from posepipe.launch.letters import Line
from posepipe.launch.switchboard import SILENT_S, Extension, Switchboard
from posepipe.pipeline.clock import FarClock, StudioClock

HERE = "127.0.0.1"


class Studio:
    def __init__(self) -> None:
        self.clock, self.said = StudioClock(), list[str]()
        self.switchboard = Switchboard(HERE, self.clock, self.said.append)

    def call(self, *, known: bool = True) -> tuple[Line, Extension]:
        """The supervisor's line to a worker, and the worker."""
        public, private = zmq.curve_keypair()
        ours, theirs = Line.pair()
        if known:
            self.switchboard.expect(public, theirs)
        server = self.switchboard.key
        return ours, Extension(self.switchboard.address, server=server, public=public, private=private, clock=FarClock())


@pytest.fixture
def studio() -> Iterator[Studio]:
    made = Studio()
    yield made
    made.switchboard.close()


def heard(line: Line) -> letters.Letter | None:
    got = line.receive()
    return got[0] if got is not None else None


def test_letters_go_both_ways_in_order(studio: Studio) -> None:
    lines = [studio.call() for _ in range(3)]
    for n, (ours, there) in enumerate(lines):
        for i in range(50):
            there.line.send(letters.Have(100 * n + i))
        assert [heard(ours) for _ in range(50)] == [letters.Have(100 * n + i) for i in range(50)]
        ours.send(letters.Gone(str(n)))
        assert heard(there.line) == letters.Gone(str(n))


def test_the_clocks_of_one_machine_agree(studio: Studio) -> None:
    _, there = studio.call()
    assert there.in_time.wait(20)
    error_ns = there._clock.error_ns
    assert error_ns is not None
    before, there_ns, after = studio.clock.now_ns(), there._clock.now_ns(), studio.clock.now_ns()
    assert before - error_ns <= there_ns <= after + error_ns


def test_when_the_supervisor_hangs_up_the_worker_reads_its_end(studio: Studio) -> None:
    ours, there = studio.call()
    assert there.in_time.wait(20)
    ours.send(letters.Stop())
    ours.close()
    assert heard(there.line) == letters.Stop()
    assert heard(there.line) is None


def test_when_the_worker_hangs_up_the_supervisor_reads_its_end(studio: Studio) -> None:
    ours, there = studio.call()
    there.line.send(letters.Done())
    there.line.close()
    assert heard(ours) == letters.Done()
    assert heard(ours) is None


def test_a_supervisor_that_falls_silent_is_taken_for_dead(studio: Studio) -> None:
    """It dies without a word: neither the line nor the connection is ended."""
    _, there = studio.call()
    assert there.in_time.wait(20)
    board = studio.switchboard
    board._over.set()
    board.join()
    silent_since = time.monotonic()
    assert heard(there.line) is None
    assert time.monotonic() - silent_since > SILENT_S / 2
    until(lambda: not there.is_alive())


def test_a_stranger_is_not_answered(studio: Studio) -> None:
    _, there = studio.call(known=False)
    until(lambda: bool(studio.said))
    assert studio.said == [
        "127.0.0.1 was refused: its key is not one of this studio's; further attempts from there are counted without a message"
    ]
    assert not there.in_time.is_set()


def test_many_letters_at_once_do_not_hold_up_the_clock(studio: Studio) -> None:
    ours, there = studio.call()
    text = "x" * 10_000
    sender = threading.Thread(target=lambda: [there.line.send(letters.Said(20, "", text)) for _ in range(500)], daemon=True)
    sender.start()
    assert all(heard(ours) == letters.Said(20, "", text) for _ in range(500))
    assert there.in_time.wait(20)
