"""OpenPose's networks as ONNX files (opset 17), with batch, height and width left open; and files fixed to one size of picture."""

from __future__ import annotations

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ....pipeline.errors import EngineError
from .caffe import Layers
from .plan import PICTURE, Conv, Plan

OPSET = 17
_IR = 8
STRIDE = 8
HEATMAPS, FIELDS = "heatmaps", "fields"


def to_onnx(plan: Plan, layers: Layers) -> ModelProto:
    """A network with the weights of its layers (by the names and shapes of `Plan.blobs`).

    Input `picture` float32 [B,3,H,W] BGR, value / 256 - 0.5, H and W multiples of 8. Outputs `heatmaps` float32 [B,J+1,H/8,W/8] (the last
    is the background) and `fields` float32 [B,2L,H/8,W/8].
    """
    nodes, constants = [], []

    def constant(name: str, array: NDArray[np.float32]) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    given = {plan.heatmaps: HEATMAPS, plan.fields: FIELDS}  # results go by these names, also where a later layer takes them
    for layer in plan.layers:
        out = given.get(layer.name, layer.name)
        if not isinstance(layer, Conv):
            nodes.append(helper.make_node("MaxPool", [layer.source], [out], layer.name, kernel_shape=[2, 2], strides=[2, 2]))
            continue
        sources = [given.get(s, s) for s in layer.sources]
        if len(sources) > 1:
            nodes.append(helper.make_node("Concat", sources, [f"{layer.name}/in"], f"{layer.name}/in", axis=1))
            sources = [f"{layer.name}/in"]
        weights, bias = layers[layer.name]
        numbers = [constant(f"{layer.name}/weights", weights), constant(f"{layer.name}/bias", bias)]
        result = f"{layer.name}/conv" if layer.after else out
        shape = {"kernel_shape": [layer.kernel] * 2, "pads": [layer.kernel // 2] * 4}
        nodes.append(helper.make_node("Conv", [*sources, *numbers], [result], f"{layer.name}/conv", **shape))
        if layer.prelu:
            slope = constant(f"{layer.prelu}/slope", layers[layer.prelu][0][:, None, None])
            nodes.append(helper.make_node("PRelu", [result, slope], [out], layer.prelu))
        elif layer.after:
            nodes.append(helper.make_node("Relu", [result], [out], f"{layer.name}/relu"))
    channels = {layer.name: layer.channels[1] for layer in plan.layers if isinstance(layer, Conv)}
    picture = helper.make_tensor_value_info(PICTURE, TensorProto.FLOAT, ["batch", 3, "height", "width"])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels[layer], "rows", "columns"])
        for layer, name in given.items()
    ]
    graph = helper.make_graph(nodes, plan.name, [picture], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR, producer_name="posepipe")


def load(content: bytes, *, where: str) -> ModelProto:
    """An ONNX file's content. EngineError when it is none."""
    try:
        model = onnx.load_from_string(content)
    except DecodeError as e:
        raise EngineError("not an ONNX file", where=where, hint="pull or import the network again") from e
    if not model.graph.input:
        raise EngineError("not an ONNX file: it has no input", where=where, hint="pull or import the network again")
    return model


def fixed_size(model: ModelProto) -> tuple[int, int] | None:
    """Width and height of the pictures [B,3,H,W] that a network takes, None when it takes any."""
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return (dims[3], dims[2]) if len(dims) == 4 and dims[2] > 0 and dims[3] > 0 else None


def fix(model: ModelProto, *, width: int, height: int, stride: int = STRIDE) -> None:
    """Give the pictures of a network that takes any one size, a multiple of its stride: what compiles it then knows all but the batch."""
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        dims[2].dim_value, dims[3].dim_value = height, width
    for value in model.graph.output:
        dims = value.type.tensor_type.shape.dim
        dims[2].dim_value, dims[3].dim_value = height // stride, width // stride
    del model.graph.value_info[:]
