from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from posepipe.engines.assets import TensorCard
from posepipe.engines.engine import Arrays, Contract, Engine, EngineOptions, TensorSpec, open_engine
from posepipe.pipeline.errors import EngineError

RUNTIMES = ("onnxruntime", "openvino")
CONTRACT = Contract.of({"a": TensorCard((-1, 2), "float32"), "b": TensorCard((-1, 2), "float32")}, {"sum": TensorCard((-1, 2), "float32")})


@pytest.fixture(autouse=True)
def builds_of_its_own(cache: Path) -> None:
    """What the tests compile is not kept on this machine."""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """sum = a + b, for any batch of pairs."""
    a, b, s = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in ("a", "b", "sum"))
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["sum"])], "g", [a, b], [s])
    path = tmp_path / "add.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _options(runtime: str, **more: Any) -> EngineOptions:
    pytest.importorskip(runtime, reason=f"pip install {runtime}")
    return EngineOptions(runtime=runtime, threads=1, **more)  # type: ignore[arg-type]


def _pair(n: int = 3) -> dict[str, np.ndarray[Any, Any]]:
    return {"a": np.ones((n, 2), np.float32), "b": np.full((n, 2), 2, np.float32)}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_network_runs_for_any_batch(network: Path, runtime: str) -> None:
    with open_engine(network, _options(runtime, precision="fp32"), contract=CONTRACT) as e:
        assert (e.runtime, e.precision, e.device) == (runtime, "fp32", "CPU")
        assert e.inputs == CONTRACT.inputs
        assert e.outputs == CONTRACT.outputs
        for n in (1, 4):
            assert e(_pair(n))["sum"].tolist() == [[3, 3]] * n


