"""Memory for pictures that is lent to whoever makes them (a decoder), so that they need not be copied into a frame ring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Loan:
    """The memory of one slot: `size` bytes at `address`, there for as long as `memory` is. held: set by the borrower once, and asked for ever after: whether it, or anybody whom it gave the picture to in this
    process, still needs what is there."""

    address: int
    size: int
    memory: object
    held: Callable[[], bool] | None = None

    @property
    def busy(self) -> bool:
        return self.held is not None and self.held()


Lend = Callable[[int], Loan | None]
"""Memory of at least so many bytes for a picture: the slot that nobody has needed for the longest time. None when there is none to spare. A picture
whose planes lie in it is put into the ring without a copy."""
