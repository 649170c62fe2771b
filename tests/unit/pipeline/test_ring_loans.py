"""Slots that are lent: to nobody while somebody needs them, and never the last ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ring_kit import HEIGHT, WIDTH, Rings, picture, put, same

from posepipe.pipeline.loans import Loan
from posepipe.pipeline.packet import Frame
from posepipe.pipeline.ring import plane_layouts
from posepipe.pipeline.ringends import RingReader, RingWriter


class Borrower:
    """Makes pictures where it was lent memory, and says for how long it needs them."""

    def __init__(self, writer: RingWriter) -> None:
        self.writer = writer
        self.needed: dict[int, bool] = {}

    def borrow(self) -> Loan | None:
        loan = self.writer.lend(WIDTH * HEIGHT * 2)
        if loan is not None:
            assert not self.needed.get(loan.address), "somebody needs it"
            loan.held = lambda: self.needed[loan.address]
            self.needed[loan.address] = True
        return loan

    def make(self, loan: Loan, seq: int) -> Frame:
        frame = picture(seq)
        memory = np.frombuffer(self.writer._memory, np.uint8)
        at, planes = loan.address - self.writer._base, []
        for layout, source in zip(plane_layouts(WIDTH, HEIGHT, "i420"), frame.planes, strict=True):
            plane = memory[at : at + layout.stride * layout.shape[0]].reshape(-1, layout.stride)[:, : layout.shape[1]]
            plane[:] = source
            planes.append(plane)
            at += layout.stride * layout.shape[0] + 64
        return Frame("north", seq, frame.t_capture_ns, "i420", WIDTH, HEIGHT, tuple(planes), frame.full_range)


@pytest.fixture
def rings():  # type: ignore[no-untyped-def]
    made = Rings()
    yield made
    made.close()


def test_a_picture_made_in_a_slot_is_shown_where_it_is(rings: Rings) -> None:
    ring = rings.new(9)
    writer, reader = RingWriter(rings.again(ring)), RingReader(rings.again(ring))
    borrower = Borrower(writer)
    loan = borrower.borrow()
    assert loan is not None
    frame = borrower.make(loan, 3)
    ref = writer.put(frame)
    assert ref is not None
    assert loan.address == writer._base + ring.slot_at(ref.index) + 128
    there = reader.frame(ref, camera="north")
    assert there is not None
    assert same(there, picture(3))
    again = writer.put(frame)
    assert again == ref, "for a second link"


def test_the_last_slots_are_not_lent_and_nothing_larger_than_a_slot(rings: Rings) -> None:
    writer = RingWriter(rings.again(rings.new(9)))
    borrower = Borrower(writer)
    assert writer.lend(10**7) is None
    assert [borrower.borrow() is not None for _ in range(5)] == [True, True, True, False, False]
    assert {put(writer, seq).index for seq in range(6)} == set(range(3, 9)), "pictures that are copied have the rest"
    borrower.needed[next(iter(borrower.needed))] = False
    assert borrower.borrow() is not None


def test_a_slot_that_is_open_is_not_lent(rings: Rings) -> None:
    writer = RingWriter(rings.again(rings.new(8)))
    assert writer.slot(WIDTH, HEIGHT) is not None
    lent = [loan.address for loan in (writer.lend(100) for _ in range(20)) if loan is not None]
    assert writer._loans[0].address not in lent


def test_a_picture_whose_slot_was_lent_since_is_put_again(rings: Rings) -> None:
    ring = rings.new(8)
    writer, reader = RingWriter(rings.again(ring)), RingReader(rings.again(ring))
    first = writer.put(picture(1))
    assert first is not None
    while reader.still_valid(first):
        assert writer.lend(100) is not None
    second = writer.put(picture(1), pin=True)
    assert second is not None
    there = reader.frame(second, camera="north")
    assert there is not None
    assert same(there, picture(1))
    assert writer._pins == {second.index: (second.generation, 1)}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["borrow", "show", "let go", "copy", "pin", "unpin"]), st.integers(0, 20)), max_size=60))
def test_whatever_is_lent_shown_and_pinned_everybody_keeps_what_is_theirs(steps: list[tuple[str, int]]) -> None:
    rings = Rings()
    try:
        ring = rings.new(12)
        writer, reader = RingWriter(rings.again(ring)), RingReader(rings.again(ring))
        borrower, made, pinned = Borrower(writer), [], []
        for seq, (what, which) in enumerate(steps):
            if what == "borrow" and (loan := borrower.borrow()) is not None:
                made.append((loan, borrower.make(loan, seq)))
            elif what == "show" and made:
                writer.put(made[which % len(made)][1])
            elif what == "let go" and made:
                loan, _ = made.pop(which % len(made))
                borrower.needed[loan.address] = False
            elif what in ("copy", "pin"):
                ref = writer.put(picture(seq), pin=what == "pin")
                pinned += [(ref, seq)] if ref is not None and what == "pin" else []
            elif what == "unpin" and pinned:
                writer.unpin(pinned.pop(which % len(pinned))[0])
            assert all(same(frame, picture(frame.seq)) for _, frame in made)
            for ref, of in pinned:
                there = reader.frame(ref, camera="north")
                assert there is not None
                assert same(there, picture(of))
    finally:
        rings.close()
