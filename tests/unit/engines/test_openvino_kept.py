"""What OpenVINO compiled is kept: a warm start compiles nothing, and answers to the last bit as the cold one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from posepipe.engines import cache as builds
from posepipe.engines.assets import Asset
from posepipe.engines.cache import watched
from posepipe.engines.engine import EngineOptions, open_engine

pytest.importorskip("openvino", reason="pip install openvino")

from posepipe.engines import openvino as room


@pytest.fixture(autouse=True)
def home(cache: Path) -> Path:
    return cache


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Two outputs that compiling merges: s = a + b, and the same under another name."""
    a, b, s, same = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in ("a", "b", "s", "same"))
    nodes = [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("Identity", ["s"], ["same"])]
    path = tmp_path / "add.onnx"
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", [a, b], [s, same]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


def options(**more: Any) -> EngineOptions:
    return EngineOptions(runtime="openvino", **{"threads": 2, "precision": "fp32", **more})


def answers(path: Path, wanted: EngineOptions, sizes: tuple[int, ...] = (1, 4, 5)) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    with open_engine(path, wanted) as e:
        found = []
        for n in sizes:
            given = {s.name: rng.integers(0, 256, (n, *s.shape[1:])).astype(s.dtype) for s in e.inputs}
            found.append({name: array.copy() for name, array in e(given).items()})
        return found


def test_a_warm_start_compiles_nothing_and_has_the_names_and_shapes_of_the_file(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"a": np.ones((5, 2), np.float32), "b": np.ones((5, 2), np.float32)}
    with watched() as cold, open_engine(network, options()) as e:
        first = (e.inputs, e.outputs, e.precision)
        e(given)
    monkeypatch.setattr(room.OpenvinoEngine, "_compile", None)
    with watched() as warm, open_engine(network, options()) as e:
        assert (e.inputs, e.outputs, e.precision) == first
        assert [s.name for s in (*e.inputs, *e.outputs)] == ["a", "b", "s", "same"]
        assert {k: v.tolist() for k, v in e(given).items()} == {"s": [[2, 2]] * 5, "same": [[2, 2]] * 5}
    assert [b.how for b in cold] == ["built"] * 3
    assert {b.how for b in warm} == {"kept"}
    assert len(builds.kept()) == 3, "two threads make 2 and 3 of a batch of 5; when it is opened it is compiled for one"


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 7, 8, 11])
def test_a_batch_is_run_in_pieces_of_at_most_four(network: Path, threads: int, batch: int) -> None:
    rng = np.random.default_rng(batch)
    a, b = rng.random((2, batch, 2), np.float32)
    with watched() as seen, open_engine(network, options(threads=threads)) as e:
        for _ in range(2):
            np.testing.assert_array_equal(e({"a": a, "b": b})["same"], a + b)
    sizes = {int(build.key.shapes.rpartition(" batch ")[2]) for build in seen if " batch " in build.key.shapes}
    assert sizes <= {2, 3, 4}


def test_a_network_that_leaves_more_open_than_its_batch_is_compiled_once(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", "M"]) for n in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path := tmp_path / "neg.onnx")
    with watched() as seen, open_engine(path, options()) as e:
        for shape in ((1, 3), (6, 2), (2, 9)):
            assert (e({"x": np.ones(shape, np.float32)})["y"] == -1).all()
    assert len(seen) == 1


def test_the_build_names_its_network(network: Path) -> None:
    open_engine(network, options()).close()
    (one,) = builds.kept()
    assert one.source == str(network)
    assert one.key is not None
    assert (one.key.runtime, one.key.precision, one.key.model_sha256) == ("openvino", "fp32", builds.sha256_of(network))


def test_one_build_serves_any_number_of_threads_and_instances(network: Path) -> None:
    first = answers(network, options())
    for other in ({"threads": 1}, {"threads": 4}, {"instances": 3}, {"threads": 0}):
        answers(network, options(**other), (1, 2, 3, 4))
        with watched() as seen:
            found = answers(network, options(**other))
        assert {b.how for b in seen} == {"kept"}, "a build is for one size of batch, for whatever threads and instances"
        for a, b in zip(first, found, strict=True):
            np.testing.assert_array_equal(a["s"], b["s"])


def test_another_precision_is_another_build(network: Path) -> None:
    with open_engine(network, options(precision="auto")) as e:
        if e.precision == "fp32":
            pytest.skip("this processor has no native bf16: there is one precision here")
    with watched() as seen:
        open_engine(network, options(precision="fp32")).close()
    assert [b.how for b in seen] == ["built"]


def test_another_network_under_the_same_path_is_another_build(network: Path) -> None:
    open_engine(network, options()).close()
    model = onnx.load(network)
    model.graph.node[0].op_type = "Sub"
    onnx.save(model, network)
    (found,) = answers(network, options(), (1,))
    with watched() as seen, open_engine(network, options()) as e:
        assert e({"a": np.ones((1, 2), np.float32), "b": np.ones((1, 2), np.float32)})["s"].tolist() == [[0, 0]]
    assert [b.how for b in seen] == ["kept"]
    assert found["s"].shape == (1, 2)


@pytest.mark.parametrize("content", [b"", b"not json\nblob", b"{}\nblob", b'{"inputs": [], "outputs": []}\nno blob', b"[]\n"])
def test_what_does_not_load_is_compiled_anew_and_replaced(network: Path, content: bytes, caplog: Any) -> None:
    """Whole as a file, but OpenVINO cannot take it, as after a change of the machine that the key did not see."""
    open_engine(network, options()).close()
    (one,) = builds.kept()
    assert one.key is not None
    builds.build(one.key, lambda: content, source=network, again=True)
    with watched() as seen:
        (found,) = answers(network, options(), (1,))
    assert found["s"].shape == (1, 2)
    assert [b.how for b in seen] == ["kept", "built"]
    assert "compiled anew" in caplog.text
    with watched() as seen:
        open_engine(network, options()).close()
    assert [b.how for b in seen] == ["kept"]


def test_a_damaged_build_is_compiled_anew(network: Path) -> None:
    open_engine(network, options()).close()
    (one,) = builds.kept()
    content = one.path.read_bytes()
    one.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with watched() as seen:
        open_engine(network, options()).close()
    assert [b.how for b in seen] == ["built"]


def test_without_a_place_to_keep_builds_it_runs_all_the_same(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "file" / "home"))
    with watched() as seen:
        found = answers(network, options())
    assert [len(f["s"]) for f in found] == [1, 4, 5]
    assert {b.how for b in seen} == {"not kept"}


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("instances", [1, 2])
def test_blazepose_answers_to_the_last_bit_as_before(
    pulled: Callable[[str], Asset], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str, instances: int
) -> None:
    from posepipe.engines.models.blazepose.networks import HEATMAPS, onnx_path

    monkeypatch.delenv("POSEPIPE_HOME")
    path = onnx_path(pulled("blazepose.full"), HEATMAPS)
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path))
    wanted = options(precision=precision, instances=instances)
    cold = answers(path, wanted, (1, 4))
    with watched() as seen:
        warm = answers(path, wanted, (1, 4))
    assert {b.how for b in seen} == {"kept"}
    for before, after in zip(cold, warm, strict=True):
        np.testing.assert_array_equal(before["heatmaps"], after["heatmaps"])
