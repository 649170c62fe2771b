"""What the torch runtime says of itself, and what it refuses. Without a GPU."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from posepipe.engines.engine import EngineOptions
from posepipe.pipeline.errors import EngineError

torch = pytest.importorskip("torch", reason="torch is not installed: pip install posepipe[train]")
from posepipe.engines import torch as runtime  # noqa: E402
from tests.unit.engines.torch_kit import Made, engine, noise, relu, writer  # noqa: E402


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return writer(tmp_path)


def test_it_says_what_it_is(made: Made) -> None:
    with engine(relu(made), instances=2) as one:
        assert (one.runtime, one.precision, one.device, one.instances) == ("torch", "fp32", "CPU", 2)
        assert one.reason == "asked for; precision auto: fp16 on a GPU, fp32 on a processor"
        assert [str(s) for s in (*one.inputs, *one.outputs)] == ["x float32 [any, 3]", "y float32 [any, 3]"]
        runs = [one.submit({"x": np.full((1, 3), k, np.float32)}) for k in range(4)]
        assert [r.result()["y"][0, 0] for r in runs] == [0, 1, 2, 3]
        with pytest.raises(EngineError, match=r"the network takes x float32 \[any, 3\]"):
            one({"x": np.zeros((1, 4), np.float32)})


@pytest.mark.filterwarnings("error")
def test_pictures_that_may_only_be_read_are_read(made: Made) -> None:
    x = noise(2, 3)
    x.setflags(write=False)
    with engine(relu(made)) as one:
        assert one({"x": x})["y"] == pytest.approx(np.maximum(x, 0))


def test_an_unknown_operator_is_refused_by_name(made: Made) -> None:
    path = made([helper.make_node("Softplus", ["x"], ["y"], "head")], {"x": [1, 3]}, {"y": [1, 3]})
    with pytest.raises(EngineError, match="the operator Softplus of node 'head' is not known here") as e:
        engine(path)
    assert e.value.where == str(path)
    assert "runtime: auto" in e.value.hint


@pytest.mark.parametrize(
    ("op", "extra", "how", "says"),
    [
        ("Resize", {"": None, "s": np.array([1, 1, 2, 2], np.float32)}, {"mode": "cubic"}, "with cubic, half_pixel is not known"),
        ("Conv", {"w": noise(2, 2, 3, 3)}, {"auto_pad": "SAME_UPPER"}, "with auto_pad SAME_UPPER is not known"),
        ("Conv", {"w": noise(2, 2, 1, 1, 1, 1)}, {"kernel_shape": [1, 1, 1, 1]}, "Conv of node 'y' along 4 axes is not known"),
        ("ConvTranspose", {"w": noise(2, 2, 2, 2)}, {"output_shape": [9, 9]}, "'output_shape'"),
        ("BatchNormalization", {n: noise(2) for n in "sbmv"}, {"training_mode": 1}, "in training is not known"),
        ("Reshape", {"s": np.array([0, 4])}, {"allowzero": 1}, "with allowzero is not known"),
        ("Range", {"a": np.array(4.0, np.float32), "b": np.array(1.0, np.float32)}, {}, "Range of node 'y' has computed limits"),
        ("MaxPool", {}, {"kernel_shape": [2, 2], "ceil_mode": 1}, "'ceil_mode': 1"),
        ("Slice", {"a": np.array([9]), "b": np.array([0]), "c": np.array([0]), "d": np.array([-1])}, {}, r"with the steps \[-1\]"),
    ],
)
def test_what_an_operator_cannot_do_is_refused(made: Made, op: str, extra: dict[str, Any], how: dict[str, Any], says: str) -> None:
    node = helper.make_node(op, ["x", *extra], ["y"], **how)
    with pytest.raises(EngineError, match=says):
        engine(made([node], {"x": [1, 2, 4, 4]}, {"y": [None] * 4}, {n: a for n, a in extra.items() if n}))


def test_constants_without_a_tensor_are_refused(made: Made) -> None:
    two = helper.make_node("Constant", [], ["two"], value_float=2.0)
    with pytest.raises(EngineError, match="the operator Constant of node 'two' is not known here"):
        engine(made([two, helper.make_node("Mul", ["x", "two"], ["y"])], {"x": ["n", 3]}, {"y": ["n", 3]}))


def test_a_computed_shape_is_refused(made: Made) -> None:
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    path = made([node], {"x": [4], "s": [2]}, {"y": [None, None]}, kinds={"s": TensorProto.INT64})
    with pytest.raises(EngineError, match="has a computed 's', where torch needs a constant"):
        engine(path)


def test_a_graph_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "x.onnx").write_bytes(b"\x08\x0a:\x03abc")
    with pytest.raises(EngineError, match="not a network that torch can load"):
        engine(path)


@pytest.mark.parametrize(("precision", "says"), [("int8", "torch runs no int8"), ("fp16", "fp16 on a processor")])
def test_precisions_that_make_no_sense_are_refused(made: Made, precision: Any, says: str) -> None:
    with pytest.raises(EngineError, match=says):
        runtime.TorchEngine(relu(made), EngineOptions(runtime="torch", device="cpu", precision=precision), "asked for")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused(made: Made) -> None:
    with pytest.raises(EngineError, match="device is cuda:1: ") as e:
        runtime.TorchEngine(relu(made), EngineOptions(runtime="torch", device="cuda:1"), "asked for")
    assert "device: cpu" in e.value.hint


def test_a_batch_that_does_not_fit_is_halved_and_said(
    made: Made, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = engine(relu(made))
    compute, sizes = one._compute, []

    def small(inputs: Any) -> Any:
        sizes.append(len(inputs["x"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(inputs)

    monkeypatch.setattr(one, "_compute", small)
    x = noise(10, 3)
    assert one({"x": x})["y"] == pytest.approx(np.maximum(x, 0))
    assert sizes == [10, 5, 3, 3, 3, 1]
    assert "batches of 10 are run 3 at a time from now on" in caplog.text
    sizes.clear()
    one({"x": x})
    assert sizes == [3, 3, 3, 1]


def test_memory_that_is_not_enough_for_one_is_an_error(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    one = engine(relu(made))

    def none(_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(one, "_compute", none)
    with pytest.raises(EngineError, match="no memory for a batch of one"):
        one({"x": noise(2, 3)})


@pytest.mark.parametrize(("precision", "kept"), [("fp32", False), ("fp16", True), ("auto", True)])
def test_fp32_on_a_gpu_is_float32_throughout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any, kept: bool) -> None:
    """cuDNN's convolutions are TF32 otherwise. No GPU is needed: it is settled before the file is read, which is not there."""
    monkeypatch.setattr(runtime, "_device", lambda wanted, where: SimpleNamespace(type="cuda"))
    how = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [one.allow_tf32 for one in how]
    try:
        for one in how:
            one.allow_tf32 = True
        with pytest.raises(EngineError, match="not a network that torch can load"):
            runtime.TorchEngine(tmp_path / "none.onnx", EngineOptions(precision=precision), "")
        assert [one.allow_tf32 for one in how] == [kept, kept]
    finally:
        for one, value in zip(how, before, strict=True):
            one.allow_tf32 = value


