"""Links between hosts: pictures arrive in messages, a worker that comes again is found again, and nobody without the right key gets anything."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from far_kit import HERE, FarCrew
from memory_nodes import Hooked
from parts_kit import until

from posepipe.pipeline.far import Far, Peer
from posepipe.pipeline.inbox import DATA, Inbox, Post

SECRET = b"8 bytes."
CURVE_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
"""ZMTP 3.0 (ZeroMQ RFC 23): signature, version, mechanism, as-server, filler: 64 bytes."""
LINE = """
    capture: {{use: mem.camera, each: {{north: {{host: a}}, south: {{host: b}}}}, frames: {frames}, period_s: 0.002}}
    instants: {{use: mem.instants, from: capture, wire: {wire}, queue: {{size: 64, full: {full}}}}}
    work: {{use: mem.work, from: instants, feedback: plus, host: b, wire: {wire}, queue: {{size: 64, full: {full}}}}}
    plus: {{use: mem.plus, from: work, process: late, queue: {{size: 64, full: {full}}}}}
    sink: {{use: mem.sink, from: plus, host: b, queue: {{size: 64, full: {full}}}}}
"""


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Callable[[str], FarCrew]]:
    made: list[FarCrew] = []

    def make(nodes: str) -> FarCrew:
        made.append(FarCrew(tmp_path, nodes))
        return made[-1]

    Hooked.hooks.clear()
    yield make
    Hooked.hooks.clear()
    for one in made:
        one.close()


@pytest.mark.parametrize("wire", ["raw", "{codec: jpeg, quality: 95}", "{codec: h264, quality: 95}"])
@pytest.mark.parametrize("full", ["drop_oldest", "block"])
def test_a_studio_on_three_hosts_is_the_same_studio(crew: Any, wire: str, full: str) -> None:
    studio = crew(LINE.format(frames=30, wire=wire, full=full))
    off: list[int] = []

    def look(instant: Any) -> int:
        for frame in instant.frames.values():
            off.extend(int(np.abs(plane.astype(int) - frame.seq % 256).max()) for plane in frame.planes)
        return int(instant.seq)

    studio.hooks["work"] = look
    studio.run()
    assert studio.warnings == []
    assert studio.dropped() == {}
    assert (studio.ledger.captured, studio.ledger.published) == (60, 60)
    assert max(off) <= (0 if wire == "raw" else 6)


def test_a_reader_that_comes_again_is_found_again_and_gets_whole_pictures(crew: Any) -> None:
    """Another port, other keys, and an H.264 stream that it has not seen the beginning of."""
    studio = crew(LINE.format(frames=10_000, wire="h264", full="drop_oldest"))
    studio.spawn()
    studio.start()
    until(lambda: len(studio.sink()) > 5)
    first = studio.peers["main"]
    studio.kill("main")
    studio.spawn("main")
    assert studio.peers["main"] != first
    studio.start("main")
    seen = len(studio.sink())
    until(lambda: len(studio.sink()) > seen + 20)
    studio.stop()
    studio.finish()
    reasons = {reason for _, reason in studio.dropped()}
    assert reasons <= {
        "worker main is down, or the network to it is too slow",
        "cannot be decoded without pictures that were lost",
        "queue full (drop_oldest)",
        "in flight at the stop",
    }, reasons


# who is let in ------------------------------------------------------------------------------------------------------------------


class Host:
    """One process on some host: it listens, and counts what gets through."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.got: list[bytes] = []
        self.post = Post(lambda worker: f"inproc://{worker}", SECRET)
        self.far = self.post.far = Far(self.post.context, self.said.append)
        self.inbox = Inbox(self.post, "here")
        self.inbox.on[0] = self._take
        self.here = self.inbox.listen_far(self.far, HERE)

    def _take(self, kind: int, payload: Any) -> bool:
        self.got.append(payload[0].bytes)
        return kind == DATA

    def hears(self, for_s: float = 0.0, until: Callable[[], bool] = lambda: False) -> list[bytes]:
        end = time.monotonic() + for_s
        while not until() and time.monotonic() < end:
            self.inbox.wait(0.02)
            self.inbox.handle()
        return self.got

    def close(self) -> None:
        self.inbox.close()
        self.post.close()


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


