"""What a running studio shows: a table that updates in place on a terminal, a line now and then everywhere else.

The live path shares the interpreter with this screen. A rich Table costs 5 ms a refresh, as much as a node; the lines here are
formatted by hand and handed to rich as finished segments, 0.13 ms. rich places the cursor and keeps log messages above the table.
"""

from __future__ import annotations

import abc
import logging
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.logging import RichHandler
from rich.segment import Segment
from rich.style import Style

from posepipe.pipeline.graph import Budget, Plan
from posepipe.pipeline.node import Source
from posepipe.pipeline.runner import Running
from posepipe.pipeline.snapshot import NodeView, Snapshot

from . import logs

_REFRESH_S = 0.5
_LOG_EVERY_S = 5.0
_RATE_OVER = 4
_RECENT = 2048
"""Latencies on the screen are those of this many packets (about a minute): an old hiccup does not stay."""
"""Refreshes that a shown rate looks back: long enough to be steady, short enough to show a camera that has just gone."""
_NUMBERS = (("rate", 7), ("p50", 8), ("p95", 8), ("p99", 8), ("queue", 15), ("lost", 8))

Line = list[tuple[str, str]]
"""Pieces of one line: (text, name of a style)."""

_STYLES = {
    name: Style.parse(definition)
    for name, definition in {
        "": "none",
        "head": "bold",
        "dim": "dim",
        "node": "cyan",
        "good": "green",
        "lost": "yellow",
        "bad": "bold red",
    }.items()
}


