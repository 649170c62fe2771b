"""The wire format of protocol buffers: fields of a message without its description. ONNX and Caffe keep networks in it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..pipeline.errors import EngineError

VARINT, BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
_ONNX_GRAPH = 7
_MOST = 100_000
"""A network has a graph, and some parts for every function and every note in it."""


class Broken(Exception):
    """These bytes are no message; the text says where."""


class Field(NamedTuple):
    """One field of a message. value: of a field that is one number. begin, end: where its bytes are."""

    number: int
    kind: int
    value: int
    begin: int
    end: int


def fields(content: bytes | mmap.mmap, at: int, end: int) -> Iterator[Field]:
    """The fields of the message that these bytes are, in their order. Raises Broken at what is none, or ends in the middle."""
    while at < end:
        key, begin = varint(content, at, end)
        number, kind = key >> 3, key & 7
        value = 0
        if kind == VARINT:
            value, after = varint(content, begin, end)
        elif kind == BYTES:
            size, begin = varint(content, begin, end)
            after = begin + size
        elif kind in _FIXED:
            after = begin + _FIXED[kind]
        if number == 0 or kind not in (VARINT, BYTES, *_FIXED):
            raise Broken(f"byte {at} begins nothing that could be there")
        if after > end:
            raise Broken(f"it ends in the middle: {after - begin} bytes should follow byte {begin}, {end - begin} do")
        yield Field(number, kind, value, begin, after)
        at = after


def varint(content: bytes | mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """The number that begins at this byte, and where the next thing begins. Raises Broken."""
    value = 0
    for i in range(10):
        if at + i >= end:
            raise Broken(f"it ends in the middle of the number at byte {at}")
        value |= (content[at + i] & 127) << (7 * i)
        if content[at + i] < 128:
            return value, at + i + 1
    raise Broken(f"byte {at} begins a number without an end")


def must_be_onnx(path: Path) -> None:
    """EngineError, with the byte, for a file that is no ONNX network or not a whole one. Runtimes say it in many lines, or in words about
    other formats. Only the outermost fields are looked at: what is in the graph the runtime judges."""
    try:
        size, graph = path.stat().st_size, False
        if not size:
            raise Broken("it is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for count, field in enumerate(fields(content, 0, size)):
                graph |= field.number == _ONNX_GRAPH and field.kind == BYTES
                if count > _MOST:
                    raise Broken(f"it has more than {_MOST} parts")
        if not graph:
            raise Broken("it has no graph")
    except Broken as e:
        hint = "name the .onnx file itself, and compare its size with the one that it was copied from: a broken copy ends early"
        raise EngineError(f"not a whole ONNX network: {e}", where=str(path), hint=hint) from e
    except OSError as e:
        raise EngineError(f"cannot read the network: {e.strerror or e}", where=str(path)) from e
