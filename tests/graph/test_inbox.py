"""The letter box of a worker: who may write, who wakes it, and what is not for it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import zmq

from posepipe.pipeline.errors import RunError
from posepipe.pipeline.inbox import DATA, END, TAKEN, Doorbell, Inbox, Post

SECRET = b"8 bytes."


class Box:
    def __init__(self, folder: Path) -> None:
        self.address = f"ipc://{folder}/box"
        self.post = Post(lambda _: self.address, SECRET)
        self.inbox = Inbox(self.post, "main")
        self.got: list[tuple[int, int, list[bytes]]] = []
        for wire in range(3):
            self.inbox.on[wire] = lambda kind, payload, wire=wire: self.hear(wire, kind, payload)
        self.socket = self.post.to("main")
        assert self.socket.poll(20_000, zmq.POLLOUT)

    def hear(self, wire: int, kind: int, payload: Sequence[Any]) -> bool:
        self.got.append((wire, kind, [part.bytes for part in payload]))
        return kind in (DATA, END, TAKEN)

    def send(self, *messages: Sequence[bytes]) -> None:
        """And handle until the last of them, a mark, has come."""
        mark = self.post.head(DATA, 2)
        for message in (*messages, [mark, b"mark"]):
            self.socket.send_multipart(list(message))
        while (2, DATA, [b"mark"]) not in self.got:
            self.inbox.wait(5)
            self.inbox.handle()
        self.got.remove((2, DATA, [b"mark"]))


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.inbox.close()
    made.post.close()


def test_a_message_goes_to_the_wire_that_it_is_for(box: Box) -> None:
    box.send([box.post.head(DATA, 0), b"a", b"b"], [box.post.head(END, 1)])
    assert box.got == [(0, DATA, [b"a", b"b"]), (1, END, [])]
    assert box.inbox.foreign == 0


@pytest.mark.parametrize(
    "head",
    [b"", b"x", b"GET / HTTP/1.1", Post(str, b"another.").head(DATA, 0), Post(str, SECRET).head(DATA, 9), Post(str, SECRET).head(7, 0)],
)
def test_what_is_not_for_this_studio_is_counted(box: Box, head: bytes) -> None:
    box.send([head, b"x"], [head])
    assert box.inbox.foreign == 2
    assert [kind for _, kind, _ in box.got if kind in (DATA, END, TAKEN)] == []


def test_a_head_with_any_bit_damaged_is_for_nobody(box: Box) -> None:
    head = box.post.head(DATA, 0)
    damaged = [bytes(b ^ (1 << bit) if i == at else b for i, b in enumerate(head)) for at in range(len(head)) for bit in range(8)]
    box.send(*[[one, b"x"] for one in damaged])
    assert (box.got, box.inbox.foreign) == ([], 8 * len(head))


def test_bytes_of_any_kind_stop_nothing(box: Box) -> None:
    rng = random.Random(0)
    messages = [[rng.randbytes(rng.randint(0, 30)) for _ in range(rng.randint(1, 5))] for _ in range(300)]
    box.send(*messages)
    assert (box.got, box.inbox.foreign) == ([], 300)


def test_a_second_run_of_the_studio_is_told_who_holds_the_address(tmp_path: Path) -> None:
    first = Post(lambda _: "tcp://127.0.0.1:*", SECRET)
    held = first.context.socket(zmq.PULL)
    held.bind("tcp://127.0.0.1:*")
    address = held.getsockopt_string(zmq.LAST_ENDPOINT)
    second = Post(lambda _: address, SECRET)
    with pytest.raises(RunError, match=f"cannot listen at {address}: Address already in use") as e:
        Inbox(second, "main")
    assert e.value.where == "worker main"
    assert "posepipe ps" in e.value.hint
    held.close()
    first.close()
    second.close()


def test_what_is_owed_is_paid_each_time(box: Box) -> None:
    paid: list[int] = []
    box.inbox.owed.append(lambda: paid.append(len(box.got)))
    box.inbox.handle()
    box.inbox.handle()
    assert paid == [0, 0]


def test_nothing_waits_for_a_worker_that_is_not_there(tmp_path: Path) -> None:
    post = Post(lambda worker: f"ipc://{tmp_path}/{worker}", SECRET)
    socket = post.to("nobody")
    with pytest.raises(zmq.Again):
        socket.send_multipart([b"x"], zmq.NOBLOCK)
    post.close()


def test_a_ring_from_another_thread_ends_the_wait(box: Box) -> None:
    thread = threading.Thread(target=box.inbox.ring)
    thread.start()
    box.inbox.wait(60)
    thread.join()


def test_rings_that_nobody_waits_for_do_not_hold_up_who_rings(box: Box) -> None:
    for _ in range(70_000):  # more than a pipe holds
        box.inbox.ring()
    box.inbox.wait(60)


def test_who_rings_at_a_box_that_was_closed_rings_nowhere(tmp_path: Path) -> None:
    post = Post(lambda _: f"ipc://{tmp_path}/closed", SECRET)
    inbox = Inbox(post, "main")
    inbox.close()
    inbox.ring()
    post.close()


def test_a_sleeping_worker_is_woken_by_whoever_notifies_it(box: Box) -> None:
    bell, there = Doorbell(box.inbox), []

    def notify() -> None:
        with bell:  # only to be had while the worker sleeps
            there.append("packet")
            bell.notify_all()

    with bell:
        thread = threading.Thread(target=notify)
        thread.start()
        assert there == []
        bell.sleep(60)
        assert there == ["packet"]
    thread.join()


def test_who_waits_at_the_condition_itself_is_woken_too(box: Box) -> None:
    bell, woken = Doorbell(box.inbox), threading.Event()
    waiting = threading.Event()

    def source() -> None:
        with bell:
            waiting.set()
            if bell.wait(60):
                woken.set()

    thread = threading.Thread(target=source)
    thread.start()
    assert waiting.wait(10)
    with bell:
        bell.notify_all()
    thread.join(10)
    assert woken.is_set()
