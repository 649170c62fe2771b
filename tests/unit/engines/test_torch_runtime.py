"""The torch runtime against ONNX Runtime: networks that were pulled, and every operator on its own. Without a GPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from posepipe.engines.assets import Asset
from posepipe.engines.models.blazepose import networks
from posepipe.pipeline.errors import EngineError

torch = pytest.importorskip("torch", reason="torch is not installed: pip install posepipe[train]")

from tests.unit.engines.torch_kit import FLOAT, Made, both, engine, must_agree, noise, writer  # noqa: E402


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return writer(tmp_path)


# networks ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("blazepose.full", networks.HEATMAPS),
        ("blazepose.full", networks.ALL_HEADS),
        ("blazepose.lite", networks.HEATMAPS),
        ("blazepose.heavy", networks.HEATMAPS),
        ("blazepose.detector", networks.PEOPLE),
    ],
    ids=lambda v: v if isinstance(v, str) else v.name,
)
def test_blazepose_gives_the_same_logits(pulled: Callable[[str], Asset], name: str, view: networks.View) -> None:
    path = networks.onnx_path(pulled(name), view)
    with engine(path) as one:
        side = one.inputs[0].shape[2]
    pictures = np.random.default_rng(1).integers(0, 256, (2, 3, side, side)).astype(np.uint8)
    torchs, reference = both(path, {"image": pictures})
    for output, want in reference.items():
        assert torchs[output] == pytest.approx(want, abs=1e-3 * max(1.0, float(np.abs(want).max()))), output


@pytest.mark.parametrize("file", ["movenet-thunder-heatmap.onnx", "movenet-lightning-heatmap.onnx", "yolox_nano.onnx"])
def test_networks_of_the_mirror_give_the_same(file: str) -> None:
    path = Path(os.environ.get("POSEPIPE_MIRROR", "nowhere")) / file
    if not path.is_file():
        pytest.skip(f"{file} is not here: set POSEPIPE_MIRROR to a folder that has it")
    with engine(path) as one:
        (spec,) = one.inputs
    picture = np.random.default_rng(1).integers(0, 256, spec.shape).astype(spec.dtype)
    torchs, reference = both(path, {spec.name: picture})
    for output, want in reference.items():
        assert torchs[output] == pytest.approx(want, abs=1e-3 * max(1.0, float(np.abs(want).max()))), output


def test_part_affinity_fields_are_the_same(pulled: Callable[[str], Asset]) -> None:
    path = pulled("openpose.light").path("human-pose-estimation-0001.fp32.onnx")
    picture = np.random.default_rng(1).uniform(0, 255, (2, 3, 64, 96)).astype(np.float32)
    must_agree(path, {"data": picture}, within=1e-3)


def test_bf16_is_coarse_and_near(made: Made) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    path = made([node], {"x": [1, 8, 9, 9]}, {"y": [1, 4, 9, 9]}, {"w": noise(4, 8, 3, 3)})
    torchs, reference = both(path, {"x": noise(1, 8, 9, 9, seed=1)}, precision="bf16")
    off = np.abs(torchs["y"] - reference["y"]).max() / np.abs(reference["y"]).max()
    assert 1e-4 < off < 2e-2
    assert torchs["y"].dtype == np.float32


# operators --------------------------------------------------------------------------------------------------------------------

HALF = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
GRU = {"hidden_size": 5, "linear_before_reset": 1}
FLOOR = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@pytest.mark.parametrize(
    ("op", "shape", "constants", "how"),
    [
        ("Conv", (2, 4, 7, 6), {"w": noise(6, 2, 3, 3), "b": noise(6)}, {"group": 2, "strides": [2, 2], "pads": [0, 0, 1, 1]}),
        ("Conv", (1, 3, 5, 5), {"w": noise(2, 3, 3, 3)}, {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
        ("Conv", (1, 3, 9), {"w": noise(2, 3, 3)}, {"pads": [1, 1]}),
        ("Conv", (1, 3, 9), {"w": noise(2, 3, 3)}, {}),
        ("Conv", (2, 4, 5, 6, 7), {"w": noise(6, 2, 3, 3, 3), "b": noise(6)}, {"group": 2, "strides": [2, 1, 2], "pads": [1] * 6}),
        ("Conv", (1, 3, 5, 4, 6), {"w": noise(2, 3, 2, 3, 2)}, {"pads": [0, 1, 1, 1, 2, 0]}),
        ("ConvTranspose", (1, 3, 9), {"w": noise(3, 2, 4)}, {"strides": [2], "pads": [1, 1]}),
        ("ConvTranspose", (2, 4, 5, 6), {"w": noise(4, 3, 4, 4), "b": noise(6)}, {"group": 2, "strides": [2, 2], "pads": [1] * 4}),
        ("ConvTranspose", (1, 3, 2, 3, 4), {"w": noise(3, 2, 3, 3, 3)}, {"strides": [2] * 3, "output_padding": [1, 0, 1]}),
        ("MaxPool", (1, 2, 9), {}, {"kernel_shape": [3], "strides": [2]}),
        ("MaxPool", (1, 2, 6, 5, 4), {}, {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2], "pads": [0, 1, 1, 0, 1, 1]}),
        ("MaxPool", (2, 3, 8, 6), {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("Resize", (1, 2, 3, 4), {"": None, "s": np.array([1, 1, 2, 2], np.float32)}, HALF),
        ("Resize", (1, 2, 5, 3), {"": None, "s": np.array([1, 1, 1.6, 2], np.float32)}, HALF),
        ("Resize", (1, 2, 3, 4), {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 3], np.float32)}, FLOOR),
        ("Clip", (5, 5), {"a": np.array(-0.5, np.float32), "b": np.array(0.5, np.float32)}, {}),
        ("Clip", (5, 5), {"a": np.array(0.1, np.float32)}, {}),
        ("Reshape", (2, 3, 4), {"s": np.array([0, 2, -1], np.int64)}, {}),
        ("Slice", (4, 6, 5), {"a": np.array([1, -4]), "b": np.array([99, -1]), "c": np.array([0, 2]), "d": np.array([2, 1])}, {}),
        ("DepthToSpace", (2, 8, 3, 2), {}, {"blocksize": 2, "mode": "DCR"}),
        ("DepthToSpace", (2, 8, 3, 2), {}, {"blocksize": 2, "mode": "CRD"}),
        ("Unsqueeze", (2, 3), {"a": np.array([0, -1])}, {}),
        ("Squeeze", (1, 3, 1), {"a": np.array([-1])}, {}),
        ("Transpose", (2, 3, 4), {}, {"perm": [2, 0, 1]}),
        ("Concat", (2, 3), {"b": noise(2, 2)}, {"axis": 1}),
        ("PRelu", (2, 3, 2, 2), {"s": noise(3, 1, 1)}, {}),
        ("Elu", (3, 3), {}, {"alpha": 0.7}),
        ("Div", (3, 3), {"b": np.array(3, np.float32)}, {}),
        ("Sub", (3, 3), {"b": noise(3)}, {}),
        ("BatchNormalization", (2, 3, 2, 2, 2), {n: noise(3) ** 2 + 0.1 for n in "sbmv"}, {"epsilon": 0.01}),
        ("Gemm", (2, 3), {"w": noise(4, 3), "c": noise(4)}, {"transB": 1, "alpha": 0.5, "beta": 2.0}),
        ("Gemm", (3, 2), {"w": noise(3, 4)}, {"transA": 1}),
        ("Softmax", (2, 3, 4), {}, {}),
        ("Softmax", (2, 3, 4), {}, {"axis": 1}),
        ("ReduceSum", (2, 3, 4), {"a": np.array([0, -1])}, {"keepdims": 0}),
        ("ReduceSum", (2, 3), {}, {"noop_with_empty_axes": 1}),
        ("ReduceSum", (2, 3), {}, {}),
        ("ReduceMean", (2, 3, 4), {}, {"axes": [-2]}),
        ("Gather", (2, 3, 4), {"i": np.array([[2, -1], [0, 1]])}, {"axis": 1}),
        ("Gather", (2, 3, 4), {"i": np.array(-2)}, {"axis": -1}),
        ("Neg", (3, 3), {}, {}),
        ("Exp", (3, 3), {}, {}),
        ("Abs", (3, 3), {}, {}),
        ("Atan", (3, 3), {}, {}),
        ("Tanh", (3, 3), {}, {}),
        ("Reciprocal", (3, 3), {}, {}),
        ("MatMul", (2, 5, 3), {"w": noise(3, 4)}, {}),
        ("MatMul", (2, 1, 5, 3), {"w": noise(4, 3, 2)}, {}),
        ("Einsum", (2, 5, 3), {"w": noise(2, 3, 4)}, {"equation": "nij,njk->nik"}),
        ("Einsum", (2, 5, 3), {"w": noise(7, 3)}, {"equation": "n i j , k j -> n k i"}),
        ("Flatten", (2, 3, 4), {}, {}),
        ("Flatten", (2, 3, 4), {}, {"axis": 0}),
        ("Flatten", (2, 3, 4), {}, {"axis": 3}),
        ("Flatten", (2, 3, 4), {}, {"axis": -1}),
        ("ReduceMax", (2, 3, 4), {}, {"axes": [1], "keepdims": 0}),
        ("ReduceMin", (2, 3, 4), {}, {"axes": [-1, 0]}),
        ("ReduceMin", (2, 3), {}, {}),
        ("Expand", (3, 1), {"s": np.array([2, 1, 4])}, {}),
        ("Expand", (2, 3, 4), {"s": np.array([3, 1])}, {}),
        ("GRU", (1, 3, 4), {"w": noise(1, 15, 4), "r": noise(1, 15, 5), "b": noise(1, 30), "": None, "h": noise(1, 3, 5)}, GRU),
        ("GRU", (6, 2, 4), {"w": noise(1, 15, 4), "r": noise(1, 15, 5), "b": noise(1, 30), "": None, "h": noise(1, 2, 5)}, GRU),
        ("GRU", (3, 2, 4), {"w": noise(1, 9, 4), "r": noise(1, 9, 3)}, {**GRU, "hidden_size": 3, "direction": "forward", "layout": 0}),
    ],
)
def test_an_operator_does_as_in_onnx_runtime(
    made: Made, op: str, shape: tuple[int, ...], constants: dict[str, Any], how: dict[str, Any]
) -> None:
    node = helper.make_node(op, ["x", *constants], ["y"], **how)
    path = made([node], {"x": list(shape)}, {"y": [None] * 4 if len(shape) == 4 else None}, {n: a for n, a in constants.items() if n})
    must_agree(path, {"x": noise(*shape, seed=1)})


@pytest.mark.parametrize("names", [["every", "last"], ["", "last"], ["every", ""], ["every"]])
def test_a_recurrent_cell_gives_what_is_asked_for(made: Made, names: list[str]) -> None:
    node = helper.make_node("GRU", ["x", "w", "r", "b", "", "h"], names, **GRU)
    ends = {n: {"every": [None] * 4, "last": [None] * 3}[n] for n in names if n}
    path = made([node], {"x": [3, "n", 4], "h": [1, "n", 5]}, ends, {"w": noise(1, 15, 4), "r": noise(1, 15, 5), "b": noise(1, 30)})
    must_agree_in_time(path, noise(3, 2, 4), noise(1, 2, 5))


def must_agree_in_time(path: Path, x: Any, h: Any) -> None:
    """The batch is the second axis here, which an engine does not take: the network is asked as it is."""
    (reference,) = [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])]
    with engine(path) as one:
        found = one._run({"x": x, "h": h}, 0)
    for output, want in zip(reference.get_outputs(), reference.run(None, {"x": x, "h": h}), strict=True):
        assert found[output.name] == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("op", ["Equal", "Greater", "Less", "LessOrEqual"])
def test_one_or_the_other(made: Made, op: str) -> None:
    nodes = [helper.make_node(op, ["x", "limit"], ["which"]), helper.make_node("Where", ["which", "x", "other"], ["y"])]
    constants = {"limit": np.array([[0.5], [1.0]], np.float32), "other": noise(3)}
    must_agree(made(nodes, {"x": ["n", 2, 3]}, {"y": ["n", 2, 3]}, constants), {"x": np.array([[[0, 0.5, 1], [0.5, 1, 2]]], np.float32)})


@pytest.mark.parametrize("sizes", [None, [1, 4]])
def test_split(made: Made, sizes: list[int] | None) -> None:
    constants = {} if sizes is None else {"s": np.array(sizes)}
    names = ["a", "b"]
    node = helper.make_node("Split", ["x", *constants], names, axis=1)
    width = 4 if sizes is None else 5
    must_agree(made([node], {"x": [2, width]}, {n: [2, None] for n in names}, constants), {"x": noise(2, width)})


def test_constants_that_are_nodes(made: Made) -> None:
    two = helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.array(2, np.float32)))
    path = made([two, helper.make_node("Mul", ["x", "two"], ["y"])], {"x": ["n", 3]}, {"y": ["n", 3]})
    must_agree(path, {"x": noise(2, 3)})


def test_look_ups_and_whole_numbers(made: Made) -> None:
    """Where MoveNet's peaks are, as it finds them: argmax, cast, whole division, look-up."""
    nodes = [
        helper.make_node("ArgMax", ["x"], ["at"], axis=1, keepdims=1),
        helper.make_node("Cast", ["at"], ["at32"], to=TensorProto.INT32),
        helper.make_node("Div", ["at32", "three"], ["row"]),
        helper.make_node("Cast", ["row"], ["row64"], to=TensorProto.INT64),
        helper.make_node("GatherND", ["table", "row64"], ["y"]),
        helper.make_node("Cast", ["y"], ["f"], to=TensorProto.FLOAT),
    ]
    constants = {"three": np.array(3, np.int32), "table": np.arange(10, 20, dtype=np.int64)}
    path = made(nodes, {"x": [4, 9]}, {"f": [4], "row": [4, 1]}, constants, kinds={"row": TensorProto.INT32})
    must_agree(path, {"x": noise(4, 9)})


