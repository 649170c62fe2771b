"""Networks made here: they see nothing but a bright spot, and answer with the outputs of a family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from text_kit import card, simcc_card

from posepipe.pipeline.packet import Frame

WIDE, HIGH = 640, 480


def spot(x: float, y: float, *, sigma: float = 6.0, wide: int = WIDE, high: int = HIGH) -> Frame:
    """A dark frame with one bright spot."""
    gx, gy = (np.exp(-((np.arange(n) - at) ** 2) / (2 * sigma**2)) for n, at in ((wide, x), (high, y)))
    luma = (16 + 219 * gy[:, None] * gx[None]).round().astype(np.uint8)
    grey = np.full((high // 2, wide // 2), 128, np.uint8)
    return Frame("cam", 0, 0, "i420", wide, high, (luma, grey, grey))


def simcc_net(path: Path, *, batch: Any = "n", joints: int = 17, wide: int = 192, high: int = 256, channels: int = 3) -> Path:
    """The signature of RTMPose: the brightest column and row of its input as peaks of simcc_x and simcc_y, for all joints the same."""
    nodes, weights = [], []

    def constant(name: str, values: Any) -> str:
        weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    for axis, (name, n, summed) in enumerate((("simcc_x", wide, 2), ("simcc_y", high, 3))):
        nodes += [
            helper.make_node("ReduceSum", ["input", constant(f"axes{axis}", [1, summed])], [f"line{axis}"], keepdims=0),
            helper.make_node("Unsqueeze", [f"line{axis}", constant(f"last{axis}", [2])], [f"column{axis}"]),
            helper.make_node("Expand", [f"column{axis}", constant(f"twice{axis}", [1, n, 2])], [f"pairs{axis}"]),
            helper.make_node("Reshape", [f"pairs{axis}", constant(f"flat{axis}", [-1, 1, 2 * n])], [f"bins{axis}"]),
            helper.make_node("Softmax", [f"bins{axis}"], [f"soft{axis}"], axis=2),
            helper.make_node("Expand", [f"soft{axis}", constant(f"joints{axis}", [1, joints, 1])], [name]),
        ]
    return _save(
        path, nodes, weights, ("input", TensorProto.FLOAT, [batch, channels, high, wide]),
        [("simcc_x", TensorProto.FLOAT, [batch, joints, 2 * wide]), ("simcc_y", TensorProto.FLOAT, [batch, joints, 2 * high])],
    )  # fmt: skip


def ready_net(path: Path, box: tuple[float, ...], *, side: int = 320) -> Path:
    """The signature of RTMDet: one box that is always there, and one of another class."""
    nodes = [
        helper.make_node("ReduceSum", ["input", "all"], ["sum"], keepdims=0),
        helper.make_node("Reshape", ["sum", "column"], ["sums"]),
        helper.make_node("Mul", ["sums", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "boxes"], ["dets"]),
        helper.make_node("Squeeze", ["zero", "last"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "classes"], ["labels"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "all"),
        numpy_helper.from_array(np.array([-1, 1, 1], np.int64), "column"),
        numpy_helper.from_array(np.zeros(1, np.float32), "nothing"),
        numpy_helper.from_array(np.array([[[*box, 0.9], [*box, 0.8]]], np.float32), "boxes"),
        numpy_helper.from_array(np.array([2], np.int64), "last"),
        numpy_helper.from_array(np.array([[0, 5]], np.int64), "classes"),
    ]
    outputs = [("dets", TensorProto.FLOAT, ["n", "p", 5]), ("labels", TensorProto.INT64, ["n", "p"])]
    return _save(path, nodes, weights, ("input", TensorProto.FLOAT, ["n", 3, side, side]), outputs)


def table_net(path: Path, *, fill: float) -> Path:
    """A table [n,17,3] full of one number, whatever the picture (float32 [n,3,64,64])."""
    nodes = [
        helper.make_node("ReduceSum", ["input", "all"], ["sum"], keepdims=0),
        helper.make_node("Reshape", ["sum", "column"], ["sums"]),
        helper.make_node("Mul", ["sums", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "table"], ["t"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "all"),
        numpy_helper.from_array(np.array([-1, 1, 1], np.int64), "column"),
        numpy_helper.from_array(np.zeros(1, np.float32), "nothing"),
        numpy_helper.from_array(np.full((1, 17, 3), fill, np.float32), "table"),
    ]
    return _save(path, nodes, weights, ("input", TensorProto.FLOAT, ["n", 3, 64, 64]), [("t", TensorProto.FLOAT, ["n", 17, 3])])


def twice(path: Path) -> Path:
    """twice = 2 a, for any batch of pairs."""
    add = helper.make_node("Add", ["a", "a"], ["twice"])
    return _save(path, [add], [], ("a", TensorProto.FLOAT, ["N", 2]), [("twice", TensorProto.FLOAT, ["N", 2])])


def _save(path: Path, nodes: list[Any], weights: list[Any], taken: Any, given: list[Any]) -> Path:
    inputs, outputs = [helper.make_tensor_value_info(*taken)], [helper.make_tensor_value_info(*one) for one in given]
    graph = helper.make_graph(nodes, "made", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


SIMCC_CARD = simcc_card()

TABLE_CARD = card({"t": (-1, 17, 3)}, 'kind = "regression"', size=(64, 64))


def own_card(folder: Path, text: str = SIMCC_CARD) -> str:
    """A card beside its network, and its path."""
    folder.mkdir(exist_ok=True)
    (folder / "card.toml").write_text(text)
    return str(folder / "card.toml")
