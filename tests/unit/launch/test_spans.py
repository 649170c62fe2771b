"""Spans of published instants, as OpenTelemetry gets them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import studio_kit
from outside_kit import MadeUp

from posepipe.launch import spans
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.graph import Plan
from posepipe.pipeline.packet import Packet, Span

OTLP = '"http://127.0.0.1:4318/v1/traces"'


def wants(folder: Path, *, sample: float = 1.0) -> Plan:
    return studio_kit.plan(folder, replace=("studio: hall", f"studio: hall\nmetrics: {{otlp: {OTLP}, sample: {sample}}}"))


def packet(seq: int) -> Packet[None]:
    begin_ns = 1_000_000_000_000 + seq * 33_000_000
    trace = (Span("capture/cam01", begin_ns, begin_ns + 3), Span("lift", begin_ns + 5, begin_ns + 9))
    return Packet(seq, begin_ns, "publish", None, trace, (("cam02", seq), ("cam01", seq)))


def sent(plan: Plan, packets: list[Packet[None]]) -> list[object]:
    memory = pytest.importorskip(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="needs OpenTelemetry: pip install 'posepipe[otel]'"
    )
    exporter = memory.InMemorySpanExporter()
    sender = spans.SpanSender(plan, exporter)
    sender(packets)
    sender.close()
    return list(exporter.get_finished_spans())


def test_an_instant_is_a_trace_with_a_span_for_each_node(tmp_path: Path) -> None:
    got = {span.name: span for span in sent(wants(tmp_path), [packet(7)])}  # type: ignore[attr-defined]
    whole, capture, lift = got["instant"], got["capture/cam01"], got["lift"]
    assert len({span.context.trace_id for span in got.values()}) == 1
    assert whole.parent is None
    assert capture.parent.span_id == lift.parent.span_id == whole.context.span_id
    begin_ns = packet(7).t_capture_ns
    assert (whole.start_time, whole.end_time) == (begin_ns, begin_ns + 9)
    assert (lift.start_time, lift.end_time) == (begin_ns + 5, begin_ns + 9)
    for span in got.values():
        assert dict(span.attributes) == {"posepipe.seq": 7, "posepipe.cameras": ("cam01", "cam02")}
    assert whole.resource.attributes["service.name"] == "posepipe"
    assert whole.resource.attributes["posepipe.studio"] == "hall"


@pytest.mark.parametrize(("sample", "instants"), [(1.0, 400), (0.25, 100), (0.01, 4)])
def test_every_so_manieth_is_sent(tmp_path: Path, sample: float, instants: int) -> None:
    got = sent(wants(tmp_path, sample=sample), [packet(seq) for seq in range(400)])
    assert sum(span.name == "instant" for span in got) == pytest.approx(instants, abs=1)  # type: ignore[attr-defined]
    assert len({span.context.trace_id for span in got}) * 3 == len(got)  # type: ignore[attr-defined]


def test_a_collector_that_is_away_is_told_once_and_so_is_its_return(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = pytest.importorskip("opentelemetry.sdk.trace.export", reason="needs OpenTelemetry: pip install 'posepipe[otel]'")
    answers = iter([False, False, True, True])

    class Moody(export.SpanExporter):  # type: ignore[misc, name-defined]
        def export(self, spans: object) -> object:
            return export.SpanExportResult.SUCCESS if next(answers) else export.SpanExportResult.FAILURE

    plan = wants(tmp_path)
    telling = spans._Telling(Moody(), plan.metrics.otlp)
    for _ in range(4):
        telling.export([None, None, None])  # type: ignore[list-item]
    assert capsys.readouterr().err.splitlines() == [
        "posepipe: warning: spans are not taken at http://127.0.0.1:4318/v1/traces; they are left out until they are, the studio goes on",
        "posepipe: spans are taken again at http://127.0.0.1:4318/v1/traces; 6 were left out",
    ]


def test_refused_before_the_start_when_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(GraphError) as caught:
        spans.check(wants(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path / 'studio.yaml'}:3: spans need OpenTelemetry, which is not installed\n"
        "  -> pip install 'posepipe[otel]', or leave otlp out"
    )
    spans.check(studio_kit.plan(tmp_path))


def test_the_books_hand_published_packets_on(tmp_path: Path) -> None:
    studio = MadeUp(tmp_path)
    got: list[Packet[None]] = []
    studio.books.on_spans = got.extend
    body = {
        "seq": 4,
        "t_capture_ns": 10,
        "source": "publish",
        "body": None,
        "trace": [{"node": "lift", "t_in_ns": 11, "t_out_ns": 12}],
        "frames": [["cam01", 4]],
    }
    studio.books.spans([body], [])
    assert got == [Packet(4, 10, "publish", None, (Span("lift", 11, 12),), (("cam01", 4),))]
    assert studio.books.trace is None, "nothing is kept for a trace that nobody wants"
