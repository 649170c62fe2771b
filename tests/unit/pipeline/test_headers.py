from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from posepipe.pipeline.errors import RunError
from posepipe.pipeline.headers import LINK_VERSION, FrameRef, FrameSetRef, Headers
from posepipe.pipeline.packet import F32, WHOLE, Actions, Bodies, Frame, FrameSet, Packet, Poses, Span, Sync, ViewPoses
from posepipe.pipeline.ring import SlotRef

CAMERAS = ("north", "east", "süd", "west")

int64 = st.integers(-(2**63), 2**63 - 1)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
frame_ids = st.lists(st.tuples(names, int64), max_size=5).map(tuple)
traces = st.lists(st.builds(Span, names, int64, int64), max_size=5).map(tuple)
figures = st.lists(st.none() | st.floats(-1e3, 1e3), max_size=4).map(tuple)
syncs = st.builds(Sync, st.integers(0, 10**9), st.just((0, 2)), st.just((1, 3)), figures, figures, figures)
counts = st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(1, 40))
slot_refs = st.builds(SlotRef, st.integers(0, 2**62), st.integers(0, 63), int64)


def _arrays(seed: int, *shapes: tuple[int, ...]) -> Iterator[Any]:
    """float32 of any bit pattern: NaN, inf and denormals have to arrive as they are."""
    rng = np.random.default_rng(seed)
    for shape in shapes:
        yield rng.integers(0, 2**32, shape, np.uint32).view(np.float32)


def view_poses(seed: int, counts: tuple[int, int, int], sync: Sync) -> ViewPoses:
    p, c, j = counts
    ids = np.random.default_rng(seed).integers(-1, 2**62, p)
    return ViewPoses(CAMERAS[:c], "coco17", sync, ids, *_arrays(seed, (p, c, j, 2), (p, c, j), (p, c)))


def poses(seed: int, counts: tuple[int, int, int], sync: Sync) -> Poses:
    p, c, j = counts
    rng = np.random.default_rng(seed)
    xyz, conf, sigma, reproj = _arrays(seed, (p, j, 3), (p, j), (p, j), (p,))
    return Poses(
        CAMERAS[:c], "blazepose33", sync, "algebraic", rng.integers(0, 9, p), xyz, conf, sigma, reproj, rng.integers(0, 9, (p, j), np.uint8)
    )


def with_bodies(seed: int, counts: tuple[int, int, int], sync: Sync) -> Poses:
    bare = poses(seed, counts, sync)
    return replace(bare, bodies=Bodies("posepipe.adult", *_arrays(seed, (len(bare.ids), 24, 6), (len(bare.ids), 16), (len(bare.ids), 3))))


def actions(seed: int, people: int, labels: int) -> Actions:
    rng = np.random.default_rng(seed)
    return Actions(rng.integers(0, 2**62, people), rng.integers(-1, labels, people), *_arrays(seed, (people, labels)))


def packets(bodies: st.SearchStrategy[Any]) -> st.SearchStrategy[Packet[Any]]:
    """With shares, one for each frame, or whole (none)."""
    parts = st.integers(0, WHOLE)
    return st.builds(Packet, int64, int64, names, bodies, traces, frame_ids).flatmap(
        lambda p: st.tuples(*[parts] * len(p.frames)).flatmap(lambda some: st.sampled_from([p, replace(p, shares=some)]))
    )


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    for field in fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, Bodies):
            assert_same(x, y)
        elif isinstance(x, np.ndarray):
            assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
            assert not y.flags.writeable
        else:
            assert x == y


def a_frame(camera: str = "north", seq: int = 3) -> Frame:
    planes = tuple(np.full(shape, seq % 256, np.uint8) for shape in ((4, 6), (2, 3), (2, 3)))
    return Frame(camera, seq, 1_700_000_000_000_000_000 + seq, "i420", 6, 4, planes)


def in_slot(frame: Frame) -> Frame:
    return replace(frame, slot=SlotRef(2**61, 5, 2**40))


def a_packet(body: Any, frames: tuple[tuple[str, int], ...] = (("north", 3),)) -> Packet[Any]:
    return Packet(3, 1_700_000_000_000_000_003, "capture.north", body, (Span("capture.north", 5, 6),), frames)


