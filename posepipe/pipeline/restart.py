"""What happens when a worker process dies: `restart:` of a node, and when its turn has come."""

from __future__ import annotations

from collections import deque
from typing import Literal

import msgspec

Policy = Literal["never", "on_failure", "always"]


class Restart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`restart:` of a node. A worker process is restarted by the strictest wish of its nodes.

    policy: never; on_failure (it died, failed or hung); always (also when it ended by itself). backoff_s doubles with every
    death within window_s; after max of them the worker is given up. A call of the node that lasts longer than hang_s, or an
    `open` longer than open_s, is a hang.
    """

    policy: Policy = "on_failure"
    backoff_s: float = 0.1
    window_s: float = 60.0
    max: int = 5
    hang_s: float = 10.0
    open_s: float = 60.0

    def __post_init__(self) -> None:
        if self.backoff_s < 0 or self.window_s <= 0 or self.max < 0 or self.hang_s <= 0 or self.open_s <= 0:
            raise ValueError("backoff_s and max are not negative, window_s, hang_s and open_s are above 0")


def strictest(wishes: list[Restart]) -> Restart:
    """What a process with several nodes does."""
    order = ("never", "on_failure", "always")
    return Restart(
        policy=min((w.policy for w in wishes), key=order.index),
        backoff_s=max(w.backoff_s for w in wishes),
        window_s=max(w.window_s for w in wishes),
        max=min(w.max for w in wishes),
        hang_s=min(w.hang_s for w in wishes),
        open_s=min(w.open_s for w in wishes),
    )


class Patience:
    """Counts the deaths of one worker."""

    def __init__(self, restart: Restart) -> None:
        self.restart = restart
        self._deaths: deque[float] = deque()

    def after_death(self, now_s: float, *, failed: bool) -> float | None:
        """Seconds to wait before it is started again, None when it is given up."""
        r = self.restart
        if r.policy == "never" or (r.policy == "on_failure" and not failed):
            return None
        self._deaths.append(now_s)
        while self._deaths[0] < now_s - r.window_s:
            self._deaths.popleft()
        if len(self._deaths) > r.max:
            return None
        return float(r.backoff_s * 2 ** (len(self._deaths) - 1))