@dataclass(frozen=True, slots=True)
class Lines:
    """Finished lines as a rich renderable; what does not fit into the width is cut."""

    lines: list[Line]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for line in self.lines:
            room = options.max_width
            for text, style in line:
                if room > 0 and text:
                    yield Segment(text[:room], _STYLES[style])
                room -= len(text)
            yield Segment.line()


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the table: a node, or all entries of an `each` folded into one."""

    view: NodeView
    base: str
    rate_hz: float
    lost: int
    over: frozenset[str]


def dashboard(now: Snapshot, plan: Plan, *, earlier: Snapshot | None, width: int, height: int) -> list[Line]:
    """The screen as lines, at most `height` of them, made for `width` columns.

    Rates are those since `earlier` (means since the start without it). Cameras share one row when there are more than fit.
    """
    over = _over_budget(now, plan.budgets)
    head = [_head(now, plan), _end_to_end(now, earlier, over.get("end_to_end", frozenset()))]
    tail = [_ledger(now), *_losses(now, plan, width), *([(_cut(f" {text}", width), "lost")] for text in now.trouble[:3])]
    rows = list(_rows(now, plan, earlier, over))
    room = height - len(head) - len(tail) - 3
    if len(rows) > room:
        rows = _folded(rows)
    if len(rows) > max(room, 1):
        tail.insert(0, [(f" and {len(rows) - max(room - 1, 1)} more nodes", "dim")])
        rows = rows[: max(room - 1, 1)]
    names = max(12, min(max(len(r.view.name) for r in rows) + 2, width - 1 - sum(w for _, w in _NUMBERS)))
    columns: Line = [(" " + "node".ljust(names), "dim"), *((title.rjust(w), "dim") for title, w in _NUMBERS)]
    return [*head, [], columns, *(_line(row, names) for row in rows), [], *tail][:height]


def log_line(now: Snapshot) -> str:
    """The studio in one line of a log."""
    ms = now.end_to_end_ms
    people = "nobody" if now.people == 0 else f"{now.people} {_people(now.people)}, reprojection {now.reproj_px:.1f} px"
    lost = f", most: {now.dropped[0].node}: {now.dropped[0].reason}" if now.dropped else ""
    return (
        f"{_clock(now.seconds)} {now.instants} instants, {people}, end-to-end p50 {ms['p50']:.1f} p95 {ms['p95']:.1f} p99 {ms['p99']:.1f} ms, "
        f"frames: {now.captured} captured, {now.published} published, {_dropped(now)} dropped{lost}"
        + "".join(f"; {text}" for text in now.trouble)
    )


def progress(now: Snapshot, *, total: int | None, width: int, bar: str) -> Line:
    """One line for `--offline`: bar, instants of total, rate, time left. `bar` is the character that draws the bar."""
    rate = now.instants / now.seconds if now.seconds > 0 else 0.0
    if not total:
        return [(" offline  ", "head"), (f"{now.instants} instants  {rate:.1f} instants/s  {_clock(now.seconds)}", "")]
    part = min(now.instants / total, 1.0)
    left = _clock((total - now.instants) / rate) if rate > 0 and part < 1 else "--:--" if part < 1 else "00:00"
    text = f"  {part:4.0%}  {now.instants}/{total} instants  {rate:.1f}/s  ETA {left}"
    room = max(width - len(text) - 11, 4)
    done = round(part * room)
    return [(" offline  ", "head"), (bar * done, "good"), (bar * (room - done), "dim"), (text, "")]


def _over_budget(now: Snapshot, budgets: Iterable[Budget]) -> dict[str, frozenset[str]]:
    """Node (or end_to_end) -> percentiles that are beyond their budget right now."""
    measured: dict[str, Mapping[str, float]] = {n.name: n.ms for n in now.nodes} | {"end_to_end": now.end_to_end_ms}
    over: dict[str, frozenset[str]] = {}
    for budget in budgets:
        for name, ms in measured.items():
            if name.partition("/")[0] == budget.node and ms[budget.percentile] > budget.limit_ms:
                over[name] = over.get(name, frozenset()) | {budget.percentile}
    return over


def _rows(now: Snapshot, plan: Plan, earlier: Snapshot | None, over: Mapping[str, frozenset[str]]) -> Iterator[_Row]:
    before = {n.name: n.count for n in earlier.nodes} if earlier else {}
    spent = now.seconds - earlier.seconds if earlier else 0.0
    lost = {n.name: 0 for n in now.nodes}
    sources = {n.name for n in plan.nodes if issubclass(n.cls, Source)}
    for drop in now.skipped:
        lost[drop.node] = lost.get(drop.node, 0) + drop.count
    for drop in now.dropped:  # frames that never became a packet are known to the source only
        if drop.node in sources:
            lost[drop.node] += drop.count
    for planned, view in zip(plan.nodes, now.nodes, strict=True):
        rate = (view.count - before.get(view.name, 0)) / spent if spent > 0 else view.rate_hz
        yield _Row(view, planned.base, rate, lost[view.name], over.get(view.name, frozenset()))


def _folded(rows: list[_Row]) -> list[_Row]:
    """One row for all entries of an `each`: the slowest rate and the worst latency among them, sums of the rest."""
    out: list[_Row] = []
    for base in dict.fromkeys(r.base for r in rows):
        group = [r for r in rows if r.base == base]
        if len(group) == 1:
            out += group
            continue
        ms = {p: max(r.view.ms[p] for r in group) for p in ("p50", "p95", "p99", "max")}
        view = replace(
            group[0].view,
            name=f"{base} x{len(group)}",
            ms=ms,
            waiting=sum(r.view.waiting for r in group),
            errors=sum(r.view.errors for r in group),
        )
        over = frozenset().union(*(r.over for r in group))
        out.append(_Row(view, base, min(r.rate_hz for r in group), sum(r.lost for r in group), over))
    return out


def _line(row: _Row, names: int) -> Line:
    view = row.view
    line: Line = [(" " + _cut(view.name, names).ljust(names), "bad" if view.errors else "node")]
    line.append((f"{row.rate_hz:.1f}".rjust(7), "" if row.rate_hz > 0.05 else "bad"))
    line += [(_ms(view.ms[p]).rjust(8), "bad" if p in row.over else "") for p in ("p50", "p95", "p99")]
    line += [(_queue(view).rjust(15), "" if view.waiting else "dim"), (str(row.lost).rjust(8), "lost" if row.lost else "dim")]
    return line


def _queue(view: NodeView) -> str:
    """Packets that wait, of how many may, and what happens to one more."""
    if view.queue is None:
        return ""
    return f"{view.waiting}/{view.queue.size} {view.queue.full}".replace("drop_", "-").replace("keep_", "=")


def _head(now: Snapshot, plan: Plan) -> Line:
    who: Line = [("nobody in view", "dim")] if now.people == 0 else [(f"{now.people} {_people(now.people)}", "head")]
    where: Line = [(f"   reprojection {now.reproj_px:.1f} px", "")] if now.people else []
    return [(f" {plan.studio}", "head"), (f"   {_clock(now.seconds)}   ", "dim"), *who, *where]


def _end_to_end(now: Snapshot, earlier: Snapshot | None, over: frozenset[str]) -> Line:
    if now.instants == 0:
        return [(" nothing published yet", "dim")]
    spent = now.seconds - (earlier.seconds if earlier else 0.0)
    rate = (now.instants - (earlier.instants if earlier else 0)) / spent if spent > 0 else 0.0
    ms: Line = [
        piece
        for p in ("p50", "p95", "p99")
        for piece in ((f"  {p} ", "dim"), (_ms(now.end_to_end_ms[p]), "bad" if p in over else "good" if p == "p95" else ""))
    ]
    return [(" end to end", "dim"), *ms, (" ms   ", "dim"), (f"{rate:.1f}", ""), (" instants/s", "dim")]


def _ledger(now: Snapshot) -> Line:
    text = f" {now.captured} frames captured = {now.published} published + {_dropped(now)} dropped + {now.in_flight} in flight"
    return [(text, ""), *([(f"  UNBALANCED by {now.balance}", "bad")] if now.balance else [])]


def _losses(now: Snapshot, plan: Plan, width: int) -> list[Line]:
    """The three most frequent accounts of dropped frames; cameras that lose frames in the same way share a line."""
    bases = {n.name: n.base for n in plan.nodes}
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for drop in now.dropped:
        counts.setdefault((bases.get(drop.node, drop.node), drop.reason), {})[drop.node] = drop.count
    most = sorted(counts.items(), key=lambda item: -sum(item[1].values()))[:3]
    lines = []
    for (base, reason), nodes in most:
        who = next(iter(nodes)) if len(nodes) == 1 else f"{base} x{len(nodes)}"
        lines.append([(_cut(f" {sum(nodes.values()):>8} dropped  {who}: {reason}", width), "lost")])
    return lines


def _dropped(now: Snapshot) -> int:
    return sum(d.count for d in now.dropped)


def _people(count: int) -> str:
    return "person" if count == 1 else "people"


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 2, 0)] + ".."


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60:02}:{rest % 60:02}"


def _live(console: Console) -> Live:
    """What else is printed to the terminal goes above the table; what the user sent elsewhere (2> errors.txt) goes there."""
    return Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop", redirect_stderr=sys.stderr.isatty())


class _Screen(abc.ABC):
    """Context manager: shows until the block ends. On a terminal a rich Live that vanishes at the end, else lines."""

    def __init__(self, runner: Running, console: Console | None) -> None:
        self._runner = runner
        self._console = console or Console(file=sys.stdout)
        self._live = _live(self._console) if self._console.is_terminal and not logs.as_json() else None
        self._given_back = ExitStack()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="posepipe:screen", daemon=True)

    @abc.abstractmethod
    def lines(self) -> list[Line]: ...

    @abc.abstractmethod
    def log_line(self) -> str: ...

    def __enter__(self) -> Self:
        if self._live is not None:
            before = {id(stream): name for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr))}
            self._live.start()
            self._move_logs(before, self._live.console)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        if self._live is not None:
            self._live.stop()
        self._given_back.close()

    def _move_logs(self, before: Mapping[int, str], console: Console) -> None:
        """Log handlers that hold the terminal itself would write through the table; rich puts what it is given above it."""
        for handler in (*logging.getLogger().handlers, *logging.getLogger("posepipe").handlers):
            if isinstance(handler, RichHandler) and handler.console.is_terminal:
                self._given_back.callback(setattr, handler, "console", handler.console)
                handler.console = console
            elif isinstance(handler, logging.StreamHandler) and id(handler.stream) in before:
                self._given_back.callback(handler.setStream, handler.stream)
                handler.setStream(getattr(sys, before[id(handler.stream)]))

    def _loop(self) -> None:
        while not self._done.wait(_REFRESH_S if self._live is not None else _LOG_EVERY_S):
            try:
                self.refresh()
            except OSError:  # the terminal has gone or the pipe is closed; the studio needs neither
                return

    def refresh(self) -> None:
        """Show the present state; called twice a second on a terminal and every five seconds elsewhere."""
        if self._live is not None:
            self._live.update(Lines(self.lines()), refresh=True)
        elif logs.as_json():
            logs.say_status(self.log_line(), self._runner.snapshot(_RECENT))
        else:
            print(self.log_line(), file=self._console.file, flush=True)


class LiveScreen(_Screen):
    """Shows a live studio: every node's rate, latency, queue and losses, the skeletons' quality, the ledger.

    with LiveScreen(runner): ... refreshes in place on a terminal. Elsewhere (a log file, CI) it prints a line every 5 s.
    """

    def __init__(self, runner: Running, *, console: Console | None = None) -> None:
        super().__init__(runner, console)
        self._seen: deque[Snapshot] = deque(maxlen=_RATE_OVER)

    def lines(self) -> list[Line]:
        now = self._runner.snapshot(_RECENT)
        earlier = self._seen[0] if self._seen else None
        self._seen.append(now)
        size = self._console.size
        return dashboard(now, self._runner.plan, earlier=earlier, width=size.width, height=size.height - 1)

    def log_line(self) -> str:
        return log_line(self._runner.snapshot(_RECENT))


class OfflineProgress(_Screen):
    """Shows how far an offline run is. total: instants that there will be, None when nobody knows."""

    def __init__(self, runner: Running, *, total: int | None = None, console: Console | None = None) -> None:
        super().__init__(runner, console)
        self._total = total
        self._bar = "━" if self._console.encoding.lower().startswith("utf") else "#"

    def lines(self) -> list[Line]:
        return [progress(self._runner.snapshot(_RECENT), total=self._total, width=self._console.size.width, bar=self._bar)]

    def log_line(self) -> str:
        return "".join(text for text, _ in progress(self._runner.snapshot(_RECENT), total=self._total, width=100, bar="#")).strip()
