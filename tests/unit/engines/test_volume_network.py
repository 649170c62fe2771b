"""Networks for joints in a cube: by card, by generated ONNX files of the right signature, and the stub that takes the mean of a heatmap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from posepipe.engines.engine import EngineOptions
from posepipe.engines.onnxruntime import OnnxruntimeEngine
from posepipe.engines.volume import VolumeNetwork, network_file, volume_card
from posepipe.pipeline.errors import EngineError, PullError

CPU = EngineOptions(runtime="onnxruntime", threads=1)
STUB = EngineOptions(runtime="stub")
CARD = """
[my.volume]
kind = "model"
summary = "joints in a cube"
licence = "MIT"
skeleton = "coco17"

[[my.volume.files]]
name = "net.onnx"

[my.volume.inputs]
volume = {shape = [-1, 8, 8, 8, 17], dtype = "float32"}

[my.volume.outputs]
xyz = {shape = [-1, 17, 3], dtype = "float32"}
spread = {shape = [-1, 17], dtype = "float32"}

[my.volume.decoder]
kind = "volume"
"""


def net(path: Path, *, batch: Any = "n", joints: int = 17, cells: int = 8, flat: bool = False) -> None:
    """spread: the highest voxel of every joint; xyz: that, its half and its negative; flat: that alone."""
    nodes = [
        helper.make_node("ReduceMax", ["volume"], ["spread"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["spread", "last"], ["column"]),
        helper.make_node("Identity", ["spread"], ["xyz"]) if flat else helper.make_node("Mul", ["column", "factors"], ["xyz"]),
    ]
    weights = [
        helper.make_tensor("last", TensorProto.INT64, [1], [2]),
        helper.make_tensor("factors", TensorProto.FLOAT, [3], [1.0, 0.5, -1.0]),
    ]
    taken = helper.make_tensor_value_info("volume", TensorProto.FLOAT, [batch, cells, cells, cells, joints])
    given_ = [
        helper.make_tensor_value_info("xyz", TensorProto.FLOAT, [batch, joints] if flat else [batch, joints, 3]),
        helper.make_tensor_value_info("spread", TensorProto.FLOAT, [batch, joints]),
    ]
    graph = helper.make_graph(nodes, "net", [taken], given_, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def own(folder: Path, text: str = CARD, **shape: Any) -> str:
    net(folder / "net.onnx", **shape)
    (folder / "card.toml").write_text(text)
    return str(folder / "card.toml")


# networks ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", ["n", 1])
def test_a_network_by_its_card(tmp_path: Path, batch: Any) -> None:
    text = CARD.replace("[-1, 8", f"[{batch if batch == 1 else -1}, 8").replace("[-1, 17", f"[{batch if batch == 1 else -1}, 17")
    network = VolumeNetwork(own(tmp_path, text, batch=batch), CPU, batch=3)
    assert (network.cells, network.volumes.shape, network.engine.runtime) == (8, (3, 8, 8, 8, 17), "onnxruntime")
    for person in range(3):
        network.volumes[person, 1, 2, 3] = np.arange(17) / 100 + person / 10
    found = network(network.volumes[:2])
    top = np.arange(17) / 100 + np.array([[0.0], [0.1]])
    np.testing.assert_allclose(found.spread, top, atol=1e-6)
    np.testing.assert_allclose(found.xyz, top[..., None] * [1, 0.5, -1], atol=1e-6)
    kept = found.xyz.copy()
    network(network.volumes[2:])
    np.testing.assert_array_equal(found.xyz, kept, "what a call gave is not overwritten by the next")
    network.close()


def test_the_file_is_named_for_build(tmp_path: Path) -> None:
    card = own(tmp_path)
    assert network_file(card) == {card: tmp_path / "net.onnx"}
    assert network_file("stub") == {}


def test_the_runtime_stub_needs_no_file(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(CARD)
    network = VolumeNetwork(str(tmp_path / "card.toml"), STUB)
    assert (network.cells, network.engine.runtime) == (8, "stub")
    assert network(network.volumes).xyz.shape == (1, 17, 3)


def test_another_shape_is_refused_with_wanted_and_given() -> None:
    network = VolumeNetwork("stub", STUB)
    says = r"the network takes volume float32 \[any, 32, 32, 32, 17\]; given was volume float32 \[1, 32, 32, 17, 32\]"
    with pytest.raises(EngineError, match=says):
        network(np.zeros((1, 32, 32, 17, 32), np.float32))
    with pytest.raises(EngineError, match=r"given was volume float64 \[1, 32, 32, 32, 17\]"):
        network(np.zeros((1, 32, 32, 32, 17)))  # type: ignore[arg-type]


def test_a_file_of_another_shape_than_its_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"volume float32 \[any, 8, 8, 8, 17\]") as e:
        VolumeNetwork(own(tmp_path, cells=16), CPU)
    assert "16, 16, 16, 17" in str(e.value)


def test_a_network_that_gives_nan_is_named(tmp_path: Path) -> None:
    network = VolumeNetwork(own(tmp_path), CPU, batch=2)
    network.volumes[1, 0, 0, 0, 4] = np.nan
    with pytest.raises(EngineError, match=r"my.volume: the network gave NaN or infinite numbers in .*, items \[1\] of its batch"):
        network(network.volumes)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[-1, 8, 8, 8, 17]", "[-1, 17, 8, 8, 8]", r"the card takes volume \[-1, 17, 8, 8, 8\] for coco17; wanted is one input \[-1, n, n, n, 17\]"),
        ("[-1, 8, 8, 8, 17]", "[-1, 8, 8, 4, 17]", r"the card takes volume \[-1, 8, 8, 4, 17\]"),
        ('skeleton = "coco17"', 'skeleton = "body25"', r"for body25; wanted is one input .* for coco17"),
        ('kind = "volume"', 'kind = "simcc"', r"the decoder simcc does not read joints in a cube"),
    ],
)  # fmt: skip
def test_a_card_that_does_not_fit_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in CARD
    (tmp_path / "card.toml").write_text(CARD.replace(old, new))
    with pytest.raises(EngineError, match=says):
        volume_card(str(tmp_path / "card.toml"))


def test_mistakes_in_the_table_of_the_decoder(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(CARD + 'spred = "spread"\n')
    with pytest.raises(PullError, match=r"unknown field `spred`.*\n  -> did you mean 'spread'\?"):
        volume_card(str(tmp_path / "card.toml"))
    (tmp_path / "card.toml").write_text(CARD + 'xyz = "positions"\n')
    net(tmp_path / "net.onnx")
    with pytest.raises(PullError, match=r"there is no output 'positions'"):
        VolumeNetwork(str(tmp_path / "card.toml"), CPU)


def test_a_network_that_does_not_open_leaves_no_engine_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[OnnxruntimeEngine] = []
    monkeypatch.setattr(OnnxruntimeEngine, "_close", lambda self: closed.append(self))
    net(tmp_path / "net.onnx", flat=True)
    (tmp_path / "card.toml").write_text(CARD.replace("[-1, 17, 3]", "[-1, 17]"))
    with pytest.raises(EngineError, match=r"the output 'xyz' is \[1, 17\]"):
        VolumeNetwork(str(tmp_path / "card.toml"), CPU)
    assert len(closed) == 1


def test_a_network_of_people_is_none_of_cubes() -> None:
    with pytest.raises(EngineError, match=r"there is no network 'blazepose.full' for joints in a cube"):
        volume_card("blazepose.full")


# the stub ---------------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@example(at=(1 / 62, 1 / 62, 1 / 62), height=1.0, width=1.0)
@given(at=st.tuples(*[st.floats(-0.3, 0.3)] * 3), height=st.floats(0.85, 1.0), width=st.floats(1.0, 2.0))
def test_the_mean_of_a_heatmap_is_where_it_is(at: Any, height: float, width: float) -> None:
    network = VolumeNetwork("stub", STUB)
    k = np.arange(32) / 31 - 0.5
    x, y, z = np.meshgrid(k, k, k, indexing="ij")
    r2 = (x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2
    network.volumes[0] = (height * np.exp(-r2 / (2 * (width / 31) ** 2)))[..., None]
    found = network(network.volumes)
    assert np.abs(found.xyz[0] - at).max() < 0.02
    # A narrow peak in the very middle of a voxel has hardly anything beside it.
    assert np.all((found.spread[0] > 0.002) & (found.spread[0] < 0.15))


def test_an_empty_volume_is_nowhere() -> None:
    found = VolumeNetwork("stub", STUB)(np.zeros((2, 32, 32, 32, 17), np.float32))
    np.testing.assert_allclose(found.xyz, 0, atol=1e-6)
    np.testing.assert_allclose(found.spread, np.sqrt((33 / 31) / 12), rtol=1e-4)  # uniform over 32 points from -0.5 to 0.5
