"""Read a tflite flatbuffer into plain Python: tensors (constants decoded, also float16 and sparse ones) and operators.

The schema is that of tensorflow/lite/schema/schema.fbs, by the package `tflite`. Sparse tensors follow
"Sparsity parameters" there: a tensor is stored in the TACO format, level by level, each level dense or CSR.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from ..pipeline.errors import EngineError

_DTYPES: dict[int, Any] = {tflite.TensorType.FLOAT32: np.float32, tflite.TensorType.FLOAT16: np.float16, tflite.TensorType.INT32: np.int32}
_OP_NAMES = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a sparse tensor. `segments` and `indices` are None for a dense level of `size`."""

    size: int
    segments: NDArray[np.integer[Any]] | None = None
    indices: NDArray[np.integer[Any]] | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """Shape as stored (batch 1, channels last). `value` is there for constants."""

    name: str
    shape: tuple[int, ...]
    value: NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class Operator:
    """`options` reads the operator's settings by their schema name, such as `StrideH`."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(frozen=True, slots=True)
class Graph:
    """One flatbuffer. `inputs` and `outputs` are tensor numbers."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def densify(values: NDArray[Any], levels: Sequence[Level], shape: tuple[int, ...]) -> NDArray[Any]:
    """A sparse tensor as a dense one of `shape`; `values` are its stored entries in order, all else is zero.

    Every level holds one dimension of the tensor, in order. Raises EngineError when the parts do not fit each other.
    """
    dense = np.zeros(shape, values.dtype)
    where = [np.zeros(1, np.int64)]  # flat position of every node of the level so far
    for level, size in zip(levels, shape, strict=True):
        above = where[-1]
        if level.segments is None or level.indices is None:
            if level.size != size:
                raise EngineError(f"a sparse tensor of shape {shape} has a dense level of {level.size}")
            where.append((above[:, None] * size + np.arange(size)).ravel())
            continue
        segments = level.segments.astype(np.int64)
        counts = segments[1:] - segments[:-1]
        bad = len(counts) != len(above) or (counts < 0).any() or counts.sum() != len(level.indices) or (level.indices >= size).any()
        if bad:
            raise EngineError(f"a sparse tensor of shape {shape} has segments that do not fit its indices")
        where.append(np.repeat(above, counts) * size + level.indices)
    if len(where[-1]) != len(values):
        raise EngineError(f"a sparse tensor of shape {shape} stores {len(values)} values for {len(where[-1])} places")
    dense.ravel()[where[-1]] = values
    return dense


def _vector(kind: int, table: Any) -> NDArray[np.integer[Any]]:
    classes = {
        tflite.SparseIndexVector.Int32Vector: tflite.Int32Vector,
        tflite.SparseIndexVector.Uint16Vector: tflite.Uint16Vector,
        tflite.SparseIndexVector.Uint8Vector: tflite.Uint8Vector,
    }
    vector = classes[kind]()
    vector.Init(table.Bytes, table.Pos)
    return np.atleast_1d(vector.ValuesAsNumpy())


def _levels(sparsity: Any, shape: tuple[int, ...], name: str) -> list[Level]:
    order = np.atleast_1d(sparsity.TraversalOrderAsNumpy())
    if sparsity.BlockMapLength() or order.tolist() != list(range(len(shape))):
        raise EngineError(f"tensor {name!r} is sparse in blocks or out of order, which posepipe does not read")
    levels = []
    for i in range(sparsity.DimMetadataLength()):
        d = sparsity.DimMetadata(i)
        if d.Format() == tflite.DimensionType.DENSE:
            levels.append(Level(d.DenseSize()))
        else:
            segments = _vector(d.ArraySegmentsType(), d.ArraySegments())
            levels.append(Level(0, segments, _vector(d.ArrayIndicesType(), d.ArrayIndices())))
    return levels


def _tensor(model: Any, t: Any) -> Tensor:
    name = t.Name().decode() if t.Name() else ""
    shape = tuple(int(n) for n in t.ShapeAsNumpy()) if t.ShapeLength() else ()
    buffer = model.Buffers(t.Buffer())
    if not buffer.DataLength():
        return Tensor(name, shape, None)
    if t.Type() not in _DTYPES:
        raise EngineError(f"tensor {name!r} has the number type {t.Type()}, posepipe reads float32, float16 and int32")
    values = buffer.DataAsNumpy().view(_DTYPES[t.Type()])
    if t.Sparsity() is not None:
        return Tensor(name, shape, densify(values, _levels(t.Sparsity(), shape, name), shape))
    return Tensor(name, shape, values.reshape(shape))


def _operator(model: Any, op: Any) -> Operator:
    code = model.OperatorCodes(op.OpcodeIndex())
    kind = _OP_NAMES.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "?")
    options = None
    if op.BuiltinOptionsType():
        names = {number: name for name, number in vars(tflite.BuiltinOptions).items() if isinstance(number, int)}
        options = getattr(tflite, names[op.BuiltinOptionsType()])()
        options.Init(op.BuiltinOptions().Bytes, op.BuiltinOptions().Pos)
    return Operator(kind, tuple(op.InputsAsNumpy().tolist()), tuple(op.OutputsAsNumpy().tolist()), options)


def read(flatbuffer: bytes, *, where: str) -> Graph:
    """The one graph of a tflite file. Raises EngineError for a file that is not one."""
    if flatbuffer[4:8] != b"TFL3":
        raise EngineError("not a tflite file", where=where, hint="fetch it again with `posepipe pull`")
    try:
        model = tflite.Model.GetRootAsModel(flatbuffer, 0)
        graph = model.Subgraphs(0)
        return Graph(
            tensors=tuple(_tensor(model, graph.Tensors(i)) for i in range(graph.TensorsLength())),
            operators=tuple(_operator(model, graph.Operators(i)) for i in range(graph.OperatorsLength())),
            inputs=tuple(graph.InputsAsNumpy().tolist()),
            outputs=tuple(graph.OutputsAsNumpy().tolist()),
        )
    except (struct.error, ValueError, IndexError, AttributeError, TypeError, KeyError) as e:
        raise EngineError(f"a damaged tflite file: {e}", where=where, hint="fetch it again with `posepipe pull`") from e
