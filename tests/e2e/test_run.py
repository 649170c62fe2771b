"""`posepipe run` and `bench` as a user types them: to the end, for a time, stopped, watched by a subscriber."""

from __future__ import annotations

import json
import signal
import struct
from pathlib import Path

import pytest
from studio_files import Listener, StudioFiles


def floats(raw: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(raw) // 4}f", raw)


def test_offline_runs_to_the_end_and_loses_nothing(hall: StudioFiles) -> None:
    done = hall.run("--offline", "--summary", "out/summary.json", "--trace", "out/trace.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((hall.folder / "out/summary.json").read_text())
    assert figures["captured"] == figures["published"] == 90
    assert figures["instants"] == 30
    assert figures["balance"] == 0
    assert figures["dropped"] == []
    assert set(figures["nodes"]) == {
        "capture/north",
        "capture/east",
        "capture/south",
        "instants",
        "heatmaps",
        "pose3d",
        "smooth",
        "publish",
    }
    assert {"count", "p50_ms", "p95_ms", "p99_ms", "max_ms", "queue"} == set(figures["nodes"]["heatmaps"])
    assert set(figures["end_to_end_ms"]) == {"p50", "p95", "p99"}
    assert {"cpu_percent", "rss_mb", "machine"} <= set(figures)
    trace = json.loads((hall.folder / "out/trace.json").read_text())
    spans = {e["name"] for e in trace["traceEvents"] if e["ph"] == "X"}
    assert {"instants", "heatmaps", "pose3d", "smooth", "publish"} <= spans <= set(figures["nodes"])
    assert "30 instants" in done.stdout
    assert "90 captured = 90 published + 0 dropped" in done.stdout


def test_the_stream_keeps_its_format(hall: StudioFiles) -> None:
    listener = Listener(hall.address)
    done = hall.run("--await-subscribers", "1")
    instants = listener.stop()
    assert done.returncode == 0, done.stderr
    (hello,) = listener.hello[:1]
    assert {k: type(v) for k, v in hello.items()} == {
        "v": int, "studio": str, "skeleton": str, "joints": list, "bones": list, "units": str, "axes": str, "cameras": list, "actions": list, "graph_sha256": str,
    }  # fmt: skip
    assert hello["cameras"] == ["north", "east", "south"]
    assert hello["units"] == "m"
    joints = len(hello["joints"])
    assert instants[0]["seq"] == 0, "a subscriber that was waited for misses nothing"
    seqs = [m["seq"] for m in instants]
    assert seqs == sorted(set(seqs))
    for m in instants:
        assert set(m) == {"v", "seq", "t_capture_ns", "t_publish_ns", "sync", "tier", "people"}
        assert set(m["sync"]) == {"skew_ns", "views", "missing", "offset_ms", "drift_ppm", "complete"}
        assert [len(m["sync"][key]) for key in ("offset_ms", "drift_ppm", "complete")] == [3, 3, 3]
        assert m["t_publish_ns"] > m["t_capture_ns"] > 1_600_000_000_000_000_000
        assert m["tier"] == "algebraic"
        for person in m["people"]:
            assert set(person) == {"id", "xyz_m", "conf", "sigma_m", "reproj_px", "action", "body"}
            conf = floats(person["conf"])
            assert len(conf) == len(floats(person["sigma_m"])) == joints
            assert len(floats(person["xyz_m"])) == 3 * joints
            assert all(0 <= c <= 1 for c in conf)
            assert all(abs(v) < 10 for i, c in enumerate(conf) if c > 0 for v in floats(person["xyz_m"])[3 * i : 3 * i + 3])
    assert sum(bool(m["people"]) for m in instants) > 0.8 * len(instants)
    assert len({p["id"] for m in instants for p in m["people"]}) == 1


def test_seconds_loop_the_files(hall: StudioFiles) -> None:
    done = hall.run("--seconds", "2.5", "--summary", "s.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((hall.folder / "s.json").read_text())
    assert figures["captured"] == 3 * 75
    assert figures["balance"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_in_order(hall: StudioFiles, number: signal.Signals) -> None:
    listener = Listener(hall.address)
    studio = hall.start("--seconds", "50", "--await-subscribers", "1", "--summary", "s.json")
    while not any(topic.startswith("skeleton/") for topic, _ in listener.said):
        assert studio.poll() is None, studio.communicate()[1]
    studio.send_signal(number)
    out, err = studio.communicate(timeout=20)
    listener.stop()
    assert studio.returncode == 130, err
    assert "Traceback" not in err
    assert json.loads((hall.folder / "s.json").read_text())["balance"] == 0
    assert "captured =" in out


def test_waiting_for_subscribers_ends_with_a_message(hall: StudioFiles) -> None:
    done = hall.run("--await-subscribers", "1", "--await-seconds", "0.5")
    assert done.returncode == 1
    assert "0 of 1 subscribers after" in done.stderr
    assert "-> start the subscriber" in done.stderr


def test_two_offline_runs_give_the_same_skeletons(hall: StudioFiles) -> None:
    hall.nodes["record"] = {"use": "record.jsonl", "from": "smooth", "file": "${OUT}"}
    for name in ("a.jsonl", "b.jsonl"):
        assert hall.run("--offline", OUT=name).returncode == 0
    first, second = ((hall.folder / n).read_text().splitlines()[1:] for n in ("a.jsonl", "b.jsonl"))
    strip = [[{**json.loads(line), "t_capture_ns": 0} for line in lines] for lines in (first, second)]
    assert len(strip[0]) == 30
    assert strip[0] == strip[1]


def test_a_missed_budget_ends_the_bench_with_3_and_names_the_node(hall: StudioFiles) -> None:
    hall.graph["budgets"] = {"heatmaps_p50_ms": 0.001, "end_to_end_p95_ms": 60_000}
    done = hall.run("--seconds", "1.5", "--json", "b.json", command="bench")
    assert done.returncode == 3
    verdicts = {b["key"]: b for b in json.loads((hall.folder / "b.json").read_text())["budgets"]}
    assert not verdicts["heatmaps_p50_ms"]["ok"]
    assert "heatmaps" in verdicts["heatmaps_p50_ms"]["blame"]
    assert verdicts["end_to_end_p95_ms"]["ok"]


def test_the_other_commands(hall: StudioFiles) -> None:
    assert "good: 3 cameras" in hall.run(command="check").stdout
    assert "digraph" in hall.run("--dot", command="graph").stdout
    assert "flowchart" in hall.run("--mermaid", command="graph").stdout
    assert "heatmap.topdown" in hall.run(command="graph").stdout


def test_every_example_is_right(tmp_path: Path) -> None:
    from posepipe.launch import studio

    examples = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
    assert examples
    for example in examples:
        assert studio.load(example).sources
