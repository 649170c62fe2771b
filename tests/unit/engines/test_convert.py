"""Networks in other numbers: what is converted, what must stay as it was, and what is refused."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from posepipe.engines import convert
from posepipe.engines.assets import asset
from posepipe.engines.engine import EngineOptions, open_engine
from posepipe.engines.rounding import rounded
from posepipe.pipeline.errors import EngineError

RNG = np.random.default_rng(0)
TYPES = {"uint8": TensorProto.UINT8, "int32": TensorProto.INT32, "float32": TensorProto.FLOAT}


def weights(name: str, *shape: int, scale: float = 0.3) -> onnx.TensorProto:
    return numpy_helper.from_array((RNG.normal(size=shape) * scale).astype(np.float32), name)


def network(path: Path, *, given_as: str = "uint8", named: bool = True, blow_up: float = 1.0) -> Path:
    """Pictures [N,3,8,8] -> `maps` [N,2,16,16], with what networks of this product have: Cast, Mul, Conv, Clip, Add, Resize, Softmax."""
    constants = [
        numpy_helper.from_array(np.float32(1 / 255), "scale"),
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(np.float32(6), "six"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "doubled"),
        weights("w1", 4, 3, 3, 3),
        weights("w2", 4, 4, 3, 3, scale=blow_up),
        weights("w3", 2, 4, 1, 1),
    ]
    first = [helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT)] if given_as != "float32" else []
    nodes = [
        *first,
        helper.make_node("Mul", ["float" if first else "image", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c1", "zero", "six"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["sum"]),
        helper.make_node("Resize", ["sum", "", "doubled"], ["large"], mode="linear", coordinate_transformation_mode="half_pixel"),
        helper.make_node("Softmax", ["large"], ["shares"], axis=1),
        helper.make_node("Conv", ["shares", "w3"], ["maps"]),
    ]
    if named:
        for i, node in enumerate(nodes):
            node.name = f"n{i}"
    inputs = [helper.make_tensor_value_info("image", TYPES[given_as], ["N", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", 2, 16, 16])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def pictures(kind: str = "uint8", n: int = 3) -> dict[str, np.ndarray[Any, Any]]:
    return {"image": RNG.integers(0, 256, (n, 3, 8, 8)).astype(kind)}


def run(path: Path, inputs: dict[str, Any]) -> np.ndarray[Any, Any]:
    with open_engine(path, EngineOptions(runtime="onnxruntime", precision="fp32", threads=1)) as engine:
        return engine(inputs)["maps"].copy()


def kinds(path: Path) -> dict[str, int]:
    """Number types of the weights."""
    return {i.name: i.data_type for i in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("given_as", TYPES)
@pytest.mark.parametrize("named", [True, False])
def test_fp16_is_inside_only(tmp_path: Path, cache: Path, given_as: str, named: bool) -> None:
    path = network(tmp_path / "net.onnx", given_as=given_as, named=named)
    half = convert.to_fp16(path)
    assert half.is_relative_to(cache)
    before, after = (onnx.load(p).graph for p in (path, half))
    assert list(after.input) == list(before.input)
    assert list(after.output) == list(before.output)
    types = kinds(half)
    assert all(types[w] == TensorProto.FLOAT16 for w in ("w1", "w2", "w3"))
    assert types["doubled"] == TensorProto.FLOAT, "scales of Resize are float32 by the standard"
    onnx.checker.check_model(onnx.load(half), full_check=True)
    inputs = pictures(given_as)
    np.testing.assert_allclose(run(half, inputs), run(path, inputs), atol=5e-3)


def test_sums_and_exponentials_and_the_pictures_scale_stay_float32(tmp_path: Path, cache: Path) -> None:
    half = onnx.shape_inference.infer_shapes(onnx.load(convert.to_fp16(network(tmp_path / "net.onnx"))))
    types = {v.name: v.type.tensor_type.elem_type for v in half.graph.value_info} | {i.name: i.data_type for i in half.graph.initializer}
    by_kind = {n.op_type: n for n in half.graph.node}
    assert types[by_kind["Softmax"].input[0]] == types[by_kind["Mul"].input[0]] == types["scale"] == TensorProto.FLOAT
    assert types[by_kind["Add"].output[0]] == TensorProto.FLOAT16
    casts = [n.attribute[0].i for n in half.graph.node if n.op_type == "Cast"]
    assert len(casts) == 5, "to numbers, to float16, around the Softmax and behind the last layer; none there and back"


def test_two_that_stay_float32_may_take_the_same_numbers(tmp_path: Path, cache: Path) -> None:
    """The library writes the same cast twice for them."""
    model = onnx.load(network(tmp_path / "net.onnx", named=False))
    conv = next(n for n in model.graph.node if n.output[0] == "maps")
    del model.graph.node[-1]
    model.graph.node.append(helper.make_node("Softmax", ["large"], ["rows"], axis=2))
    model.graph.node.append(helper.make_node("Mul", ["shares", "rows"], ["both"]))
    conv.input[0] = "both"
    model.graph.node.append(conv)
    path = tmp_path / "two.onnx"
    onnx.save(model, path)
    half = convert.to_fp16(path)
    onnx.checker.check_model(onnx.load(half), full_check=True)
    inputs = pictures()
    np.testing.assert_allclose(run(half, inputs), run(path, inputs), atol=5e-3)


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_scales_that_are_left_out_by_an_empty_array_stay_left_out(tmp_path: Path, cache: Path, opset: int) -> None:
    """As exporters write it: one empty array for the region of interest and for the scales, and sizes."""
    model = onnx.load(network(tmp_path / "net.onnx"))
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), "none"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([3, 4, 16, 16]), "sizes"))
    resize = next(n for n in model.graph.node if n.op_type == "Resize")
    resize.input[1:] = ["none", "none", "sizes"]
    path = tmp_path / "empty.onnx"
    onnx.save(model, path)
    half = convert.to_fp16(path)
    inputs = pictures()
    np.testing.assert_allclose(run(half, inputs), run(path, inputs), atol=5e-3)


def test_what_is_behind_the_last_layers_counts_in_float32(tmp_path: Path, cache: Path) -> None:
    """float16 cannot tell 2049 from 2048."""
    model = onnx.load(network(tmp_path / "net.onnx"))
    model.graph.node[-1].output[0] = "raw"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2049), "index"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
    model.graph.node.append(helper.make_node("Mul", ["raw", "nothing"], ["none_of_it"]))
    model.graph.node.append(helper.make_node("Add", ["none_of_it", "index"], ["maps"]))
    path = tmp_path / "counts.onnx"
    onnx.save(model, path)
    assert (run(convert.to_fp16(path), pictures()) == 2049).all()


@pytest.mark.parametrize("shared", [False, True])
def test_what_feeds_nodes_that_stay_float32_comes_to_them_as_it_is(tmp_path: Path, cache: Path, shared: bool) -> None:
    """Projections to pixels leave float16's range. shared: a layer that is float16 takes the same input."""
    model = onnx.load(network(tmp_path / "net.onnx", given_as="float32", blow_up=0.01))
    model.graph.node[-1].output[0] = "raw"
    model.graph.input.append(helper.make_tensor_value_info("far", TensorProto.FLOAT, ["N", 2, 16, 16]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
    model.graph.node.append(helper.make_node("Mul", ["raw", "nothing"], ["none_of_it"], name="none_of_it"))
    model.graph.node.append(helper.make_node("Add", ["none_of_it", "far"], ["maps"], name="far_too"))
    if shared:
        model.graph.initializer.append(weights("w4", 4, 2, 1, 1, scale=1e-6))
        model.graph.node.insert(5, helper.make_node("Conv", ["far", "w4"], ["c4"], strides=[2, 2], name="c4"))
        model.graph.node.insert(6, helper.make_node("Add", ["r1", "c4"], ["r4"], name="r4"))
        next(n for n in model.graph.node if "c2" in n.input).input[1] = "r4"
    onnx.save(model, path := tmp_path / "far.onnx")
    far = np.float32([[[[123456.7]]], [[[1 / 3]]], [[[7e7]]]]) * np.ones((3, 2, 16, 16), np.float32)
    if shared:
        far[[0, 2]] /= 1e4
    half = convert.to_fp16(path)
    onnx.checker.check_model(onnx.load(half), full_check=True)
    assert (run(half, {**pictures("float32"), "far": far}) == far).all()
    casts = [n.attribute[0].i for n in onnx.load(half).graph.node if n.op_type == "Cast" and n.input[0] == "far"]
    assert casts == [TensorProto.FLOAT16] * shared, "for the layer alone"


def test_a_cast_of_the_networks_own_is_left(tmp_path: Path, cache: Path) -> None:
    """What an author rounds on purpose is rounded."""
    model = onnx.load(network(tmp_path / "net.onnx", given_as="float32"))
    model.graph.node[-1].output[0] = "raw"
    model.graph.input.append(helper.make_tensor_value_info("far", TensorProto.FLOAT, ["N", 2, 16, 16]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
    model.graph.node.append(helper.make_node("Mul", ["raw", "nothing"], ["none_of_it"], name="none_of_it"))
    model.graph.node.append(helper.make_node("Cast", ["far"], ["half"], name="half", to=TensorProto.FLOAT16))
    model.graph.node.append(helper.make_node("Cast", ["half"], ["back"], name="back", to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("Add", ["none_of_it", "back"], ["maps"], name="far_too"))
    onnx.save(model, path := tmp_path / "far.onnx")
    far = np.full((3, 2, 16, 16), 2049, np.float32)
    assert (run(convert.to_fp16(path), {**pictures("float32"), "far": far}) == 2048).all()


def test_a_conversion_is_made_once_and_is_its_own(tmp_path: Path, cache: Path) -> None:
    path = network(tmp_path / "net.onnx")
    half = convert.to_fp16(path)
    stamp = half.stat().st_mtime_ns
    assert convert.to_fp16(path) == half
    assert convert.to_fp16(half) == half
    assert half.stat().st_mtime_ns == stamp
    assert convert.to_fp16(network(tmp_path / "other.onnx", blow_up=0.5)) != half


def test_a_network_without_float_weights_is_its_own(tmp_path: Path, cache: Path) -> None:
    a, b = (helper.make_tensor_value_info(n, TensorProto.INT32, ["N", 2]) for n in ("a", "b"))
    graph = helper.make_graph([helper.make_node("Add", ["a", "a"], ["b"])], "g", [a], [b])
    path = tmp_path / "whole.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    assert convert.to_fp16(path) == path


@pytest.mark.parametrize("make", [convert.to_fp16, lambda p: convert.to_int8(p, [pictures()])])
@pytest.mark.parametrize(
    ("content", "says"), [(None, "no such network file"), (b"hello", "not an ONNX network"), (b"", "not an ONNX network")]
)
def test_what_is_no_network_is_refused(tmp_path: Path, cache: Path, make: Any, content: bytes | None, says: str) -> None:
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=says) as e:
        make(path)
    assert str(path) in str(e.value)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, cache: Path) -> None:
    path = network(tmp_path / "net.onnx")
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(EngineError, match="cannot keep the converted network") as e:
        convert.to_fp16(path)
    assert "POSEPIPE_HOME" in str(e.value)


def test_int8_has_integer_layers_and_float_heads(tmp_path: Path, cache: Path) -> None:
    path = network(tmp_path / "net.onnx")
    samples = [pictures(n=1) for _ in range(8)]
    small = convert.to_int8(path, samples)
    assert convert.kept_int8(path) == small
    before, after = (onnx.load(p).graph for p in (path, small))
    assert list(after.input) == list(before.input)
    assert list(after.output) == list(before.output)
    types = kinds(small)
    assert types["w1_quantized"] == types["w2_quantized"] == TensorProto.INT8
    assert types["w3"] == TensorProto.FLOAT, "the head"
    scales = {i.name: i for i in after.initializer}
    assert numpy_helper.to_array(scales["w1_scale"]).shape == (4,), "one per output channel"
    inputs = pictures()
    exact, found = run(path, inputs), run(small, inputs)
    assert 0 < np.abs(found - exact).max() < 0.15 * np.ptp(exact)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_int8_of_an_old_network_can_be_opened(tmp_path: Path, cache: Path, runtime: str) -> None:
    """Before opset 13 there are no scales per channel."""
    pytest.importorskip(runtime, reason=f"pip install {runtime}")
    path = network(tmp_path / "net.onnx")
    old = onnx.load(path)
    old.opset_import[0].version = 11
    old.graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), "none"))
    next(n for n in old.graph.node if n.op_type == "Resize").input[1] = "none"
    onnx.save(old, path)
    inputs = pictures()
    exact = run(path, inputs)
    small = convert.to_int8(path, [pictures(n=1) for _ in range(8)])
    with open_engine(small, EngineOptions(runtime=runtime, precision="fp32", threads=1)) as engine:  # type: ignore[arg-type]
        assert 0 < np.abs(engine(inputs)["maps"] - exact).max() < 0.2 * np.ptp(exact)