@pytest.mark.parametrize("runtime", [*RUNTIMES, "torch"])
def test_a_run_that_fails_is_told_and_the_next_one_is_as_good_as_ever(tmp_path: Path, runtime: str) -> None:
    """A network that takes a batch in three parts, which it does not say. OpenVINO divides six between two threads, three each."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in ("x", "y"))
    nodes = [helper.make_node("Split", ["x"], ["a", "b", "c"], axis=0), helper.make_node("Concat", ["a", "b", "c"], ["y"], axis=0)]
    six = [] if runtime != "torch" else [helper.make_tensor("six", TensorProto.INT64, [2], [6, 2])]
    graph = helper.make_graph(nodes if not six else [helper.make_node("Reshape", ["x", "six"], ["y"])], "g", [x], [y], six)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "three.onnx")
    options = msgspec.structs.replace(_options(runtime, precision="fp32"), threads=2, device="cpu")
    with open_engine(tmp_path / "three.onnx", options) as e:
        for n in (2, 4, 4):
            with pytest.raises(EngineError, match=r"three\.onnx: the network cannot be run: .+"):
                e({"x": np.ones((n, 2), np.float32)})
        assert e({"x": np.ones((6, 2), np.float32)})["y"].tolist() == [[1, 1]] * 6


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("threads", [2, 3, 4])
def test_threads_change_nothing_in_the_answers(network: Path, runtime: str, threads: int) -> None:
    """Batches that are divided among threads, evenly or not, in any order of sizes."""
    rng = np.random.default_rng(threads)
    with open_engine(network, msgspec.structs.replace(_options(runtime, precision="fp32"), threads=threads), contract=CONTRACT) as e:
        for n in (4, 1, 5, 2, 3, 9, 4, 1):
            given = {name: rng.normal(size=(n, 2)).astype(np.float32) for name in ("a", "b")}
            found = e(given)["sum"]
            assert found.shape == (n, 2)
            np.testing.assert_allclose(found, given["a"] + given["b"], rtol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dims", [[4, 2], ["N", "M"]])
def test_networks_whose_batch_cannot_be_divided_run_whole(tmp_path: Path, runtime: str, dims: list[Any]) -> None:
    a, b = (helper.make_tensor_value_info(n, TensorProto.FLOAT, dims) for n in ("a", "twice"))
    graph = helper.make_graph([helper.make_node("Add", ["a", "a"], ["twice"])], "g", [a], [b])
    path = tmp_path / "twice.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with open_engine(path, msgspec.structs.replace(_options(runtime, precision="fp32"), threads=2)) as e:
        given = np.arange(8, dtype=np.float32).reshape(4, 2)
        np.testing.assert_array_equal(e({"a": given})["twice"], 2 * given)


@pytest.mark.parametrize("runtime", [*RUNTIMES, "stub"])
@pytest.mark.parametrize(
    ("inputs", "given"),
    [
        ({}, "given was nothing"),
        ({"a": _pair()["a"]}, "given was a float32 [3, 2]"),
        ({**_pair(), "c": _pair()["a"]}, "c float32 [3, 2]"),
        ({"a": _pair()["a"], "c": _pair()["b"]}, "c float32 [3, 2]"),
        ({**_pair(), "b": np.ones((3, 3), np.float32)}, "b float32 [3, 3]"),
        ({**_pair(), "b": np.ones((3, 2))}, "b float64 [3, 2]"),
        ({**_pair(), "b": np.ones((2, 2), np.float32)}, "b float32 [2, 2]"),
        ({**_pair(0)}, "a float32 [0, 2]"),
    ],
)
def test_wrong_arrays_are_refused_with_wanted_and_given(network: Path, runtime: str, inputs: Any, given: str) -> None:
    options = EngineOptions(runtime="stub") if runtime == "stub" else _options(runtime)
    with open_engine(network, options, contract=CONTRACT, answers={"sum": np.zeros(2, np.float32)}) as e:
        with pytest.raises(EngineError) as error:
            e(inputs)
        assert "takes a float32 [any, 2]; b float32 [any, 2]" in str(error.value)
        assert given in str(error.value)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_whose_graph_makes_no_sense_is_refused(tmp_path: Path, runtime: str) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"\x08\x0a:\x03abc")  # whole outside: what is not, test_protobuf.py looks at
    with pytest.raises(EngineError, match="not a network that") as e:
        open_engine(bad, _options(runtime))
    assert str(bad) in str(e.value)
    assert "export the network anew" in str(e.value)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_operators_that_the_runtime_lacks_are_refused(tmp_path: Path, runtime: str) -> None:
    a, b = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in ("a", "b"))
    graph = helper.make_graph([helper.make_node("Sharpen", ["a"], ["b"], domain="posepipe.none")], "g", [a], [b])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("posepipe.none", 1)]
    path = tmp_path / "sharpen.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with pytest.raises(EngineError, match="not a network that") as e:
        open_engine(path, _options(runtime))
    assert str(path) in str(e.value)
    assert "Sharpen" in str(e.value)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_opset_of_the_future_is_run_right_or_refused(network: Path, runtime: str) -> None:
    model = onnx.load(network)
    model.opset_import[0].version = 99
    onnx.save(model, network)
    refusal = ""
    try:
        with open_engine(network, _options(runtime, precision="fp32")) as engine:
            assert engine(_pair())["sum"].tolist() == [[3, 3]] * 3
    except EngineError as e:
        refusal = str(e)
    assert not refusal or "not a network that" in refusal


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such network file"):
        open_engine(tmp_path / "none.onnx", _options("onnxruntime"))


@pytest.mark.parametrize(
    ("inputs", "outputs", "says"),
    [
        ({"aa": TensorCard((-1, 2), "float32")}, {}, "no input 'aa'"),
        ({"a": TensorCard((-1, 3), "float32")}, {}, "the input should be a float32 [any, 3], the network has a float32 [any, 2]"),
        ({}, {"sum": TensorCard((-1, 2), "uint8")}, "the output should be sum uint8 [any, 2], the network has sum float32 [any, 2]"),
    ],
)
def test_a_network_that_breaks_its_contract_is_refused(network: Path, inputs: Any, outputs: Any, says: str) -> None:
    with pytest.raises(EngineError) as e:
        open_engine(network, _options("onnxruntime"), contract=Contract.of(inputs, outputs))
    assert says in str(e.value)


def test_precisions_that_cannot_be_are_refused(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="ONNX Runtime has no bf16"):
        open_engine(network, _options("onnxruntime", precision="bf16"))
    openvino = pytest.importorskip("openvino", reason="pip install openvino")

    class Old:
        def get_property(self, _device: str, _name: str) -> list[str]:
            return ["FP32"]

    monkeypatch.setattr(openvino, "Core", Old)
    with pytest.raises(EngineError, match="no native bf16"):
        open_engine(network, _options("openvino", precision="bf16"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threads": -1}, "threads is -1"),
        ({"instances": 0}, "instances is 0"),
        ({"max_batch": 0}, "max_batch is 0"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"precision": "bf61"}, "precision is 'bf61'"),
        ({"runtime": "openvno"}, "did you mean 'openvino'?"),
    ],
)
def test_options_made_in_python_are_looked_at_like_those_of_a_studio_file(network: Path, options: Any, says: str) -> None:
    with pytest.raises(EngineError) as e:
        open_engine(network, EngineOptions(**options))
    assert says in str(e.value)


# submit --------------------------------------------------------------------------------------------------------------------------


class Slow(Engine):
    """Adds one, when it is let; notes which instance ran, and whether two runs of one met."""

    def __init__(self, instances: int) -> None:
        self.inputs = self.outputs = (TensorSpec("a", (-1,), np.dtype(np.int64)),)
        self.runtime, self.precision, self.device, self.reason, self.instances = "slow", "fp32", "none", "", instances
        self.gate, self.ran, self.met, self.closed_after = threading.Event(), [], 0, -1
        self._busy = [threading.Lock() for _ in range(instances)]

    def _run(self, inputs: Arrays, instance: int) -> dict[str, Any]:
        if not self._busy[instance].acquire(blocking=False):
            self.met += 1
        self.gate.wait(30)
        self.ran.append((instance, int(inputs["a"][0])))
        self._busy[instance].release()
        if inputs["a"][0] == 13:
            raise EngineError("unlucky")
        return {"a": inputs["a"] + 1}

    def _close(self) -> None:
        self.closed_after = len(self.ran)


def _number(n: int) -> dict[str, Any]:
    return {"a": np.array([n])}


@pytest.mark.parametrize("instances", [1, 2, 3])
def test_submitted_runs_take_the_instances_in_turn_and_keep_their_order_there(instances: int) -> None:
    e = Slow(instances)
    runs = [e.submit(_number(n)) for n in range(9)]
    assert not runs[0].done()
    e.gate.set()
    assert [int(r.result()["a"][0]) for r in runs] == list(range(1, 10))
    assert all(r.done() for r in runs)
    assert e.met == 0
    for instance in range(instances):
        assert [n for i, n in e.ran if i == instance] == list(range(instance, 9, instances))
    e.close()


def test_a_call_between_submitted_runs_waits_for_its_instance() -> None:
    with Slow(1) as e:
        run = e.submit(_number(1))
        caller = threading.Thread(target=lambda: e(_number(2)))
        caller.start()
        e.gate.set()
        caller.join(30)
        assert run.result()["a"][0] == 2
        assert (e.met, [n for _, n in e.ran]) == (0, [1, 2])


def test_what_goes_wrong_in_a_submitted_run_is_raised_by_its_result_alone() -> None:
    with Slow(2) as e:
        e.gate.set()
        good, bad, after = (e.submit(_number(n)) for n in (1, 13, 3))
        assert good.result()["a"][0] == 2
        with pytest.raises(EngineError, match="unlucky"):
            bad.result()
        assert after.result()["a"][0] == 4
        with pytest.raises(EngineError, match="given was nothing"):
            e.submit({})


def test_close_waits_for_the_runs_under_way() -> None:
    e = Slow(2)
    runs = [e.submit(_number(n)) for n in range(4)]
    closer = threading.Thread(target=e.close)
    closer.start()
    assert e.closed_after == -1
    e.gate.set()
    closer.join(30)
    assert all(r.done() for r in runs)
    assert e.closed_after == 4


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("instances", "threads"), [(1, 1), (2, 1), (2, 2), (3, 2), (2, 4)])
def test_instances_share_no_buffers(network: Path, runtime: str, instances: int, threads: int) -> None:
    """Runs of different and of equal sizes under way at once; every answer is its own until as many more were submitted."""
    options = msgspec.structs.replace(_options(runtime, precision="fp32"), threads=threads, instances=instances)
    rng = np.random.default_rng(instances)
    with open_engine(network, options, contract=CONTRACT) as e:
        assert e.instances == instances
        for sizes in ((4,) * instances, range(1, instances + 1), (1,) * instances):
            given = [{k: rng.normal(size=(n, 2)).astype(np.float32) for k in ("a", "b")} for n in sizes]
            runs = [e.submit(g) for g in given]
            found = [r.result()["sum"] for r in runs]
            for g, f in zip(given, found, strict=True):
                np.testing.assert_array_equal(f, g["a"] + g["b"])


def test_the_stub_answers_every_item_alike() -> None:
    answer = np.array([1, 2], np.float32)
    with open_engine(Path("none"), EngineOptions(runtime="stub"), contract=CONTRACT, answers={"sum": answer}) as e:
        assert e(_pair(3))["sum"].tolist() == [[1, 2]] * 3
        assert e.runtime == "stub"


@pytest.mark.parametrize(
    ("contract", "answers"), [(None, {}), (CONTRACT, None), (CONTRACT, {}), (CONTRACT, {"sum": np.zeros(3, np.float32)})]
)
def test_a_stub_without_its_answers_is_refused(contract: Any, answers: Any) -> None:
    with pytest.raises(EngineError, match="stub"):
        open_engine(Path("none"), EngineOptions(runtime="stub"), contract=contract, answers=answers)


def test_specs_read_well() -> None:
    assert str(TensorSpec("image", (-1, 4), np.dtype(np.uint8))) == "image uint8 [any, 4]"
