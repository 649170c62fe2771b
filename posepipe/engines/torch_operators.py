"""The operators of ONNX files in PyTorch, a few lines each; a file with another one is refused by the operator's name.

Sizes that a network computes from the shapes of its tensors are worked out as the file is read, which leaves the batch open: a graph on a GPU
is captured once for every batch, and nothing is asked of the processor in between.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor

from ..pipeline.errors import EngineError
from .engine import TensorSpec

_DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
}
_OPEN = -(2**62)
"""Sizes from here to a thousand further are those that the file leaves open, one for each name."""
_MOVING = frozenset({"Gather", "Concat", "Unsqueeze", "Squeeze", "Slice", "Identity"})
"""What may be done with open sizes."""
_FOLDED = _MOVING | {"Cast", "Add", "Sub", "Mul", "Div", "Range", "Reshape"}
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}

Run = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One operator. floats: what its numbers are."""

    run: Run
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    floats: torch.dtype


class Reader:
    """A network's nodes as steps. tensors: its constants on the device. Raises EngineError for what is not known here, by its name."""

    def __init__(self, model: onnx.ModelProto, wide: Set[str], device: torch.device, floats: torch.dtype, where: str) -> None:
        """wide: the names of the nodes whose numbers are float32; those of the others are `floats`."""
        graph = model.graph
        self._where, self._float, self._device = where, floats, device
        self._opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
        self.constants: dict[str, NDArray[Any]] = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.inputs = tuple(self._spec(v) for v in graph.input if v.name not in self.constants)
        self.outputs = tuple(self._spec(v) for v in graph.output)
        self._open: dict[str, int] = {}
        self._sizes = {
            v.name: self._dims(v) for v in (*graph.input, *graph.value_info, *graph.output) if v.type.tensor_type.HasField("shape")
        }
        self.steps: list[Step] = []
        for node in graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant" and "value" in attributes:
                self.constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
                continue
            if node.op_type == "Shape" and len(attributes) == 0 and all(self._sizes.get(node.input[0], [None])):
                self.constants[node.output[0]] = np.array(self._sizes[node.input[0]], np.int64)
                continue
            make = getattr(self, f"_{node.op_type.lower()}", None) if node.domain in ("", "ai.onnx") else None
            if node.op_type not in OPERATORS or make is None:
                raise self._refuse(node, "is not known here")
            run = make(node, attributes)
            if node.op_type in _FOLDED and all(name in self.constants for name in node.input if name):
                self._fold(node, run)
                continue
            if node.op_type != "Reshape" and any(self._is_open(name) for name in node.input):
                raise self._refuse(node, "counts with a size that is not known before it runs")
            if node.op_type == "Range":
                raise self._refuse(node, "has computed limits, where torch needs constants")
            kind = torch.float32 if node.name in wide else floats
            names = tuple("" if self._is_open(name) else name for name in node.input)
            self.steps.append(Step(run, names, tuple(o for o in node.output if o), kind))
        if sizes := [o.name for o in self.outputs if self._is_open(o.name)]:
            hint = "write `runtime: auto`"
            raise EngineError(f"the output {sizes[0]!r} is a size that is not known before the network runs", where=where, hint=hint)
        narrow = {name for step in self.steps if step.floats == floats for name in step.inputs}
        whole = {name for step in self.steps if step.floats != floats for name in step.inputs} | {o.name for o in self.outputs}
        self.tensors = {
            name: self._tensor(array, floats if name not in whole else torch.float32)
            for name, array in self.constants.items()
            if name in narrow | whole
        }

    def _spec(self, value: onnx.ValueInfoProto) -> TensorSpec:
        tensor = value.type.tensor_type
        return TensorSpec(
            value.name,
            tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim),
            np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
        )

    def _dims(self, value: onnx.ValueInfoProto) -> list[int | None]:
        """Its sizes: numbers, an own number from `_OPEN` on for every name, None for what has none."""
        dims = value.type.tensor_type.shape.dim
        return [
            d.dim_value if d.HasField("dim_value") else self._open.setdefault(d.dim_param, _OPEN + len(self._open)) if d.dim_param else None
            for d in dims
        ]

    def _is_open(self, name: str) -> bool:
        array = self.constants.get(name)
        return array is not None and array.dtype == np.int64 and bool(_open(array).any())

    def _fold(self, node: NodeProto, run: Run) -> None:
        """What comes of constants is one."""
        moved = node.op_type in _MOVING or (node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.INT64)
        if not moved and any(self._is_open(name) for name in node.input):
            raise self._refuse(node, "counts with a size that is not known before it runs")
        result = run(*(torch.from_numpy(np.array(self.constants[name])) if name else None for name in node.input))
        for name, tensor in zip(node.output, result if isinstance(result, tuple) else (result,), strict=True):
            self.constants[name] = tensor.numpy()

    def _tensor(self, array: NDArray[Any], floats: torch.dtype) -> Tensor:
        tensor = torch.from_numpy(np.array(array))
        tensor = tensor.to(self._device, floats if tensor.is_floating_point() else tensor.dtype)
        # What tensor cores multiply without rearranging it first.
        return tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 and self._device.type == "cuda" else tensor

    def _refuse(self, node: NodeProto, why: str) -> EngineError:
        hint = "write `runtime: auto`; torch runs the operators of the networks that posepipe has cards for"
        return EngineError(f"the operator {node.op_type} of node {node.name or node.output[0]!r} {why}", where=self._where, hint=hint)

    def _known(self, node: NodeProto, at: int) -> list[Any] | None:
        """An input that says how, not what: it has to be a constant. None where there is none."""
        if at >= len(node.input) or not node.input[at]:
            return None
        if node.input[at] not in self.constants:
            raise self._refuse(node, f"has a computed {node.input[at]!r}, where torch needs a constant")
        values: list[Any] = self.constants[node.input[at]].ravel().tolist()
        return values

    # one operator each -------------------------------------------------------------------------------------------------------

    def _conv(self, node: NodeProto, a: dict[str, Any]) -> Run:
        n = self._spatial(node, a)
        pads = a.get("pads", [0] * 2 * n)
        before, after = pads[:n], pads[n:]
        how = {"stride": a.get("strides", 1), "dilation": a.get("dilations", 1), "groups": a.get("group", 1)}
        if before == after:
            return lambda x, w, b=None: _CONV[n](x, w, b, padding=before, **how)
        sides = [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair]  # torch has the last axis first
        return lambda x, w, b=None: _CONV[n](F.pad(x, sides), w, b, **how)

    def _convtranspose(self, node: NodeProto, a: dict[str, Any]) -> Run:
        n = self._spatial(node, a)
        pads = a.get("pads", [0] * 2 * n)
        if pads[:n] != pads[n:] or "output_shape" in a:
            raise self._refuse(node, f"with {a} is not known here")
        how = {"stride": a.get("strides", 1), "dilation": a.get("dilations", 1), "groups": a.get("group", 1)}
        more = a.get("output_padding", 0)
        return lambda x, w, b=None: _CONV_TRANSPOSE[n](x, w, b, padding=pads[:n], output_padding=more, **how)

    def _maxpool(self, node: NodeProto, a: dict[str, Any]) -> Run:
        n = self._spatial(node, a)
        pads = a.get("pads", [0] * 2 * n)
        if pads[:n] != pads[n:] or a.get("ceil_mode", 0) or len(node.output) > 1:
            raise self._refuse(node, f"with {a} is not known here")
        how = {"stride": a.get("strides", 1), "padding": pads[:n], "dilation": a.get("dilations", 1)}
        return lambda x: _MAX_POOL[n](x, a["kernel_shape"], **how)

    def _spatial(self, node: NodeProto, a: dict[str, Any]) -> int:
        """How many axes it moves along."""
        if a.get("auto_pad", b"NOTSET") != b"NOTSET":
            raise self._refuse(node, f"with auto_pad {a['auto_pad'].decode()} is not known here")
        if "kernel_shape" in a:
            n = len(a["kernel_shape"])
        elif node.input[1] in self.constants:
            n = self.constants[node.input[1]].ndim - 2
        else:
            raise self._refuse(node, "with computed weights and without kernel_shape is not known here")
        if n not in _CONV:
            raise self._refuse(node, f"along {n} axes is not known here")
        return n

    def _batchnormalization(self, node: NodeProto, a: dict[str, Any]) -> Run:
        if len(node.output) > 1 or a.get("training_mode", 0):
            raise self._refuse(node, "in training is not known here")
        return lambda x, w, b, mean, var: F.batch_norm(x, mean, var, w, b, eps=a.get("epsilon", 1e-5))

    def _gemm(self, _: NodeProto, a: dict[str, Any]) -> Run:
        def run(x: Tensor, y: Tensor, z: Tensor | None = None) -> Tensor:
            found: Tensor = a.get("alpha", 1.0) * ((x.T if a.get("transA", 0) else x) @ (y.T if a.get("transB", 0) else y))
            return found if z is None else found + a.get("beta", 1.0) * z

        return run

    def _softmax(self, _: NodeProto, a: dict[str, Any]) -> Run:
        if self._opset >= 13:
            return lambda x: torch.softmax(x, a.get("axis", -1))
        return lambda x: torch.softmax(x.flatten(a.get("axis", 1)), -1).view(x.shape)  # of all axes from that one on, until then

    def _reduce(self, node: NodeProto, a: dict[str, Any]) -> Run:
        axes, keep = self._known(node, 1) or a.get("axes"), bool(a.get("keepdims", 1))
        if not axes and a.get("noop_with_empty_axes", 0):
            return lambda x, *_: x
        function = {"ReduceSum": torch.sum, "ReduceMean": torch.mean}[node.op_type]
        return lambda x, *_: function(x, dim=axes or list(range(x.dim())), keepdim=keep)

    def _gather(self, _: NodeProto, a: dict[str, Any]) -> Run:
        def run(x: Tensor, at: Tensor) -> Tensor:
            axis = a.get("axis", 0) % x.dim()
            flat = at.reshape(-1).long()
            found = x.index_select(axis, torch.where(flat < 0, flat + x.shape[axis], flat))
            return found.reshape((*x.shape[:axis], *at.shape, *x.shape[axis + 1 :]))

        return run

    def _range(self, _: NodeProto, __: dict[str, Any]) -> Run:
        return lambda start, end, step: torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)

    def _resize(self, node: NodeProto, a: dict[str, Any]) -> Run:
        mode, place = a.get("mode", b"nearest").decode(), a.get("coordinate_transformation_mode", b"half_pixel").decode()
        if (mode, place) == ("linear", "half_pixel"):
            how: dict[str, Any] = {"mode": "bilinear", "align_corners": False}
        elif (mode, place, a.get("nearest_mode", b"")) == ("nearest", "asymmetric", b"floor"):
            how = {"mode": "nearest"}
        else:
            raise self._refuse(node, f"with {mode}, {place} is not known here")
        scales, sizes = self._known(node, 2), self._known(node, 3)
        if sizes:
            if len(sizes) != 4:
                raise self._refuse(node, f"to the sizes {sizes} is not known here")
            return lambda x, *_: F.interpolate(x, size=[int(n) for n in sizes[2:]], **how)
        if not scales or len(scales) != 4 or scales[:2] != [1, 1]:
            raise self._refuse(node, f"with the scales {scales} is not known here")
        return lambda x, *_: F.interpolate(x, size=[int(n * s + 1e-6) for n, s in zip(x.shape[2:], scales[2:], strict=True)], **how)

    def _clip(self, node: NodeProto, _: dict[str, Any]) -> Run:
        low, high = ((self._known(node, k) or [None])[0] for k in (1, 2))
        return lambda x, *_: torch.clamp(x, low, high)

    def _cast(self, node: NodeProto, a: dict[str, Any]) -> Run:
        to = _DTYPES.get(a["to"])
        if to is None:
            raise self._refuse(node, f"to type {a['to']} is not known here")
        kind = torch.float32 if to.is_floating_point else to  # the next operator has it as it wants it
        return lambda x: x.to(kind)

    def _reshape(self, node: NodeProto, a: dict[str, Any]) -> Run:
        shape, before = self._known(node, 1) or [], self._sizes.get(node.input[0], [])
        if a.get("allowzero", 0) and 0 in shape:
            raise self._refuse(node, "with allowzero is not known here")
        # A size that the file leaves open stays what it was at its place, or it is what is left over.
        shape = [0 if _open(n) and k < len(before) and before[k] == n else n for k, n in enumerate(shape)]
        if sum(bool(_open(n)) or n == -1 for n in shape) > 1:
            raise self._refuse(node, "counts with sizes that are not known before it runs")
        wanted = [-1 if _open(n) else n for n in shape]
        return lambda x, _: x.reshape([x.shape[k] if n == 0 else n for k, n in enumerate(wanted)])

    def _split(self, node: NodeProto, a: dict[str, Any]) -> Run:
        sizes, axis, count = self._known(node, 1) or a.get("split"), a.get("axis", 0), len(node.output)
        if sizes:
            return lambda x, *_: torch.split(x, sizes, axis)
        return lambda x, *_: torch.split(x, -(-x.shape[axis] // count), axis)

    def _slice(self, node: NodeProto, _: dict[str, Any]) -> Run:
        starts, ends = self._known(node, 1) or [], self._known(node, 2) or []
        axes, steps = self._known(node, 3) or list(range(len(starts))), self._known(node, 4) or [1] * len(starts)
        if min(steps) < 1:
            raise self._refuse(node, f"with the steps {steps} is not known here")

        def run(x: Tensor, *_: Any) -> Tensor:
            where = [slice(None)] * x.dim()
            for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
                where[axis] = slice(start, end, step)
            return x[tuple(where)]

        return run

    def _depthtospace(self, node: NodeProto, a: dict[str, Any]) -> Run:
        size = a["blocksize"]
        if a.get("mode", b"DCR") == b"CRD":
            return lambda x: F.pixel_shuffle(x, size)

        def run(x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            return x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // size**2, h * size, w * size)

        return run

    def _gathernd(self, node: NodeProto, a: dict[str, Any]) -> Run:
        if a.get("batch_dims", 0):
            raise self._refuse(node, "with batch_dims is not known here")
        return lambda x, at: x[tuple(at.movedim(-1, 0).long())]

    def _argmax(self, node: NodeProto, a: dict[str, Any]) -> Run:
        if a.get("select_last_index", 0):
            raise self._refuse(node, "with select_last_index is not known here")
        return lambda x: torch.argmax(x, a.get("axis", 0), bool(a.get("keepdims", 1)))

    def _unsqueeze(self, node: NodeProto, a: dict[str, Any]) -> Run:
        axes = self._known(node, 1) or a["axes"]

        def run(x: Tensor, *_: Any) -> Tensor:
            full = x.dim() + len(axes)
            for axis in sorted(n % full for n in axes):
                x = x.unsqueeze(axis)
            return x

        return run

    def _squeeze(self, node: NodeProto, a: dict[str, Any]) -> Run:
        axes = self._known(node, 1) or a.get("axes")
        return lambda x, *_: x.squeeze(tuple(axes)) if axes else x.squeeze()

    def _transpose(self, _: NodeProto, a: dict[str, Any]) -> Run:
        return lambda x: x.permute(a.get("perm", range(x.dim())[::-1]))

    def _concat(self, _: NodeProto, a: dict[str, Any]) -> Run:
        return lambda *parts: torch.cat(parts, a["axis"])

    def _div(self, _: NodeProto, a: dict[str, Any]) -> Run:
        return lambda x, y: x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")

    def _prelu(self, _: NodeProto, a: dict[str, Any]) -> Run:
        return lambda x, slope: torch.where(x < 0, slope * x, x)

    def _elu(self, _: NodeProto, a: dict[str, Any]) -> Run:
        return lambda x: F.elu(x, a.get("alpha", 1.0))

    def _plain(self, node: NodeProto, _: dict[str, Any]) -> Run:
        return _PLAIN[node.op_type]

    _add = _sub = _mul = _relu = _sigmoid = _sqrt = _exp = _log = _neg = _identity = _plain
    _reducesum = _reducemean = _reduce


def _open(size: Any) -> Any:
    return (size >= _OPEN) & (size < _OPEN + 1000)


_PLAIN: dict[str, Run] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sqrt": torch.sqrt,
    "Exp": torch.exp,
    "Log": torch.log,
    "Neg": torch.neg,
    "Identity": lambda x: x,
}
OPERATORS = frozenset(_PLAIN) | {
    *("Conv", "MaxPool", "Resize", "Clip", "Cast", "Reshape", "Split", "Slice", "DepthToSpace", "GatherND", "ArgMax", "Unsqueeze"),
    *("Squeeze", "Transpose", "Concat", "Div", "PRelu", "Elu", "ConvTranspose", "BatchNormalization", "Gemm", "Softmax", "ReduceSum"),
    *("ReduceMean", "Gather", "Range"),
}
"""What a network may consist of to be run here."""
