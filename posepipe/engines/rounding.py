"""What a precision does to a network apart from any runtime: the float32 network, rounded after every layer that is not kept in float32 (see
`convert`), as hardware that computes in that precision would keep the numbers. On processors `posepipe engines verify` has no other way to see what float16 does on a GPU: ONNX Runtime
and OpenVINO compute a float16 file in float32 there.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .convert import WEIGHTED, at_least, name_nodes, stays_wide

_TYPES = {"fp16": (TensorProto.FLOAT16, np.dtype(np.float16)), "bf16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16))}
_CASTS_BF16 = 13
"""The first opset whose Cast knows it."""


def rounded(model: onnx.ModelProto, precision: Literal["fp16", "bf16"], *, kept: Set[str] = frozenset()) -> onnx.ModelProto:
    """A float32 network whose weights, and whose numbers after every node, are those that `precision` can hold (rounded to nearest even).

    Decoding, norms, exponentials and what else a conversion leaves in float32 stay: a runtime is not asked to round them either.
    kept: nodes, by name or else first output, that stay as well, with their weights (`bf16.wide_nodes`). Sums inside a layer stay float32, as in the
    matrix units of GPUs and processors. Inputs and outputs keep names and number types.
    """
    to, dtype = _TYPES[precision]
    if precision == "bf16":
        model = at_least(model, _CASTS_BF16)
    typed = onnx.shape_inference.infer_shapes(model)
    floats = {v.name for v in (*typed.graph.value_info, *typed.graph.output) if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    keeps = [n.name or n.output[0] for n in model.graph.node]
    weights = {
        n.input[1] for n, k in zip(model.graph.node, keeps, strict=True) if n.op_type in WEIGHTED and len(n.input) > 1 and k not in kept
    }
    result = onnx.ModelProto()
    result.CopyFrom(model)
    name_nodes(result)
    wide = stays_wide(result) | {n.name for n, k in zip(result.graph.node, keeps, strict=True) if k in kept}
    for one in result.graph.initializer:
        if one.name in weights and one.data_type == TensorProto.FLOAT:
            one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one).astype(dtype).astype(np.float32), one.name))
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        nodes.append(node)
        if node.op_type == "Constant" or node.name in wide:
            continue
        for i, name in enumerate(node.output):
            if name in floats:
                # The rounded numbers take the name, so that outputs of the network are rounded too.
                node.output[i] = f"{name}/exact"
                nodes.append(helper.make_node("Cast", [f"{name}/exact"], [f"{name}/narrow"], to=to))
                nodes.append(helper.make_node("Cast", [f"{name}/narrow"], [name], to=TensorProto.FLOAT))
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    del result.graph.value_info[:]
    return result
