"""The studio clock: Unix time in ns that never steps, because it is read once and carried on by the monotonic clock."""

from __future__ import annotations

import time

_SLEW_NS = 10_000_000_000


class StudioClock:
    """Unix nanoseconds, monotonic for the life of the studio."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        return time.monotonic_ns() + self._offset_ns

    def step_ns(self) -> int:
        """How far the system's clock has moved against the studio clock since the start (a clock step, or drift)."""
        return time.time_ns() - self.now_ns()


class FarClock(StudioClock):
    """The studio clock on another host: its own monotonic clock and an offset that is measured again and again.

    A new offset is taken on over ten seconds, so that time neither jumps nor runs backwards. `error_ns`: how wrong it can be.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error_ns: int | None = None
        self._slew = (0, self._offset_ns, self._offset_ns)

    def learn(self, offset_ns: int, *, error_ns: int) -> None:
        """studio time - this host's monotonic time, as it was just measured."""
        now_ns = time.monotonic_ns()
        self._slew = (now_ns, offset_ns if self.error_ns is None else self._offset_at(now_ns), offset_ns)
        self.error_ns = error_ns

    def _offset_at(self, now_ns: int) -> int:
        since_ns, before_ns, after_ns = self._slew
        done = min(now_ns - since_ns, _SLEW_NS)
        return before_ns + (after_ns - before_ns) * done // _SLEW_NS

    def now_ns(self) -> int:
        now_ns = time.monotonic_ns()
        return now_ns + self._offset_at(now_ns)
