"""`metrics:` of a studio file: where the studio can be seen from outside."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from .errors import did_you_mean
from .yamlfile import Where

EXAMPLE = '"127.0.0.1:9464"'
_ADDRESS = re.compile(r"^(\[[^\]]+\]|[^\[\]:/\s]+):([0-9]{1,5})$")
_WANTED = {
    "bind": ("HOST:PORT", f"bind: {EXAMPLE}"),
    "otlp": ("the http address of an OTLP collector", 'otlp: "http://127.0.0.1:4318/v1/traces"'),
    "sample": ("a share of the instants above 0, at most 1", "sample: 0.01"),
}


class Telemetry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `metrics:` holds. Empty texts: not asked for."""

    bind: Annotated[
        str, Meta(pattern=_ADDRESS.pattern, description="HOST:PORT of the Prometheus endpoint (/metrics, /healthz); port 0: any free one.")
    ] = ""
    otlp: Annotated[
        str, Meta(pattern="^https?://", description="Where spans of published instants go: an OTLP/HTTP traces address (posepipe[otel]).")
    ] = ""
    sample: Annotated[float, Meta(gt=0, le=1, description="Share of the published instants whose spans are sent.")] = 0.01


def telemetry(raw: Any, wrong: Callable[[Where, str, str], None]) -> Telemetry:
    """The checked key; every mistake is told to `wrong` (place, what, hint)."""
    path: Where = ("metrics",)
    if raw is None:
        return Telemetry()
    if not isinstance(raw, dict):
        wrong(path, f"metrics is {raw!r}, want a map", f"metrics: {{bind: {EXAMPLE}}}")
        return Telemetry()
    good = {}
    for key, value in raw.items():
        if key not in _WANTED:
            wrong((*path, key), f"unknown key {key!r} in metrics", did_you_mean(key, _WANTED))
        elif not _fits(key, value):
            what, example = _WANTED[key]
            wrong((*path, key), f"metrics: {key} is {value!r}, want {what}", example)
        else:
            good[key] = value
    if ("sample" in raw and "otlp" not in raw) or not raw:
        what = "sample has no effect without otlp" if raw else "metrics is empty"
        wrong(path, what, f"metrics: {{bind: {EXAMPLE}}} opens the endpoint, metrics: {{otlp: ...}} sends spans")
    return msgspec.convert(good, Telemetry)


def _fits(key: str, value: Any) -> bool:
    try:
        msgspec.convert({key: value}, Telemetry)
        if key == "bind":
            address(value)
    except ValueError:  # msgspec's own is one
        return False
    return True


def address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`; ValueError for anything else."""
    match = _ADDRESS.match(text)
    if match is None or int(match[2]) > 65535:
        raise ValueError(f"{text} is not HOST:PORT")
    return match[1].strip("[]"), int(match[2])
