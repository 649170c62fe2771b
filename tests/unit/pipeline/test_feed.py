"""A live source that goes is brought back: when it is tried, what is said, how its frames are numbered. Time is the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_nodes import MEMORY, Camera, Harness, dropped, got

from posepipe.pipeline import part
from posepipe.pipeline.errors import GraphError, PosepipeError, RigError, SourceError
from posepipe.pipeline.feed import LOOK_EVERY_S, Feed
from posepipe.pipeline.graph import load_plan
from posepipe.pipeline.ledger import Ledger
from posepipe.pipeline.node import Context, FrameLost, Source
from posepipe.pipeline.packet import Frame, Packet
from posepipe.pipeline.reconnect import Backoff
from posepipe.pipeline.worker import Shared, Slot

PIXELS = np.zeros((2, 2), np.uint8)
T0_NS = 1_700_000_000_000_000_000
PERIOD_S = 0.04
GONE = SourceError("nothing for 2.0 s", where="camera north")
REFUSED = SourceError("rtsp://north cannot be opened: Connection refused", where="camera north")
LOST = FrameLost("corrupt picture")

Connection = list[int | Exception] | PosepipeError
"""What one `open` leads to: it fails, or so many frames come (or one is lost), up to an error or the end."""


@dataclass
class World:
    """Time, the camera in it, and everything that is seen from outside."""

    connections: Iterable[Connection]
    there: Callable[[float], bool | None] = lambda _s: None
    """Whether the camera can be reached at a time (seconds)."""
    stop_after_s: float = 1e9
    offline: bool = False
    live: bool = True
    seconds: float | None = None
    now_s: float = 0.0
    looked: list[float] = field(default_factory=list)
    tried: list[float] = field(default_factory=list)
    closed: int = 0
    frames: list[tuple[float, int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def now_ns(self) -> int:
        return T0_NS + round(self.now_s * 1e9)

    def run(self, folder: Path, **begin: Any) -> Feed:
        """The studio from its start to the end of the feed."""
        file = folder / "hall.yaml"
        file.write_text("studio: hall\nnodes: {capture: {use: test.camera, each: {north: {}}}}\n")
        plan = load_plan(file, {"test.camera": TestCamera})
        shared = Shared(offline=self.offline, trace=None, ledger=Ledger())
        shared.clock = self  # type: ignore[assignment]
        node = TestCamera(plan.nodes[0].settings)
        node.world, node.connections = self, iter(self.connections)
        slot = Slot(plan.nodes[0], node, shared)
        slot.outputs.append(_Taken(self))

        def wait(seconds: float) -> bool:
            self.now_s += seconds
            if self.now_s >= self.stop_after_s:
                shared.stop.set()
            return shared.stop.is_set()

        feed = Feed(
            slot,
            seconds=self.seconds,
            warn=self.warnings.append,
            failed=lambda _slot, e: self.failures.append(e),
            backoff=Backoff(lambda: 0.0),
            wait=wait,
        )
        feed.open(_context(self, shared))
        feed.begin(self.now_ns(), **begin)
        feed.join(20)
        assert not feed.is_alive()
        self.ledger = shared.ledger
        return feed


class _Taken:
    reader, why, room = "sink", "", True

    def __init__(self, world: World) -> None:
        self.world = world

    def put(self, packet: Packet[Frame], *, wait: bool) -> None:
        self.world.frames.append((round(self.world.now_s, 3), packet.seq))

    def end(self) -> None: ...


class TestCamera(Source):
    use = "test.camera"
    world: World
    connections: Any
    __test__ = False

    @property
    def live(self) -> bool:
        return self.world.live

    def reachable(self) -> bool | None:
        self.world.looked.append(round(self.world.now_s, 3))
        return self.world.there(self.world.now_s)

    def open(self, ctx: Context) -> None:
        self.world.tried.append(round(self.world.now_s, 3))
        self.ctx, self.seq = ctx, 0
        connection = next(self.connections, GONE)
        if isinstance(connection, PosepipeError):
            raise connection
        self.left = [x for entry in connection for x in ([None] * entry if isinstance(entry, int) else [entry])]

    def step(self) -> Frame | None:
        self.world.now_s += PERIOD_S
        if not self.left:
            self.ctx.stopping.set()
            return None
        event = self.left.pop(0)
        if isinstance(event, FrameLost):
            self.seq += 1
        if event is not None:
            raise event
        self.seq += 1
        return Frame("north", self.seq - 1, self.world.now_ns(), "i420", 2, 2, (PIXELS, PIXELS[:1, :1], PIXELS[:1, :1]))

    def close(self) -> None:
        self.world.closed += 1


def _context(world: World, shared: Shared) -> Context:
    return Context(
        studio="hall",
        name="capture/north",
        key="north",
        cameras=("north",),
        caps={},
        graph_sha256="",
        offline=world.offline,
        loop=False,
        rig=None,
        engines={},
        resolve=Path,
        now_ns=world.now_ns,
        stopping=shared.stop,
        drop=lambda _body, _reason: None,
        warn=world.warnings.append,
    )


# when it is tried -------------------------------------------------------------------------------------------------------------


def test_it_is_tried_after_1_2_4_up_to_30_seconds_for_ever(tmp_path: Path) -> None:
    world = World([[1, GONE], *[REFUSED] * 12, [2]])
    feed = world.run(tmp_path)
    waits = np.diff([world.tried[0] + 2 * PERIOD_S, *world.tried[1:]])
    assert [round(w) for w in waits] == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30, 30, 30]
    assert [seq for _, seq in world.frames] == [0, 1, 2]
    assert (feed.state.state, feed.state.returns) == ("connected", 1)


def test_a_server_that_returns_is_tried_within_a_second_however_long_it_was_away(tmp_path: Path) -> None:
    back_s = 7200.4
    world = World([[1, GONE], [1]], there=lambda s: s < 1 or s >= back_s)
    world.run(tmp_path)
    assert len(world.tried) == 2, "a server that is not there is looked for, not opened"
    assert back_s <= world.tried[1] <= back_s + LOOK_EVERY_S


def test_a_server_that_is_there_without_a_picture_is_tried_by_the_schedule(tmp_path: Path) -> None:
    world = World([[1, GONE], *[REFUSED] * 4, [1]], there=lambda _s: True)
    world.run(tmp_path)
    assert [round(w) for w in np.diff(world.tried)[1:]] == [2, 4, 8, 16]


def test_a_server_that_has_just_returned_and_is_not_ready_is_tried_again_soon(tmp_path: Path) -> None:
    world = World([[1, GONE], REFUSED, REFUSED, [1]], there=lambda s: s < 1 or s >= 100)
    world.run(tmp_path)
    assert world.tried[1] <= 101
    assert [round(w) for w in np.diff(world.tried)[1:]] == [1, 2]


def test_a_connection_that_breaks_at_once_again_and_again_is_no_reason_to_hurry(tmp_path: Path) -> None:
    world = World([*[[1, GONE]] * 5, [1]])
    world.run(tmp_path)
    assert [round(w) for w in np.diff(world.tried)] == [1, 2, 4, 8, 16]


def test_after_a_good_connection_the_waits_are_short_again(tmp_path: Path) -> None:
    world = World([[1, GONE], REFUSED, REFUSED, [300, GONE], [1]])
    world.run(tmp_path)
    assert round(world.tried[-1] - world.tried[-2] - 300 * PERIOD_S) == 1


@given(st.floats(0.5, 200))
def test_a_stop_ends_the_waiting(tmp_path_factory: pytest.TempPathFactory, stop_s: float) -> None:
    world = World([[1, GONE], *[REFUSED] * 100], stop_after_s=stop_s)
    world.run(tmp_path_factory.mktemp("hall"))
    assert all(t <= stop_s + 1 for t in world.tried)
    assert world.failures == []


def test_a_run_for_some_seconds_ends_without_the_camera(tmp_path: Path) -> None:
    world = World([[1, GONE], *[REFUSED] * 100], seconds=12.0)
    world.run(tmp_path)
    assert 12 <= world.now_s < 14
    assert world.failures == []


# what is said and kept --------------------------------------------------------------------------------------------------------


def test_one_warning_when_it_goes_and_one_when_it_is_back(tmp_path: Path) -> None:
    world = World([[5, GONE], REFUSED, REFUSED, [3]])
    feed = world.run(tmp_path)
    assert world.warnings == ["camera north: nothing for 2.0 s; trying again", "camera north is back after 7.0 s"]
    assert feed.state.why == ""
    assert world.closed == 3, "closed before every new attempt"


def test_numbers_go_on_and_count_the_lost(tmp_path: Path) -> None:
    """Two connections, each counting from 0; a frame lost at the end of the first keeps its number."""
    world = World([[2, LOST, 1, LOST, GONE], [1, LOST, 1]])
    world.run(tmp_path)
    assert [seq for _, seq in world.frames] == [0, 1, 3, 5, 7]
    assert [(d.reason, d.count) for d in world.ledger.dropped] == [("corrupt picture", 3)]


def test_numbers_go_on_from_an_earlier_life_of_its_worker(tmp_path: Path) -> None:
    world = World([[1, GONE], [2]])
    world.run(tmp_path, next_seq=40)
    assert [seq for _, seq in world.frames] == [40, 41, 42]


def test_the_state_says_since_when_it_is_away_and_why(tmp_path: Path) -> None:
    world = World([[1, GONE], *[REFUSED] * 50], stop_after_s=100)
    state = world.run(tmp_path).state
    assert (state.state, state.returns, state.why) == ("away", 0, REFUSED.what)
    assert state.since_ns == T0_NS + round(2 * PERIOD_S * 1e9)


def test_a_camera_that_returns_as_another_is_told_of_once(tmp_path: Path) -> None:
    """Its size changed, say: there is something for the user to do."""
    other = RigError("camera 'north' was calibrated at 640x480, its video is 320x240", hint="calibrate again")
    world = World([[1, GONE], *[other] * 5, [1]])
    world.run(tmp_path)
    assert world.warnings[1] == f"camera north: {other}"
    assert [w for w in world.warnings if "calibrated" in w] == [world.warnings[1]]
    assert "is back" in world.warnings[-1]


# the start --------------------------------------------------------------------------------------------------------------------


def test_a_camera_that_is_not_there_at_the_start_joins_late(tmp_path: Path) -> None:
    world = World([REFUSED, REFUSED, [2]])
    world.run(tmp_path)
    assert [seq for _, seq in world.frames] == [0, 1]
    assert world.warnings == [f"camera north: {REFUSED.what}; trying again", "camera north has come after 3.0 s"]


def test_a_camera_that_cannot_be_reached_does_not_hold_up_the_start(tmp_path: Path) -> None:
    world = World([[1]], there=lambda s: s >= 50)
    world.run(tmp_path)
    assert world.tried[0] >= 50, "opening could take its whole time-out"
    assert world.warnings[0] == "camera north: test.camera cannot be reached; trying again"


def test_what_is_wrong_with_the_studio_file_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="does not let this user in"):
        World([GraphError("rtsp://north does not let this user in")]).run(tmp_path)


@pytest.mark.parametrize("how", [{"live": False}, {"offline": True}])
def test_a_recording_that_is_missing_is_refused_before_the_start(tmp_path: Path, how: dict[str, bool]) -> None:
    with pytest.raises(SourceError, match="Connection refused"):
        World([REFUSED], **how).run(tmp_path)


def test_a_recording_that_breaks_is_not_tried_again(tmp_path: Path) -> None:
    world = World([[1, GONE], [1]], live=False)
    world.run(tmp_path)
    assert world.failures == [GONE]
    assert len(world.tried) == 1


# in a studio ------------------------------------------------------------------------------------------------------------------


class LiveCamera(Camera):
    """A camera of the other tests that comes back when its hook raises."""

    use = "mem.live"
    live = True


class _AtOnce(Backoff):
    def next_s(self) -> float:
        return 0.0


def test_a_studio_goes_on_while_one_camera_is_away_and_loses_nothing_of_the_others(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MEMORY, "mem.live", LiveCamera)
    monkeypatch.setattr(part, "Feed", partial(Feed, backoff=_AtOnce()))
    opened: list[None] = []

    def north(_: object) -> None:
        opened.append(None)
        if len(opened) in (1, 3):
            raise SourceError("rtsp://north cannot be opened", where="camera north")

    def north_breaks(seq: int) -> None:
        if len(opened) == 2 and seq == 4:
            raise SourceError("the stream broke off", where="camera north")

    harness.hooks["open capture/north"] = north
    harness.hooks["capture/north"] = north_breaks
    runner = harness.run(
        "capture: {use: mem.live, each: {north: {}, south: {}}, frames: 12, period_s: null}\n"
        "instants: {use: mem.instants, from: capture, queue: {size: 64}}\n"
        "work: {use: mem.work, from: instants, queue: {size: 64}}\nsink: {use: mem.sink, from: work, queue: {size: 64}}\n"
    )
    assert [seq for seq, _ in got(runner)] == list(range(16)), "4 frames of north before it broke off, 12 after"
    assert dropped(runner) == {}
    assert len(opened) == 4
    assert [w.partition(" after ")[0] for w in harness.warnings] == [
        "camera north: rtsp://north cannot be opened; trying again",
        "camera north has come",
        "camera north: the stream broke off; trying again",
        "camera north is back",
    ]
