"""The operators of ONNX files in PyTorch, a few lines each; a file with another one is refused by the operator's name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import NodeProto, numpy_helper
from torch import Tensor

from .torch_sizes import Known, Run

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
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_REDUCE: dict[str, Run] = {"ReduceSum": torch.sum, "ReduceMean": torch.mean, "ReduceMax": torch.amax, "ReduceMin": torch.amin}

Make = Callable[[Known, NodeProto, dict[str, Any]], Run]
"""From a node and its attributes to what it does."""


def _conv(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    n = _spatial(of, node, a)
    pads = a.get("pads", [0] * 2 * n)
    before, after = pads[:n], pads[n:]
    how = {"stride": a.get("strides", 1), "dilation": a.get("dilations", 1), "groups": a.get("group", 1)}
    if before == after:
        return lambda x, w, b=None: _CONV[n](x, w, b, padding=before, **how)
    sides = [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair]  # torch has the last axis first
    return lambda x, w, b=None: _CONV[n](F.pad(x, sides), w, b, **how)


def _convtranspose(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    n = _spatial(of, node, a)
    pads = a.get("pads", [0] * 2 * n)
    if pads[:n] != pads[n:] or "output_shape" in a:
        raise of.refuse(node, f"with {a} is not known here")
    how = {"stride": a.get("strides", 1), "dilation": a.get("dilations", 1), "groups": a.get("group", 1)}
    more = a.get("output_padding", 0)
    return lambda x, w, b=None: _CONV_TRANSPOSE[n](x, w, b, padding=pads[:n], output_padding=more, **how)


def _maxpool(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    n = _spatial(of, node, a)
    pads = a.get("pads", [0] * 2 * n)
    if pads[:n] != pads[n:] or a.get("ceil_mode", 0) or len(node.output) > 1:
        raise of.refuse(node, f"with {a} is not known here")
    how = {"stride": a.get("strides", 1), "padding": pads[:n], "dilation": a.get("dilations", 1)}
    return lambda x: _MAX_POOL[n](x, a["kernel_shape"], **how)


def _spatial(of: Known, node: NodeProto, a: dict[str, Any]) -> int:
    """How many axes it moves along."""
    if a.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise of.refuse(node, f"with auto_pad {a['auto_pad'].decode()} is not known here")
    if "kernel_shape" in a:
        n = len(a["kernel_shape"])
    elif node.input[1] in of.constants:
        n = of.constants[node.input[1]].ndim - 2
    else:
        raise of.refuse(node, "with computed weights and without kernel_shape is not known here")
    if n not in _CONV:
        raise of.refuse(node, f"along {n} axes is not known here")
    return n


def _batchnormalization(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    if len(node.output) > 1 or a.get("training_mode", 0):
        raise of.refuse(node, "in training is not known here")
    return lambda x, w, b, mean, var: F.batch_norm(x, mean, var, w, b, eps=a.get("epsilon", 1e-5))


def _gemm(of: Known, _: NodeProto, a: dict[str, Any]) -> Run:
    def run(x: Tensor, y: Tensor, z: Tensor | None = None) -> Tensor:
        found: Tensor = a.get("alpha", 1.0) * ((x.T if a.get("transA", 0) else x) @ (y.T if a.get("transB", 0) else y))
        return found if z is None else found + a.get("beta", 1.0) * z

    return run


def _softmax(of: Known, _: NodeProto, a: dict[str, Any]) -> Run:
    if of.opset >= 13:
        return lambda x: torch.softmax(x, a.get("axis", -1))
    return lambda x: torch.softmax(x.flatten(a.get("axis", 1)), -1).view(x.shape)  # of all axes from that one on, until then


def _reduce(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    axes, keep = of.values(node, 1) or a.get("axes"), bool(a.get("keepdims", 1))
    if not axes and a.get("noop_with_empty_axes", 0):
        return lambda x, *_: x
    function = _REDUCE[node.op_type]
    return lambda x, *_: function(x, dim=axes or list(range(x.dim())), keepdim=keep)


def _gather(of: Known, _: NodeProto, a: dict[str, Any]) -> Run:
    def run(x: Tensor, at: Tensor) -> Tensor:
        axis = a.get("axis", 0) % x.dim()
        flat = at.reshape(-1).long()
        found = x.index_select(axis, torch.where(flat < 0, flat + x.shape[axis], flat))
        return found.reshape((*x.shape[:axis], *at.shape, *x.shape[axis + 1 :]))

    return run


def _range(of: Known, _: NodeProto, __: dict[str, Any]) -> Run:
    return lambda start, end, step: torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def _resize(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    mode, place = a.get("mode", b"nearest").decode(), a.get("coordinate_transformation_mode", b"half_pixel").decode()
    if (mode, place) == ("linear", "half_pixel"):
        how: dict[str, Any] = {"mode": "bilinear", "align_corners": False}
    elif (mode, place, a.get("nearest_mode", b"")) == ("nearest", "asymmetric", b"floor"):
        how = {"mode": "nearest"}
    else:
        raise of.refuse(node, f"with {mode}, {place} is not known here")
    scales, sizes = of.values(node, 2), of.values(node, 3)
    if sizes:
        if len(sizes) != 4:
            raise of.refuse(node, f"to the sizes {sizes} is not known here")
        return lambda x, *_: F.interpolate(x, size=[int(n) for n in sizes[2:]], **how)
    if not scales or len(scales) != 4 or scales[:2] != [1, 1]:
        raise of.refuse(node, f"with the scales {scales} is not known here")
    return lambda x, *_: F.interpolate(x, size=[int(n * s + 1e-6) for n, s in zip(x.shape[2:], scales[2:], strict=True)], **how)


def _clip(of: Known, node: NodeProto, _: dict[str, Any]) -> Run:
    low, high = ((of.values(node, k) or [None])[0] for k in (1, 2))
    return lambda x, *_: torch.clamp(x, low, high)


def _cast(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    to = _DTYPES.get(a["to"])
    if to is None:
        raise of.refuse(node, f"to type {a['to']} is not known here")
    kind = torch.float32 if to.is_floating_point else to  # the next operator has it as it wants it
    return lambda x: x.to(kind)


def _reshape(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    shape = of.shape(node)
    if a.get("allowzero", 0) and 0 in (of.values(node, 1) or []):
        raise of.refuse(node, "with allowzero is not known here")
    return lambda x, _, *like: x.reshape([x.shape[k] if n == 0 else n for k, n in enumerate(shape(like))])


def _expand(of: Known, node: NodeProto, _: dict[str, Any]) -> Run:
    shape = of.shape(node)
    return lambda x, _, *like: x.expand(torch.broadcast_shapes(x.shape, shape(like)))  # type: ignore[no-untyped-call]


def _constantofshape(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    shape, value = of.shape(node), numpy_helper.to_array(a["value"]) if "value" in a else np.zeros(1, np.float32)
    kind = torch.from_numpy(np.array(value)).dtype
    how: dict[str, Any] = {"dtype": torch.float32 if kind.is_floating_point else kind, "device": of.device}
    return lambda _, *like: torch.full(shape(like), value.item(), **how)


def _gru(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    """One direction, sigmoid and tanh, the reset gate behind the product: as PyTorch has it and exports it."""
    usual = {"direction": b"forward", "layout": 0, "linear_before_reset": 1, "hidden_size": a.get("hidden_size")}
    other = {name: value for name, value in {"linear_before_reset": 0, **a}.items() if name not in usual or value != usual[name]}
    if other or any(node.input[4:5]):
        raise of.refuse(node, f"with {', '.join(other) or 'lengths'} is not known here")

    def run(x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, _: None = None, h: Tensor | None = None) -> tuple[Tensor, ...]:
        """x [T,N,I], w [1,3H,I], r [1,3H,H], b [1,6H], h [1,N,H] -> all states [T,1,N,H], the last [1,N,H]; gates: update, reset, new."""
        size = r.shape[2]
        before, inside = (None, None) if b is None else torch.split(b[0], 3 * size)
        given = F.linear(x, w[0], before)
        state = x.new_zeros(x.shape[1], size) if h is None else h[0]
        states = []
        for now in given:
            (uz, ur, un), (hz, hr, hn) = torch.split(now, size, 1), torch.split(F.linear(state, r[0], inside), size, 1)
            update, new = torch.sigmoid(uz + hz), torch.tanh(un + torch.sigmoid(ur + hr) * hn)
            state = new + update * (state - new)
            states.append(state)
        every = (torch.stack(states)[:, None], state[None])
        return tuple(tensor for name, tensor in zip(node.output, every, strict=False) if name)

    return run


def _einsum(of: Known, _: NodeProto, a: dict[str, Any]) -> Run:
    return lambda *x: torch.einsum(a["equation"].decode(), *x)


def _flatten(of: Known, _: NodeProto, a: dict[str, Any]) -> Run:
    axis = a.get("axis", 1)
    return lambda x: x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _split(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    sizes, axis, count = of.values(node, 1) or a.get("split"), a.get("axis", 0), len(node.output)
    if sizes:
        return lambda x, *_: torch.split(x, sizes, axis)
    return lambda x, *_: torch.split(x, -(-x.shape[axis] // count), axis)


def _slice(of: Known, node: NodeProto, _: dict[str, Any]) -> Run:
    starts, ends = of.values(node, 1) or [], of.values(node, 2) or []
    axes, steps = of.values(node, 3) or list(range(len(starts))), of.values(node, 4) or [1] * len(starts)
    if min(steps) < 1:
        raise of.refuse(node, f"with the steps {steps} is not known here")

    def run(x: Tensor, *_: Any) -> Tensor:
        where = [slice(None)] * x.dim()
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            where[axis] = slice(start, end, step)
        return x[tuple(where)]

    return run


def _depthtospace(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    size = a["blocksize"]
    if a.get("mode", b"DCR") == b"CRD":
        return lambda x: F.pixel_shuffle(x, size)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // size**2, h * size, w * size)

    return run


def _gathernd(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    if a.get("batch_dims", 0):
        raise of.refuse(node, "with batch_dims is not known here")
    return lambda x, at: x[tuple(at.movedim(-1, 0).long())]


def _argmax(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    if a.get("select_last_index", 0):
        raise of.refuse(node, "with select_last_index is not known here")
    return lambda x: torch.argmax(x, a.get("axis", 0), bool(a.get("keepdims", 1)))


def _unsqueeze(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    axes = of.values(node, 1) or a["axes"]

    def run(x: Tensor, *_: Any) -> Tensor:
        full = x.dim() + len(axes)
        for axis in sorted(n % full for n in axes):
            x = x.unsqueeze(axis)
        return x

    return run


def _squeeze(of: Known, node: NodeProto, a: dict[str, Any]) -> Run:
    axes = of.values(node, 1) or a.get("axes")
    return lambda x, *_: x.squeeze(tuple(axes)) if axes else x.squeeze()


def _transpose(of: Known, _: NodeProto, a: dict[str, Any]) -> Run:
    return lambda x: x.permute(a.get("perm", range(x.dim())[::-1]))


def _concat(of: Known, _: NodeProto, a: dict[str, Any]) -> Run:
    return lambda *parts: torch.cat(parts, a["axis"])


def _div(of: Known, _: NodeProto, a: dict[str, Any]) -> Run:
    return lambda x, y: x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _prelu(of: Known, _: NodeProto, a: dict[str, Any]) -> Run:
    return lambda x, slope: torch.where(x < 0, slope * x, x)


def _elu(of: Known, _: NodeProto, a: dict[str, Any]) -> Run:
    return lambda x: F.elu(x, a.get("alpha", 1.0))


def _plain(of: Known, node: NodeProto, _: dict[str, Any]) -> Run:
    return _PLAIN[node.op_type]


_PLAIN: dict[str, Run] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "Atan": torch.atan,
    "Equal": torch.eq,
    "Exp": torch.exp,
    "Greater": torch.gt,
    "Identity": lambda x: x,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Where": torch.where,
}
OPERATORS: Mapping[str, Make] = MappingProxyType(
    {
        **dict.fromkeys(_PLAIN, _plain),
        **dict.fromkeys(_REDUCE, _reduce),
        "ArgMax": _argmax,
        "BatchNormalization": _batchnormalization,
        "Cast": _cast,
        "Clip": _clip,
        "Concat": _concat,
        "ConstantOfShape": _constantofshape,
        "Conv": _conv,
        "ConvTranspose": _convtranspose,
        "DepthToSpace": _depthtospace,
        "Div": _div,
        "Einsum": _einsum,
        "Elu": _elu,
        "Expand": _expand,
        "Flatten": _flatten,
        "GRU": _gru,
        "Gather": _gather,
        "GatherND": _gathernd,
        "Gemm": _gemm,
        "MaxPool": _maxpool,
        "PRelu": _prelu,
        "Range": _range,
        "Reshape": _reshape,
        "Resize": _resize,
        "Slice": _slice,
        "Softmax": _softmax,
        "Split": _split,
        "Squeeze": _squeeze,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
)
"""What a network may consist of to be run here."""
