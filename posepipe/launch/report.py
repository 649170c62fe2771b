"""What a run did: the summary as data, as a table, and who is to blame for a missed budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from posepipe.pipeline.graph import Budget, Plan
from posepipe.pipeline.ledger import Drop
from posepipe.pipeline.runner import Running
from posepipe.pipeline.snapshot import NodeView, Snapshot

from .machine import Machine as Machine

_AROUND = 2.5
"""Instants this many percentile points around the judged percentile show where its time went."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One budget after the run. measured_ms is None when nothing was measured, which is a miss. blame is empty when it was kept."""

    key: str
    limit_ms: float
    measured_ms: float | None
    ok: bool
    blame: str


def summary(runner: Running, *, machine: Machine) -> dict[str, Any]:
    """The run as plain data (JSON). Call it after `runner.finish()`; `machine` was made before the start.

    Durations in ms; `balance` is captured - published - dropped, 0 unless there is a bug; `cpu_percent` is the mean over the run,
    100 is one core; `rss_mb` what all processes took together at most, shared pages counted once; `people` and `reproj_px` are medians
    over the published instants (None when nobody was seen).
    """
    machine.stop(memory_mb=runner.memory_mb, before_s=runner.opened_with_s)
    now = runner.snapshot()
    trace = runner.trace
    # offline the queues are filled on purpose: a latency says nothing there
    verdicts = [] if runner.offline else judge(runner.plan, now, trace=trace.chrome() if trace is not None else None)
    runs_on = dict(runner.runs_on())
    return {
        "studio": runner.plan.studio,
        "seconds": round(now.seconds, 3),
        "instants": now.instants,
        "captured": now.captured,
        "published": now.published,
        "dropped": _drops(now.dropped),
        "skipped": _drops(now.skipped),
        "balance": now.captured - now.published - sum(d.count for d in now.dropped),
        "end_to_end_ms": {p: now.end_to_end_ms[p] for p in ("p50", "p95", "p99")},
        "nodes": {n.name: _node_row(n) for n in now.nodes},
        "people": now.median_people,
        "reproj_px": round(now.median_reproj_px, 2) if math.isfinite(now.median_reproj_px) else None,
        "budgets": [asdict(v) for v in verdicts],
        "cpu_percent": machine.cpu_percent,
        "rss_mb": machine.rss_mb,
        "machine": {**machine.facts(), "engines": runs_on or dict(runner.plan.engines)},
    }


def _node_row(n: NodeView) -> dict[str, Any]:
    row: dict[str, Any] = {"count": n.count, **{f"{p}_ms": n.ms[p] for p in ("p50", "p95", "p99", "max")}}
    return row if n.queue is None else {**row, "queue": {"size": n.queue.size, "full": n.queue.full}}


def _drops(drops: tuple[Drop, ...]) -> list[dict[str, Any]]:
    return [asdict(d) for d in drops]


# budgets ------------------------------------------------------------------------------------------------------------------


def judge(plan: Plan, now: Snapshot, *, trace: Mapping[str, Any] | None = None) -> list[Verdict]:
    """Every budget of the plan against what was measured.

    A missed node budget names the node, for an `each` its slowest entry. A missed end_to_end budget names the node with the
    largest share of it: its own time and the wait before it, from the spans of `trace` (`TraceLog.chrome()`), or without a trace
    the node of the publishing path with the largest percentile.
    """
    return [_end_to_end(b, plan, now, trace) if b.node == "end_to_end" else _node(b, plan, now) for b in plan.budgets]


def _verdict(budget: Budget, measured_ms: float | None, blame: str) -> Verdict:
    ok = measured_ms is not None and measured_ms <= budget.limit_ms
    return Verdict(budget.key, budget.limit_ms, measured_ms, ok, "" if ok else blame)


def _missed(budget: Budget, measured_ms: float) -> str:
    return f"{budget.node} {budget.percentile} {measured_ms:.1f} ms > {budget.limit_ms:g} ms"


def _node(budget: Budget, plan: Plan, now: Snapshot) -> Verdict:
    views = [view for planned, view in zip(plan.nodes, now.nodes, strict=True) if planned.base == budget.node and view.count]
    if not views:
        return _verdict(budget, None, f"{budget.node} has processed nothing, so its budget is not kept")
    slowest = max(views, key=lambda v: v.ms[budget.percentile])
    measured = slowest.ms[budget.percentile]
    return _verdict(budget, measured, f"{_missed(budget, measured)}: {slowest.name}")


def _end_to_end(budget: Budget, plan: Plan, now: Snapshot, trace: Mapping[str, Any] | None) -> Verdict:
    if not now.instants:
        return _verdict(budget, None, "nothing was published, so the end_to_end budget is not kept")
    measured = now.end_to_end_ms[budget.percentile]
    return _verdict(budget, measured, f"{_missed(budget, measured)}: {_whose(budget.percentile, plan, now, trace)}")


def _whose(percentile: str, plan: Plan, now: Snapshot, trace: Mapping[str, Any] | None) -> str:
    shares = _shares(trace, float(percentile[1:])) if trace is not None else {}
    if shares:
        name = max(shares, key=lambda n: shares[n])
        return f"{name} took {shares[name]:.1f} ms of it"
    path = _publishing_path(plan)
    candidates: list[NodeView] = [v for v in now.nodes if v.name in path]
    worst = max(candidates, key=lambda v: v.ms[percentile])
    return f"{worst.name} is the slowest on the way, {percentile} {worst.ms[percentile]:.1f} ms (a trace shows the waits between the nodes)"


