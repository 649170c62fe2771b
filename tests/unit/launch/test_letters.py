"""Letters between supervisor and worker: each by itself whatever came before it, descriptors beside them, an end that is told from silence."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from posepipe.launch import letters
from posepipe.launch.letters import Line, close_fds


@pytest.fixture
def ends() -> Iterator[tuple[Line, Line]]:
    pair = Line.pair()
    yield pair
    for end in pair:
        end.close()


def test_a_short_letter_after_a_long_one_has_nothing_of_it(ends: tuple[Line, Line]) -> None:
    """Both are read into the same memory."""
    here, there = ends
    sent = [letters.Gone("x" * 900_000), letters.Gone("y"), letters.Have(3)]
    for letter in sent:
        here.send(letter)
    got = [there.receive() for _ in sent]
    assert got == [(letter, []) for letter in sent]


def test_descriptors_come_with_their_letter(ends: tuple[Line, Line]) -> None:
    here, there = ends
    read, write = os.pipe()
    assert here.send(letters.Gone("with"), read, write)
    assert here.send(letters.Gone("without"))
    close_fds([read, write])
    letter, fds = there.receive() or (None, [])
    assert letter == letters.Gone("with")
    os.write(fds[1], b"through")
    assert os.read(fds[0], 20) == b"through"
    close_fds(fds)
    assert there.receive() == (letters.Gone("without"), [])


def test_an_end_that_is_closed_is_an_end(ends: tuple[Line, Line]) -> None:
    here, there = ends
    here.close()
    assert there.receive() is None
    assert not there.send(letters.Have(1))