@pytest.fixture
def stranger() -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.linger = 0
        yield push


def refused(host: Host, stranger: Any) -> str:
    """Whoever it is has the address and even the studio's secret, and sends; nothing arrives, and it is said once."""
    stranger.connect(host.here.address)
    sender = threading.Thread(target=stranger.send_multipart, args=([host.post.head(DATA, 0), b"let me in"],), daemon=True)
    sender.start()
    host.hears(10, until=lambda: bool(host.said))
    assert host.got == []
    assert host.inbox.foreign == 0, "it did not even get to where messages are looked at"
    assert len(host.said) == 1, host.said
    (said,) = host.said
    assert host.far.doorkeeper.refused > 0
    return said


def test_the_right_key_gets_through(host: Host) -> None:
    other = Host()
    try:
        host.far.doorkeeper.allow([other.here.key])
        way = other.post.to_far("there")
        assert other.far.know({"there": host.here}, within_s=10)
        way.send_multipart([other.post.head(DATA, 0), b"hello"], zmq.NOBLOCK)
        assert host.hears(10, until=lambda: bool(host.got)) == [b"hello"]
        assert host.said == []
    finally:
        other.close()


def test_a_key_that_was_not_introduced_gets_nothing(host: Host, stranger: Any) -> None:
    stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
    stranger.curve_serverkey = host.here.key
    host.far.doorkeeper.allow([zmq.curve_keypair()[0]])
    assert refused(host, stranger) == (
        "127.0.0.1 was refused: its key is not one of this studio's; further attempts from there are counted without a message"
    )


def test_who_does_not_know_our_key_gets_nothing(host: Host, stranger: Any) -> None:
    public, private = zmq.curve_keypair()
    stranger.curve_publickey, stranger.curve_secretkey, stranger.curve_serverkey = public, private, zmq.curve_keypair()[0]
    host.far.doorkeeper.allow([public])
    assert "it has no key, or not the right one" in refused(host, stranger)


def test_who_has_no_key_gets_nothing(host: Host, stranger: Any) -> None:
    """Who it was can only be told when the connection lasted long enough to be looked at."""
    assert "was refused: it has no key, or not the right one" in refused(host, stranger)


def test_who_stalls_in_the_handshake_is_not_accused(host: Host) -> None:
    """A host that stood still for longer than a handshake may last is cut off and comes again; it had the right key all the time."""
    door = host.here.address.removeprefix("tcp://").rsplit(":", 1)
    with socket.create_connection((door[0], int(door[1]))) as slow:
        slow.sendall(CURVE_GREETING)
        slow.settimeout(10)
        assert len(slow.recv(len(CURVE_GREETING), socket.MSG_WAITALL)) == len(CURVE_GREETING), "the door greets first"
        assert slow.recv(1) == b"", "the handshake was ended"
    host.hears(0.5)
    assert host.said == []
    assert host.far.doorkeeper.refused == 0


def test_the_key_of_an_earlier_life_opens_no_door(host: Host, stranger: Any) -> None:
    public, private = zmq.curve_keypair()
    host.far.know({"other": Peer("tcp://127.0.0.1:1", public)}, within_s=0)
    host.far.know({"other": Peer("tcp://127.0.0.1:1", zmq.curve_keypair()[0])}, within_s=0)
    stranger.curve_publickey, stranger.curve_secretkey, stranger.curve_serverkey = public, private, host.here.key
    assert "its key is not one of this studio's" in refused(host, stranger)


def test_who_pretends_to_be_a_worker_is_not_written_to(host: Host) -> None:
    """The address is right, the key is another's: the writer does not connect."""
    other = Host()
    try:
        host.far.doorkeeper.allow([other.here.key])
        other.post.to_far("there")
        assert not other.far.know({"there": Peer(host.here.address, zmq.curve_keypair()[0])}, within_s=0.5)
        assert host.hears(0.1) == []
    finally:
        other.close()
