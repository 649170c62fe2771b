"""What an ONNX file says before it runs: its constants, and the sizes that it counts from the shapes of its tensors.

A size that the file leaves open goes through what only moves numbers about as a number of its own. Where it decides a shape it is read from the tensor that it is
a size of, whose shape is known to the processor: a graph on a GPU is captured with it, and nothing is asked of the GPU in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper
from torch import Tensor

from ..pipeline.errors import EngineError

_OPEN = -(2**62)
_MOST = 2**20
"""Numbers from `_OPEN` to this much further are sizes that the file leaves open, one for each axis that is asked for."""
_MOVING = frozenset({"Gather", "Concat", "Unsqueeze", "Squeeze", "Slice", "Identity", "Reshape", "Expand", "Where"})
"""What may be done with open sizes."""
_FOLDED = _MOVING | {"Cast", "Add", "Sub", "Mul", "Div", "Range", "Equal", "ConstantOfShape"}
"""What comes of constants is one."""
_SHAPED = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0}
"""Operators that are told a shape, and by which of their inputs."""

Run = Callable[..., Any]
"""One operator: tensors in the order of the node's inputs (None for one that is left out) and then of `Known.like`."""


class Known:
    """constants: by name; those that are sizes may be open. opset: of the file. device: for what operators make of nothing.

    Raises EngineError for what cannot be known before the network runs, by the operator's name.
    """

    def __init__(self, model: onnx.ModelProto, device: torch.device, where: str) -> None:
        graph = model.graph
        self.device, self._where = device, where
        self.opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
        self.constants: dict[str, NDArray[Any]] = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self._shapes = {v.name: _dims(v) for v in (*graph.input, *graph.value_info, *graph.output) if v.type.tensor_type.HasField("shape")}
        self._axes: list[tuple[str, int]] = []

    def measure(self, node: NodeProto) -> bool:
        """Take the operator Shape as a constant. False where not even the number of axes is known."""
        (name,) = node.input
        shape = list(self.constants[name].shape) if name in self.constants else self._shapes.get(name)
        if shape is None or node.attribute or len(self._axes) + len(shape) > _MOST:
            return False
        sizes = []
        for axis, size in enumerate(shape):
            sizes.append(_OPEN + len(self._axes) if size < 0 else size)
            if size < 0:
                self._axes.append((name, axis))
        self.constants[node.output[0]] = np.array(sizes, np.int64)
        return True

    def fold(self, node: NodeProto, run: Run) -> bool:
        """Take what the operator gives as constants; False where it has to run."""
        if node.op_type not in _FOLDED or self.like(node) or not all(name in self.constants for name in node.input if name):
            return False
        if not self._moves(node) and any(self.is_open(name) for name in node.input):
            raise self.refuse(node, "counts with a size that is not known before it runs")
        result = run(*(torch.from_numpy(np.array(self.constants[name])) if name else None for name in node.input))
        for name, tensor in zip(node.output, result if isinstance(result, tuple) else (result,), strict=True):
            self.constants[name] = tensor.cpu().numpy()
        return True

    def like(self, node: NodeProto) -> tuple[str, ...]:
        """The tensors whose sizes are in the shape that the operator is told, in its order."""
        at = _SHAPED.get(node.op_type)
        if at is None or not self.is_open(node.input[at]):
            return ()
        return tuple(self._axes[n - _OPEN][0] for n in self.constants[node.input[at]] if _open(n))

    def shape(self, node: NodeProto) -> Callable[[Sequence[Tensor]], list[int]]:
        """Reads the shape that the operator is told from the tensors of `like`."""
        told = [int(n) for n in self.values(node, _SHAPED[node.op_type]) or []]
        read = [(k, self._axes[n - _OPEN][1]) for k, n in enumerate(told) if _open(n)]

        def measured(like: Sequence[Tensor]) -> list[int]:
            found = list(told)
            for (k, axis), tensor in zip(read, like, strict=True):
                found[k] = tensor.shape[axis]
            return found

        return measured

    def runs(self, node: NodeProto) -> tuple[str, ...]:
        """The inputs of an operator that has to run, "" for one that is left out and for a shape that `like` tells. EngineError where it counts with open
        sizes otherwise."""
        told = _SHAPED.get(node.op_type)
        if any(self.is_open(name) for at, name in enumerate(node.input) if at != told):
            raise self.refuse(node, "counts with a size that is not known before it runs")
        return tuple("" if self.is_open(name) else name for name in node.input)

    def is_open(self, name: str) -> bool:
        """Whether a constant has open sizes in it."""
        array = self.constants.get(name)
        return array is not None and array.dtype == np.int64 and bool(_open(array).any())

    def values(self, node: NodeProto, at: int) -> list[Any] | None:
        """An input that says how, not what: it has to be a constant. None where there is none."""
        if at >= len(node.input) or not node.input[at]:
            return None
        if node.input[at] not in self.constants:
            raise self.refuse(node, f"has a computed {node.input[at]!r}, where torch needs a constant")
        values: list[Any] = self.constants[node.input[at]].ravel().tolist()
        return values

    def refuse(self, node: NodeProto, why: str) -> EngineError:
        """The error for an operator."""
        hint = "write `runtime: auto`; docs/engines.md says which networks torch runs"
        return EngineError(f"the operator {node.op_type} of node {node.name or node.output[0]!r} {why}", where=self._where, hint=hint)

    def _moves(self, node: NodeProto) -> bool:
        """Whether open sizes come out of it as they went in, or do not matter."""
        if node.op_type == "Equal":
            one, other = (self.constants[name] for name in node.input)
            largest = np.maximum(one, other)
            # No size is negative, which is all that exporters ask.
            return not ((_open(one) | _open(other)) & (one != other) & ((largest >= 0) | _open(largest))).any()
        return node.op_type in _MOVING or (node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.INT64)


def _open(size: Any) -> Any:
    return (size >= _OPEN) & (size < _OPEN + _MOST)


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    """Its sizes, -1 for those that are open."""
    return [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim]
