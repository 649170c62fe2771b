"""A network of torch as an ONNX file (opset 17), with the axes left open that are named."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

OPSET = 17
Axes = Mapping[str, Sequence[str]]


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
