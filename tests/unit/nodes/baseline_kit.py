"""A lifter with one fixed answer, which stands for the trained one where it matters what becomes of its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from lift_kit import IN_BLAZE, views_of
from onnx import TensorProto, helper
from people import ring

from posepipe.calib.project import undistort
from posepipe.calib.single import from_hips, looks

RIG = ring()
CARD = """
[my.lifter]
kind = "model"
summary = "one answer for everything"
licence = "none"
skeleton = "coco17"
[[my.lifter.files]]
name = "net.onnx"
[my.lifter.inputs]
view = {shape = [-1, 54], dtype = "float32"}
[my.lifter.outputs]
xyz = {shape = [-1, 17, 3], dtype = "float32"}
spread = {shape = [-1, 17], dtype = "float32"}
"""


def always(folder: Path, xyz: Any) -> str:
    """The card of a network that gives the same joints [17,3] for every view, known to 3 cm."""
    nodes, held = [], []
    for name, values, shape in (("xyz", xyz, [-1, 17, 3]), ("spread", np.full(17, 0.03), [-1, 17])):
        flat = np.asarray(values, np.float32).reshape(-1)
        held += [
            onnx.numpy_helper.from_array(np.zeros((54, flat.size), np.float32), f"{name}_w"),
            onnx.numpy_helper.from_array(flat, f"{name}_b"),
            onnx.numpy_helper.from_array(np.array(shape, np.int64), f"{name}_shape"),
        ]
        nodes.append(helper.make_node("Gemm", ["view", f"{name}_w", f"{name}_b"], [f"{name}_flat"]))
        nodes.append(helper.make_node("Reshape", [f"{name}_flat", f"{name}_shape"], [name]))
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("xyz", ["N", 17, 3]), ("spread", ["N", 17]))]
    graph = helper.make_graph(nodes, "always", [helper.make_tensor_value_info("view", TensorProto.FLOAT, ["N", 54])], outputs, held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "net.onnx")
    (folder / "card.toml").write_text(CARD)
    return str(folder / "card.toml")


def true_answer(person: Any, view: int) -> Any:
    """What a perfect network would say of a person in that view."""
    uv_px = views_of(RIG, [person]).uv_px[:, view]
    rays = undistort(RIG, np.repeat(uv_px[:, None], len(RIG), axis=1))[:, view][:, IN_BLAZE]
    return from_hips(looks(rays, np.ones((1, 17)), RIG.camera_from_world[view]), person[None, IN_BLAZE])[0]
