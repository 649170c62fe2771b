"""Bounded queues: what happens to one packet more, for every policy."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posepipe.pipeline.links import Full, Link, Queue
from posepipe.pipeline.packet import Packet


def packet(seq: int) -> Packet[None]:
    return Packet(seq, 1000 + seq, "a", None, (), (("north", seq),))


def link(size: int = 2, full: Full = "drop_oldest", *, freed: threading.Condition | None = None) -> Link:
    return Link("a", "b", "frame", Queue(size=size, full=full), ready=threading.Condition(), freed=freed)


def drain(link: Link) -> list[int]:
    return [link.get().seq for _ in range(len(link))]


def test_drop_oldest_keeps_the_newest() -> None:
    a = link(2)
    assert [lost and lost.seq for lost in (a.put(packet(i), wait=False) for i in range(5))] == [None, None, 0, 1, 2]
    assert a.head_ns == 1003
    assert drain(a) == [3, 4]
    assert a.high_water == 2


def test_drop_newest_keeps_the_oldest() -> None:
    a = link(2, "drop_newest")
    assert [lost and lost.seq for lost in (a.put(packet(i), wait=False) for i in range(5))] == [None, None, 2, 3, 4]
    assert drain(a) == [0, 1]


def test_block_has_no_room_when_it_is_full_and_loses_nothing() -> None:
    a = link(2, "block")
    for i in range(2):
        assert a.room
        assert a.put(packet(i), wait=False) is None
    assert not a.room
    assert a.put(packet(2), wait=False) is None, "a worker that emits several at once goes over the size instead of losing one"
    assert drain(a) == [0, 1, 2]
    assert a.room


def test_keep_newest_makes_up_for_a_hiccup() -> None:
    a = link(3, "keep_newest")
    assert [a.put(packet(i), wait=False) for i in range(3)] == [None] * 3
    for i in range(3, 8):  # a slow way back to an empty link
        assert a.get().seq == i - 3
        assert a.put(packet(i), wait=False) is None
    assert drain(a) == [5, 6, 7]


def serve(a: Link, until: int, *, costs: Callable[[int], float]) -> dict[int, float]:
    """Packets put at 0, 1, 2 ..., and a reader that spends `costs` on one and takes the next at once: how long those read had waited."""
    free, waited = 0.0, {}
    for t in range(until):
        while len(a) and free <= t:
            seq = a.get().seq
            begun = max(free, seq)
            waited[seq], free = begun - seq, begun + costs(seq)
        a.put(packet(t), wait=False)
    return waited


def test_keep_newest_is_late_for_a_while_only_when_its_reader_is_always_too_slow() -> None:
    behind, patient = (serve(link(3, full), 400, costs=lambda seq: 1.4) for full in ("keep_newest", "drop_oldest"))
    assert max(behind.values()) > 2, "a hiccup would look like this"
    late = [w for seq, w in behind.items() if seq > 50]
    assert np.mean(late) < 0.8
    assert min(w for seq, w in patient.items() if seq > 50) > 1
    assert len(behind) >= len(patient) - 3, "nothing more is lost for it"


def test_keep_newest_gives_the_room_back_when_the_reader_has_caught_up() -> None:
    waited = serve(link(3, "keep_newest"), 600, costs=lambda seq: 2.0 if seq < 200 else 3.5 if seq == 400 else 0.5)
    assert [seq for seq in range(300, 590) if seq not in waited] == []
    assert waited[401] > 2


@pytest.mark.parametrize("full", ["drop_oldest", "keep_newest", "drop_newest"])
def test_a_link_that_may_lose_always_has_room(full: Full) -> None:
    a = link(1, full)
    a.put(packet(0), wait=False)
    assert a.room


@given(
    size=st.integers(1, 5), full=st.sampled_from(["drop_oldest", "keep_newest", "drop_newest"]), gets=st.lists(st.booleans(), max_size=80)
)
def test_every_packet_comes_out_once_or_is_given_back(size: int, full: Full, gets: list[bool]) -> None:
    a, came, lost, put = link(size, full), [], [], 0
    for get in gets:
        if get and len(a):
            came.append(a.get().seq)
        elif not get:
            back = a.put(packet(put), wait=False)
            lost += [back.seq] if back else []
            put += 1
        assert len(a) <= size
    came += drain(a)
    assert came == sorted(came)
    assert sorted(came + lost) == list(range(put))


def test_a_source_waits_for_room_and_goes_on_when_there_is_some() -> None:
    a, written = link(1, "block"), threading.Event()
    a.put(packet(0), wait=True)

    def source() -> None:
        a.put(packet(1), wait=True)
        written.set()

    thread = threading.Thread(target=source, daemon=True)
    thread.start()
    assert not written.wait(0.05)
    assert a.get().seq == 0
    assert written.wait(5)
    assert a.get().seq == 1


def test_a_source_that_waits_is_let_go_at_a_stop() -> None:
    a = link(1, "block")
    a.put(packet(0), wait=True)
    thread = threading.Thread(target=a.put, args=(packet(1),), kwargs={"wait": True}, daemon=True)
    thread.start()
    assert [p.seq for p in a.stop()] == [0], "what was waiting is given back for the ledger"
    thread.join(5)
    assert not thread.is_alive()


def test_the_worker_that_writes_is_woken_when_there_is_room() -> None:
    freed, woken = threading.Condition(), threading.Event()
    a = link(1, "block", freed=freed)
    a.put(packet(0), wait=False)

    def writer() -> None:
        with freed:
            if freed.wait_for(lambda: a.room, 5):
                woken.set()

    thread = threading.Thread(target=writer, daemon=True)
    thread.start()
    a.get()
    thread.join(5)
    assert woken.is_set()


def test_who_writes_from_another_process_hears_of_each_packet_that_is_taken() -> None:
    a, taken = link(3, "block"), []
    a.taken = lambda: taken.append(len(a))
    for i in range(3):
        a.put(packet(i), wait=False)
    assert taken == []
    drain(a)
    assert taken == [2, 1, 0]
    a.put(packet(3), wait=False)
    a.stop()
    assert taken == [2, 1, 0], "what is thrown away at a stop was not taken"


def test_the_end_wakes_the_reader_and_what_waits_is_still_read() -> None:
    a = link()
    a.put(packet(0), wait=False)
    a.end()
    assert a.ended
    assert drain(a) == [0]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"size": 0}, "a queue holds at least 1 packet"),
        ({"size": -2}, "a queue holds at least 1 packet"),
        ({"full": "dorp"}, "Invalid enum value 'dorp'"),
        ({"length": 3}, "unknown field `length`"),
        ({"size": 1.5}, "Expected `int`, got `float`"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(raw: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(raw, Queue)