def _shares(trace: Mapping[str, Any], percentile: float) -> dict[str, float]:
    """Mean ms that each node took, with the wait before it, in the instants around a percentile of the whole way.

    A span ends where the share of its node ends; the share begins where the node before it ended.
    """
    rows: list[tuple[float, dict[str, float]]] = []
    for spans in _instants(trace):
        reached = spans[0]["ts"]
        begin, row = reached, {}
        for span in spans:
            end = span["ts"] + span["dur"]
            row[span["name"]] = (end - reached) / 1e3
            reached = end
        rows.append(((reached - begin) / 1e3, row))
    if not rows:
        return {}
    totals = np.array([total for total, _ in rows])
    low, high = np.percentile(totals, [max(percentile - _AROUND, 0), min(percentile + _AROUND, 100)])
    near = [row for total, row in rows if low <= total <= high]
    # entries of one `each` are alternatives, never steps after one another: the node is its name in the file
    sums: dict[str, float] = {}
    for row in near:
        for name, ms in row.items():
            base = name.partition("/")[0]
            sums[base] = sums.get(base, 0.0) + ms / len(near)
    return sums


def _instants(trace: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """The spans of one published packet after the other, in the order of the way."""
    spans: list[dict[str, Any]] = []
    for event in trace["traceEvents"]:
        if event["ph"] != "X" or event["cat"] != "node":
            continue
        if spans and (event["args"]["seq"] != spans[0]["args"]["seq"] or event["name"] in {s["name"] for s in spans}):
            yield spans
            spans = []
        spans.append(event)
    if spans:
        yield spans


def _publishing_path(plan: Plan) -> set[str]:
    """Names of the nodes that a published packet has passed."""
    path: set[str] = set()
    waiting = [n.name for n in plan.nodes if n.cls.publishes]
    while waiting:
        name = waiting.pop()
        if name not in path:
            path.add(name)
            waiting += [up for names in plan[name].inputs.values() for up in names]
    return path


# the table ----------------------------------------------------------------------------------------------------------------


def print_summary(report: Mapping[str, Any], console: Console | None = None) -> None:
    """The summary for a person, on standard output."""
    console = console or Console()
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("node", style="cyan", no_wrap=True)
    for title in ("count", "p50 ms", "p95 ms", "p99 ms", "max ms"):
        table.add_column(title, justify="right")
    for name, row in report["nodes"].items():
        table.add_row(name, str(row["count"]), *(f"{row[k]:.1f}" for k in ("p50_ms", "p95_ms", "p99_ms", "max_ms")))
    ms = report["end_to_end_ms"]
    table.add_row("[bold]end to end[/]", str(report["instants"]), *(f"[bold]{ms[p]:.1f}[/]" for p in ("p50", "p95", "p99")), "")
    console.print(table)
    console.print()
    for line in _lines(report):
        console.print(line, highlight=False)


def _truth(figures: Mapping[str, Any]) -> str:
    people = figures["people"]
    found = f"{people['matched']} of {people['true']} people found, {people['ghosts']} ghosts"
    if figures["mpjpe_mm"] is None:
        return f"against the truth: {found}"
    aligned = f", aligned {figures['pa_mpjpe_mm']:.1f} mm" if figures["pa_mpjpe_mm"] is not None else ""
    return f"against the truth: MPJPE {figures['mpjpe_mm']:.1f} mm, p95 {figures['p95_mm']:.1f} mm{aligned}; {found}"


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    seconds = report["seconds"]
    rate = report["instants"] / seconds if seconds else 0.0
    people = "nobody in view" if not report["people"] else f"{report['people']:g} in view (median)"
    error = f", reprojection {report['reproj_px']:.1f} px" if report["reproj_px"] is not None else ""
    yield f"{report['studio']}: {report['instants']} instants in {seconds:.1f} s ({rate:.1f}/s), {people}{error}"
    if "truth" in report:
        yield _truth(report["truth"])
    lost = sum(d["count"] for d in report["dropped"])
    yield f"frames: {report['captured']} captured = {report['published']} published + {lost} dropped"
    if report["balance"]:
        yield f"[bold red]the ledger does not balance by {report['balance']}: this is a bug of posepipe[/]"
    for drop in report["dropped"]:
        yield f"  [yellow]{drop['count']:>6} {escape(drop['node'])}: {escape(drop['reason'])}[/]"
    for budget in report["budgets"]:
        text = f"budget {budget['key']}: {budget['measured_ms'] or 0:.1f} of {budget['limit_ms']:g} ms"
        yield f"[green]{text}, kept[/]" if budget["ok"] else f"[bold red]budget {budget['key']} missed[/]: {escape(budget['blame'])}"
    machine = report["machine"]
    engines = ", ".join(f"{k} {v}" for k, v in machine["engines"].items())
    yield (
        f"[dim]{report['cpu_percent']:.0f} % of a core, {report['rss_mb']:.0f} MB; {machine['cpu']}, {machine['cores']} cores, "
        f"load {machine['load_start']} -> {machine['load_end']}, {machine['os']}, Python {machine['python']}{', ' + escape(engines) if engines else ''}[/]"
    )