def test_pictures_of_bytes_and_whole_numbers(made: Made) -> None:
    for kind, dtype in ((TensorProto.UINT8, np.uint8), (TensorProto.INT32, np.int32)):
        nodes = [helper.make_node("Cast", ["x"], ["f"], to=FLOAT), helper.make_node("Mul", ["f", "k"], ["y"])]
        path = made(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, {"k": np.array(0.5, np.float32)}, kinds={"x": kind})
        must_agree(path, {"x": np.arange(8).reshape(2, 4).astype(dtype)})


def test_a_softmax_of_old_is_of_all_axes_from_one_on(made: Made) -> None:
    path = made([helper.make_node("Softmax", ["x"], ["y"])], {"x": [2, 3, 4]}, {"y": [2, 3, 4]}, opset=11)
    must_agree(path, {"x": noise(2, 3, 4)})


def shaped(made: Made, parts: list[str], inputs: dict[str, list[Any]], *more: Any) -> Path:
    """x, reshaped by what is concatenated: computed from its shape, or constants."""
    nodes = [helper.make_node("Shape", ["x"], ["shape"])]
    nodes += [helper.make_node("Gather", ["shape", f"i{k}"], [f"d{k}"], axis=0) for k in range(len(inputs["x"]))]
    nodes += [*more, helper.make_node("Concat", parts, ["wanted"], axis=0), helper.make_node("Reshape", ["x", "wanted"], ["y"])]
    constants = {f"i{k}": np.array([k]) for k in range(len(inputs["x"]))} | {"six": np.array([6]), "rest": np.array([-1])}
    return made(nodes, inputs, {"y": [None] * len(parts)}, constants)