# there and back -----------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(packets(st.builds(view_poses, st.integers(0, 999), counts, syncs)))
def test_key_points_arrive_as_they_were(packet: Packet[ViewPoses]) -> None:
    arrived = Headers(ViewPoses).decode(Headers(ViewPoses).encode(packet), where="link")
    assert_same(packet.body, arrived.body)
    assert replace(arrived, body=None) == replace(packet, body=None)


@settings(max_examples=60, deadline=None)
@given(packets(st.builds(poses, st.integers(0, 999), counts, syncs) | st.builds(with_bodies, st.integers(0, 999), counts, syncs)))
def test_skeletons_arrive_as_they_were(packet: Packet[Poses]) -> None:
    arrived = Headers(Poses).decode(Headers(Poses).encode(packet), where="link")
    assert_same(packet.body, arrived.body)
    assert replace(arrived, body=None) == replace(packet, body=None)


@settings(max_examples=40, deadline=None)
@given(packets(st.builds(actions, st.integers(0, 999), st.integers(0, 4), st.integers(1, 9))))
def test_actions_arrive_as_they_were(packet: Packet[Actions]) -> None:
    arrived = Headers(Actions).decode(Headers(Actions).encode(packet), where="link")
    assert_same(packet.body, arrived.body)
    assert replace(arrived, body=None) == replace(packet, body=None)


@settings(max_examples=60, deadline=None)
@given(seq=int64, t=int64, camera=names, slot=slot_refs, trace=traces, share=st.integers(0, WHOLE))
def test_a_frame_arrives_as_its_reference(seq: int, t: int, camera: str, slot: SlotRef, trace: tuple[Span, ...], share: int) -> None:
    frame = replace(a_frame(), camera=camera, seq=seq, t_capture_ns=t, slot=slot)
    packet = Packet(seq, t, "capture." + camera, frame, trace, frame.frame_ids, (share,))
    arrived = Headers(Frame).decode(Headers(Frame).encode(packet), where="link")
    assert arrived == replace(packet, body=FrameRef(camera, seq, t, slot))


@settings(max_examples=40, deadline=None)
@given(seq=int64, t=int64, sync=syncs, slots=st.lists(slot_refs, min_size=1, max_size=4))
def test_an_instant_arrives_as_references(seq: int, t: int, sync: Sync, slots: list[SlotRef]) -> None:
    frames = {camera: replace(a_frame(camera, 10 + i), slot=slot) for i, (camera, slot) in enumerate(zip(CAMERAS, slots, strict=False))}
    packet = a_packet(FrameSet(seq, t, CAMERAS, frames, sync), tuple((f.camera, f.seq) for f in frames.values()))
    refs = tuple(FrameRef(f.camera, f.seq, f.t_capture_ns, f.slot) for f in frames.values())
    arrived = Headers(FrameSet).decode(Headers(FrameSet).encode(packet), where="link")
    assert arrived == replace(packet, body=FrameSetRef(seq, t, CAMERAS, refs, sync))


@dataclass(frozen=True, slots=True)
class Gaze:
    targets: tuple[str, ...]
    p: F32
    best: dict[str, int]


def test_a_body_that_a_user_defines_travels_too() -> None:
    body = Gaze(("door", "clock"), np.array([[0.25, 0.75]], np.float32)[:, ::-1], {"person": 1})
    arrived = Headers(Gaze).decode(Headers(Gaze).encode(a_packet(body)), where="link")
    assert arrived.body.p.tolist() == [[0.75, 0.25]]
    assert (arrived.body.targets, arrived.body.best) == (body.targets, body.best)


def test_a_frame_s_message_is_a_few_hundred_bytes() -> None:
    assert len(Headers(Frame).encode(a_packet(in_slot(a_frame())))) < 300


# not a message for this link ----------------------------------------------------------------------------------------------------


def _sealed(rest: bytes, version: int = LINK_VERSION) -> bytes:
    return b"PPL" + bytes([version]) + zlib.crc32(rest, version).to_bytes(4, "little") + rest


