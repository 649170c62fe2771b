"""A network of smooth.vibe's signature whose answers can be read: it stands for the trained one where it matters what the node makes of them.

Its joints are those of the instant, and where one is not seen those that it gave last. What it was given can be read off the body: `told`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from posepipe.pipeline.packet import Poses

MEMORY = 52
SPREAD_M = 0.03
CARD = """
[my.smoother]
kind = "model"
summary = "says what it was given"
licence = "none"
skeleton = "{skeleton}"
[[my.smoother.files]]
name = "net.onnx"
[my.smoother.inputs]
state = {{shape = [-1, {memory}], dtype = "float32"}}
window = {{shape = [-1, {window}, 17, 5], dtype = "float32"}}
after_s = {{shape = [-1, 9], dtype = "float32"}}
[my.smoother.outputs]
joints = {{shape = [-1, 17, 3], dtype = "float32"}}
spread = {{shape = [-1, 17], dtype = "float32"}}
pose = {{shape = [-1, 24, 6], dtype = "float32"}}
shape = {{shape = [-1, 16], dtype = "float32"}}
root = {{shape = [-1, 3], dtype = "float32"}}
state_after = {{shape = [-1, {memory}], dtype = "float32"}}
"""


def card(folder: Path, **other: Any) -> str:
    """A card without a file."""
    path = folder / "card.toml"
    path.write_text(CARD.format(**{"skeleton": "coco17", "memory": MEMORY, "window": 9, **other}))
    return str(path)


def network(folder: Path, *, memory: int | str = MEMORY, scale: float = 1.0) -> str:
    """The card of the network. scale: what the joints are multiplied by (NaN breaks it)."""
    held: list[Any] = []
    nodes: list[Any] = []

    def const(name: str, values: Any, kind: Any = np.int64) -> str:
        held.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def node(op: str, inputs: list[str], out: str, **more: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [out], **more))
        return out

    def cut(what: str, begin: list[int], end: list[int], axes: list[int], out: str) -> str:
        parts = [const(f"{out}_{n}", v) for n, v in (("from", begin), ("to", end), ("axes", axes))]
        return node("Slice", [what, *parts], out)

    def shaped(what: str, shape: list[int], out: str) -> str:
        return node("Reshape", [what, const(f"{out}_shape", shape)], out)

    xyz = shaped(cut("window", [0, 0], [1, 3], [1, 3], "first"), [-1, 17, 3], "xyz")
    conf = shaped(cut("window", [0, 4], [1, 5], [1, 3], "first_conf"), [-1, 17, 1], "conf")
    last = shaped(cut("state", [0], [51], [1], "flat_last"), [-1, 17, 3], "last")
    count = node("Add", [cut("state", [51], [52], [1], "before"), const("one", [1], np.float32)], "count")
    seen = node("Greater", [conf, const("none", [0], np.float32)], "seen")
    joints = node("Mul", [node("Where", [seen, xyz, last], "here"), const("scale", [scale], np.float32)], "joints")
    unsure = node("Mul", [shaped(conf, [-1, 17], "conf_flat"), const("nought", [0], np.float32)], "conf_zeros")
    node("Add", [unsure, const("sd", [SPREAD_M], np.float32)], "spread")
    node("ReduceMean", [joints], "root", axes=[1], keepdims=0)
    node("Concat", [shaped(joints, [-1, 51], "flat"), count], "state_after", axis=1)
    node("Concat", ["after_s", count, node("Mul", [cut("after_s", [0], [6], [1], "six"), "nought"], "zeros")], "shape", axis=1)
    nose = shaped(cut("window", [0], [1], [2], "nose"), [-1, 45], "nose_flat")
    rest = node("Mul", [shaped("window", [-1, 765], "all"), "nought"], "all_zeros")
    node("Concat", [nose, cut(rest, [0], [99], [1], "filler")], "pose_flat", axis=1)
    shaped("pose_flat", [-1, 24, 6], "pose")

    def value(name: str, shape: list[int | str]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])

    takes = [value("state", [memory]), value("window", [9, 17, 5]), value("after_s", [9])]
    gives = {"joints": [17, 3], "spread": [17], "pose": [24, 6], "shape": [16], "root": [3], "state_after": [memory]}
    graph = helper.make_graph(nodes, "says", takes, [value(n, list(s)) for n, s in gives.items()], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "net.onnx")
    return card(folder, memory=MEMORY if memory == MEMORY else -1)


@dataclass(frozen=True)
class Told:
    """What the network was told of one person. after_s [9], nose_m [9,3], conf [9] of the nose; count: its steps for him, this one too."""

    after_s: np.ndarray[Any, Any]
    nose_m: np.ndarray[Any, Any]
    conf: np.ndarray[Any, Any]
    count: int


def told(body: Poses, person: int) -> Told:
    bodies = body.bodies
    assert bodies is not None
    row = body.ids.tolist().index(person)
    nose = bodies.pose[row].reshape(-1)[:45].reshape(9, 5)
    return Told(bodies.shape[row, :9], nose[:, :3], nose[:, 4], round(float(bodies.shape[row, 9])))
