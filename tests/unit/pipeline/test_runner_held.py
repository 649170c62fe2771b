"""A node that holds packets: they leave later, with their own number, stamp and account."""

from __future__ import annotations

from dataclasses import replace

import pytest
from memory_nodes import MEMORY, Harness, Hooked, Number, dropped, got
from runner_kit import until

from posepipe.pipeline.node import NodeSettings, ports
from posepipe.pipeline.packet import Packet

STUDIO = """capture: {use: mem.camera, each: {north: {}, south: {}}, frames: 12}
instants: {use: mem.instants, from: capture}
work: {use: mem.work, from: instants}
late: {use: mem.late, from: work, behind: BEHIND}
sink: {use: mem.sink, from: late, queue: {size: 16}}
"""
LOSSLESS = "".join(
    line.replace("}\n", ", queue: {full: block}}\n") if "from:" in line and "sink" not in line else line
    for line in STUDIO.splitlines(keepends=True)
)


class Late(Hooked):
    """Gives every packet when `behind` later ones have come."""

    use = "mem.late"
    holds = True

    class Settings(NodeSettings, frozen=True):
        behind: int = 3

    settings: Settings

    def step(self, number: Packet[Number]) -> list[Packet[Number]]:
        self.waiting: list[Packet[Number]] = [*getattr(self, "waiting", []), number]
        self.ask(self.ctx.name, number)
        return self.leave(self.settings.behind)

    def on_end(self, source: str) -> list[Packet[Number]]:
        return self.leave(0)

    def leave(self, keep: int) -> list[Packet[Number]]:
        out = [replace(p, body=Number(p.body.value + 1)) for p in self.waiting[: max(len(self.waiting) - keep, 0)]]
        self.waiting = self.waiting[len(out) :]
        return out


class Patient(Late):
    """Gives one packet whenever it is asked what is due."""

    use = "mem.patient"

    def wake_ns(self) -> int | None:
        return 0 if getattr(self, "waiting", ()) else None

    def on_time(self, now_ns: int) -> list[Packet[Number]]:
        return self.leave(len(self.waiting) - 1)


@pytest.fixture
def late(harness: Harness) -> Harness:
    harness.registry = {**MEMORY, "mem.late": Late, "mem.patient": Patient}
    return harness


def test_its_output_is_the_body_in_the_packets() -> None:
    assert ports(Late).output is Number


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("behind", [0, 3, 100])
def test_every_packet_leaves_once_with_its_own_number_and_frames(late: Harness, behind: int, offline: bool) -> None:
    runner = late.run(LOSSLESS.replace("BEHIND", str(behind)), offline=offline)
    assert got(runner) == [(seq, 10 * seq + 1) for seq in range(12)]
    assert dropped(runner) == {}
    assert runner.shared.ledger.published == 24
    assert runner.slots["late"].latency.count == 12


def test_a_packet_keeps_its_stamp_and_the_wait_is_in_the_trace(late: Harness) -> None:
    arrived: dict[int, Packet[Number]] = {}
    late.hooks["sink"] = lambda packet: arrived.update({packet.seq: packet})
    came: dict[int, tuple[int, int]] = {}
    runner = late.runner(STUDIO.replace("BEHIND", "3"), offline=True)
    late.hooks["late"] = lambda packet: came.update({packet.seq: (packet.t_capture_ns, runner.shared.clock.now_ns())})
    runner.open()
    runner.start()
    runner.finish()
    for seq in range(9):
        packet, span = arrived[seq], arrived[seq].trace[-1]
        assert (packet.source, span.node) == ("late", "late")
        assert packet.t_capture_ns == came[seq][0] < came[seq + 3][0]
        assert span.t_in_ns <= came[seq][1] < came[seq + 3][1] <= span.t_out_ns


def test_what_leaves_one_at_a_time_is_taken_before_the_next_one_leaves(late: Harness) -> None:
    nodes = (
        LOSSLESS.replace("mem.late", "mem.patient")
        .replace("BEHIND", "100")
        .replace("size: 16", "size: 1")
        .replace("frames: 12", "frames: 9")
    )
    runner = late.runner(nodes)

    def last(seq: int) -> None:
        if seq == 8:
            until(lambda: len(got(runner)) == 8)

    late.hooks["capture/north"] = last
    runner.open()
    runner.start()
    runner.finish()
    assert [seq for seq, _ in got(runner)] == list(range(9))
    assert dropped(runner) == {}, "a link that keeps one packet loses none"


def test_a_packet_that_it_throws_on_is_lost_and_the_others_leave(late: Harness) -> None:
    def throw(packet: Packet[Number]) -> None:
        if packet.seq == 5:
            late.hooks.pop("late")
            raise ValueError("no")

    late.hooks["late"] = throw
    runner = late.run(STUDIO.replace("BEHIND", "2"), offline=True)
    assert [seq for seq, _ in got(runner)] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11], "it kept number 5, but nobody hears of it again"
    assert dropped(runner) == {("late", "error: ValueError"): 2}
