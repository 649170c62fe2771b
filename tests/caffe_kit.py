"""Caffe files as Caffe writes them, with made-up numbers, and people painted into maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posepipe.engines.models.openpose.plan import Plan

Layers = dict[str, tuple[NDArray[np.float32], ...]]


def _varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def _bytes(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _blob(array: NDArray[Any], *, old: bool, doubles: bool) -> bytes:
    if old:  # num, channels, height, width, ones in front
        shape = [1] * (4 - array.ndim) + list(array.shape)
        head = b"".join(_number(k, n) for k, n in enumerate(shape, 1))
    else:
        head = _bytes(7, _bytes(1, b"".join(_varint(n) for n in array.shape)))
    return head + (_bytes(8, array.astype("<f8").tobytes()) if doubles else _bytes(5, array.astype("<f4").tobytes()))


def caffemodel(layers: Mapping[str, Sequence[NDArray[Any]]], *, old: bool = False, doubles: bool = False) -> bytes:
    """A NetParameter: its name, a layer without numbers, and these. old: with V1 layers and blobs of four dimensions."""
    name_at, type_at, blobs_at, layer_at = (4, 5, 6, 2) if old else (1, 2, 7, 100)
    kind = _number(type_at, 4) if old else _bytes(type_at, b"Convolution")
    parts = [_bytes(1, b"made up"), _bytes(layer_at, _bytes(name_at, b"relu1_1") + kind)]
    for name, arrays in layers.items():
        blobs = b"".join(_bytes(blobs_at, _blob(a, old=old, doubles=doubles)) for a in arrays)
        rest = _varint(1001 << 3 | 5) + b"\0\0\0\0" if old else _varint(5 << 3 | 5) + b"\0\0\x80\x3f"
        parts.append(_bytes(layer_at, _bytes(name_at, name.encode()) + kind + blobs + rest))
    return b"".join([*parts, _number(7, 0)])


def made_up(plan: Plan, *, seed: int = 0) -> Layers:
    """Random numbers of the right shapes, so small that nothing grows on its way through the network."""
    rng = np.random.default_rng(seed)
    found: Layers = {}
    for name, shapes in plan.blobs().items():
        spread = np.sqrt(2 / np.prod(shapes[0][1:])) if len(shapes) == 2 else 0.2
        found[name] = tuple((rng.standard_normal(s, np.float32) * np.float32(spread if len(s) == 4 else 0.05)) for s in shapes)
    return found
