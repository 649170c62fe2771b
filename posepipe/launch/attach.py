"""`posepipe ps`, `top`, `topic` and `stop`: what can be done to a studio that runs on this machine, from another terminal."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from posepipe.pipeline.errors import RunError

from .desk import ask, studios
from .screen import Lines

_STOP_WITHIN_S = 20.0
_POLL_S = 0.5
_ECHO_POLL_S = 0.02


def one(pid: int | None) -> int:
    """The studio that is meant. RunError when there is none, or several and no pid."""
    running = studios()
    if pid is not None:
        if pid not in running:
            raise RunError(f"no studio of yours runs as process {pid}", hint=f"running: {', '.join(map(str, running)) or 'none'}")
        return pid
    if not running:
        raise RunError("no studio of yours runs on this machine", hint="start one: posepipe run STUDIO")
    if len(running) > 1:
        raise RunError(f"{len(running)} studios run: {', '.join(map(str, running))}", hint="say which one: --pid PID")
    return running[0]


def ps(*, as_json: bool) -> int:
    """The processes of every studio of this user."""
    rows = [row for pid in studios() for row in ask(pid, {"do": "ps"})]
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    if not rows:
        print("no studio of yours runs on this machine")
        return 0
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("studio", "worker", "pid", "state", "restarts", "rss MB", "cpu %", "nodes"):
        table.add_column(title, justify="right" if title in ("pid", "restarts", "rss MB", "cpu %") else "left")
    for r in rows:
        figures = (str(r["pid"]), r["state"], str(r["restarts"]), f"{r['rss_mb']:.0f}", f"{r['cpu_percent']:.0f}")
        table.add_row(r["studio"], r["name"], *figures, ", ".join(r["nodes"]))
    Console().print(table)
    return 0


def top(*, pid: int | None) -> int:
    """The live screen of a running studio, until it ends or Ctrl-C."""
    which = one(pid)
    console = Console()
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        try:
            while which in studios():
                size = console.size
                lines = ask(which, {"do": "top", "width": size.width, "height": size.height - 1})
                live.update(Lines([[(text, style) for text, style in line] for line in lines]), refresh=True)
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            return 130
    return 0


def stop(*, pid: int | None) -> int:
    """Stop a studio in order: sources end, what is under way is published, files are finished."""
    which = one(pid)
    ask(which, {"do": "stop"})
    until = time.monotonic() + _STOP_WITHIN_S
    while which in studios():
        if time.monotonic() > until:
            raise RunError(f"the studio of process {which} has not ended after {_STOP_WITHIN_S:.0f} s", hint=f"kill {which}")
        time.sleep(0.05)
    print(f"the studio of process {which} has ended")
    return 0


def topics(*, pid: int | None) -> int:
    """What the nodes give, and how often."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("topic", "type", "rate Hz", "worker"):
        table.add_column(title, justify="right" if title == "rate Hz" else "left")
    for row in ask(one(pid), {"do": "topics"}):
        table.add_row(row["name"], row["type"], f"{row['rate_hz']:.1f}", row["worker"])
    Console().print(table)
    return 0


def hz(node: str, *, pid: int | None, count: int | None) -> int:
    """The rate of a node's output, once a second over the last ten, until it ends, Ctrl-C, or `count` lines."""
    which = one(pid)
    seen: deque[tuple[float, int]] = deque(maxlen=11)
    for _ in _rounds(which, count, 1.0):
        row = _topic(which, node)
        seen.append((row["at_s"], row["count"]))
        (t0, n0), (t1, n1) = seen[0], seen[-1]
        rate = f"{(n1 - n0) / (t1 - t0):8.2f} Hz over {t1 - t0:.0f} s" if t1 > t0 else "measuring"
        ms = row["ms"]
        print(f"{node}: {rate}   p50 {ms['p50']:.1f}  p95 {ms['p95']:.1f}  max {ms['max']:.1f} ms   {row['count']} in all", flush=True)
    return 0


def echo(node: str, *, pid: int | None, count: int | None) -> int:
    """Results of a node as they come, one JSON object a line. A fast node's are sampled, never held up."""
    which = one(pid)
    _topic(which, node)
    last, printed = -1, 0
    while which in studios() and (count is None or printed < count):
        answer = ask(which, {"do": "echo", "node": node})
        if answer["text"] and answer["seq"] != last:
            last, printed = answer["seq"], printed + 1
            print(answer["text"], flush=True)
        time.sleep(_ECHO_POLL_S)
    return 0


def _topic(which: int, node: str) -> dict[str, Any]:
    row: dict[str, Any] = ask(which, {"do": "topic", "node": node})
    return row


def _rounds(which: int, count: int | None, every_s: float) -> Iterator[int]:
    at = 0
    while (count is None or at <= count) and which in studios():
        yield at
        at += 1
        time.sleep(every_s)