def test_a_network_that_cannot_be_raised_is_refused() -> None:
    graph = helper.make_graph([helper.make_node("NoSuchOperator", ["a"], ["b"])], "g", [], [])
    with pytest.raises(EngineError, match="cannot be raised to opset 13"):
        convert.at_least(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)]), 13)


def test_first_layers_can_stay_float(tmp_path: Path, cache: Path) -> None:
    path = network(tmp_path / "net.onnx")
    types = kinds(convert.to_int8(path, [pictures()], first_floats=1))
    assert types["w1"] == TensorProto.FLOAT
    assert types["w2_quantized"] == TensorProto.INT8
    assert convert.layers(onnx.load(path)) == ["n2", "n4", "n8"]


def test_int8_without_pictures_is_refused(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(EngineError, match="no picture"):
        convert.to_int8(network(tmp_path / "net.onnx"), [])


def test_the_tools_leave_the_log_as_it_was(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    convert.to_int8(network(tmp_path / "net.onnx"), [pictures()])
    convert.to_fp16(network(tmp_path / "net.onnx"))
    assert not caplog.records
    assert logging.root.manager.disable == 0
    assert not logging.root.filters


def test_others_are_heard_while_the_tools_work(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A studio that converts a network at its start warns of other things meanwhile, in any thread."""
    tools = Path(importlib.import_module("onnxruntime").__file__ or "").parent
    advice = logging.LogRecord("root", logging.WARNING, str(tools / "quantization" / "quantize.py"), 1, "use a newer opset", (), None)
    fault = logging.LogRecord("root", logging.ERROR, str(tools / "quantization" / "quantize.py"), 1, "cannot", (), None)
    handlers = logging.root.handlers[:]
    logging.root.handlers.clear()
    try:
        with convert._silence():
            logging.root.addHandler(caplog.handler)
            logging.getLogger("posepipe").warning("a camera is late")
            logging.warning("somebody else on the root log")
            logging.root.handle(advice)
            logging.root.handle(fault)
            logging.root.removeHandler(caplog.handler)
            logging.warning("nobody has set up a log")
        assert not logging.root.handlers, "a handler that prints was left behind"
    finally:
        logging.root.handlers[:] = handlers
    assert caplog.messages == ["a camera is late", "somebody else on the root log", "cannot"]


def test_the_file_for_a_precision(tmp_path: Path, cache: Path) -> None:
    path = network(tmp_path / "net.onnx")
    for precision in ("auto", "fp32", "bf16"):
        assert convert.for_precision(path, runtime="openvino", precision=precision) == path
    for precision in ("fp16", "int8"):
        assert convert.for_precision(path, runtime="tensorrt", precision=precision) == path
    assert convert.for_precision(path, runtime="onnxruntime", precision="fp16") == convert.to_fp16(path)
    with pytest.raises(EngineError, match="no int8 version of this network") as e:
        convert.for_precision(path, runtime="onnxruntime", precision="int8")
    assert "posepipe engines quantize CARD" in str(e.value)
    small = convert.to_int8(path, [pictures()])
    assert convert.for_precision(path, runtime="openvino", precision="int8") == small


def test_a_network_knows_its_card(tmp_path: Path, cache: Path) -> None:
    full = asset("blazepose.full")
    assert convert.network_of(cache / "onnx" / f"{full.files[0].sha256[:16]}-heatmaps-v1.onnx") == "blazepose.full"
    assert convert.network_of(tmp_path / "net.onnx") == ""
    (tmp_path / "card.toml").write_text("")
    assert convert.network_of(tmp_path / "net.onnx") == str(tmp_path / "card.toml")


def test_a_studio_without_its_int8_file_is_told_the_command(cache: Path) -> None:
    folder = asset("yolox.nano").folder
    folder.mkdir(parents=True)
    path = network(folder / "net.onnx")
    with pytest.raises(EngineError) as e:
        open_engine(path, EngineOptions(runtime="onnxruntime", precision="int8"))
    assert "yolox.nano: there is no int8 version" in str(e.value)
    assert "posepipe engines quantize yolox.nano" in str(e.value)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_engines_open_the_converted_file(tmp_path: Path, cache: Path, runtime: str, precision: str) -> None:
    pytest.importorskip(runtime, reason=f"pip install {runtime}")
    path = network(tmp_path / "net.onnx")
    convert.to_int8(path, [pictures(n=1) for _ in range(8)])
    inputs = pictures()
    exact = run(path, inputs)
    with open_engine(path, EngineOptions(runtime=runtime, precision=precision, threads=1)) as engine:  # type: ignore[arg-type]
        assert engine.precision == precision
        assert 0 < np.abs(engine(inputs)["maps"] - exact).max() < 0.2 * np.ptp(exact)


@pytest.mark.parametrize("keeps", [0, 40, 300])
def test_a_damaged_conversion_is_made_again(tmp_path: Path, cache: Path, keeps: int) -> None:
    path, options = network(tmp_path / "net.onnx"), EngineOptions(runtime="onnxruntime", precision="fp16", threads=1)
    whole = convert.to_fp16(path).read_bytes()
    convert.to_fp16(path).write_bytes(whole[:keeps])
    open_engine(path, options).close()
    assert convert.to_fp16(path).read_bytes() == whole
    small = convert.to_int8(path, [pictures()])
    small.write_bytes(small.read_bytes()[:keeps])
    with pytest.raises(EngineError, match="posepipe engines quantize"):
        open_engine(path, EngineOptions(runtime="onnxruntime", precision="int8", threads=1))


@pytest.mark.parametrize(("precision", "digits"), [("fp16", 11), ("bf16", 8)])
@pytest.mark.parametrize("opset", [12, 17])
def test_rounded_numbers_are_those_that_the_precision_can_hold(tmp_path: Path, precision: Any, digits: int, opset: int) -> None:
    path = network(tmp_path / "net.onnx", given_as="float32")
    old = onnx.load(path)
    old.opset_import[0].version = opset
    old.graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), "none"))
    next(n for n in old.graph.node if n.op_type == "Resize").input[1] = "none"
    onnx.save(old, path)
    model = rounded(onnx.load(path), precision)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "rounded.onnx")
    inputs = {"image": RNG.normal(size=(2, 3, 8, 8)).astype(np.float32) * 100}
    found, exact = run(tmp_path / "rounded.onnx", inputs), run(path, inputs)
    mantissa = np.frexp(found)[0] * 2.0**digits
    assert (mantissa == np.round(mantissa)).all(), f"{digits} binary digits"
    error = np.abs(found - exact).max() / np.abs(exact).max()
    assert 2.0 ** -(digits + 4) < error < 2.0 ** -(digits - 4)
