"""A network that tells by one rule what a person does, which stands for a trained one where it matters what becomes of its answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from posepipe.calib.action_window import JOINTS
from posepipe.engines.action import write_card

LABELS = ("hand up", "hand down", "never")


def by_left_hand(folder: Path, *, gain: float = 20.0, labels: tuple[str, ...] = LABELS, broken: bool = False) -> str:
    """The card of a network for which the left wrist is up when it is, on average over what was seen, 0.4 m above the hips; gain: how sure it is. broken: without the softmax."""
    weight = np.zeros((24, 13, 7, 3), np.float32)
    wrist, sides = JOINTS.index("left_wrist"), np.array([gain, -gain, 0]) / 24
    weight[:, wrist, 2], weight[:, wrist, 6] = sides, -0.4 * sides
    held = [
        onnx.numpy_helper.from_array(weight.reshape(-1, 3), "w"),
        onnx.numpy_helper.from_array(np.array([0, 0, -20], np.float32), "b"),
    ]
    nodes = [helper.make_node("Flatten", ["clip"], ["flat"]), helper.make_node("Gemm", ["flat", "w", "b"], ["p" if broken else "scores"])]
    if not broken:
        nodes.append(helper.make_node("Softmax", ["scores"], ["p"], axis=1))
    take, give = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("clip", ["N", 24, 13, 7]), ("p", ["N", 3])))
    graph = helper.make_graph(nodes, "hand", [take], [give], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "net.onnx")
    about = {"summary": "the left hand", "licence": "none", "file": "net.onnx", "measured": {"accuracy": "by definition"}}
    return str(write_card(folder / "card.toml", name="my.hand", labels=labels, **about))
