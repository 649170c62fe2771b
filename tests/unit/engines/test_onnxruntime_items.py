"""ONNX Runtime: batches of pictures, item by item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from posepipe.engines.engine import Engine, EngineOptions, open_engine
from posepipe.pipeline.errors import EngineError

SIDE = 160  # a picture of 76,800 bytes


def network(path: Path, side: int = SIDE, batch: Any = "N", parts: int = 1) -> Path:
    """A convolution of pictures, and the brightness of each; `parts` of the batch are taken apart, which the network does not say."""
    rng = np.random.default_rng(1)
    weights = [numpy_helper.from_array(rng.normal(0, 1, (8, 3, 3, 3)).astype(np.float32), "w")]
    names = [f"part{i}" for i in range(parts)]
    nodes = [
        helper.make_node("Split", ["image"], names, axis=0),
        helper.make_node("Concat", names, ["again"], axis=0),
        helper.make_node("Transpose", ["again"], ["planar"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planar"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["float", "w"], ["seen"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["float"], ["brightness"], axes=[2, 3], keepdims=0),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, side, side, 3])
    seen = helper.make_tensor_value_info("seen", TensorProto.FLOAT, [batch, 8, side // 2, side // 2])
    brightness = helper.make_tensor_value_info("brightness", TensorProto.FLOAT, [batch, 3])
    graph = helper.make_graph(nodes, "g", [image], [seen, brightness], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def opened(path: Path, *, threads: int = 1, instances: int = 1) -> Engine:
    return open_engine(path, EngineOptions(runtime="onnxruntime", precision="fp32", threads=threads, instances=instances))


def pictures(n: int, seed: int = 0, side: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_answers_are_those_of_the_whole_batch(tmp_path: Path, threads: int) -> None:
    path = network(tmp_path / "n.onnx")
    with opened(path, threads=threads) as by_item, opened(path, threads=7) as at_once:
        for n in (3, 1, 6, 2, 4):
            batch = pictures(n, n)
            ours, theirs = by_item({"image": batch}), at_once({"image": batch})
            assert {k: v.shape for k, v in ours.items()} == {"seen": (n, 8, 80, 80), "brightness": (n, 3)}
            for name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name])


def test_pictures_may_lie_anywhere_in_memory(tmp_path: Path) -> None:
    with opened(network(tmp_path / "n.onnx")) as e:
        batch = pictures(6)
        want = e({"image": batch[::2].copy()})["brightness"].copy()
        np.testing.assert_array_equal(e({"image": batch[::2]})["brightness"], want)
        np.testing.assert_array_equal(e({"image": np.asfortranarray(batch[::2])})["brightness"], want)


@pytest.mark.parametrize("threads", [1, 4])
def test_runs_under_way_at_once_share_no_arrays(tmp_path: Path, threads: int) -> None:
    with opened(network(tmp_path / "n.onnx"), threads=threads, instances=2) as e:
        batches = [pictures(4, seed) for seed in (1, 2)]
        under_way = [e.submit({"image": b}) for b in batches]
        for pending, batch in zip(under_way, batches, strict=True):
            np.testing.assert_allclose(pending.result()["brightness"], batch.mean(axis=(1, 2)), rtol=1e-5)


def test_only_large_items_of_which_every_thread_has_as_many_are_run_alone(tmp_path: Path) -> None:
    """A network that needs an even batch, which it does not say, sees whether its batch comes whole."""
    small, large = (network(tmp_path / f"{side}.onnx", side, parts=2) for side in (32, SIDE))
    with opened(small) as e:
        assert len(e({"image": pictures(4, side=32)})["seen"]) == 4
    with opened(large, threads=3) as e:
        assert len(e({"image": pictures(4)})["seen"]) == 4
    for threads in (1, 2, 4):
        with opened(large, threads=threads) as e:
            for _ in range(2):  # and again
                with pytest.raises(EngineError, match=r"the network cannot be run: .*\{1,160,160,3\}"):
                    e({"image": pictures(4)})


def test_a_batch_of_fixed_size_is_run_whole(tmp_path: Path) -> None:
    with opened(network(tmp_path / "n.onnx", batch=4, parts=2)) as e:
        assert len(e({"image": pictures(4)})["seen"]) == 4


def test_what_is_no_picture_is_run_whole(tmp_path: Path) -> None:
    """However large: such networks are mostly weights, which a batch reads once."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 16, 2048]) for n in ("x", "y"))
    nodes = [helper.make_node("Split", ["x"], ["a", "b"], axis=0), helper.make_node("Concat", ["b", "a"], ["y"], axis=0)]
    path = tmp_path / "n.onnx"
    graph = helper.make_graph(nodes, "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with opened(path) as e:
        two = np.arange(2 * 16 * 2048, dtype=np.float32).reshape(2, 16, 2048)
        np.testing.assert_array_equal(e({"x": two})["y"], two[::-1])
