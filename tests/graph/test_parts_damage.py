"""Messages that are damaged, foreign, of another version, doubled or out of order: counted, told once a link, and nothing else stops."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import zmq
from parts_kit import Crew, shows

from posepipe.pipeline.headers import LINK_VERSION
from posepipe.pipeline.inbox import DATA, SECRET_BYTES

Make = Callable[..., Crew]
FRAMES = 30
Message = list[bytes]
Damage = Callable[[random.Random, Message], list[Message]]


def studio_of(queue: str) -> str:
    """Frames, instants, numbers and feedback cross from process to process; a view beside the way."""
    return f"""capture: {{use: mem.camera, each: {{north: {{}}, south: {{}}}}, frames: {FRAMES}, period_s: 0.002}}
    instants: {{use: mem.instants, from: capture, queue: {queue}}}
    work: {{use: mem.work, from: instants, feedback: plus, process: late, queue: {queue}}}
    plus: {{use: mem.plus, from: work, process: out, queue: {queue}}}
    sink: {{use: mem.sink, from: plus, process: out, queue: {queue}}}
    view: {{use: mem.view, from: work, process: own, queue: {queue}}}"""


WIDE, LOSSLESS = "{size: 300}", "{size: 300, full: block}"


class Noisy:
    """A socket that sends more than it was given."""

    def __init__(self, socket: Any, rng: random.Random, damage: Damage, *, instead: float = 0.0) -> None:
        self._socket, self._rng, self._damage, self._instead = socket, rng, damage, instead
        self.data = self.replaced = 0

    def send_multipart(self, parts: Sequence[bytes], flags: int) -> None:
        message = [bytes(part) for part in parts]
        replace = len(message) > 1 and message[0][SECRET_BYTES] == DATA and self._rng.random() < self._instead
        self.replaced += replace
        for one in [*([] if replace else [message]), *self._damage(self._rng, message)]:
            self._socket.send_multipart(one, flags)

    def poll(self, *arguments: Any) -> int:
        return int(self._socket.poll(*arguments))


def ran(studio: Crew, seed: int, damage: Damage, *, instead: float = 0.0) -> tuple[list[int], int, int, int]:
    """Every socket of the studio is noisy. Numbers that the sink got, damaged and foreign messages, packets that were replaced."""
    rng = random.Random(seed)
    studio.hooks["work"] = lambda frames: shows(frames) and int(frames.seq)
    studio.spawn()
    noisy: list[Noisy] = []
    for member in studio.members.values():
        for link in member.bridge.leaving.values():
            link._socket = Noisy(link._socket, rng, damage, instead=instead)
            noisy.append(link._socket)
        for arrivals in member.bridge.arriving.values():
            if arrivals._back is not None:
                arrivals._back = Noisy(arrivals._back, rng, damage)
    studio.start()
    got, members, work = studio.sink(), list(studio.members.values()), studio.slot("work")
    studio.finish()
    assert work.errors == 0, "no picture is taken for another"
    damaged = sum(arrivals.damaged for member in members for arrivals in member.bridge.arriving.values())
    return [seq for seq, _ in got], damaged, sum(member.inbox.foreign for member in members), sum(one.replaced for one in noisy)


def published(studio: Crew) -> None:
    """Whatever came beside them, all frames have arrived and all accounts are settled."""
    assert (studio.ledger.captured, studio.ledger.published, studio.ledger.in_flight) == (2 * FRAMES, 2 * FRAMES, 0)
    assert studio.dropped() == {}


def told_once_a_link(studio: Crew) -> None:
    links = [warning.split(":")[0] for warning in studio.warnings]
    assert len(links) == len(set(links))
    assert all("counted from now on" in warning for warning in studio.warnings)


def random_bytes(rng: random.Random, _: Message) -> list[Message]:
    return [[rng.randbytes(rng.choice((0, 1, 15, 40, 400))) for _ in range(rng.randint(1, 4))]]


def wrong_secret(rng: random.Random, message: Message) -> list[Message]:
    head = rng.randbytes(SECRET_BYTES) + message[0][SECRET_BYTES:]
    return [[head[:-4] + zlib.crc32(head[:-4]).to_bytes(4, "little"), *message[1:]]]


def a_flipped_bit(rng: random.Random, message: Message) -> list[Message]:
    """In the head or in the packet."""
    part = rng.randrange(min(len(message), 2) if message[0][SECRET_BYTES] == DATA else 1)
    damaged = bytearray(message[part])
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return [[*message[:part], bytes(damaged), *message[part + 1 :]]]


def cut_short(rng: random.Random, message: Message) -> list[Message]:
    part = rng.randrange(min(len(message), 2) if message[0][SECRET_BYTES] == DATA else 1)
    return [[*message[:part], message[part][: rng.randrange(len(message[part]))], *message[part + 1 :]]]


def another_version(_: random.Random, message: Message) -> list[Message]:
    if message[0][SECRET_BYTES] != DATA:
        return []
    rest = message[1][8:]
    sealed = b"PPL" + bytes([LINK_VERSION + 1]) + zlib.crc32(rest, LINK_VERSION + 1).to_bytes(4, "little") + rest
    return [[message[0], sealed, *message[2:]]]


@pytest.mark.parametrize("queue", [WIDE, LOSSLESS])
@pytest.mark.parametrize("damage", [random_bytes, wrong_secret, a_flipped_bit, cut_short, another_version])
def test_damage_beside_the_messages_costs_nothing(crew: Make, damage: Damage, queue: str) -> None:
    studio = crew(studio_of(queue), slots=200)
    got, damaged, foreign, _ = ran(studio, 1, damage)
    assert got == list(range(FRAMES))
    published(studio)
    told_once_a_link(studio)
    if damage in (random_bytes, wrong_secret):
        assert (damaged, studio.warnings) == (0, [])
        assert foreign > 5 * FRAMES
    elif damage is another_version:
        assert foreign == 0
        assert damaged > 5 * FRAMES
        assert len(studio.warnings) == 6, "one for each link"
        assert all(f"a peer speaks link version {LINK_VERSION + 1}, this is {LINK_VERSION}" in warning for warning in studio.warnings)
    else:
        assert min(damaged, foreign) > FRAMES


@pytest.mark.parametrize("queue", [WIDE, "{size: 4, full: block}"])
@pytest.mark.parametrize("seed", range(3))
def test_damage_in_place_of_messages_costs_these_and_holds_nobody_up(crew: Make, seed: int, queue: str) -> None:
    """As `a_flipped_bit`, but the packet itself never comes: its frames are known to nobody until they are given up."""
    studio = crew(studio_of(queue), slots=200)

    def in_the_packet(rng: random.Random, message: Message) -> list[Message]:
        if len(message) == 1 or message[0][SECRET_BYTES] != DATA:
            return []
        damaged = bytearray(message[1])
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        return [[message[0], bytes(damaged), *message[2:]]]

    got, damaged, foreign, replaced = ran(studio, seed, in_the_packet, instead=0.1)
    assert got == sorted(set(got))
    assert 0 < replaced < damaged
    assert foreign == 0
    told_once_a_link(studio)
    assert studio.ledger.balance == 0
    held = studio.ledger.in_flight
    assert 0 < held < 2 * FRAMES
    before = studio.ledger.published
    studio.ledger.close("graph", "lost on the way")
    dropped = studio.dropped()
    assert set(dropped) <= {("graph", "lost on the way")}
    assert studio.ledger.published + sum(dropped.values()) == 2 * FRAMES
    assert before <= studio.ledger.published
    assert (studio.ledger.in_flight, studio.ledger.balance) == (0, 0)


@pytest.mark.parametrize("queue", [WIDE, LOSSLESS])
@pytest.mark.parametrize("join", ["mem.instants", "sync.instant, wait_ms: 10000, window_ms: 0.5"])
@pytest.mark.parametrize("seed", range(3))
def test_messages_that_come_twice_are_counted_once(crew: Make, seed: int, join: str, queue: str) -> None:
    studio = crew(studio_of(queue).replace("mem.instants", join), slots=200)
    got, damaged, foreign, _ = ran(studio, seed, lambda rng, message: [message] * rng.choice((0, 0, 1, 2)))
    assert set(got) == set(range(FRAMES))
    assert len(got) > FRAMES
    published(studio)
    assert (damaged, foreign, studio.warnings) == (0, 0, [])


class Shuffled(Noisy):
    """Holds messages back and sends them after later ones; the last two leave in order."""

    def __init__(self, socket: Any, rng: random.Random) -> None:
        super().__init__(socket, rng, lambda *_: [])
        self._held: list[Message] = []

    def send_multipart(self, parts: Sequence[bytes], flags: int) -> None:
        message = [bytes(part) for part in parts]
        ends = message[0][SECRET_BYTES] != DATA
        if not ends and self._rng.random() < 0.3:
            self._held.append(message)
            return
        for one in [*self._held, message] if ends else [message, *self._held]:
            self._socket.send_multipart(one, flags)
        self._held.clear()


@pytest.mark.parametrize("queue", [WIDE, LOSSLESS])
@pytest.mark.parametrize("seed", range(4))
def test_messages_that_overtake_each_other_all_arrive(crew: Make, seed: int, queue: str) -> None:
    studio, rng = crew(studio_of(queue), slots=200), random.Random(seed)
    studio.spawn()
    for member in studio.members.values():
        for link in member.bridge.leaving.values():
            link._socket = Shuffled(link._socket, rng)
    studio.start()
    got = studio.sink()
    studio.finish()
    assert {seq for seq, _ in got} == set(range(FRAMES))
    assert [seq for seq, _ in got] != sorted(seq for seq, _ in got), "they did overtake each other"
    published(studio)
    assert studio.warnings == []


def test_a_stranger_who_writes_all_the_time_holds_nobody_up(crew: Make) -> None:
    studio = crew(studio_of(WIDE), slots=200)
    studio.spawn()
    stranger = zmq.Context.instance().socket(zmq.PUSH)
    stranger.connect(studio.address("main"))
    assert stranger.poll(20_000, zmq.POLLOUT)
    inbox = studio.members["main"].inbox
    studio.hooks["capture/north"] = lambda _: [stranger.send_multipart([b"hello"] * n, zmq.NOBLOCK) for n in range(1, 20)]
    studio.start()
    got = studio.sink()
    studio.finish()
    stranger.close(linger=0)
    assert [seq for seq, _ in got] == list(range(FRAMES))
    published(studio)
    assert inbox.foreign > 0