MESSAGE = Headers(Frame).encode(a_packet(in_slot(a_frame())))
SKELETONS = Headers(Poses).encode(a_packet(poses(1, (2, 4, 17), Sync(0, (0,), ()))))


def refused(data: bytes, body: type = Frame) -> RunError:
    with pytest.raises(RunError) as e:
        Headers(body).decode(data, where="link north -> instants")
    assert e.value.where == "link north -> instants"
    return e.value


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SKELETONS) - 1), st.integers(1, 255))
def test_a_message_with_a_damaged_byte_is_refused(at: int, flip: int) -> None:
    damaged = bytearray(SKELETONS)
    damaged[at] ^= flip
    refused(bytes(damaged), Poses)


@pytest.mark.parametrize("cut", range(0, len(MESSAGE), 3))
def test_a_message_that_is_cut_short_is_refused(cut: int) -> None:
    error = refused(MESSAGE[:cut])
    assert f"{cut} bytes" in error.what


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
@example(b"\x92" * 50_000)
@example(b"\x92\xa5Frame" + b"\x91" * 50_000)
@example(b"\x92\xa5Frame\xc1")
def test_bytes_of_the_right_form_that_are_no_packet_are_refused(rest: bytes) -> None:
    refused(_sealed(rest))
    refused(rest)


def test_a_peer_of_another_version_is_named_as_such() -> None:
    error = refused(_sealed(MESSAGE[8:], version=LINK_VERSION + 1))
    assert error.what == "a peer speaks link version 4, this is 3"
    assert "same posepipe" in error.hint


def test_a_peer_that_runs_another_graph_is_named_as_such() -> None:
    error = refused(SKELETONS)
    assert error.what == "a peer sends Poses, this link carries Frame"
    assert "same studio file" in error.hint


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("xyz_m", 5, r"\$\.body\.xyz_m"),
        ("xyz_m", ["<f4", [3], b"1234"], "cannot reshape"),
        ("xyz_m", ["<f4", [2, 3], b"12345"], "buffer size"),
        ("xyz_m", ["<f4", [-1], b"1234"], "shape"),
        ("xyz_m", ["<f8", [1], b"12345678"], "expected float32"),
        ("xyz_m", ["|O", [1], b"12345678"], "expected float32"),
        ("xyz_m", [["<f4"], [1], b"1234"], "expected float32"),
        ("xyz_m", ["<f4", [1], "text"], r"\$\.body\.xyz_m"),
        ("xyz_m", ["<f4", "text", b"1234"], r"\$\.body\.xyz_m"),
        ("tier", "guessed", "guessed"),
        ("bodies", {"model": "posepipe.adult"}, r"required field `pose`.*\$\.body\.bodies"),
        ("sync", None, "Expected `object`"),
        ("cameras", [1, 2], "Expected `str`, got `int`"),
    ],
)
def test_a_field_that_is_not_what_it_should_be_is_named(field: str, value: Any, says: str) -> None:
    message = msgspec.msgpack.decode(SKELETONS[8:])
    message[1]["body"][field] = value
    error = refused(_sealed(msgspec.msgpack.encode(message)), Poses)
    assert "does not read as Poses" in error.what
    assert re.search(says, error.what)


# not a packet for this link -----------------------------------------------------------------------------------------------------


def test_a_body_of_another_type_is_refused_by_the_sender() -> None:
    with pytest.raises(RunError, match="a Frame on a link that carries Poses") as e:
        Headers(Poses).encode(a_packet(a_frame()))
    assert e.value.where == "node capture.north"


def test_a_frame_without_a_slot_is_refused_by_the_sender() -> None:
    with pytest.raises(RunError, match="frame 3 of camera north lies in no slot"):
        Headers(Frame).encode(a_packet(a_frame()))


def test_what_cannot_travel_is_refused_by_the_sender() -> None:
    for value, says in ((object(), "an? object cannot travel"), (np.zeros(2, np.complex64), "an array of complex64 cannot travel")):
        with pytest.raises(RunError, match=says) as e:
            Headers(Gaze).encode(a_packet(Gaze((), value, {})))  # type: ignore[arg-type]
        assert "one process" in e.value.hint
