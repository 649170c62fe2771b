"""What a worker tells of its figures: each of them once, also when its publisher is closed while it tells."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

from posepipe.launch import letters
from posepipe.launch.workshop import Workshop
from posepipe.pipeline.ledger import LedgerTap
from posepipe.pipeline.worker import Shared


class Closing:
    """A part whose publisher is closed in the middle of a beat."""

    def __init__(self) -> None:
        self.slots: dict[str, Any] = {}

    def subscribers(self) -> int:
        raise OSError("the socket is closed")


def test_a_beat_that_fails_leaves_its_figures_to_the_next() -> None:
    told: list[letters.Beat] = []
    shop: Any = object.__new__(Workshop)  # without its process: signals and logging stay as they are
    shop._tap = LedgerTap()
    shop._shared = Shared(offline=False, trace=None, ledger=shop._tap)

    def send(letter: letters.Beat, *, wait: bool = True) -> bool:
        told.append(letter)
        return True

    shop._line = types.SimpleNamespace(send=send)
    shop._told, shop._told_end, shop._told_quality = {}, 0, 0
    for _ in range(4):
        shop._shared.end_to_end.add(7_000_000)
    inbox: Any = types.SimpleNamespace(strange=0)
    with pytest.raises(OSError, match="closed"):
        shop._beat(Closing(), inbox)
    shop._beat(Closing(), inbox, closed=True)
    beats = [letter for letter in told if isinstance(letter, letters.Beat)]
    assert [len(np.frombuffer(beat.end_to_end_ns, np.int64)) for beat in beats] == [4]
