"""Transcribe a tflite graph to ONNX (opset 17): channels first, any batch, uint8 pictures in.

Made for the networks that posepipe pulls: exactly their operators are known, all others are refused by name. General converters
fail on the sparse weights of the pose detector. Tensors with four dimensions are NCHW in the ONNX graph, all others as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import tflite
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..pipeline.errors import EngineError
from .tflite_graph import Graph, Operator, read

VERSION = 2
"""Counts changes of what is written, so that stored transcriptions of an older posepipe are not used."""

Pads = tuple[int, int, int, int]
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def transcribe(flatbuffer: bytes, *, where: str, outputs: Mapping[str, str], scale: float, offset: float) -> onnx.ModelProto:
    """The part of a tflite graph that the wanted outputs need, as an ONNX model.

    The model's input is `image` uint8 [N,3,H,W]; the network sees `image * scale + offset`. `outputs` maps the tflite names of the
    wanted outputs to their new names. Raises EngineError for a file that is not tflite, an operator or a setting of one that is not
    known, and an output that is not there.
    """
    graph = read(flatbuffer, where=where)
    by_name = {graph.tensors[t].name: t for t in graph.outputs}
    if absent := set(outputs) - set(by_name):
        raise EngineError(f"the network has no output {sorted(absent)}; it has {sorted(by_name)}", where=where)
    return _Writer(graph, where).model({by_name[old]: new for old, new in outputs.items()}, scale, offset)


class _Writer:
    def __init__(self, graph: Graph, where: str) -> None:
        self._graph, self._where = graph, where
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._values: dict[int, NDArray[Any]] = {i: t.value for i, t in enumerate(graph.tensors) if t.value is not None}
        self._padded: dict[int, tuple[int, Pads]] = {}
        self._unscaled: dict[int, np.float32] = {}

    def model(self, wanted: Mapping[int, str], scale: float, offset: float) -> onnx.ModelProto:
        (image,) = self._graph.inputs
        _, height, width, channels = self._graph.tensors[image].shape
        needed = self._needed(set(wanted))
        weighted = all(op.kind in (*_CONVOLUTIONS, "PAD") for op in needed if image in op.inputs)
        self._preamble(image, scale, offset, weighted=weighted)
        for op in needed:
            self._write(op)
        for tensor, name in wanted.items():
            self._node("Identity", [self._name(tensor)], name)
        n = "N"
        graph = helper.make_graph(
            self._nodes,
            "posepipe",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [n, channels, height, width])],
            [helper.make_tensor_value_info(new, TensorProto.FLOAT, [n, *self._shape(t)[1:]]) for t, new in wanted.items()],
            list(self._constants.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="posepipe", ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _needed(self, wanted: set[int]) -> list[Operator]:
        keep: list[Operator] = []
        for op in reversed(self._graph.operators):
            if wanted.intersection(op.outputs):
                keep.append(op)
                wanted.update(op.inputs)
        return keep[::-1]

    def _preamble(self, image: int, scale: float, offset: float, *, weighted: bool) -> None:
        """weighted: only layers with weights see the picture, which can take the scale: what pads a picture is 0 scaled or not."""
        if weighted and offset == 0:
            self._node("Cast", ["image"], self._name(image), to=TensorProto.FLOAT)
            self._unscaled[image] = np.float32(scale)
            return
        self._node("Cast", ["image"], "image/float", to=TensorProto.FLOAT)
        scaled = self._name(image) if offset == 0 else "image/scaled"
        self._node("Mul", ["image/float", self._constant("image/scale", np.float32(scale))], scaled)
        if offset != 0:
            self._node("Add", [scaled, self._constant("image/offset", np.float32(offset))], self._name(image))

    # names and shapes

    def _name(self, tensor: int) -> str:
        if tensor in self._padded or tensor in self._values:
            raise self._refuse(f"tensor {self._graph.tensors[tensor].name!r} is used in a way that posepipe does not know")
        return f"t{tensor}"

    def _shape(self, tensor: int) -> tuple[int, ...]:
        shape = self._graph.tensors[tensor].shape
        return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape

    def _value(self, tensor: int) -> NDArray[Any]:
        try:
            return self._values[tensor]
        except KeyError:
            raise self._refuse(f"tensor {self._graph.tensors[tensor].name!r} should be a constant") from None

    def _refuse(self, what: str) -> EngineError:
        return EngineError(what, where=self._where, hint="this network is not one of those that posepipe transcribes")

    def _constant(self, name: str, value: Any) -> str:
        self._constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    def _activated(self, op: Operator, kind: str, inputs: list[str], **attributes: Any) -> None:
        """Write a node and the activation that tflite fuses into it."""
        output = self._name(op.outputs[0])
        fused = op.options.FusedActivationFunction()
        if fused == tflite.ActivationFunctionType.NONE:
            self._node(kind, inputs, output, **attributes)
        elif fused == tflite.ActivationFunctionType.RELU6:
            self._node(kind, inputs, f"{output}/linear", **attributes)
            limits = [self._constant("zero", np.float32(0)), self._constant("six", np.float32(6))]
            self._node("Clip", [f"{output}/linear", *limits], output)
        else:
            raise self._refuse(f"{op.kind} with the activation {fused}")

    # operators

    def _write(self, op: Operator) -> None:
        known: dict[str, Callable[[Operator], None]] = {
            "ADD": self._add,
            "CONCATENATION": self._concat,
            "CONV_2D": self._conv,
            "DENSIFY": self._fold,
            "DEPTHWISE_CONV_2D": self._conv,
            "DEPTH_TO_SPACE": self._depth_to_space,
            "DEQUANTIZE": self._fold,
            "LOGISTIC": self._logistic,
            "MAX_POOL_2D": self._max_pool,
            "PAD": self._pad,
            "RESHAPE": self._reshape,
            "RESIZE_BILINEAR": self._resize,
        }
        if op.kind not in known:
            raise self._refuse(f"the operator {op.kind} is not one that posepipe transcribes ({', '.join(sorted(known))})")
        known[op.kind](op)

    def _fold(self, op: Operator) -> None:
        """DEQUANTIZE of a float16 constant, or DENSIFY of one that `read` made dense already."""
        value = self._value(op.inputs[0])
        self._values[op.outputs[0]] = value.astype(np.float32) if op.kind == "DEQUANTIZE" else value

    def _pad(self, op: Operator) -> None:
        """Remembered for the convolutions behind it, which pad by themselves in ONNX."""
        before_after = self._value(op.inputs[1])
        if before_after.shape != (4, 2) or before_after[[0, 3]].any():
            raise self._refuse(f"PAD by {before_after.tolist()}")
        (top, bottom), (left, right) = before_after[1:3].tolist()
        self._padded[op.outputs[0]] = (op.inputs[0], (top, left, bottom, right))

    def _conv(self, op: Operator) -> None:
        o = op.options
        weights = self._value(op.inputs[1])
        if op.kind == "DEPTHWISE_CONV_2D":
            if o.DepthMultiplier() != 1:
                raise self._refuse(f"DEPTHWISE_CONV_2D with the multiplier {o.DepthMultiplier()}")
            weights, group = weights.transpose(3, 0, 1, 2), weights.shape[3]
        else:
            weights, group = weights.transpose(0, 3, 1, 2), 1
        kernel = weights.shape[2:]
        source, pads = op.inputs[0], (0, 0, 0, 0)
        if o.Padding() == tflite.Padding.SAME:
            pads = _same(self._shape(source)[2:], kernel, (o.StrideH(), o.StrideW()))
        elif source in self._padded:
            source, pads = self._padded[source]
        name = f"w{op.inputs[1]}"
        if (scale := self._unscaled.get(source)) is not None:
            name, weights = f"{name}/scaled", weights * scale
        tensors = [
            self._name(source),
            self._constant(name, weights),
            self._constant(f"w{op.inputs[2]}", self._value(op.inputs[2])),
        ]
        strides, dilations = [o.StrideH(), o.StrideW()], [o.DilationHFactor(), o.DilationWFactor()]
        if dilations != [1, 1]:
            raise self._refuse(f"{op.kind} with the dilation {dilations}")
        self._activated(op, "Conv", tensors, kernel_shape=list(kernel), strides=strides, pads=list(pads), group=group)

    def _max_pool(self, op: Operator) -> None:
        o = op.options
        if o.Padding() != tflite.Padding.VALID:
            raise self._refuse("MAX_POOL_2D with padding")
        kernel, strides = [o.FilterHeight(), o.FilterWidth()], [o.StrideH(), o.StrideW()]
        self._activated(op, "MaxPool", [self._name(op.inputs[0])], kernel_shape=kernel, strides=strides)

    def _add(self, op: Operator) -> None:
        if self._shape(op.inputs[0]) != self._shape(op.inputs[1]):
            raise self._refuse("ADD of tensors that differ in shape")
        self._activated(op, "Add", [self._name(t) for t in op.inputs])

    def _concat(self, op: Operator) -> None:
        axis = op.options.Axis()
        if len(self._shape(op.outputs[0])) == 4 or axis <= 0:
            raise self._refuse(f"CONCATENATION of shape {self._shape(op.outputs[0])} along {axis}")
        self._activated(op, "Concat", [self._name(t) for t in op.inputs], axis=axis)

    def _depth_to_space(self, op: Operator) -> None:
        self._node("DepthToSpace", [self._name(op.inputs[0])], self._name(op.outputs[0]), blocksize=op.options.BlockSize(), mode="DCR")

    def _resize(self, op: Operator) -> None:
        o = op.options
        if o.AlignCorners() or not o.HalfPixelCenters():
            raise self._refuse("RESIZE_BILINEAR without half-pixel centres")
        (_, _, h, w), (_, _, to_h, to_w) = self._shape(op.inputs[0]), self._shape(op.outputs[0])
        scales = self._constant(f"scale{to_h}/{h}x{to_w}/{w}", np.array([1, 1, to_h / h, to_w / w], np.float32))
        mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        self._node("Resize", [self._name(op.inputs[0]), "", scales], self._name(op.outputs[0]), **mode)

    def _reshape(self, op: Operator) -> None:
        """The order of the numbers is that of channels last, so that is restored first."""
        source, output = self._name(op.inputs[0]), self._name(op.outputs[0])
        shape = self._shape(op.outputs[0])
        if len(self._shape(op.inputs[0])) != 4 or len(shape) == 4 or shape[0] != 1:
            raise self._refuse(f"RESHAPE from {self._shape(op.inputs[0])} to {shape}")
        self._node("Transpose", [source], f"{output}/last", perm=[0, 2, 3, 1])
        to = self._constant(f"to{shape}", np.array([0, *shape[1:]], np.int64))  # 0 keeps the batch
        self._node("Reshape", [f"{output}/last", to], output)

    def _logistic(self, op: Operator) -> None:
        self._node("Sigmoid", [self._name(op.inputs[0])], self._name(op.outputs[0]))


def _same(size: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, int]) -> Pads:
    """Padding of tflite's SAME: as much as the last window needs, the odd one behind (tensorflow/lite/kernels/padding.h)."""
    before, after = [], []
    for n, k, s in zip(size, kernel, strides, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return before[0], before[1], after[0], after[1]
