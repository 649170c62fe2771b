"""What tests of the torch runtime share: small networks, and the same network in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from posepipe.engines.engine import EngineOptions, open_engine

Made = Callable[..., Path]
FLOAT = TensorProto.FLOAT


def writer(folder: Path) -> Made:
    """Writes a network: nodes, what goes in and comes out (name -> shape), and constants."""

    def write(
        nodes: list[Any],
        inputs: dict[str, list[Any]],
        outputs: dict[str, list[Any]],
        constants: dict[str, NDArray[Any]] | None = None,
        *,
        kinds: dict[str, int] | None = None,
        opset: int = 17,
    ) -> Path:
        infos = [[helper.make_tensor_value_info(n, (kinds or {}).get(n, FLOAT), s) for n, s in part.items()] for part in (inputs, outputs)]
        kept = [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()]
        graph = helper.make_graph(nodes, "made", *infos, kept)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.save(model, path := folder / "made.onnx")
        return path

    return write


def engine(path: Path, **options: Any) -> Any:
    return open_engine(path, EngineOptions(runtime="torch", device="cpu", **options))


def both(path: Path, inputs: dict[str, NDArray[Any]], **options: Any) -> list[dict[str, NDArray[Any]]]:
    """What torch and ONNX Runtime give."""
    found = []
    for kind in ("torch", "onnxruntime"):
        with open_engine(path, EngineOptions(runtime=kind, device="cpu", **(options if kind == "torch" else {}))) as one:  # type: ignore[arg-type]
            found.append({n: a.copy() for n, a in one(inputs).items()})
    return found


def must_agree(path: Path, inputs: dict[str, NDArray[Any]], *, within: float = 1e-5) -> None:
    torchs, reference = both(path, inputs)
    assert torchs.keys() == reference.keys()
    for name, want in reference.items():
        assert torchs[name].dtype == want.dtype
        assert torchs[name].shape == want.shape
        assert torchs[name] == pytest.approx(want, abs=within)


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def relu(made: Made) -> Path:
    return made([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 3]}, {"y": ["n", 3]})
