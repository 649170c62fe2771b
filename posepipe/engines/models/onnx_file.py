"""A network of torch as an ONNX file (opset 17), with the axes left open that are named, and in half the bytes where that is wanted."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

OPSET = 17
Axes = Mapping[str, Sequence[str]]
_SMALL = 4096
"""Fewer weights than this in one place stay as they are."""


def onnx_file(net: nn.Module, inputs: Mapping[str, tuple[Tensor, Sequence[str]]], outputs: Axes) -> bytes:
    """inputs: an example and the names of the axes that stay open, from the first; outputs: those names alone. The network as it is in `eval`."""
    out = io.BytesIO()
    open_axes = {name: dict(enumerate(axes)) for name, (_, axes) in inputs.items()} | {n: dict(enumerate(a)) for n, a in outputs.items()}
    with warnings.catch_warnings(), torch.no_grad():
        # Sizes that are constants in the file are meant to be, what cannot be folded stays; and the other exporter needs a package more.
        warnings.filterwarnings("ignore", message="Converting a tensor")
        warnings.filterwarnings("ignore", message="Constant folding")
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            net.eval(),
            tuple(example for example, _ in inputs.values()),
            out,  # type: ignore[arg-type]
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=open_axes,
            opset_version=OPSET,
            dynamo=False,
        )
    return out.getvalue()


def halved(network: bytes) -> bytes:
    """An ONNX file whose weights are kept as fp16 and widened when it is opened. It computes as before; a weight is rounded to one part in 2,000."""
    model = onnx.load_from_string(network)
    kept, widened = [], []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALL:
            kept.append(tensor)
            continue
        kept.append(onnx.numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}.half"))
        widened.append(onnx.helper.make_node("Cast", [f"{tensor.name}.half"], [tensor.name], to=onnx.TensorProto.FLOAT))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def written(path: Path, content: bytes) -> Path:
    """Keep a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    return partial.replace(path)
