"""Reads a TensorFlow checkpoint without TensorFlow: the tensors of `NAME.index` and `NAME.data-00000-of-00001` by name.

The index is a sorted table in LevelDB's format (blocks of keys that share their beginnings, a footer that says where the index of blocks is); its
values are protocol buffers (`BundleEntryProto`: type, shape, shard, offset, size). Only whole float32 tensors are read, nothing is run.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....pipeline.errors import EngineError

_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_FOOTER, _FLOAT = 48, 1
_HINT = "give the path without .index, with NAME.index and its NAME.data-... files beside each other"


def read(prefix: Path) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a checkpoint (`.../checkpoint-4874200`, with or without .index) by name. EngineError: not there, not whole,
    or not a checkpoint."""
    if prefix.suffix == ".index":
        prefix = prefix.with_suffix("")
    index = prefix.with_name(prefix.name + ".index")
    try:
        table = index.read_bytes()
    except OSError as e:
        raise EngineError(f"cannot read the checkpoint's index: {e.strerror or e}", where=str(index), hint=_HINT) from e
    if len(table) < _FOOTER or table[-8:] != _MAGIC:
        raise EngineError("not an index of a TensorFlow checkpoint, or one that ends early", where=str(index), hint=_HINT)
    try:
        entries = dict(_entries(table))
        shards = int(_fields(entries[b""]).get(1, [1])[0])
        found = {name.decode(): _tensor(prefix, value, shards) for name, value in entries.items() if name}
    except (IndexError, KeyError, ValueError, struct.error, UnicodeDecodeError) as e:
        raise EngineError(f"the index makes no sense: {e}", where=str(index), hint="compare its size with the publisher's") from e
    return {name: array for name, array in found.items() if array is not None}


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    _, at = _varint(table, len(table) - _FOOTER)
    _, at = _varint(table, at)
    offset, at = _varint(table, at)
    size, _ = _varint(table, at)
    for _, handle in _block(table, offset, size):
        first, at = _varint(handle, 0)
        length, _ = _varint(handle, at)
        yield from _block(table, first, length)


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block = table[offset : offset + size]
    if len(block) < size or size < 4 or len(table) <= offset + size:
        raise ValueError("a block lies beyond its end")
    if table[offset + size] != 0:
        raise ValueError("its blocks are compressed, which TensorFlow does not do")
    end, at, key = size - 4 - 4 * int.from_bytes(block[-4:], "little"), 0, b""
    while at < end:
        shared, at = _varint(block, at)
        rest, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + rest]
        at += rest
        yield key, block[at : at + length]
        at += length


def _tensor(prefix: Path, value: bytes, shards: int) -> NDArray[np.float32] | None:
    entry = _fields(value)
    if int(entry.get(1, [0])[0]) != _FLOAT or 7 in entry:
        return None
    dims = [_fields(dim) for shape in entry.get(2, []) for dim in _fields(bytes(shape)).get(2, []) if isinstance(dim, bytes)]
    shape = tuple(int(dim.get(1, [0])[0]) for dim in dims)
    shard, offset, size = (int(entry.get(k, [0])[0]) for k in (3, 4, 5))
    if size != 4 * math.prod(shape):
        raise ValueError(f"a tensor of shape {list(shape)} takes {size} bytes")
    path = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
    try:
        with path.open("rb") as f:
            f.seek(offset)
            content = f.read(size)
    except OSError as e:
        raise EngineError(f"cannot read the checkpoint's data: {e.strerror or e}", where=str(path), hint=_HINT) from e
    if len(content) != size:
        raise EngineError("the checkpoint's data end early", where=str(path), hint="compare the file's size with the publisher's")
    return np.frombuffer(content, "<f4").reshape(shape).astype(np.float32)


def _fields(message: bytes) -> dict[int, list[int | bytes]]:
    """The fields of a protocol buffer by number."""
    found: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value: int | bytes
        if tag & 7 == 0:
            value, at = _varint(message, at)
        elif tag & 7 == 2:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        elif tag & 7 in (1, 5):
            width = 8 if tag & 7 == 1 else 4
            value, at = int.from_bytes(message[at : at + width], "little"), at + width
        else:
            raise ValueError("a field of an unknown kind")
        found.setdefault(tag >> 3, []).append(value)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number without an end")
