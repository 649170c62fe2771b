"""Whatever happens to frames, in whatever order the news of it come: each one is settled once, in one account, and the ledger balances
at every moment."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from posepipe.pipeline.ledger import Drop, Event, Ledger, LedgerTap, divided, merged, shares
from posepipe.pipeline.packet import WHOLE, FrameId, Packet

NODES = st.sampled_from(["sync", "heatmaps", "view"])
REASONS = st.sampled_from(["queue full (drop_oldest)", "error: ValueError"])
NORTH = ("north", 0)


def way(*frames: FrameId, shares: tuple[int, ...] = ()) -> Packet[None]:
    return Packet(0, 0, "test", None, (), frames, shares)


def branches(packet: Packet[Any], count: int) -> list[Packet[Any]]:
    return [replace(packet, shares=part) for part in divided(packet, count)]


def forked(ledger: LedgerTap, count: int, frame: FrameId = NORTH) -> list[Packet[None]]:
    ledger.capture(frame)
    return branches(way(frame), count)


def as_sent(events: list[Event]) -> Any:
    """As they arrive from another process: tuples have become lists."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(events))


def losses(drops: list[Drop]) -> dict[tuple[str, str], int]:
    return {(d.node, d.reason): d.count for d in drops}


class LedgerMachine(RuleBasedStateMachine):
    """The model: `ways` are packets under way with their shares; a frame is open while any of them carries some of it.

    Everything is also told to a tap, and from there in other orders, and twice, to ledgers far away.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger, self.tap = Ledger(), LedgerTap()
        self.told: list[Event] = []
        self.ways: list[Packet[None]] = []
        self.published: set[FrameId] = set()
        self.why: dict[FrameId, tuple[str, str]] = {}
        self.captured: set[FrameId] = set()
        self.lost: Counter[tuple[str, str]] = Counter()
        self.skipped: Counter[tuple[str, str]] = Counter()

    def both(self, method: str, *arguments: Any, **named: Any) -> None:
        getattr(self.ledger, method)(*arguments, **named)
        getattr(self.tap, method)(*arguments, **named)
        self.told += self.tap.take()

    def take(self, data: st.DataObject) -> Packet[None]:
        return self.ways.pop(data.draw(st.integers(0, len(self.ways) - 1)))

    @property
    def flying(self) -> set[FrameId]:
        return {frame for packet in self.ways for frame, share in zip(packet.frames, shares(packet), strict=True) if share}

    @rule(camera=st.sampled_from("abc"))
    def capture(self, camera: str) -> None:
        frame = (camera, len(self.captured))
        self.both("capture", frame)
        self.captured.add(frame)
        self.ways.append(way(frame))

    @rule(count=st.integers(1, 9), node=NODES, reason=REASONS)
    def lose_before_it_is_a_picture(self, count: int, node: str, reason: str) -> None:
        self.both("capture_lost", count, node, reason)
        self.lost[node, reason] += count

    @precondition(lambda self: len(self.ways) > 1)
    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        """Two packets become one, also when a frame is in both: no entry."""
        frames, parts = merged([self.take(data), self.take(data)])
        self.ways.append(way(*frames, shares=parts))

    @precondition(lambda self: self.ways)
    @rule(data=st.data(), count=st.integers(1, 4))
    def fork(self, data: st.DataObject, count: int) -> None:
        self.ways += branches(self.take(data), count)

    @precondition(lambda self: self.ways)
    @rule(data=st.data(), node=NODES, reason=REASONS)
    def drop(self, data: st.DataObject, node: str, reason: str) -> None:
        packet = self.take(data)
        self.both("drop", packet, node, reason)
        self.skipped[node, reason] += 1
        for frame in packet.frames:
            self.why.setdefault(frame, (node, reason))

    @precondition(lambda self: self.ways)
    @rule(data=st.data(), publishes=st.booleans())
    def consume(self, data: st.DataObject, publishes: bool) -> None:
        packet = self.take(data)
        self.both("consume", packet, published=publishes)
        self.published |= set(packet.frames) if publishes else set()

    def expected(self, settled: set[FrameId], reason: tuple[str, str]) -> dict[tuple[str, str], int]:
        return dict(self.lost + Counter(self.why.get(frame, reason) for frame in settled - self.published))

    @invariant()
    def every_frame_is_in_one_account(self) -> None:
        flying = self.flying
        settled = self.captured - flying
        assert self.ledger.balance == 0
        assert self.ledger.in_flight == len(flying)
        assert self.ledger.captured == len(self.captured) + sum(self.lost.values())
        assert self.ledger.published == len(settled & self.published)
        assert losses(self.ledger.dropped) == self.expected(settled, ("graph", "no sink publishes it"))
        assert losses(self.ledger.skipped) == dict(self.skipped)

    @precondition(lambda self: self.told)
    @rule(random=st.randoms(use_true_random=False))
    def the_same_news_in_another_order_give_the_same_accounts(self, random: Any) -> None:
        told = list(self.told)
        random.shuffle(told)
        far = Ledger()
        for event in told:
            far.apply(as_sent([event]))
            assert far.balance == 0
        for account in ("captured", "published", "in_flight"):
            assert getattr(far, account) == getattr(self.ledger, account)
        assert losses(far.skipped) == losses(self.ledger.skipped)
        assert sum(losses(far.dropped).values()) == sum(losses(self.ledger.dropped).values()), "which reason was first depends on the order"

    @precondition(lambda self: self.told)
    @rule(random=st.randoms(use_true_random=False))
    def news_that_come_twice_change_no_account(self, random: Any) -> None:
        told = [*self.told, *(event for event in self.told if event[0] != "capture_lost" and random.random() < 0.5)]
        random.shuffle(told)
        far = Ledger()
        for event in told:
            far.apply(as_sent([event]))
            assert far.balance == 0
            assert all(count > 0 for count in losses(far.dropped).values())
        assert far.captured == self.ledger.captured
        assert far.in_flight <= self.ledger.in_flight
        far.close()
        assert far.balance == far.in_flight == 0
        assert far.published == len(self.published), "a frame that was published is, even if a duplicate had settled it before"

    def teardown(self) -> None:
        flying = self.flying
        before = self.expected(self.captured - flying, ("graph", "no sink publishes it"))
        self.ledger.close()
        closed = Counter(self.why.get(frame, ("graph", "in flight at the stop")) for frame in flying - self.published)
        assert losses(self.ledger.dropped) == dict(Counter(before) + closed)
        assert self.ledger.published == len(self.captured & self.published)
        assert self.ledger.in_flight == self.ledger.balance == 0


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# shares -------------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, WHOLE), min_size=1, max_size=5), st.integers(1, 9))
def test_what_is_divided_is_whole_again_when_it_is_merged(parts: list[int], count: int) -> None:
    packet = way(*((f"camera{i}", 7) for i in range(len(parts))), shares=tuple(parts))
    cut = branches(packet, count)
    assert len(cut) == count
    assert all(0 <= share <= whole for branch in cut for share, whole in zip(shares(branch), parts, strict=True))
    assert merged(cut) == (packet.frames, tuple(parts))


def test_a_packet_that_was_never_forked_carries_its_frames_whole() -> None:
    assert shares(way(NORTH, ("south", 0))) == (WHOLE, WHOLE)
    assert merged([way(NORTH), way(("south", 0))]) == ((NORTH, ("south", 0)), (WHOLE, WHOLE))


# accounts -----------------------------------------------------------------------------------------------------------------------


def test_a_frame_is_published_when_any_branch_publishes_it() -> None:
    ledger = Ledger()
    a, b, c = forked(ledger, 3)
    ledger.drop(a, "view", "queue full (drop_oldest)")
    ledger.consume(b, published=True)
    assert (ledger.published, ledger.in_flight) == (0, 1), "not settled while a branch holds it"
    ledger.consume(c, published=False)
    assert (ledger.published, ledger.in_flight, ledger.dropped) == (1, 0, [])
    assert ledger.skipped == [Drop("view", "queue full (drop_oldest)", 1)]


def test_the_first_reason_counts() -> None:
    ledger = Ledger()
    a, b = forked(ledger, 2)
    ledger.drop(a, "smooth", "error: ValueError")
    ledger.drop(b, "view", "queue full (drop_oldest)")
    assert ledger.dropped == [Drop("smooth", "error: ValueError", 1)]


@pytest.mark.parametrize("side_first", [True, False])
def test_a_loss_on_the_way_to_a_publication_counts_before_one_beside_it(side_first: bool) -> None:
    ledger = Ledger(side_nodes=frozenset({"view"}))
    a, b = forked(ledger, 2)
    said = [(a, "view", "queue full (drop_oldest)"), (b, "smooth", "error: ValueError")]
    for packet, node, reason in said if side_first else reversed(said):
        ledger.drop(packet, node, reason)
    assert ledger.dropped == [Drop("smooth", "error: ValueError", 1)]


def test_most_come_first() -> None:
    ledger = Ledger()
    for node, count in (("a", 2), ("b", 9), ("c", 4)):
        ledger.capture_lost(count, node, "corrupt picture")
    assert [(d.node, d.count) for d in ledger.dropped] == [("b", 9), ("c", 4), ("a", 2)]


def test_a_packet_without_frames_costs_nothing() -> None:
    for ledger in (Ledger(), LedgerTap()):
        ledger.drop(way(), "a", "no result")
        ledger.consume(way(), published=True)
        if isinstance(ledger, Ledger):
            assert (ledger.captured, ledger.published, ledger.dropped, ledger.skipped, ledger.balance) == (0, 0, [], [], 0)
        assert ledger.take() == []


# news from other processes ------------------------------------------------------------------------------------------------------


def test_news_wait_until_they_are_taken_and_those_that_could_not_be_sent_go_first() -> None:
    tap = LedgerTap()
    tap.capture(NORTH)
    sent = tap.take()
    tap.consume(way(NORTH), published=True)
    tap.put_back(sent)
    assert [event[0] for event in tap.take()] == ["capture", "came_back"]
    assert tap.take() == []


def test_the_news_that_a_frame_has_ended_may_come_before_the_news_that_there_is_one() -> None:
    ledger = Ledger()
    ledger.consume(way(NORTH), published=True)
    ledger.capture(NORTH)
    assert (ledger.captured, ledger.published, ledger.in_flight, ledger.balance) == (1, 1, 0, 0)


def test_a_frame_that_was_settled_stays_settled() -> None:
    ledger = Ledger()
    ledger.capture(NORTH)
    ledger.consume(way(NORTH), published=True)
    ledger.consume(way(NORTH), published=True)
    ledger.drop(way(NORTH), "view", "no result")
    ledger.capture(NORTH)
    assert (ledger.captured, ledger.published, ledger.dropped, ledger.balance) == (1, 1, [], 0)


def test_a_packet_that_got_through_a_killed_worker_is_not_lost_with_it() -> None:
    """Who wrote to it says that it is lost; what the worker said before it died comes later."""
    ledger = Ledger()
    ledger.capture(NORTH)
    ledger.drop(way(NORTH), "work", "worker main died with it")
    assert ledger.dropped == [Drop("work", "worker main died with it", 1)]
    ledger.consume(way(NORTH), published=True)
    assert (ledger.published, ledger.dropped, ledger.in_flight, ledger.balance) == (1, [], 0, 0)


def test_frames_that_a_killed_worker_held_are_given_up_and_the_others_stay() -> None:
    ledger = Ledger()
    held, named, out = ("north", 1), ("north", 2), ("north", 3)
    for frame in (held, named, out):
        ledger.capture(frame)
    a, b = branches(way(named), 2)
    ledger.drop(a, "view", "no result")
    c, d = branches(way(out), 2)
    ledger.consume(c, published=True)
    killed_ns = time.monotonic_ns() + 1
    while time.monotonic_ns() <= killed_ns:
        pass
    ledger.capture(("north", 4))
    assert ledger.give_up("work", "lost with worker main", before_ns=killed_ns) == 3
    assert losses(ledger.dropped) == {("work", "lost with worker main"): 1, ("view", "no result"): 1}
    assert (ledger.published, ledger.in_flight, ledger.balance) == (1, 1, 0)
    for late in (way(held), b, d):
        ledger.consume(late, published=True)
    assert (ledger.published, ledger.dropped, ledger.in_flight, ledger.balance) == (3, [], 1, 0)


def test_what_was_settled_long_ago_is_forgotten_and_still_balances() -> None:
    ledger = Ledger()
    for seq in range(5000):
        ledger.capture(("north", seq))
        ledger.consume(way(("north", seq)), published=True)
    assert len(ledger._ended) < 5000, "a studio that runs for weeks does not grow"
    ledger.consume(way(("north", 0)), published=True)
    assert ledger.balance == 0


def test_it_balances_while_threads_write() -> None:
    ledger, balances = Ledger(), []

    def camera(name: str) -> None:
        for seq in range(400):
            a, b = forked(ledger, 2, (name, seq))
            ledger.drop(a, "view", "queue full (drop_oldest)")
            ledger.consume(b, published=seq % 2 == 0)

    threads = [threading.Thread(target=camera, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads):
        balances.append(ledger.balance)
    for thread in threads:
        thread.join()
    assert set(balances) <= {0}
    assert (ledger.captured, ledger.published, ledger.in_flight) == (1600, 800, 0)


def test_what_each_camera_lost_is_told() -> None:
    ledger = Ledger()
    for frame in (NORTH, ("north", 1), ("south", 0)):
        ledger.capture(frame)
    ledger.drop(way(NORTH, ("south", 0)), "heatmaps", "queue full (drop_oldest)")
    ledger.consume(way(("north", 1)), published=True)
    ledger.capture_lost(3, "capture/south", "corrupt frame")
    assert ledger.lost_of == {"north": 1, "south": 1, "capture/south": 3}
    ledger.consume(way(NORTH), published=True)
    assert ledger.lost_of["north"] == 0, "it was late, not lost"
