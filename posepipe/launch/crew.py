"""One worker process as the supervisor sees it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum

from posepipe.pipeline.errors import PosepipeError
from posepipe.pipeline.restart import Patience

from .letters import Line

_SILENT_S = 3.0
_SILENT_OPENING_S = 30.0
_SILENT_OPENING_FAR_S = 90.0
"""Another host may have to start a process, and load everything, first."""


class State(StrEnum):
    """opening: its nodes are being opened. ready: open, waits for the start. waiting: dead, to be started again. failed: given up."""

    OPENING = "opening"
    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


@dataclass(slots=True)
class Member:
    """A worker process and its history. Times are seconds of the monotonic clock."""

    name: str
    nodes: tuple[str, ...]
    patience: Patience
    host: str = ""
    """Empty where the supervisor is."""
    line: Line | None = None
    pid: int = 0
    """0 on other hosts."""
    state: State = State.OPENING
    restarts: int = 0
    fault: PosepipeError | None = None
    why: str = ""
    again_at_s: float = 0.0
    died_at_s: float = 0.0
    last_beat_s: float = field(default_factory=time.monotonic)
    waits_for: set[int] = field(default_factory=set)
    """Ids of the rings that were handed to it and not yet mapped."""

    @property
    def alive(self) -> bool:
        return self.state in (State.OPENING, State.READY, State.RUNNING)

    @property
    def may_be_silent_s(self) -> float:
        """A worker that has not beaten for so long is stuck where not even its other threads run."""
        if self.state != State.OPENING:
            return _SILENT_S
        return _SILENT_OPENING_FAR_S if self.host else _SILENT_OPENING_S

    @property
    def trouble(self) -> str:
        """What is wrong with it, or was; empty when nothing."""
        if self.state == State.FAILED:
            return f"worker {self.name} is given up after {self.restarts} restarts"
        if self.state == State.WAITING or (self.restarts and self.state == State.OPENING):
            return f"worker {self.name} is being started again (restart {self.restarts})"
        times = "once" if self.restarts == 1 else f"{self.restarts} times"
        return f"worker {self.name} was started again {times}" if self.restarts else ""
