"""A live studio seen from outside: scraped, asked for its health, its spans collected, its log read by a program."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from studio_files import StudioFiles, free_port

from posepipe.launch.desk import ask

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the endpoint shows worker processes, which need Linux")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def get(url: str, accept: str = "*/*") -> tuple[int, str, str]:
    """Status, content type and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.headers["Content-Type"], e.read().decode()


def scrape(base: str, accept: str = "*/*") -> Samples:
    status, kind, text = get(f"{base}/metrics", accept)
    assert status == 200
    openmetrics = accept == OPENMETRICS
    assert kind.startswith("application/openmetrics-text" if openmetrics else "text/plain; version=0.0.4")
    families = (parse_openmetrics if openmetrics else parse_text)(text)
    return {(s.name, frozenset(s.labels.items() - {("studio", "hall")})): s.value for family in families for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"posepipe_{name}", frozenset(labels.items())]


def passed(samples: Samples) -> float:
    """Packets that the triangulation has made skeletons of."""
    return value(samples, "node_latency_seconds_count", node="pose3d", worker="main")


def dropped(samples: Samples) -> float:
    return sum(v for (name, _), v in samples.items() if name == "posepipe_frames_dropped_total")


def endpoint(studio: subprocess.Popen[str]) -> str:
    """Where the studio says that its endpoint is."""
    assert studio.stderr is not None
    for line in studio.stderr:
        if found := re.search(r"metrics: (http://\S+)/metrics, health: \1/healthz", line):
            return found[1]
    raise AssertionError(f"no endpoint, exit {studio.wait(10)}")


def well(base: str) -> dict[str, Any]:
    """Wait until the studio is well; its answer. Until then it says 503 and why."""
    end = time.monotonic() + 30
    while True:
        status, kind, text = get(f"{base}/healthz")
        now: dict[str, Any] = json.loads(text)
        assert kind == "application/json"
        assert (status == 200) == (now["reasons"] == []) == (now["status"] == "ok")
        if status == 200:
            return now
        assert status == 503
        assert time.monotonic() < end, now
        time.sleep(0.02)


def test_two_scrapes_agree_with_the_summary(hall: StudioFiles) -> None:
    studio = hall.start("--seconds", "6", "--metrics", "127.0.0.1:0", "--summary", "s.json")
    base = endpoint(studio)
    health = well(base)
    port = int(base.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)):  # one who connects and asks nothing holds up nobody
        first = scrape(base)
    while passed(second := scrape(base, OPENMETRICS)) < passed(first) + 10:
        time.sleep(0.1)
    nowhere = get(f"{base}/")
    _, err = studio.communicate(timeout=40)
    assert studio.returncode == 0, err
    end = json.loads((hall.folder / "s.json").read_text())
    assert set(health["workers"]) == {"capture/north", "capture/east", "capture/south", "main"}
    assert (health["missing"], health["ledger_balance"]) == ([], 0)
    assert health["seconds_since_instant"] < 5
    assert (nowhere[0], nowhere[2]) == (404, "there is /metrics and /healthz\n")
    for name, last in (("frames_captured_total", end["captured"]), ("frames_published_total", end["published"])):
        assert 0 < value(first, name) < value(second, name) <= last
    lost = sum(d["count"] for d in end["dropped"])
    assert dropped(first) <= dropped(second) <= lost
    assert end["captured"] == end["published"] + lost
    for now in (first, second):
        assert value(now, "ledger_balance") == 0
        assert value(now, "worker_up", worker="main") == 1
        assert value(now, "worker_restarts_total", worker="main") == 0
        assert value(now, "subscribers", worker="main") == 0
        for worker in ("supervisor", "main", "capture/north"):
            assert value(now, "worker_resident_bytes", worker=worker) > 1e6
            assert value(now, "worker_cpu_seconds_total", worker=worker) > 0
    assert value(second, "people") == 1
    assert value(second, "end_to_end_latency_seconds_count") <= end["instants"]
    assert passed(second) <= end["nodes"]["pose3d"]["count"]
    assert value(second, "node_latency_seconds_bucket", node="pose3d", worker="main", le="+Inf") == passed(second)


def test_a_worker_that_dies_is_seen(hall: StudioFiles) -> None:
    """The one that everything needs: 503 with its name until it is back, one restart counted, no counter falls."""
    hall.nodes["smooth"]["restart"] = {"backoff_s": 1.0}
    studio = hall.start("--seconds", "50", "--metrics", "127.0.0.1:0")
    base = endpoint(studio)
    well(base)
    before = scrape(base)
    (pid,) = {row["pid"] for row in workers(studio.pid) if row["name"] == "main"}
    subprocess.run(["kill", "-9", str(pid)], check=True)
    end = time.monotonic() + 20
    while (now := json.loads(get(f"{base}/healthz")[2]))["status"] == "ok":
        assert time.monotonic() < end, "nobody noticed"
        time.sleep(0.02)
    assert now["reasons"][0] in ("worker main is waiting", "worker main is opening")
    well(base)
    after = scrape(base)
    studio.terminate()
    _, err = studio.communicate(timeout=40)
    assert studio.returncode == 130, err
    assert value(after, "worker_restarts_total", worker="main") == 1
    assert value(after, "ledger_balance") == 0
    assert passed(after) >= passed(before)


