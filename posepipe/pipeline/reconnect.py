"""How long a source that has gone is left alone between two attempts, and what is known of one that has."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

FIRST_S, LONGEST_S = 1.0, 30.0
_JITTER = 0.2


@dataclass(frozen=True, slots=True)
class SourceState:
    """Whether a source gives pictures. since_ns: studio time at which that began; returns: how often it came (again) after it was
    away; why: what is the matter while it is away."""

    state: Literal["connected", "away"]
    since_ns: int
    returns: int = 0
    why: str = ""


class Backoff:
    """1, 2, 4 ... 30, 30 s, each shortened by up to a fifth by chance: cameras behind one switch do not all come at once.

    chance: a number in [0, 1).
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._next_s = FIRST_S

    def next_s(self) -> float:
        """The wait before the next attempt."""
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, LONGEST_S)
        return wait_s * (1 - _JITTER * self._chance())

    def reset(self) -> None:
        self._next_s = FIRST_S
