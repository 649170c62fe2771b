from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from posepipe.pipeline.join import Join
from posepipe.pipeline.node import Port
from posepipe.pipeline.packet import Packet, Span

PORTS = (Port("poses", int), Port("frames", int), Port("actions", int, optional=True), Port("masks", int, optional=True))


def packet(seq: int, body: Any = None, t_ns: int = 0) -> Packet[Any]:
    return Packet(seq, seq, "node", body, (Span("node", t_ns, t_ns),), (("north", seq),))


def join(*wired: str, offline: bool = True) -> Join:
    return Join(PORTS, wired, offline=offline)


def added(waiting: Join, port: str, seq: int) -> list[tuple[int, set[str], bool]]:
    """What leaves: the number, what there is of it, whether it is answered."""
    return told(waiting.add(port, packet(seq)))


def told(leaving: list[Any]) -> list[tuple[int, set[str], bool]]:
    return [(next(iter(row.values())).seq, set(row), answered) for row, answered in leaving]


def test_an_instant_leaves_when_it_is_complete() -> None:
    waiting = join("poses", "actions")
    assert added(waiting, "poses", 0) == []
    assert added(waiting, "poses", 1) == []
    assert added(waiting, "actions", 0) == [(0, {"poses", "actions"}, True)]
    assert len(waiting) == 1


def test_what_the_studio_does_not_feed_is_not_waited_for() -> None:
    waiting = join("poses", "frames")
    added(waiting, "frames", 0)
    assert added(waiting, "poses", 0) == [(0, {"poses", "frames"}, True)]


def test_an_input_that_went_past_an_instant_does_not_cost_it() -> None:
    waiting = join("poses", "actions")
    for seq in range(3):
        assert added(waiting, "poses", seq) == []
    assert added(waiting, "actions", 2) == [(0, {"poses"}, True), (1, {"poses"}, True), (2, {"poses", "actions"}, True)]


def test_a_needed_input_that_went_past_an_instant_does() -> None:
    waiting = join("poses", "frames", "actions")
    added(waiting, "frames", 0)
    added(waiting, "actions", 0)
    added(waiting, "poses", 1)
    added(waiting, "frames", 1)
    assert added(waiting, "actions", 1) == [(0, {"frames", "actions"}, False), (1, {"poses", "frames", "actions"}, True)]


def test_an_input_that_ends_is_not_waited_for_any_more() -> None:
    waiting = join("poses", "actions")
    added(waiting, "poses", 0)
    assert told(waiting.end("actions")) == [(0, {"poses"}, True)]
    assert added(waiting, "poses", 1) == [(1, {"poses"}, True)]


def test_live_an_input_that_hangs_delays_by_half_a_second_at_most() -> None:
    waiting = join("poses", "actions", offline=False)
    left = [added(waiting, "poses", seq) for seq in range(20)]
    assert left[:16] == [[]] * 16
    assert left[16:] == [[(seq, {"poses"}, True)] for seq in range(4)]


def test_offline_it_is_waited_for_as_long_as_it_may_lag() -> None:
    waiting = join("poses", "actions")
    waiting.keep = 40
    left = [added(waiting, "poses", seq) for seq in range(42)]
    assert left[:40] == [[]] * 40
    assert left[40:] == [[(0, {"poses"}, True)], [(1, {"poses"}, True)]]


def test_half_an_instant_is_given_up_at_last() -> None:
    waiting = join("poses", "frames")
    waiting.keep = 5
    left = [added(waiting, "poses", seq) for seq in range(6)]
    assert left == [*[[]] * 5, [(0, {"poses"}, False)]]
    assert [set(row) for row in waiting.rest()] == [{"poses"}] * 5
    assert len(waiting) == 0


def test_numbers_that_begin_again_are_waited_for_again() -> None:
    waiting = join("poses", "actions")
    added(waiting, "poses", 900)
    added(waiting, "actions", 900)
    left = [event for seq in range(5) for port in ("poses", "actions") for event in added(waiting, port, seq)]
    assert left[:2] == [(0, {"poses"}, True), (0, {"actions"}, False)], "as far as anyone knew, actions were at 900"
    assert left[2:] == [(seq, {"poses", "actions"}, True) for seq in range(1, 5)]


def test_a_row_is_one_packet_with_the_last_one_s_trace_and_the_first_port_s_body() -> None:
    waiting = join("poses", "actions")
    waiting.add("actions", packet(3, "actions", t_ns=7))
    ((row, _),) = waiting.add("poses", packet(3, "poses", t_ns=5))
    one = waiting.packet(row)
    assert (one.body, one.trace[-1].t_out_ns, one.frames) == ("poses", 7, (("north", 3),))


@given(
    st.lists(st.booleans(), min_size=1, max_size=40),
    st.lists(st.booleans(), min_size=40, max_size=40),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_every_instant_of_the_needed_input_leaves_once_in_order(there: list[bool], acted: list[bool], random: Any, offline: bool) -> None:
    """Whatever the other input lost, and however the two interleave."""
    waiting = join("poses", "actions", offline=offline)
    poses = [seq for seq, yes in enumerate(there) if yes]
    actions = [seq for seq in range(len(there)) if acted[seq]]
    left: list[tuple[int, set[str], bool]] = []
    while poses or actions:
        port, queue = random.choice([("poses", poses)] * bool(poses) + [("actions", actions)] * bool(actions))
        left += added(waiting, port, queue.pop(0))
    left += told(waiting.end("actions"))
    answered = [seq for seq, _, yes in left if yes]
    assert answered == [seq for seq, yes in enumerate(there) if yes]
    assert all(row == {"actions"} for _, row, yes in left if not yes)
    if offline:
        assert all(("actions" in row) == acted[seq] for seq, row, yes in left if yes)