def workers(pid: int) -> list[dict[str, Any]]:
    """What `posepipe ps` says of one studio."""
    rows: list[dict[str, Any]] = ask(pid, {"do": "ps"})
    return rows


def test_a_taken_port_is_refused_before_a_camera_opens(hall: StudioFiles) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        hall.graph["metrics"] = {"bind": f"127.0.0.1:{port}"}
        done = hall.run()
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"posepipe: metrics 127.0.0.1:{port}: the port is taken: another program, or another studio, listens there",
        "  -> stop it (posepipe ps lists the studios of this machine), or choose another port: "
        "--metrics HOST:PORT, or metrics: {bind: ...}",
    ]


def test_an_address_of_another_machine_is_refused(hall: StudioFiles) -> None:
    done = hall.run("--metrics", f"192.0.2.1:{free_port()}")
    assert done.returncode == 2
    assert "cannot listen there: Cannot assign requested address" in done.stderr


def test_an_offline_run_has_no_endpoint(hall: StudioFiles) -> None:
    hall.graph["metrics"] = {"bind": f"127.0.0.1:{free_port()}"}
    assert "metrics" not in hall.run("--offline").stderr
    done = hall.run("--offline", "--metrics", "127.0.0.1:0")
    assert done.returncode == 2
    assert "--offline and --metrics exclude each other" in done.stderr


def test_the_log_as_json(hall: StudioFiles) -> None:
    """Every line of standard error is an object: what the run says, a warning of a worker, the status line."""
    (hall.folder / "out.jsonl").symlink_to("/dev/full")
    hall.nodes["record"] = {"use": "record.jsonl", "from": "smooth", "file": "out.jsonl", "overwrite": True}
    done = hall.run("--seconds", "5.6", "--metrics", "127.0.0.1:0", "--log-format", "json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert any(line["message"].startswith("metrics: http://") for line in lines)
    (complaint,) = [line for line in lines if "recording has stopped, the studio goes on" in line["message"]]
    assert (complaint["level"], complaint["logger"], complaint["worker"]) == ("warning", "posepipe.run", "record")
    status = next(line for line in lines if "captured" in line)
    assert status["balance"] == 0
    assert status["captured"] >= status["published"] + status["dropped"]
    assert "instants, " not in done.stdout, "the status is not said twice"


class Collector(HTTPServer):
    """An OTLP collector: keeps what is sent to it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.requests.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def test_spans_come_to_an_opentelemetry_collector(hall: StudioFiles) -> None:
    otlp = pytest.importorskip(
        "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="needs OpenTelemetry: pip install 'posepipe[otel]'"
    )
    collector = Collector()
    hall.graph["metrics"] = {"otlp": f"http://127.0.0.1:{collector.server_port}/v1/traces", "sample": 0.5}
    done = hall.run("--seconds", "2", "--summary", "s.json", OTEL_BSP_EXPORT_TIMEOUT="5000")
    collector.shutdown()
    collector.server_close()
    assert done.returncode == 0, done.stderr
    instants = json.loads((hall.folder / "s.json").read_text())["instants"]
    spans = [
        span
        for path, body in collector.requests
        if path == "/v1/traces"
        for whose in otlp.ExportTraceServiceRequest.FromString(body).resource_spans
        for part in whose.scope_spans
        for span in part.spans
    ]
    traces: dict[bytes, dict[str, Any]] = {}
    for span in spans:
        traces.setdefault(span.trace_id, {})[span.name] = span
    assert len(traces) == pytest.approx(instants / 2, abs=1)
    for trace in traces.values():
        assert {"instant", "instants", "heatmaps", "pose3d", "smooth", "publish"} < set(trace)
        assert len({span.parent_span_id for name, span in trace.items() if name != "instant"}) == 1
        assert trace["instant"].start_time_unix_nano <= trace["pose3d"].start_time_unix_nano <= trace["publish"].end_time_unix_nano
        about = {a.key: a.value for a in trace["instant"].attributes}
        assert set(about) == {"posepipe.seq", "posepipe.cameras"}
        assert {v.string_value for v in about["posepipe.cameras"].array_value.values} <= {"north", "east", "south"}


def test_a_collector_that_is_away_costs_spans_and_nothing_else(hall: StudioFiles) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs OpenTelemetry: pip install 'posepipe[otel]'")
    address = f"http://127.0.0.1:{free_port()}/v1/traces"
    hall.graph["metrics"] = {"otlp": address, "sample": 1.0}
    done = hall.run("--summary", "s.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        f"posepipe: warning: spans are not taken at {address}; they are left out until they are, the studio goes on"
    ]
    figures = json.loads((hall.folder / "s.json").read_text())
    assert figures["balance"] == 0
    assert figures["instants"] > 0