@pytest.mark.parametrize("parts", [["d0", "six"], ["d0", "rest"], ["d0", "d2", "d1"], ["six", "d0"], ["six", "rest"]])
def test_sizes_that_follow_from_the_shape_leave_the_batch_open(made: Made, parts: list[str]) -> None:
    path = shaped(made, parts, {"x": ["n", 2, 3]})
    for batch in (1, 4):
        must_agree(path, {"x": noise(batch, 2, 3)})


@pytest.mark.parametrize(
    ("parts", "sizes"), [(["six", "d0", "rest"], ["n", 2, 3]), (["d1", "d0"], ["n", "m"]), (["d0", "d1", "d2"], ["n", "m", None])]
)
def test_several_open_sizes_are_read_as_it_runs(made: Made, parts: list[str], sizes: list[Any]) -> None:
    path = shaped(made, parts, {"x": sizes})
    for shape in ((6, 2, 3), (12, 2, 3)) if len(sizes) == 3 else ((2, 5), (4, 1)):
        must_agree(path, {"x": noise(*shape)})


def spread(made: Made, *, size: list[Any], least: int = -1) -> Path:
    """A row for everybody in x, as PyTorch exports `row.expand(n, m, -1)`: -1 leaves a size as it is, which ONNX writes as 1."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "two"], ["front"]),
        helper.make_node("Concat", ["front", "same"], ["wanted"], axis=0),
        helper.make_node("Shape", ["wanted"], ["count"]),
        helper.make_node("ConstantOfShape", ["count"], ["ones"], value=numpy_helper.from_array(np.array([1]))),
        helper.make_node("Mul", ["ones", "least"], ["left"]),
        helper.make_node("Equal", ["wanted", "left"], ["which"]),
        helper.make_node("Where", ["which", "ones", "wanted"], ["sizes"]),
        helper.make_node("Expand", ["row", "sizes"], ["y"]),
        helper.make_node("ConstantOfShape", ["front"], ["zeros"]),
        helper.make_node("Add", ["x", "y"], ["z"]),
    ]
    constants = {"zero": np.array([0]), "two": np.array([2]), "same": np.array([-1]), "least": np.array(least), "row": noise(3)}
    return made(nodes, {"x": size}, {"y": [None] * 3, "zeros": [None] * 2, "z": [None] * 3}, constants)


def test_what_is_repeated_for_everybody_follows_the_sizes(made: Made) -> None:
    path = spread(made, size=["n", "m", 3])
    for n, m in ((1, 1), (4, 1), (2, 5)):
        must_agree(path, {"x": noise(n, m, 3)})


def test_whether_an_open_size_is_a_positive_one_is_refused(made: Made) -> None:
    with pytest.raises(EngineError, match="Equal of node 'which' counts with a size that is not known"):
        engine(spread(made, size=["n", "m", 3], least=4))


def test_counting_with_an_open_size_is_refused(made: Made) -> None:
    with pytest.raises(EngineError, match="Mul of node 'twice' counts with a size that is not known"):
        engine(shaped(made, ["twice", "six"], {"x": ["n", 3]}, helper.make_node("Mul", ["d0", "d1"], ["twice"])))


def test_a_size_that_is_the_answer_is_refused(made: Made) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Shape", ["x"], ["s"])]
    path = made(nodes, {"x": ["n", 3]}, {"y": ["n", 3], "s": [2]}, kinds={"s": TensorProto.INT64})
    with pytest.raises(EngineError, match="the output 's' is a size"):
        engine(path)


def test_what_is_counted_from_constants_is_one(made: Made) -> None:
    """Coordinates of voxels, as the networks of triangulation compute them."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "last"], ["n"], axis=0),
        helper.make_node("Range", ["zero", "n", "one"], ["k"]),
        helper.make_node("Cast", ["k"], ["at"], to=FLOAT),
        helper.make_node("Div", ["at", "four"], ["share"]),
        helper.make_node("Mul", ["x", "share"], ["y"]),
    ]
    constants = {"last": np.array(-1), "zero": np.array(0), "one": np.array(1), "four": np.array(4, np.float32)}
    path = made(nodes, {"x": ["n", 5]}, {"y": ["n", 5]}, constants)
    with engine(path) as one:
        assert len(one._steps) == 1
    must_agree(path, {"x": noise(3, 5)})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_behind_the_last_layer_is_float32_in_every_precision(made: Made, precision: Any) -> None:
    """Neither 8 nor 11 binary digits tell 2049 from 2048."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Mul", ["c", "nothing"], ["none"]),
        helper.make_node("Add", ["none", "index"], ["y"]),
    ]
    constants = {"w": noise(2, 3, 1), "nothing": np.array(0, np.float32), "index": np.array([[[2049], [2049]]], np.float32)}
    with engine(made(nodes, {"x": ["n", 3, 4]}, {"y": ["n", 2, 4]}, constants), precision=precision) as one:
        assert (one({"x": noise(2, 3, 4)})["y"][:, 0] == 2049).all()
