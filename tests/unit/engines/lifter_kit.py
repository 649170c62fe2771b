"""Checkpoints of the lifter as the publishers' programs would write them, with made-up weights."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def _varint(value: int) -> bytes:
    out = b""
    while True:
        value, low = value >> 7, value & 127
        out += bytes([low | (128 if value else 0)])
        if not value:
            return out


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _block(entries: list[tuple[bytes, bytes]], interval: int = 16) -> bytes:
    """LevelDB: keys share the beginning of the one before, but for every 16th."""
    out, restarts, before = b"", [], b""
    for k, (key, value) in enumerate(entries):
        shared = 0
        if k % interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        out += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        before = key
    return out + b"".join(struct.pack("<I", r) for r in restarts or [0]) + struct.pack("<I", max(len(restarts), 1))


def write_tensorflow(prefix: Path, tensors: Mapping[str, Any], *, per_block: int = 7) -> Path:
    """A checkpoint of TensorFlow, format 2: `prefix`.index and `prefix`.data-00000-of-00001. The checksums are zeros, which nobody reads here."""
    data, entries = b"", [(b"", _field(1, 1) + _field(3, _field(1, 1)))]
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        content = array.tobytes()
        shape = b"".join(_field(2, _field(1, n)) for n in array.shape)
        kind = {"float32": 1, "int32": 3}[array.dtype.name]
        entry = _field(1, kind) + _field(2, shape) + (_field(4, len(data)) if data else b"") + _field(5, len(content)) + b"\x35\0\0\0\0"
        entries.append((name.encode(), entry))
        data += content
    table, handles = b"", []
    for first in range(0, len(entries), per_block):
        part = entries[first : first + per_block]
        block = _block(part)
        handles.append((part[-1][0], _varint(len(table)) + _varint(len(block))))
        table += block + b"\0" + bytes(4)
    meta, at = _block([]), len(table)
    table += meta + b"\0" + bytes(4)
    index, begins = _block(handles, 1), len(table)
    table += index + b"\0" + bytes(4)
    footer = _varint(at) + _varint(len(meta)) + _varint(begins) + _varint(len(index))
    table += footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    prefix.with_name(prefix.name + ".index").write_bytes(table)
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)
    return prefix


def published_weights(seed: int = 0) -> dict[str, Any]:
    """Made-up tensors by TensorFlow's names, matrices [in,out], and a counter that is no weight."""
    rng = np.random.default_rng(seed)

    def norm(at: str) -> dict[str, Any]:
        return {
            f"{at}/gamma": rng.uniform(0.5, 1.5, 1024), f"{at}/beta": rng.normal(0, 0.1, 1024),
            f"{at}/moving_mean": rng.normal(0, 0.1, 1024), f"{at}/moving_variance": rng.uniform(0.5, 1.5, 1024),
        }  # fmt: skip

    top = "linear_model"
    made = {f"{top}/w1": rng.normal(0, 0.1, (32, 1024)), f"{top}/b1": rng.normal(0, 0.1, 1024)}
    made |= {f"{top}/w4": rng.normal(0, 0.1, (1024, 48)), f"{top}/b4": rng.normal(0, 0.1, 48), **norm(f"{top}/batch_normalization")}
    for i in range(2):
        for k in (2, 3):
            made |= {
                f"{top}/two_linear_{i}/w{k}_{i}": rng.normal(0, 0.05, (1024, 1024)),
                f"{top}/two_linear_{i}/b{k}_{i}": rng.normal(0, 0.1, 1024),
            }
            made |= norm(f"{top}/two_linear_{i}/batch_normalization{k - 1}{i}")
    return {name: array.astype(np.float32) for name, array in made.items()} | {"global_step": np.array(7, np.int32)}


def forward(tensors: Mapping[str, Any], x: Any, *, max_norm: bool) -> Any:
    """The published network as its TensorFlow program computes it, in float64: [N,32] -> [N,48]."""

    def get(name: str) -> Any:
        return tensors[f"linear_model/{name}"].astype(np.float64)

    def matrix(name: str) -> Any:
        w = get(name)
        return w * min(1.0, 1 / np.linalg.norm(w)) if max_norm else w

    def norm(y: Any, at: str) -> Any:
        scaled = (y - get(f"{at}/moving_mean")) / np.sqrt(get(f"{at}/moving_variance") + 1e-3)
        return np.maximum(scaled * get(f"{at}/gamma") + get(f"{at}/beta"), 0)

    y = norm(x @ matrix("w1") + get("b1"), "batch_normalization")
    for i in range(2):
        z = norm(y @ matrix(f"two_linear_{i}/w2_{i}") + get(f"two_linear_{i}/b2_{i}"), f"two_linear_{i}/batch_normalization1{i}")
        y = y + norm(z @ matrix(f"two_linear_{i}/w3_{i}") + get(f"two_linear_{i}/b3_{i}"), f"two_linear_{i}/batch_normalization2{i}")
    return y @ matrix("w4") + get("b4")
