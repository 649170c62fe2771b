"""What a precision moves in a network for joints in a cube: millimetres, of the joints that float32 is certain of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from posepipe.engines import verdicts
from posepipe.engines.assets import asset
from posepipe.engines.engine import EngineOptions, open_engine
from posepipe.engines.quantize import quantize
from posepipe.engines.rounding import rounded
from posepipe.engines.verify import Subject, compare, verifiable, verify, within
from posepipe.engines.volume import VolumeNetwork
from posepipe.pipeline.errors import EngineError, PullError

N = 8
CARD = f"""
[my.volume]
kind = "model"
summary = "joints in a cube"
licence = "MIT"
skeleton = "coco17"

[[my.volume.files]]
name = "net.onnx"

[my.volume.inputs]
cube = {{shape = [-1, {N}, {N}, {N}, 17], dtype = "float32"}}

[my.volume.outputs]
where = {{shape = [-1, 17, 3], dtype = "float32"}}
spread = {{shape = [-1, 17], dtype = "float32"}}

[my.volume.decoder]
kind = "volume"
xyz = "where"
"""
LIMITS = """
[my.volume.tolerance]
median_mm = {}
p95_mm = {}
"""


def own(folder: Path, limits: str = "") -> str:
    """A network of one layer: places that follow the height of the voxels, and a deviation of 1 % of the side."""
    rng = np.random.default_rng(3)
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.02, (N**3 * 17, 51)).astype(np.float32), "w"),
        numpy_helper.from_array(np.array([0, -1], np.int64), "flat"),
        numpy_helper.from_array(np.array([0, 17, 3], np.int64), "joints"),
        numpy_helper.from_array(np.zeros(1, np.float32), "none"),
        numpy_helper.from_array(np.full(1, 0.01, np.float32), "percent"),
    ]
    nodes = [
        helper.make_node("Reshape", ["cube", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "w"], ["sums"]),
        helper.make_node("Reshape", ["sums", "joints"], ["where"]),
        helper.make_node("ReduceMax", ["where"], ["high"], axes=[2], keepdims=0),
        helper.make_node("Mul", ["high", "none"], ["nothing"]),
        helper.make_node("Add", ["nothing", "percent"], ["spread"]),
    ]
    taken = helper.make_tensor_value_info("cube", TensorProto.FLOAT, ["n", N, N, N, 17])
    gives = [helper.make_tensor_value_info(k, TensorProto.FLOAT, ["n", 17, *more]) for k, more in (("where", [3]), ("spread", []))]
    graph = helper.make_graph(nodes, "net", [taken], gives, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "net.onnx")
    (folder / "card.toml").write_text(CARD + limits)
    return str(folder / "card.toml")


def cubes(subject: Subject) -> np.ndarray[Any, Any]:
    assert subject.shape == (N, N, N, 17)
    volumes: np.ndarray[Any, Any] = np.random.default_rng(5).uniform(0, 0.01, (6, *subject.shape)).astype(np.float32)
    return volumes


def outputs(where: Any, spread: Any = 0.01) -> dict[str, np.ndarray[Any, Any]]:
    return {"where": np.broadcast_to(np.float32(where), (2, 17, 3)).copy(), "spread": np.full((2, 17), spread, np.float32)}


def test_shares_of_the_side_are_millimetres(tmp_path: Path, cache: Path) -> None:
    subject = Subject(own(tmp_path))
    assert (subject.unit, subject.gives, subject.limit_median, subject.limit_p95) == ("mm", "volume", 2.0, 6.0)
    shift = compare(subject, outputs(0.1), outputs([0.1, 0.1, 0.104]))
    assert len(shift.moved) == 34
    np.testing.assert_allclose(shift.moved, 0.004 * 2500, rtol=1e-4)
    assert not within(subject, shift)
    assert within(subject, compare(subject, outputs(0.1), outputs([0.1, 0.1, 0.1004])))


def test_joints_that_float32_does_not_know_are_left_out(tmp_path: Path, cache: Path) -> None:
    subject = Subject(own(tmp_path))
    before, after = outputs(0.1), outputs(0.2)
    before["spread"][:, 3:] = 0.2
    assert len(compare(subject, before, after).moved) == 2 * 3
    with pytest.raises(EngineError, match="sure of no key point"):
        compare(subject, outputs(0.1, 0.2), after)
    after["where"][0, 0, 0] = np.nan
    assert compare(subject, before, after).nan_share == 0.5


def test_runtimes_and_precisions_are_compared_and_a_studio_heeds_it(tmp_path: Path, cache: Path) -> None:
    card = own(tmp_path, LIMITS.format(1e-9, 1e-9))
    asked = {"only_runtimes": ("onnxruntime", "rounded"), "only_precisions": ("fp32", "fp16"), "cut": cubes}
    found = {(f.runtime, f.precision): f for f in verify(card, **asked)}  # type: ignore[arg-type]
    assert set(found) == {("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("rounded", "fp16")}
    assert found["onnxruntime", "fp32"].shift.p95 == 0  # type: ignore[union-attr]
    half = found["rounded", "fp16"].shift
    assert half is not None
    assert 0 < half.median < 2, "eleven binary digits of a metre"
    assert [(v.unit, v.precision, v.within) for v in verdicts.kept()] == [("mm", "fp32", True), ("mm", "fp16", False)]
    with pytest.raises(EngineError) as e:
        VolumeNetwork(card, EngineOptions(runtime="onnxruntime", precision="fp16"))
    assert "moves key points by 0." in str(e.value)
    assert "mm (p95) in a cube of 2.5 m; 1e-09 and 1e-09 mm are allowed" in str(e.value)
    VolumeNetwork(card, EngineOptions(runtime="onnxruntime", precision="fp32")).close()


def test_int8_is_made_from_cubes(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posepipe.engines.quantize.ON_CPU", ("onnxruntime",))
    card = own(tmp_path, LIMITS.format(100, 100))
    made = quantize(card, cut=cubes)
    assert (made.layers, made.within, made.path.is_file()) == (1, True, True)


def test_a_network_of_cubes_takes_no_pictures(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(EngineError, match=r"it takes no pictures\n  -> `posepipe engines verify` makes volumes"):
        Subject(own(tmp_path)).cut(asset("pose2sim.single"))
    packaged = [name for name in verifiable() if name.startswith("triangulation.")]
    for name in packaged:
        assert Subject(name).unit == "mm"


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ("median_px = 0.3\np95_px = 1.5", r"gives median_px and p95_px, wanted are median_mm and p95_mm\n  -> pixels of the crop; of a network"),
        ("median_mm = 2.0", "gives median_mm, wanted are median_mm and p95_mm"),
        ("", "gives nothing, wanted"),
        ("median_mm = 2.0\np95_m = 5", r"unknown field `p95_m`.*\n  -> did you mean 'p95_mm'"),
    ],
)  # fmt: skip
def test_limits_in_another_unit_are_refused(tmp_path: Path, cache: Path, limits: str, says: str) -> None:
    with pytest.raises(PullError, match=says):
        Subject(own(tmp_path, "\n[my.volume.tolerance]\n" + limits))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_expectation_over_many_voxels_is_not_rounded(tmp_path: Path, precision: Any) -> None:
    """Behind the last layer with weights float16 would lose a sum of 100 000, and bfloat16 the tenth of a voxel."""
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["heights"]),
        helper.make_node("Mul", ["heights", "many"], ["large"]),
        helper.make_node("Div", ["large", "many"], ["b"]),
    ]
    weights = [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"), numpy_helper.from_array(np.full(1, 1e5, np.float32), "many")]
    a, b = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in ("a", "b"))
    model = helper.make_model(helper.make_graph(nodes, "net", [a], [b], weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(rounded(model, precision), tmp_path / "net.onnx")
    given = np.float32([[1.0, 2.0, 3.0, 4.0]])
    with open_engine(tmp_path / "net.onnx", EngineOptions(runtime="onnxruntime", precision="fp32")) as engine:
        np.testing.assert_allclose(engine({"a": given})["b"], given, rtol=1e-6)
