"""Whether there is time for the volume, with hysteresis: pure arithmetic on the ages of instants."""

from __future__ import annotations

from collections import deque
from statistics import median

_SPARE = 0.8
_STEPS = 9
_LONGEST = 16


class Governor:
    """budget_ms: from capture to skeletons. volumes: whether the volume is computed now. volume_ms: what a step with it takes (the median of
    the last nine).

    It goes down after `late_instants` in a row whose age and `volume_ms` are more than the budget, and up after `good_instants` in a row whose
    age leaves a fifth of it to spare with the least that the volume ever took: what it takes now cannot be known without it, and it was slow
    when it was given up. So going up is a trial, and one that fails before as many instants makes the next wait twice as long, up to 16 times.
    """

    def __init__(self, budget_ms: float, *, late_instants: int, good_instants: int) -> None:
        self.volumes = True
        self.volume_ms = 0.0
        self._budget_ms, self._late_instants, self._good_instants = budget_ms, late_instants, good_instants
        self._steps: deque[float] = deque(maxlen=_STEPS)
        self._least_ms = float("inf")
        self._late = self._good = 0
        self._up = good_instants
        self._times = 1

    def decide(self, age_ms: float) -> bool:
        """An instant of that age has come: whether to compute its volume."""
        if self.volumes:
            self._up += 1
            self._late = self._late + 1 if age_ms + self.volume_ms > self._budget_ms else 0
            if self._late >= self._late_instants:
                self._times = min(2 * self._times, _LONGEST) if self._up <= self._good_instants else 1
                self.volumes, self._good = False, 0
        else:
            self._good = self._good + 1 if age_ms + min(self._least_ms, self.volume_ms) <= _SPARE * self._budget_ms else 0
            if self._good >= self._good_instants * self._times:
                self.volumes, self._late, self._up = True, 0, 0
                self._steps.clear()
                self.volume_ms = min(self._least_ms, self.volume_ms)
        return self.volumes

    def took(self, step_ms: float) -> None:
        """A step with the volume took that long."""
        self._steps.append(step_ms)
        self.volume_ms = median(self._steps)
        if len(self._steps) >= 3:
            self._least_ms = min(self._least_ms, self.volume_ms)
