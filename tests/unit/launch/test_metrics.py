"""The metrics of a made-up studio, read as Prometheus reads them."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from outside_kit import MadeUp
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from posepipe.launch.metrics import StudioCollector
from posepipe.pipeline.packet import Sync
from posepipe.pipeline.stats import BUCKETS_MS

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def studio(tmp_path: Path) -> MadeUp:
    return MadeUp(tmp_path)


def scrape(collector: StudioCollector, accept: str = "") -> Samples:
    registry = CollectorRegistry()
    registry.register(collector)
    encode, _ = choose_encoder(accept)
    parse = parse_openmetrics if accept else parse_text
    return {
        (sample.name, frozenset((k, v) for k, v in sample.labels.items() if k != "studio")): sample.value
        for family in parse(encode(registry).decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"posepipe_{name}", frozenset(labels.items())]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_every_frame_has_its_account(studio: MadeUp, accept: str) -> None:
    studio.frames(captured=range(10), published=range(6), lost=range(6, 9))
    got = scrape(StudioCollector(studio), accept)
    assert value(got, "frames_captured_total") == 10
    assert value(got, "frames_published_total") == 6
    assert value(got, "frames_dropped_total", node="lift", reason="queue full") == 3
    assert value(got, "frames_in_flight") == 1
    assert value(got, "ledger_balance") == 0


def test_a_frame_that_was_given_up_and_then_published_takes_nothing_off_a_counter(studio: MadeUp) -> None:
    collector = StudioCollector(studio)
    studio.frames(captured=range(3), published=range(0), lost=range(2), reason="lost on the way")
    before = scrape(collector)
    studio.frames(captured=range(0), published=range(1), lost=range(0))
    after = scrape(collector)
    assert [d.count for d in studio.books.ledger.dropped] == [1]
    for got in (before, after):
        assert value(got, "frames_dropped_total", node="lift", reason="lost on the way") == 2
    assert (value(before, "frames_published_total"), value(after, "frames_published_total")) == (0, 1)


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_latencies_are_histograms_of_seconds(studio: MadeUp, accept: str) -> None:
    drawn = np.random.default_rng(3).lognormal(math.log(20e6), 1.5, 500).astype(np.int64)
    studio.beat("main", latency_ns={"lift": drawn[:200].tolist()}, end_to_end_ns=drawn[:200].tolist())
    studio.beat("main", latency_ns={"lift": drawn[200:].tolist()}, end_to_end_ns=drawn[200:].tolist())
    got = scrape(StudioCollector(studio), accept)
    for name, labels in (("node_latency_seconds", {"node": "lift", "worker": "main"}), ("end_to_end_latency_seconds", {})):
        for ms in BUCKETS_MS:
            assert value(got, f"{name}_bucket", **labels, le=str(ms / 1e3)) == np.count_nonzero(drawn <= ms * 1e6)
        assert value(got, f"{name}_bucket", **labels, le="+Inf") == value(got, f"{name}_count", **labels) == 500
        assert value(got, f"{name}_sum", **labels) == pytest.approx(drawn.sum() / 1e9)


def test_what_the_workers_say(studio: MadeUp) -> None:
    studio.beat("main", latency_ns={"lift": [1]}, seen=(2, 7.5), subscribers=3, strange=4, waiting=2, errors=5)
    studio.beat("view", latency_ns={"view": [1]}, strange=1)
    got = scrape(StudioCollector(studio))
    assert value(got, "people") == 2
    assert value(got, "reprojection_error_pixels") == 7.5
    assert value(got, "subscribers", worker="main") == 3
    assert value(got, "messages_rejected_total", worker="main") == 4
    assert value(got, "messages_rejected_total", worker="view") == 1
    assert value(got, "node_queue_packets", node="lift", worker="main") == 2
    assert value(got, "node_errors_total", node="lift", worker="main") == 5


def test_workers_and_their_processes(studio: MadeUp) -> None:
    studio.crew["main"].pid, studio.crew["main"].restarts = os.getpid(), 2
    studio.crew["view"].pid = 1 << 30  # no process has this number
    studio.crew["capture/cam02"].state = type(studio.crew["main"].state).WAITING
    got = scrape(StudioCollector(studio))
    assert value(got, "worker_up", worker="main") == 1
    assert value(got, "worker_up", worker="capture/cam02") == 0
    assert value(got, "worker_restarts_total", worker="main") == 2
    assert value(got, "worker_resident_bytes", worker="main") > 1e6
    assert value(got, "worker_cpu_seconds_total", worker="supervisor") > 0
    assert ("posepipe_worker_resident_bytes", frozenset({("worker", "view")})) not in got


def test_the_sync_certificate(studio: MadeUp) -> None:
    sync = Sync(2_500_000, (0, 2), (1,), (0.5, None, -0.25), (12.0, None, 0.0), (1.0, 0.4, 1.0))
    studio.beat("main", seen=(1, 3.0), sync=sync)
    got = scrape(StudioCollector(studio))
    assert value(got, "sync_skew_seconds") == 0.0025
    assert value(got, "camera_offset_seconds", camera="cam01") == 0.0005
    assert value(got, "camera_offset_seconds", camera="cam03") == -0.00025
    assert value(got, "camera_drift_ppm", camera="cam01") == 12
    assert value(got, "camera_complete_ratio", camera="cam02") == 0.4
    assert ("posepipe_camera_offset_seconds", frozenset({("camera", "cam02")})) not in got, "what is not known is left out"


def test_before_anything_happened_only_what_is_known_is_there(studio: MadeUp) -> None:
    names = {name for name, _ in scrape(StudioCollector(studio))}
    assert "posepipe_frames_captured_total" in names
    for unknown in ("reprojection_error_pixels", "last_instant_age_seconds", "sync_skew_seconds", "camera_offset_seconds"):
        assert f"posepipe_{unknown}" not in names


def test_the_age_of_the_last_instant(studio: MadeUp) -> None:
    studio.beat("main", end_to_end_ns=[40_000_000])
    assert 0 <= value(scrape(StudioCollector(studio)), "last_instant_age_seconds") < 60


def test_every_sample_names_the_studio(studio: MadeUp) -> None:
    studio.beat("main", latency_ns={"lift": [1]}, end_to_end_ns=[1], seen=(1, 1.0), subscribers=1)
    for family in StudioCollector(studio).collect():
        assert family.name.startswith("posepipe_")
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert sample.labels["studio"] == "hall"
