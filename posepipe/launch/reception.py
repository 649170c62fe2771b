"""What a running studio answers at its desk."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import Any

import psutil

from posepipe.pipeline.errors import RunError, did_you_mean
from posepipe.pipeline.snapshot import Snapshot

from .desk import Desk
from .screen import dashboard
from .supervisor import Supervisor

_RECENT = 2048
_ECHO_WITHIN_S = 1.0


class Reception:
    """Opens the desk of a studio. Its thread only reads what the supervisor has been told."""

    def __init__(self, studio: Supervisor) -> None:
        self._studio = studio
        self._before: deque[Snapshot] = deque(maxlen=4)
        self._processes: dict[int, psutil.Process] = {}
        self._desk = Desk(
            {
                "ps": lambda _: self.ps(),
                "top": self._top,
                "topics": lambda _: [self._topic_row(name) for name in self._topics()],
                "topic": lambda question: self._topic_row(self._known(question)),
                "echo": self._echo,
                "stop": self._stop,
            }
        )

    def close(self) -> None:
        self._desk.close()

    def ps(self) -> list[dict[str, Any]]:
        """The supervisor and every worker. cpu_percent: since the last question, at first since its birth (100 is one core); rss_mb counts shared pages too."""
        restarts = sum(m.restarts for m in self._studio.crew.values())
        rows = [self._row("supervisor", os.getpid(), (), "running", restarts)]
        return rows + [self._row(m.name, m.pid, m.nodes, str(m.state), m.restarts) for m in self._studio.crew.values()]

    def _row(self, name: str, pid: int, nodes: tuple[str, ...], state: str, restarts: int) -> dict[str, Any]:
        rss, cpu = 0.0, 0.0
        try:
            first = pid not in self._processes
            process = self._processes.setdefault(pid, psutil.Process(pid))
            with process.oneshot():
                rss, cpu = process.memory_info().rss / 1e6, process.cpu_percent()
                if first:
                    cpu = 100 * sum(process.cpu_times()[:2]) / max(time.time() - process.create_time(), 1e-3)
        except psutil.Error:
            self._processes.pop(pid, None)
        return {
            "name": name,
            "pid": pid,
            "nodes": list(nodes),
            "state": state,
            "restarts": restarts,
            "rss_mb": round(rss, 1),
            "cpu_percent": round(cpu, 1),
            "studio": self._studio.plan.studio,
        }

    def _top(self, question: dict[str, Any]) -> list[list[tuple[str, str]]]:
        now = self._studio.snapshot(_RECENT)
        earlier = self._before[0] if self._before else None
        self._before.append(now)
        crew = self._crew_lines()
        height = int(question["height"]) - len(crew)
        return [*dashboard(now, self._studio.plan, earlier=earlier, width=int(question["width"]), height=height), *crew]

    def _crew_lines(self) -> list[list[tuple[str, str]]]:
        lines: list[list[tuple[str, str]]] = [[], [(" worker".ljust(26) + "pid      state     restarts   rss MB   cpu %", "dim")]]
        for row in self.ps():
            good = row["state"] in ("running", "done")
            text = (
                f" {row['name']:<25}{row['pid']:<9}{row['state']:<10}{row['restarts']:>8} {row['rss_mb']:>8.0f} {row['cpu_percent']:>7.0f}"
            )
            lines.append([(text, "" if good else "bad")])
        return lines

    def _topics(self) -> list[str]:
        return [n.name for n in self._studio.plan.nodes if n.ports.output is not None]

    def _known(self, question: dict[str, Any]) -> str:
        node = str(question.get("node"))
        if node not in self._topics():
            raise RunError(f"no node {node!r} gives anything in this studio", hint=did_you_mean(node, self._topics()))
        return node

    def _topic_row(self, name: str) -> dict[str, Any]:
        planned, latency = self._studio.plan[name], self._studio.books.nodes[name].latency
        assert planned.ports.output is not None
        return {
            "name": name,
            "type": planned.ports.output.__name__,
            "rate_hz": latency.rate_hz,
            "worker": planned.process,
            "count": latency.count,
            "at_s": time.monotonic(),
            "ms": latency.percentiles_ms(_RECENT),
        }

    def _echo(self, question: dict[str, Any]) -> dict[str, Any]:
        node = self._known(question)
        newest = self._studio.newest(node, within_s=_ECHO_WITHIN_S)
        if newest is None:
            raise RunError(f"the worker of {node} does not answer", hint="posepipe ps shows its state")
        return {"seq": newest.seq, "text": newest.text}

    def _stop(self, _question: dict[str, Any]) -> str:
        self._studio.stop()
        return "stopping"
