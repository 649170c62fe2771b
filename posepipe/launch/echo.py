"""What `posepipe topic echo` shows of a packet: one JSON object, for people."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.node import Caps
from posepipe.pipeline.packet import Actions, Bodies, Packet

_MOST = 512
"""Numbers of an array that are shown; a larger one is shown as its type and shape."""
_DECIMALS = 4


def line(packet: Packet[Any], caps: Caps) -> str:
    """The packet in one line of JSON, whatever its body is: small arrays as numbers (null: none), large ones as their shape. caps: of the port that it left by."""
    body = _actions(packet.body, caps.actions) if isinstance(packet.body, Actions) else _plain(packet.body)
    return json.dumps({"seq": packet.seq, "t_capture_ns": packet.t_capture_ns, **body}, allow_nan=False)


def _actions(actions: Actions, labels: tuple[str, ...]) -> dict[str, Any]:
    """By name: who does what, and how probable each label is."""
    return {
        "ids": actions.ids.tolist(),
        "action": [labels[k] if 0 <= k < len(labels) else "unknown" for k in actions.label.tolist()],
        "p": [dict(zip(labels, row, strict=False)) for row in _numbers(actions.p)],
    }


def _plain(body: Any) -> dict[str, Any]:
    return {f.name: _value(getattr(body, f.name)) for f in dataclasses.fields(body) if f.name not in ("slot", "lease")}


def _value(value: Any) -> Any:
    if isinstance(value, Bodies):  # rotation matrices say nothing to anybody
        return {"model": value.model, "pose": _size(value.pose), "shape": _numbers(value.shape), "root_m": _numbers(value.root_m)}
    if isinstance(value, np.ndarray):
        return _numbers(value) if value.size <= _MOST else _size(value)
    if isinstance(value, tuple) and any(isinstance(v, np.ndarray) for v in value):
        return [_size(v) for v in value]
    if isinstance(value, dict):
        return {k: _value(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value):
        return _plain(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _size(array: NDArray[Any]) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _numbers(array: NDArray[Any]) -> Any:
    if array.dtype.kind != "f":
        return array.tolist()
    shown = np.round(array.astype(np.float64), _DECIMALS).astype(object)
    shown[~np.isfinite(array)] = None
    return shown.tolist()
