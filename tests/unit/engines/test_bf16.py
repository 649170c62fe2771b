"""Layers that stay float32 in bf16: which nodes they are, what a card may say of them, and that runtimes heed it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from posepipe.engines.assets import catalogue
from posepipe.engines.bf16 import layers_of, wide_nodes
from posepipe.engines.engine import EngineOptions, open_engine
from posepipe.engines.rounding import rounded
from posepipe.pipeline.errors import EngineError, PullError

CARD = """[mine.net]
kind = "model"
summary = "three layers"
licence = "none"
[[mine.net.files]]
name = "net.onnx"
"""
ALL = frozenset({0, 1, 2})


def three_layers(path: Path) -> Path:
    """conv, relu, conv with what went in added, tanh, conv."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(0, 0.2, (8, 3 if k == 0 else 8, 3, 3)).astype(np.float32), f"w{k}") for k in range(3)]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name="second", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c1", "r0"], ["sum"], name="joined"),
        helper.make_node("Tanh", ["sum"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "w2"], ["y"], name="third", pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, 16, 16])], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def with_card(folder: Path, layers: str) -> Path:
    (folder / "card.toml").write_text(CARD + (f"[mine.net.bf16]\nfp32_layers = {layers}\n" if layers else ""))
    return three_layers(folder / "net.onnx")


def answer(path: Path, runtime: str, precision: str) -> tuple[np.ndarray, str]:
    x = np.random.default_rng(1).random((2, 3, 16, 16), np.float32)
    with open_engine(path, EngineOptions(runtime=runtime, precision=precision, device="cpu", threads=1)) as engine:  # type: ignore[arg-type]
        return engine({"x": x})["y"].copy(), engine.reason


@pytest.mark.parametrize(
    ("layers", "nodes"), [((), set()), ((0,), {"first", "r0"}), ((1,), {"second", "joined", "scaled"}), ((0, 2), {"first", "r0", "third"})]
)
def test_a_layer_is_what_follows_it_up_to_the_next(tmp_path: Path, layers: tuple[int, ...], nodes: set[str]) -> None:
    model = onnx.load(three_layers(tmp_path / "net.onnx"))
    assert wide_nodes(model, frozenset(layers), where="here") == nodes


def test_a_layer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    model = onnx.load(three_layers(tmp_path / "net.onnx"))
    with pytest.raises(EngineError, match="keeps layer 3 in float32, and it has 3 layers with weights, counted from 0") as e:
        wide_nodes(model, frozenset({0, 3}), where="mine/card.toml")
    assert e.value.where == "mine/card.toml"
    assert "[bf16]" in e.value.hint


def test_the_card_beside_a_file_says_which(tmp_path: Path) -> None:
    assert layers_of(with_card(tmp_path, "")) == ()
    assert layers_of(with_card(tmp_path, "[0, 2]")) == (0, 2)
    nobodys = tmp_path / "elsewhere"
    nobodys.mkdir()
    assert layers_of(three_layers(nobodys / "net.onnx")) == ()


@pytest.mark.parametrize(("layers", "says"), [("[-1]", ">= 0"), ('["first"]', "int"), ("3", "array")])
def test_what_is_no_list_of_layers_is_refused(tmp_path: Path, layers: str, says: str) -> None:
    with pytest.raises(PullError, match=says):
        layers_of(with_card(tmp_path, layers))


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_runtimes_keep_them(tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The more layers are kept, the nearer to float32; with all of them it is float32."""
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "home"))
    pytest.importorskip(runtime, reason=f"needs {runtime}")
    try:
        coarse, _ = answer(with_card(tmp_path, ""), runtime, "bf16")
    except EngineError as e:
        pytest.skip(f"needs a processor with native bf16: {e.what}")
    exact, _ = answer(tmp_path / "net.onnx", runtime, "fp32")
    off = [np.abs(coarse - exact).max()]
    for layers in ("[0, 1]", "[0, 1, 2]"):
        found, reason = answer(with_card(tmp_path, layers), runtime, "bf16")
        assert runtime == "torch" or reason.endswith(f"layers float32 ({layers[1:-1]})")
        off.append(np.abs(found - exact).max())
    assert off[0] > off[1] > off[2]
    assert off[2] < 1e-5 < off[1]


def test_what_is_rounded_keeps_them(tmp_path: Path) -> None:
    model = onnx.load(three_layers(tmp_path / "net.onnx"))
    kept = rounded(model, "bf16", kept=wide_nodes(model, ALL, where=""))
    assert [n.op_type for n in kept.graph.node] == [n.op_type for n in model.graph.node]
    before, after = ({i.name: numpy_helper.to_array(i) for i in m.graph.initializer} for m in (model, kept))
    assert all(np.array_equal(before[n], after[n]) for n in before)
    some = rounded(model, "bf16", kept=wide_nodes(model, frozenset({1}), where=""))
    after = {i.name: numpy_helper.to_array(i) for i in some.graph.initializer}
    assert [np.array_equal(before[f"w{k}"], after[f"w{k}"]) for k in range(3)] == [False, True, False]


def test_networks_that_bf16_would_move_by_more_than_a_third_of_a_pixel_name_some() -> None:
    named = {name for name, card in catalogue().items() if card.bf16 is not None and card.bf16.fp32_layers}
    assert named == {"blazepose.lite", "blazepose.heavy", "movenet.lightning", "movenet.thunder"}
