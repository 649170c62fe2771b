"""The studio clock: Unix time in ns that never steps, because it is read once and carried on by the monotonic clock."""

from __future__ import annotations

import time


class StudioClock:
    """Unix nanoseconds, monotonic for the life of the studio."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        return time.monotonic_ns() + self._offset_ns

    def step_ns(self) -> int:
        """How far the system's clock has moved against the studio clock since the start (a clock step, or drift)."""
        return time.time_ns() - self.now_ns()
