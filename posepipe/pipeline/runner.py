"""Runs a whole plan in this process, one thread for each worker: offline, in tests, and where there are no processes to fork.

`launch.supervisor` runs the same parts in processes of their own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from .graph import Plan
from .ledger import Ledger
from .packet import Packet, Poses
from .part import Part, Surroundings
from .snapshot import NodeFigures, Snapshot, glance, snapshot
from .stats import TraceLog
from .worker import Shared


def side_nodes(plan: Plan) -> frozenset[str]:
    """Nodes from which no way leads to a publishing sink (none, when nothing publishes)."""
    upstream = {n.name: [u for names in n.inputs.values() for u in names] for n in plan.nodes}
    on_the_way: set[str] = set()
    walk = [n.name for n in plan.nodes if n.cls.publishes]
    while walk:
        name = walk.pop()
        on_the_way.add(name)
        walk += [u for u in upstream[name] if u not in on_the_way]
    return frozenset(upstream) - on_the_way if on_the_way else frozenset()


class Running(Protocol):
    """A studio that runs, in this process or in several: what the screen, the summary and the checks before the start need."""

    plan: Plan
    offline: bool
    trace: TraceLog | None
    memory_mb: float | None
    """What all processes of the studio took together at most; None when it has only this one."""
    opened_with_s: float
    """Processor time that its other processes had taken when it started."""

    def opened(self) -> Mapping[str, Any]: ...
    def begin_rounds_together(self, round_s: float) -> None: ...
    def open(self) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def finish(self, *, timeout_s: float = 10.0) -> None: ...
    def close(self) -> None: ...
    def subscribers(self) -> int: ...
    def runs_on(self) -> Mapping[str, str]: ...
    def snapshot(self, newest: int = 1 << 16) -> Snapshot: ...

    @property
    def running(self) -> bool: ...
    @property
    def stopping(self) -> bool: ...


class Runner:
    """One run of one plan.

    rig, engines and resolve are handed to the nodes as they are. `offline` processes every frame in order and loses none;
    `seconds` stops the sources after that long and makes files loop.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        rig: Any,
        resolve: Callable[[str], Path],
        offline: bool = False,
        seconds: float | None = None,
        trace: bool = False,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.plan, self.offline = plan, offline
        self.memory_mb: float | None = None
        self.opened_with_s = 0.0
        self.ledger = Ledger(side_nodes=side_nodes(plan))
        self.trace = TraceLog() if trace else None
        self.shared = Shared(offline=offline, trace=self.trace, ledger=self.ledger)
        self._part = Part(plan, Surroundings(rig, resolve, seconds, warn or logging.getLogger("posepipe").warning), self.shared)
        self.slots = self._part.slots
        self._began_ns = self._ended_ns = 0

    def open(self) -> None:
        """Open every node, sinks first: a port in use or a missing model is known before a camera is touched."""
        self._part.open()

    def opened(self) -> Mapping[str, Any]:
        """What the opened sources say of themselves (`node.info`), by camera."""
        return {s.plan.key or s.plan.base: s.node.info for s in self.slots.values() if hasattr(s.node, "info")}

    def begin_rounds_together(self, round_s: float) -> None:
        """Recordings that are looped start each round at the same moment: after so many seconds of recording."""
        for slot in self.slots.values():
            if hasattr(slot.node, "begin_rounds_together"):
                slot.node.begin_rounds_together(round_s)

    def subscribers(self) -> int:
        """Connected subscribers of the publishing node that has fewest; 0 when nothing publishes."""
        return self._part.subscribers() or 0

    def start(self) -> None:
        self._began_ns = time.monotonic_ns()
        self._part.start()

    @property
    def start_ns(self) -> int:
        return self._part.start_ns

    @property
    def running(self) -> bool:
        return self._part.running and self.shared.failure is None

    @property
    def stopping(self) -> bool:
        return self.shared.stop.is_set()

    def stop(self) -> None:
        """Planned stop: the sources end, what is under way is finished."""
        self._part.stop()

    def finish(self, *, timeout_s: float = 10.0) -> None:
        """Wait for the drain, close the nodes, settle the ledger. RunError when a node made the studio stop or failed on everything."""
        stuck = self._part.drain(timeout_s=timeout_s)
        self._ended_ns = time.monotonic_ns()
        self.close()
        self.ledger.close()
        fault = self._part.fault(stuck, timeout_s=timeout_s)
        if fault is not None:
            raise fault

    def close(self) -> None:
        self._part.close()

    # looking in -------------------------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        return ((self._ended_ns or time.monotonic_ns()) - self._began_ns) / 1e9 if self._began_ns else 0.0

    def newest_poses(self) -> Packet[Poses] | None:
        """The last skeletons that any node made, most downstream first."""
        for slot in reversed(self.slots.values()):
            packet = slot.cell.packet
            if packet is not None and isinstance(packet.body, Poses):
                return packet
        return None

    def runs_on(self) -> Mapping[str, str]:
        """What the nodes compute on, of those that say so."""
        return {name: text for name, slot in self.slots.items() if (text := getattr(slot.node, "runs_on", ""))}

    def snapshot(self, newest: int = 1 << 16) -> Snapshot:
        """The studio now; latencies over the `newest` packets of each node."""
        return snapshot(
            (NodeFigures.of(s.plan, s.latency, waiting=sum(map(len, s.inputs)), errors=s.errors) for s in self.slots.values()),
            end_to_end=self.shared.end_to_end,
            quality=self.shared.quality,
            ledger=self.ledger,
            seen=glance(self.newest_poses()),
            seconds=self.seconds,
            newest=newest,
        )
