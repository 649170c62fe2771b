"""References to frames become views into their slots, or are lost and accounted for; who waits for a picture always hears that it is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.pipeline.errors import RunError
from posepipe.pipeline.headers import FrameRef, FrameSetRef, resolve
from posepipe.pipeline.packet import Frame, Packet, Span, Sync
from posepipe.pipeline.ring import FrameRing, SlotRef
from posepipe.pipeline.ringends import RingReader, RingWriter

CAMERAS = ("north", "east", "süd", "west")
SYNC = Sync(2, (0, 1, 2), (3,), (0.1, -0.1, 0.0, None), (1.5, -1.5, 0.0, None), (1.0, 1.0, 0.9, 0.0))


def a_packet(body: FrameRef | FrameSetRef, *, shares: tuple[int, ...] = ()) -> Packet[FrameRef | FrameSetRef]:
    refs = body.frames if isinstance(body, FrameSetRef) else (body,)
    return Packet(9, 99, "capture.north", body, (Span("capture.north", 5, 6),), tuple((r.camera, r.seq) for r in refs), shares)


class Studio:
    """A ring with two slots for each of three cameras."""

    def __init__(self) -> None:
        self.rings = {camera: FrameRing.create(2, 6, 4) for camera in CAMERAS[:3]}
        self.writers = {camera: RingWriter(ring) for camera, ring in self.rings.items()}
        self.readers = {ring.id: RingReader(ring) for ring in self.rings.values()}

    def put(self, camera: str, seq: int) -> tuple[Frame, FrameRef]:
        planes = tuple(np.full(shape, seq, np.uint8) for shape in ((4, 6), (2, 3), (2, 3)))
        frame = Frame(camera, seq, 1_700_000_000_000_000_000 + seq, "i420", 6, 4, planes)
        slot = self.writers[camera].put(frame)
        assert slot is not None
        return frame, FrameRef(camera, seq, frame.t_capture_ns, slot)

    def instant(self) -> FrameSetRef:
        return FrameSetRef(9, 99, CAMERAS, tuple(self.put(camera, 3 + i)[1] for i, camera in enumerate(CAMERAS[:3])), SYNC)

    def overwrite(self, camera: str) -> None:
        for seq in (7, 8):
            self.put(camera, seq)

    def close(self) -> None:
        for ring in self.rings.values():
            ring.close()


@pytest.fixture
def studio() -> Iterator[Studio]:
    made = Studio()
    yield made
    made.close()


def test_a_reference_becomes_a_view_into_its_slot(studio: Studio) -> None:
    frame, ref = studio.put("north", 3)
    packet, lost = resolve(a_packet(ref, shares=(5,)), studio.readers)
    assert packet is not None
    assert lost is None
    assert replace(packet.body, planes=(), slot=None) == replace(frame, planes=())
    assert packet.body.slot == ref.slot, "it can be handed on to a third process without a copy"
    assert packet.body.planes[0].tolist() == frame.planes[0].tolist()
    assert (packet.frames, packet.shares) == ((("north", 3),), (5,))


def test_a_frame_that_was_overwritten_is_lost_with_its_share(studio: Studio) -> None:
    _, ref = studio.put("north", 3)
    studio.overwrite("north")
    packet, lost = resolve(a_packet(ref, shares=(5,)), studio.readers)
    assert packet is None
    assert lost is not None
    assert (lost.frames, lost.shares) == ((("north", 3),), (5,))


def test_an_instant_goes_on_without_the_cameras_that_were_overwritten(studio: Studio) -> None:
    message = a_packet(studio.instant(), shares=(10, 20, 30))
    ids = message.frames
    whole, lost = resolve(message, studio.readers)
    assert whole is not None
    assert (list(whole.body.frames), whole.body.sync, whole.frames, whole.shares, lost) == (
        list(CAMERAS[:3]),
        SYNC,
        ids,
        (10, 20, 30),
        None,
    )
    studio.overwrite("north")
    assert not whole.body.whole
    part, lost = resolve(message, studio.readers)
    assert part is not None
    assert list(part.body.frames) == ["east", "süd"]
    assert part.body.sync == replace(SYNC, skew_ns=1, views=(1, 2), missing=(0, 3)), (
        "the certificate is that of the cameras, not of this set"
    )
    assert (part.body.seq, part.body.t_capture_ns, part.frames, part.shares) == (9, 99, ids[1:], (20, 30))
    assert lost is not None
    assert (lost.frames, lost.shares) == (ids[:1], (10,))
    for camera in ("east", "süd"):
        studio.overwrite(camera)
    nothing, lost = resolve(message, studio.readers)
    assert nothing is None
    assert lost is not None
    assert (lost.frames, lost.shares) == (ids, (10, 20, 30))


def test_a_ring_that_is_not_here_any_more_is_an_overwritten_one(studio: Studio) -> None:
    _, ref = studio.put("north", 3)
    packet, lost = resolve(a_packet(ref), {})
    assert packet is None
    assert lost is not None
    assert lost.frames == (("north", 3),)


def test_feedback_that_was_lost_costs_no_account(studio: Studio) -> None:
    message = replace(a_packet(studio.instant()), frames=(), shares=())
    studio.overwrite("east")
    packet, lost = resolve(message, studio.readers)
    assert packet is not None
    assert list(packet.body.frames) == ["north", "süd"]
    assert lost is not None
    assert lost.frames == ()


def test_a_reference_to_a_slot_that_no_ring_has_says_so(studio: Studio) -> None:
    ring = studio.rings["north"]
    with pytest.raises(RunError, match="slot 2 of a frame ring of 2") as e:
        resolve(a_packet(FrameRef("north", 3, 99, SlotRef(ring.id, 2, 2))), studio.readers)
    assert e.value.where == "camera north"


@settings(max_examples=40, deadline=None)
@given(overwritten=st.sets(st.sampled_from(CAMERAS[:3])), away=st.sets(st.sampled_from(CAMERAS[:3])), kept=st.integers(0, 2))
def test_whoever_waits_hears_once_and_after_the_last_picture(overwritten: set[str], away: set[str], kept: int) -> None:
    studio = Studio()
    heard: list[str] = []
    message = a_packet(studio.instant())
    for camera in overwritten:
        studio.overwrite(camera)
    readers = {ring.id: studio.readers[ring.id] for camera, ring in studio.rings.items() if camera not in away}
    packet, lost = resolve(message, readers, done=lambda: heard.append("done"))
    gone = overwritten | away
    assert (packet is None) == (len(gone) == 3)
    assert {camera for camera, _ in (lost.frames if lost else ())} == gone
    if packet is not None:
        frames = list(packet.body.frames.values())
        del packet
        held = frames[kept % len(frames)]
        frames.clear()
        assert heard == [], "one of its pictures is still held"
        del held
    assert heard == ["done"]
    studio.close()


def test_an_instant_of_no_pictures_is_done_at_once(studio: Studio) -> None:
    heard: list[str] = []
    empty = replace(studio.instant(), frames=())
    assert resolve(a_packet(empty), studio.readers, done=lambda: heard.append("done")) == (None, None)
    assert heard == ["done"]


def test_a_packet_without_references_stays_as_it_is() -> None:
    packet = Packet(9, 99, "work", 5, (), (("north", 3),))
    assert resolve(packet, {}) == (packet, None)
