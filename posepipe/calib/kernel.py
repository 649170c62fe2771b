"""The one way in which this room compiles numeric loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile with numba, cached on disk, without the interpreter lock. NaN and inf keep their meaning (no `nnan`, no `ninf`)."""
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})(function))
