"""Whatever happens to frames, in whatever order: each one is settled once, in one account, and the ledger balances at every moment."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from posepipe.pipeline.ledger import Drop, Ledger
from posepipe.pipeline.packet import FrameId

NODES = st.sampled_from(["sync", "heatmaps", "view"])
REASONS = st.sampled_from(["queue full (drop_oldest)", "error: ValueError"])


class LedgerMachine(RuleBasedStateMachine):
    """The model: `ways` are packets under way, each a tuple of frames; a frame is open while it is in any of them."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.ways: list[tuple[FrameId, ...]] = []
        self.published: set[FrameId] = set()
        self.why: dict[FrameId, tuple[str, str]] = {}
        self.captured: set[FrameId] = set()
        self.lost: Counter[tuple[str, str]] = Counter()
        self.skipped: Counter[tuple[str, str]] = Counter()

    def take(self, data: st.DataObject) -> tuple[FrameId, ...]:
        return self.ways.pop(data.draw(st.integers(0, len(self.ways) - 1)))

    @rule(camera=st.sampled_from("abc"))
    def capture(self, camera: str) -> None:
        frame = (camera, len(self.captured))
        self.ledger.capture(frame)
        self.captured.add(frame)
        self.ways.append((frame,))

    @rule(count=st.integers(1, 9), node=NODES, reason=REASONS)
    def lose_before_it_is_a_picture(self, count: int, node: str, reason: str) -> None:
        self.ledger.capture_lost(count, node, reason)
        self.lost[node, reason] += count

    @precondition(lambda self: len(self.ways) > 1)
    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        """Frames of two packets become one packet: no entry, as long as no frame is in both."""
        a, b = self.take(data), self.take(data)
        self.ways += [a + b] if not set(a) & set(b) else [a, b]

    @precondition(lambda self: self.ways)
    @rule(data=st.data(), branches=st.integers(0, 4))
    def fork(self, data: st.DataObject, branches: int) -> None:
        way = self.take(data)
        self.ledger.fork(way, branches)
        self.ways += [way] * branches

    @precondition(lambda self: self.ways)
    @rule(data=st.data(), node=NODES, reason=REASONS)
    def drop(self, data: st.DataObject, node: str, reason: str) -> None:
        way = self.take(data)
        self.ledger.drop(way, node, reason)
        self.skipped[node, reason] += 1
        for frame in way:
            self.why.setdefault(frame, (node, reason))

    @precondition(lambda self: self.ways)
    @rule(data=st.data(), publishes=st.booleans())
    def consume(self, data: st.DataObject, publishes: bool) -> None:
        way = self.take(data)
        self.ledger.consume(way, published=publishes)
        self.published |= set(way) if publishes else set()

    def expected(self, settled: set[FrameId], reason: tuple[str, str]) -> dict[tuple[str, str], int]:
        return dict(self.lost + Counter(self.why.get(frame, reason) for frame in settled - self.published))

    @invariant()
    def every_frame_is_in_one_account(self) -> None:
        flying = {frame for way in self.ways for frame in way}
        settled = self.captured - flying
        assert self.ledger.balance == 0
        assert self.ledger.in_flight == len(flying)
        assert self.ledger.captured == len(self.captured) + sum(self.lost.values())
        assert self.ledger.published == len(settled & self.published)
        assert {(d.node, d.reason): d.count for d in self.ledger.dropped} == self.expected(settled, ("graph", "no sink publishes it"))
        assert {(d.node, d.reason): d.count for d in self.ledger.skipped} == dict(self.skipped)

    def teardown(self) -> None:
        flying = {frame for way in self.ways for frame in way}
        before = self.expected(self.captured - flying, ("graph", "no sink publishes it"))
        self.ledger.close()
        closed = Counter(self.why.get(frame, ("graph", "in flight at the stop")) for frame in flying - self.published)
        assert {(d.node, d.reason): d.count for d in self.ledger.dropped} == dict(Counter(before) + closed)
        assert self.ledger.published == len(self.captured & self.published)
        assert self.ledger.in_flight == self.ledger.balance == 0


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_frame_is_published_when_any_branch_publishes_it() -> None:
    ledger = Ledger()
    ledger.capture(("north", 0))
    ledger.fork([("north", 0)], 3)
    ledger.drop([("north", 0)], "view", "queue full (drop_oldest)")
    ledger.consume([("north", 0)], published=True)
    assert (ledger.published, ledger.in_flight) == (0, 1), "not settled while a branch holds it"
    ledger.consume([("north", 0)], published=False)
    assert (ledger.published, ledger.in_flight, ledger.dropped) == (1, 0, [])
    assert ledger.skipped == [Drop("view", "queue full (drop_oldest)", 1)]


def test_the_first_reason_counts() -> None:
    ledger = Ledger()
    ledger.capture(("north", 0))
    ledger.fork([("north", 0)], 2)
    ledger.drop([("north", 0)], "smooth", "error: ValueError")
    ledger.drop([("north", 0)], "view", "queue full (drop_oldest)")
    assert ledger.dropped == [Drop("smooth", "error: ValueError", 1)]


@pytest.mark.parametrize("side_first", [True, False])
def test_a_loss_on_the_way_to_a_publication_counts_before_one_beside_it(side_first: bool) -> None:
    ledger = Ledger()
    ledger.side_nodes = frozenset({"view"})
    ledger.capture(("north", 0))
    ledger.fork([("north", 0)], 2)
    losses = [("view", "queue full (drop_oldest)"), ("smooth", "error: ValueError")]
    for node, reason in losses if side_first else reversed(losses):
        ledger.drop([("north", 0)], node, reason)
    assert ledger.dropped == [Drop("smooth", "error: ValueError", 1)]


def test_most_come_first() -> None:
    ledger = Ledger()
    for node, count in (("a", 2), ("b", 9), ("c", 4)):
        ledger.capture_lost(count, node, "corrupt picture")
    assert [(d.node, d.count) for d in ledger.dropped] == [("b", 9), ("c", 4), ("a", 2)]


def test_a_packet_without_frames_costs_nothing() -> None:
    ledger = Ledger()
    ledger.drop([], "a", "no result")
    ledger.fork([], 3)
    ledger.consume([], published=True)
    assert (ledger.captured, ledger.published, ledger.dropped, ledger.skipped, ledger.balance) == (0, 0, [], [], 0)


def test_a_frame_that_was_settled_cannot_be_settled_again() -> None:
    ledger = Ledger()
    ledger.capture(("north", 0))
    ledger.consume([("north", 0)], published=True)
    with pytest.raises(KeyError):
        ledger.consume([("north", 0)], published=True)
    assert ledger.balance == 0


def test_it_balances_while_threads_write() -> None:
    ledger, balances = Ledger(), []

    def camera(name: str) -> None:
        for seq in range(400):
            frame = (name, seq)
            ledger.capture(frame)
            ledger.fork([frame], 2)
            ledger.drop([frame], "view", "queue full (drop_oldest)")
            ledger.consume([frame], published=seq % 2 == 0)

    threads = [threading.Thread(target=camera, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads):
        balances.append(ledger.balance)
    for thread in threads:
        thread.join()
    assert set(balances) <= {0}
    assert (ledger.captured, ledger.published, ledger.in_flight) == (1600, 800, 0)