@pytest.mark.parametrize(
    ("how", "lengths", "says"),
    [
        ({}, "", "GRU of node 'y' with linear_before_reset is not known here"),
        ({"linear_before_reset": 1, "direction": "reverse"}, "", "with direction is not known"),
        ({"linear_before_reset": 1, "clip": 1.0}, "", "with clip is not known"),
        ({"linear_before_reset": 1, "activations": ["Relu", "Tanh"]}, "", "with activations is not known"),
        ({"linear_before_reset": 1}, "lengths", "with lengths is not known"),
    ],
)
def test_recurrent_cells_that_pytorch_does_not_export_are_refused(made: Made, how: dict[str, Any], lengths: str, says: str) -> None:
    node = helper.make_node("GRU", ["x", "w", "r", "", lengths], ["y"], hidden_size=3, **how)
    constants = {"w": noise(1, 9, 2), "r": noise(1, 9, 3), "lengths": np.array([1, 1], np.int32)}
    with pytest.raises(EngineError, match=says):
        engine(made([node], {"x": [1, 2, 2]}, {"y": [None] * 4}, constants))


def test_what_is_captured_for_some_sizes_is_not_replayed_for_others(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of views may change between two runs of the same batch. No GPU is needed: what is captured is made up."""
    captured: list[tuple[int, ...]] = []

    class Capture:
        def __init__(self, compute: Any, inputs: Any) -> None:
            self._shape, self._compute = tuple(inputs["x"].shape), compute
            captured.append(self._shape)

        def run(self, given: Any) -> Any:
            assert tuple(given["x"].shape) == self._shape
            return self._compute(given)

    monkeypatch.setattr(runtime, "_Replay", Capture)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    one = engine(made([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", "v", 3]}, {"y": ["n", "v", 3]}))
    monkeypatch.setattr(one, "_most", 4)
    for shape in ((2, 4, 3), (2, 3, 3), (2, 4, 3), (1, 4, 3), (5, 4, 3)):
        x = noise(*shape)
        assert one({"x": x})["y"] == pytest.approx(np.maximum(x, 0))
    assert captured == [(2, 4, 3), (2, 3, 3), (1, 4, 3)]  # more than `max_batch` are run without
