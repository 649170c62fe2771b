"""The nodes of an ONNX file as steps in PyTorch."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor

from ..pipeline.errors import EngineError
from .engine import TensorSpec
from .torch_operators import OPERATORS
from .torch_sizes import Known, Run


@dataclass(frozen=True, slots=True)
class Step:
    """One operator. floats: what its numbers are. like: tensors that it is given after its inputs for their sizes, in whatever numbers."""

    run: Run
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    floats: torch.dtype
    like: tuple[str, ...] = ()


class Reader:
    """A network's nodes as steps. tensors: its constants on the device. Raises EngineError for what is not known here, by its name."""

    def __init__(self, model: onnx.ModelProto, wide: Set[str], device: torch.device, floats: torch.dtype, where: str) -> None:
        """wide: the names of the nodes whose numbers are float32; those of the others are `floats`."""
        graph, known = model.graph, Known(model, device, where)
        self._device = device
        self.inputs = tuple(_spec(v) for v in graph.input if v.name not in known.constants)
        self.outputs = tuple(_spec(v) for v in graph.output)
        self.steps: list[Step] = []
        for node in graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant" and "value" in attributes:
                known.constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
                continue
            if node.op_type == "Shape" and known.measure(node):
                continue
            make = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            if make is None:
                raise known.refuse(node, "is not known here")
            run = make(known, node, attributes)
            if known.fold(node, run):
                continue
            inputs = known.runs(node)
            if node.op_type == "Range":
                raise known.refuse(node, "has computed limits, where torch needs constants")
            kind = torch.float32 if node.name in wide else floats
            self.steps.append(Step(run, inputs, tuple(o for o in node.output if o), kind, known.like(node)))
        if sizes := [o.name for o in self.outputs if known.is_open(o.name)]:
            hint = "write `runtime: auto`"
            raise EngineError(f"the output {sizes[0]!r} is a size that is not known before the network runs", where=where, hint=hint)
        narrow = {name for step in self.steps if step.floats == floats for name in step.inputs}
        whole = {name for step in self.steps if step.floats != floats for name in step.inputs} | {o.name for o in self.outputs}
        self.tensors = {
            name: self._tensor(array, floats if name not in whole else torch.float32)
            for name, array in known.constants.items()
            if name in narrow | whole
        }

    def _tensor(self, array: NDArray[Any], floats: torch.dtype) -> Tensor:
        tensor = torch.from_numpy(np.array(array))
        tensor = tensor.to(self._device, floats if tensor.is_floating_point() else tensor.dtype)
        # What tensor cores multiply without rearranging it first.
        return tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 and self._device.type == "cuda" else tensor


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    return TensorSpec(
        value.name,
        tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim),
        np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
    )
