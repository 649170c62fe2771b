"""What a run leaves behind as figures, and who is to blame for a missed budget."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from studio_kit import plan, ran, snapshot

from posepipe.engines.device import cores, cpu_model
from posepipe.launch.machine import Machine
from posepipe.launch.report import judge, print_summary, summary
from posepipe.pipeline.packet import Packet, Span
from posepipe.pipeline.stats import TraceLog

MS = 1_000_000


def trace(*ways: tuple[tuple[str, float, float], ...]) -> dict[str, Any]:
    """A trace of published packets; every way is (node, from ms, to ms) ..."""
    log = TraceLog()
    for seq, way in enumerate(ways):
        spans = tuple(Span(name, seq * 1000 * MS + int(a * MS), seq * 1000 * MS + int(b * MS)) for name, a, b in way)
        log.add(Packet(seq, seq * 1000 * MS, "publish", None, spans, ()))
    return log.chrome()


def way(*, lift: float = 10.0, wait: float = 0.0) -> tuple[tuple[str, float, float], ...]:
    """capture 4 ms, join 1 ms, a wait before lift, lift, publish 1 ms."""
    begin = 5 + wait
    return (("capture/cam02", 0, 4), ("instants", 3, 5), ("lift", begin, begin + lift), ("publish", begin + lift, begin + lift + 1))


def test_the_summary_is_data_and_balances(tmp_path: Path) -> None:
    machine = Machine()
    runner = ran(plan(tmp_path, budgets="lift_p95_ms: 100000", replace=("frames: 12", "frames: 12, corrupt: 5")))
    report = json.loads(json.dumps(summary(runner, machine=machine)))
    assert set(report) == {
        *("studio", "seconds", "instants", "captured", "published", "dropped", "skipped", "balance", "end_to_end_ms", "nodes", "people"),
        *("reproj_px", "budgets", "cpu_percent", "rss_mb", "machine"),
    }
    assert (report["studio"], report["captured"], report["published"], report["balance"]) == ("hall", 36, 33, 0)
    assert {(d["node"], d["reason"], d["count"]) for d in report["dropped"]} == {
        (f"capture/cam0{i}", "corrupt frame", 1) for i in (1, 2, 3)
    }
    assert report["instants"] == report["nodes"]["lift"]["count"] == 11
    assert set(report["nodes"]["lift"]) == {"count", "p50_ms", "p95_ms", "p99_ms", "max_ms", "queue"}
    assert report["nodes"]["lift"]["queue"] == {"size": 2, "full": "block"}
    assert (report["people"], report["reproj_px"]) == (2, 10.0)
    assert report["budgets"] == [
        {"key": "lift_p95_ms", "limit_ms": 100000.0, "measured_ms": report["nodes"]["lift"]["p95_ms"], "ok": True, "blame": ""}
    ]
    assert report["cpu_percent"] > 0
    assert report["rss_mb"] > 10
    assert report["machine"]["cores"] >= 1


def test_offline_runs_are_not_judged_by_live_budgets(tmp_path: Path) -> None:
    runner = ran(plan(tmp_path, budgets="lift_p95_ms: 0.000001"), offline=True)
    assert summary(runner, machine=Machine())["budgets"] == []


def test_what_the_engines_ran_on_is_stated_when_a_node_tells(tmp_path: Path) -> None:
    machine = Machine()
    runner = ran(plan(tmp_path))
    runner.slots["lift"].node.runs_on = "openvino bf16"  # type: ignore[attr-defined]
    assert summary(runner, machine=machine)["machine"]["engines"] == {"lift": "openvino bf16"}


def test_nobody_seen_has_no_error(tmp_path: Path) -> None:
    runner = ran(plan(tmp_path, replace=("frames: 12", "frames: 0")))
    report = summary(runner, machine=Machine())
    assert (report["people"], report["reproj_px"], report["instants"]) == (0, None, 0)
    json.dumps(report, allow_nan=False)


def test_a_kept_budget_blames_nobody(tmp_path: Path) -> None:
    p = plan(tmp_path, budgets="lift_p95_ms: 7, end_to_end_p99_ms: 91")
    assert [(v.ok, v.measured_ms, v.blame) for v in judge(p, snapshot(p))] == [(True, 6.5, ""), (True, 90.1, "")]


def test_a_missed_node_budget_blames_the_node(tmp_path: Path) -> None:
    p = plan(tmp_path, budgets="lift_p95_ms: 6")
    (verdict,) = judge(p, snapshot(p))
    assert (verdict.ok, verdict.measured_ms) == (False, 6.5)
    assert verdict.blame == "lift p95 6.5 ms > 6 ms: lift"


def test_a_missed_camera_budget_names_the_slowest_camera(tmp_path: Path) -> None:
    p = plan(tmp_path, budgets="capture_p99_ms: 10")
    now = snapshot(p)
    nodes = tuple(replace(n, ms={**n.ms, "p99": 31.0}) if n.name == "capture/cam02" else n for n in now.nodes)
    (verdict,) = judge(p, replace(now, nodes=nodes))
    assert verdict.blame == "capture p99 31.0 ms > 10 ms: capture/cam02"


def test_a_missed_end_to_end_budget_blames_the_largest_share(tmp_path: Path) -> None:
    p = plan(tmp_path, budgets="end_to_end_p95_ms: 60")
    spans = trace(*[way(lift=10)] * 90, *[way(lift=41)] * 10)
    (verdict,) = judge(p, snapshot(p), trace=spans)
    assert verdict.blame == "end_to_end p95 63.0 ms > 60 ms: lift took 41.0 ms of it"


def test_a_wait_belongs_to_the_node_that_was_waited_for(tmp_path: Path) -> None:
    p = plan(tmp_path, budgets="end_to_end_p95_ms: 60")
    (verdict,) = judge(p, snapshot(p), trace=trace(*[way(lift=3, wait=30)] * 20))
    assert verdict.blame.endswith("lift took 33.0 ms of it")


def test_the_share_is_that_of_the_judged_percentile(tmp_path: Path) -> None:
    """Most instants are slow in lift; the slowest are slow in a camera."""
    p = plan(tmp_path, budgets="end_to_end_p50_ms: 1, end_to_end_p99_ms: 1")
    late = tuple((name, a + (80 if i else 0), b + 80) for i, (name, a, b) in enumerate(way()))
    spans = trace(*[way(lift=30)] * 95, *[late] * 5)
    half, slowest = judge(p, snapshot(p), trace=spans)
    assert half.blame.endswith("lift took 30.0 ms of it")
    assert slowest.blame.endswith("capture took 84.0 ms of it")


def test_two_publishers_of_one_instant_are_two_ways(tmp_path: Path) -> None:
    p = plan(tmp_path, budgets="end_to_end_p95_ms: 60")
    log = TraceLog()
    for name in ("publish", "publish2"):
        spans = tuple(Span(n if n != "publish" else name, int(a * MS), int(b * MS)) for n, a, b in way(lift=20))
        log.add(Packet(0, 0, name, None, spans, ()))
    (verdict,) = judge(p, snapshot(p), trace=log.chrome())
    assert verdict.blame.endswith("lift took 20.0 ms of it")


def test_without_a_trace_the_slowest_of_the_publishing_path_is_named(tmp_path: Path) -> None:
    p = plan(tmp_path, budgets="end_to_end_p95_ms: 60")
    now = snapshot(p)
    ms = {"lift": 40.0, "view": 500.0}  # the view is slower, but nothing that is published waits for it
    nodes = tuple(replace(n, ms={**n.ms, "p95": ms.get(n.name, 1.0)}) for n in now.nodes)
    (verdict,) = judge(p, replace(now, nodes=nodes))
    assert "lift is the slowest on the way, p95 40.0 ms" in verdict.blame


def test_a_budget_of_something_that_never_ran_is_missed(tmp_path: Path) -> None:
    p = plan(tmp_path, budgets="lift_p95_ms: 6, end_to_end_p95_ms: 60")
    now = snapshot(p, instants=0)
    verdicts = judge(p, replace(now, nodes=tuple(replace(n, count=0) for n in now.nodes)))
    assert [(v.ok, v.measured_ms) for v in verdicts] == [(False, None), (False, None)]
    assert "processed nothing" in verdicts[0].blame
    assert "nothing was published" in verdicts[1].blame


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_for_a_person(tmp_path: Path, width: int) -> None:
    out = io.StringIO()
    runner = ran(plan(tmp_path, budgets="lift_p95_ms: 0.000001, publish_p95_ms: 1000", replace=("frames: 12", "frames: 12, corrupt: 3")))
    report = summary(runner, machine=Machine())
    print_summary({**report, "dropped": [{"node": "lift", "reason": "[bold]not markup", "count": 3}]}, Console(file=out, width=width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for want in (
        "capture/cam01",
        "end to end",
        "36 captured = 33 published + 3 dropped",
        "lift: [bold]not markup",
        "budget lift_p95_ms missed: lift p95",
    ):
        assert want in text
    assert "kept" in text
    assert "does not balance" not in text


def test_an_unbalanced_ledger_is_shouted(tmp_path: Path) -> None:
    out = io.StringIO()
    print_summary({**summary(ran(plan(tmp_path)), machine=Machine()), "balance": -2}, Console(file=out))
    assert "does not balance by -2" in out.getvalue()


def test_the_machine_is_described() -> None:
    machine = Machine()
    sum(i * i for i in range(200_000))
    machine.stop()
    before = machine.cpu_percent
    sum(i * i for i in range(200_000))
    machine.stop()
    assert machine.cpu_percent == before > 0
    assert set(machine.facts()) == {"cpu", "cores", "load_start", "load_end", "os", "python"}
    assert cpu_model().strip()
    assert cores() >= 1
