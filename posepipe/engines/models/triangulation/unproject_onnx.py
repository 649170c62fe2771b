"""`posepipe.calib.unproject` as an ONNX graph, for devices where heatmaps are already: the same numbers to 1e-4, one GridSample of rank 4.

The views are a fixed number, and those that there are not have the share 0. Geometry is float32 throughout; a conversion to fp16 must leave
it so, because a camera some metres away needs more than three digits. Built with TensorRT for RTX without a device; not run on a device for this
release.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

How = Literal["sum", "conf", "softmax"]

_OPSET = 17
_OUTSIDE = -3.0
_NEVER = 1e4


def unproject_graph(
    *, views: int, joints: int, size: tuple[int, int], n: int, how: How = "conf", people: int | None = None
) -> onnx.ModelProto:
    """The graph for `views` views of `people` people (None: as many as there are), maps of `joints` channels and `size` (width, height).

    Inputs, B = people * views, one person's views after the other: `maps` [B,J,h,w] (a view that there is not: finite numbers); `camera`
    [B,3,4], `lens` [B,5], `fold2` [B], `near` [B], `cells` [B,2,3], `share` [B,J]: as `Sight` and `shares` of `posepipe.calib.unproject` give them.
    Output `volume` [people,n,n,n,J].
    """
    wide, high = size
    batch: int | str = "B" if people is None else people * views
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def const(name: str, value: NDArray[np.generic]) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def op(kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def number(value: float) -> str:
        name = f"number_{len(constants)}"
        return const(name, np.array(value, np.float32))

    def sum_of(name: str, *terms: str) -> str:
        total = terms[0]
        for k, term in enumerate(terms[1:]):
            total = op("Add", [total, term], name if k == len(terms) - 2 else f"{name}_{k}")
        return total

    def times(name: str, *factors: str) -> str:
        product = factors[0]
        for k, factor in enumerate(factors[1:]):
            product = op("Mul", [product, factor], name if k == len(factors) - 2 else f"{name}_{k}")
        return product

    def columns(source: str, count: int) -> list[str]:
        names = [f"{source}_{k}" for k in range(count)]
        nodes.append(
            helper.make_node("Split", [source, const(f"{source}_each", np.ones(count, np.int64))], names, name=f"{source}_split", axis=1)
        )
        return names

    share_of_side = np.arange(n, dtype=np.float32) / np.float32(n - 1) - np.float32(0.5)
    voxels = np.stack(
        [a.ravel() for a in np.meshgrid(share_of_side, share_of_side, share_of_side, indexing="ij")] + [np.ones(n**3, np.float32)]
    )
    op("MatMul", ["camera", const("voxels", voxels)], "at")  # [B,3,N]
    x_m, y_m, z_m = columns("at", 3)
    one, two = number(1), number(2)
    last = const("last", np.array([1, 2], np.int64))
    ahead = op("Greater", [z_m, op("Unsqueeze", ["near", last], "near_3")], "ahead")
    depth = op("Where", [ahead, z_m, one], "depth")
    x, y = op("Div", [x_m, depth], "x"), op("Div", [y_m, depth], "y")
    xx, yy = times("xx", x, x), times("yy", y, y)
    r2 = sum_of("r2", xx, yy)
    seen = op("And", [ahead, op("Less", [r2, op("Unsqueeze", ["fold2", last], "fold2_3")], "unfolded")], "seen")
    op("Unsqueeze", ["lens", const("behind", np.array([2], np.int64))], "lens_3")
    k1, k2, p1, p2, k3 = columns("lens_3", 5)
    poly = sum_of("poly", k2, times("poly_3", r2, k3))
    poly = sum_of("poly_1", k1, times("poly_2", r2, poly))
    radial = sum_of("radial", one, times("radial_r", r2, poly))
    both = times("both", two, x, y)
    tilt_x = sum_of("tilt_x", times("tilt_p1", p1, both), times("tilt_p2", p2, sum_of("r2_xx", r2, times("two_xx", two, xx))))
    tilt_y = sum_of("tilt_y", times("tilt_p3", p1, sum_of("r2_yy", r2, times("two_yy", two, yy))), times("tilt_p4", p2, both))
    xd, yd = sum_of("xd", times("x_radial", x, radial), tilt_x), sum_of("yd", times("y_radial", y, radial), tilt_y)

    nodes.append(
        helper.make_node(
            "Split", ["cells", const("linear_and_offset", np.array([2, 1], np.int64))], ["turn", "shift"], name="cells_split", axis=2
        )
    )
    cell = sum_of("cell", op("MatMul", ["turn", op("Concat", [xd, yd], "distorted", axis=1)], "turned"), "shift")
    to_grid = const("to_grid", np.array([[[2 / (wide - 1)], [2 / (high - 1)]]], np.float32))
    grid = op("Sub", [times("scaled", cell, to_grid), one], "grid_free")
    outside = number(_OUTSIDE)
    grid = op("Where", [seen, op("Clip", [grid, outside, number(-_OUTSIDE)], "grid_near"), outside], "grid_flat")
    grid = op("Unsqueeze", [op("Transpose", [grid], "grid_last", perm=[0, 2, 1]), const("row", np.array([2], np.int64))], "grid")
    sampled = op("GridSample", ["maps", grid], "sampled", mode="bilinear", padding_mode="zeros", align_corners=1)  # [B,J,N,1]
    apart = const("apart", np.array([people or -1, views, joints, n**3], np.int64))
    values = op("Reshape", [sampled, apart], "values")
    weight = op("Reshape", ["share", const("apart_share", np.array([people or -1, views, joints, 1], np.int64))], "weight")
    if how == "softmax":
        absent = times("absent", op("Sub", [weight, one], "less"), number(_NEVER))
        weight = times("present", op("Softmax", [sum_of("logits", values, absent)], "softmax", axis=1), weight)
    joined = op("ReduceSum", [times("weighted", values, weight), const("over_views", np.array([1], np.int64))], "joined", keepdims=0)
    joined = op("Transpose", [joined], "joints_last", perm=[0, 2, 1])
    op("Reshape", [joined, const("cube", np.array([people or -1, n, n, n, joints], np.int64))], "volume")

    shapes = {
        "maps": (joints, high, wide), "camera": (3, 4), "lens": (5,), "fold2": (), "near": (), "cells": (2, 3), "share": (joints,)
    }  # fmt: skip
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape]) for name, shape in shapes.items()]
    output = helper.make_tensor_value_info("volume", TensorProto.FLOAT, ["P" if people is None else people, n, n, n, joints])
    graph = helper.make_graph(nodes, "unproject", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9, producer_name="posepipe")
    onnx.checker.check_model(model)
    return model
