"""A live studio seen from outside: its endpoint and its spans, from before a camera is touched to the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from . import logs
from .spans import SpanSender
from .supervisor import Supervisor


@contextlib.contextmanager
def watched(studio: Supervisor, *, bind: str, keep_trace: bool) -> Iterator[None]:
    """bind: where the endpoint listens, empty for none. keep_trace: somebody here wants the whole trace after the run."""
    with contextlib.ExitStack() as around:
        if bind:
            from .endpoint import Endpoint  # after the fork, and only here: 40 ms and 9 MB that no worker needs

            endpoint = around.enter_context(contextlib.closing(Endpoint(studio, bind)))
            logs.say(f"metrics: {endpoint.url}/metrics, health: {endpoint.url}/healthz")
        if studio.plan.metrics.otlp:
            studio.books.on_spans = around.enter_context(contextlib.closing(SpanSender(studio.plan)))
            if not keep_trace:
                studio.trace = studio.books.trace = None
        yield
