"""What posepipe says on standard error: text for people, or one JSON object a line for a log collector."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.logging import RichHandler

from posepipe.pipeline.errors import PosepipeError

if TYPE_CHECKING:
    from posepipe.pipeline.snapshot import Snapshot

Style = Literal["text", "json"]
_AT = "@"
_own = logging.getLogger("posepipe.run")


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (RFC 3339, UTC, microseconds), level, logger, message; worker when a worker process said it;
    exception when there was one; and what was given as `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        logger, _, worker = record.name.partition(_AT)
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        out: dict[str, Any] = {"time": time, "level": record.levelname.lower(), "logger": logger, "message": record.getMessage()}
        if worker:
            out["worker"] = worker
        if record.exc_info and record.exc_info[0] is not None:
            out["exception"] = self.formatException(record.exc_info)
        return json.dumps({**out, **getattr(record, "fields", {})}, default=str, ensure_ascii=False)


def configure(style: Style, *, verbose: bool) -> None:
    """Everything that is logged goes to standard error in this style. Without `verbose` only warnings and what the run itself says."""
    level = logging.DEBUG if verbose else logging.WARNING
    if style == "text":
        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False)
        logging.basicConfig(level=level, format="%(message)s", handlers=[handler])
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(True)
    _own.setLevel(logging.INFO)


def as_json() -> bool:
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def of_worker(logger: str, worker: str) -> str:
    """The logger under which the supervisor repeats what a worker process logged."""
    return f"{logger}{_AT}{worker}"


def say(text: str, *, level: int = logging.INFO, prefix: str = "posepipe: ") -> None:
    """What the run itself tells its user; the prefix is for people."""
    if as_json():
        _own.log(level, "%s", text)
    else:
        print(f"{prefix}{text}", file=sys.stderr, flush=True)


def say_error(error: PosepipeError) -> None:
    """What ended a command."""
    if as_json():
        _own.error("%s", error.what, extra={"fields": {"where": error.where, "hint": error.hint, "kind": type(error).__name__}})
    else:
        print(f"posepipe: {error}", file=sys.stderr)


def say_status(text: str, now: Snapshot) -> None:
    """The line about a running studio, with its figures; for logs only, a terminal has the screen."""
    fields = {
        "seconds": round(now.seconds, 3),
        "instants": now.instants,
        "people": now.people,
        "end_to_end_ms": {p: now.end_to_end_ms[p] for p in ("p50", "p95", "p99")},
        "captured": now.captured,
        "published": now.published,
        "dropped": sum(drop.count for drop in now.dropped),
        "in_flight": now.in_flight,
        "balance": now.balance,
    }
    _own.info("%s", text, extra={"fields": fields})
