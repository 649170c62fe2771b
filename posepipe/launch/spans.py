"""Spans of published instants for an OpenTelemetry collector: a trace for each sampled instant, in it a span for each node.

OpenTelemetry (posepipe[otel]) is imported only here, and only when a studio asks for it.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from posepipe import __version__
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.graph import Plan
from posepipe.pipeline.packet import Packet

from . import logs

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

_TIMEOUT_S = 2


def check(plan: Plan) -> None:
    """GraphError when spans are wanted and OpenTelemetry is not installed."""
    if plan.metrics.otlp and not all(map(_there, ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"))):
        raise GraphError(
            "spans need OpenTelemetry, which is not installed",
            where=plan.file.place(("metrics", "otlp")),
            hint="pip install 'posepipe[otel]', or leave otlp out",
        )


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even what it lies in
        return False


class _Telling:
    """An exporter that says once that its spans are not taken, and once that they are again. OpenTelemetry says it every few seconds."""

    def __init__(self, exporter: SpanExporter, address: str) -> None:
        self._exporter, self._address = exporter, address
        self._refused = 0
        log = logging.getLogger("opentelemetry")
        if not log.isEnabledFor(logging.INFO):
            log.setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result.name == "SUCCESS":
            if self._refused:
                logs.say(f"spans are taken again at {self._address}; {self._refused} were left out")
            self._refused = 0
        else:
            if not self._refused:
                text = f"spans are not taken at {self._address}; they are left out until they are, the studio goes on"
                logs.say(text, level=logging.WARNING, prefix="posepipe: warning: ")
            self._refused += len(spans)
        return result

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        done: bool = self._exporter.force_flush(timeout_millis)
        return done

    def shutdown(self) -> None:
        self._exporter.shutdown()


class SpanSender:
    """Sends on a thread of its own; when the collector is slow or away, spans are left out, and nothing waits.

    exporter: where they go instead of `metrics: {otlp: ...}`.
    """

    def __init__(self, plan: Plan, exporter: SpanExporter | None = None) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(endpoint=plan.metrics.otlp, timeout=_TIMEOUT_S)
        resource = Resource.create({"service.name": "posepipe", "service.version": __version__, "posepipe.studio": plan.studio})
        self._provider = TracerProvider(resource=resource, sampler=ALWAYS_ON, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Telling(exporter, plan.metrics.otlp)))
        self._tracer = self._provider.get_tracer("posepipe", __version__)
        self._sample = plan.metrics.sample
        self._due = 0.0

    def __call__(self, packets: Iterable[Packet[Any]]) -> None:
        """Published packets with their traces; every 1/sample-th is sent."""
        for packet in packets:
            self._due += self._sample
            if self._due >= 1.0:
                self._due -= 1.0
                self._send(packet)

    def _send(self, packet: Packet[Any]) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        about = {"posepipe.seq": packet.seq, "posepipe.cameras": sorted({camera for camera, _ in packet.frames})}
        begin_ns = min(packet.t_capture_ns, *(span.t_in_ns for span in packet.trace))
        whole = self._tracer.start_span("instant", context=Context(), start_time=begin_ns, attributes=about)
        inside = set_span_in_context(whole, Context())
        for span in packet.trace:
            part = self._tracer.start_span(span.node, context=inside, start_time=span.t_in_ns, attributes=about)
            part.end(end_time=span.t_out_ns)
        whole.end(end_time=max(span.t_out_ns for span in packet.trace))

    def close(self) -> None:
        """Send what waits, as far as the collector takes it within some seconds."""
        self._provider.shutdown()
