"""Where nodes run when a studio has more than one machine, and how pictures travel between them: `host:` and `wire:` of a node."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from .node import Ports
from .packet import Frame, FrameSet
from .yamlfile import Where

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_WIRES = "wire: raw | jpeg | h264, or wire: {codec: h264, quality: 80}"
Wrong = Callable[..., None]
"""Called with the place of a mistake, what it is and what to do."""


class WireFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`wire:` of a node: how the pictures that it takes travel when they come from another host.

    raw: as they are. jpeg: every plane of every picture by itself. h264: one stream for each camera and link, without look-ahead.
    quality: 1..100 for jpeg (libjpeg's) and h264 (a constant rate factor of 10 + (100 - quality) / 2, at most 51).
    """

    codec: Literal["raw", "jpeg", "h264"] = "raw"
    quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 80


def wire_format(body: dict[str, Any], ports: Ports, path: Where, wrong: Wrong) -> WireFormat:
    """The `wire:` of a node's map."""
    raw = body.get("wire", {})
    try:
        form = msgspec.convert({"codec": raw} if isinstance(raw, str) else raw, WireFormat)
    except msgspec.ValidationError as e:
        wrong((*path, "wire"), f"node {path[-1]!r}: wire is {raw!r}: {e}", _WIRES)
        return WireFormat()
    if "wire" in body and not any(p.type in (Frame, FrameSet) for p in ports.inputs):
        wrong((*path, "wire"), f"node {path[-1]!r} takes no pictures: wire says how they travel to it", "leave wire: out")
    return form


def host(body: dict[str, Any], entry: Any, path: Where, wrong: Wrong) -> str:
    """The `host:` of an entry of `each`, or of its node; empty where the supervisor runs."""
    name = entry.get("host", body.get("host", "")) if isinstance(entry, dict) else body.get("host", "")
    if name == "" or (isinstance(name, str) and _NAME.fullmatch(name)):
        return str(name)
    wrong((*path, "host"), f"host is {name!r}, want a Ray resource label, or a node's name or address", "host: edge1")
    return ""


def worker(process: str, node: str, host: str) -> str:
    """The name of the worker process: nodes of one host that name the same process share it."""
    own = node if process == "own" else process
    return f"{own}@{host}" if host else own
