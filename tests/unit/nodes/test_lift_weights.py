"""Learned weights: the lifting nodes hand heatmaps to the network, and triangulate by what it says. The network is a generated one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lift_kit import IN_BLAZE, Lift
from node_kit import Studio, caps
from onnx import TensorProto, helper
from people import ring, standing

from posepipe.engines import confidence
from posepipe.nodes.lift_algebraic import LiftAlgebraic
from posepipe.nodes.lift_volumetric import LiftVolumetric
from posepipe.pipeline.errors import EngineError
from posepipe.pipeline.node import Caps

LEARNED = {"weights": "triangulation.confidence"}


@pytest.fixture(autouse=True)
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weight of a joint in a view: the logistic function of four times the first number of its heatmap (the peak's logit), as it is high."""
    path = tmp_path / "confidence.onnx"
    nodes = [
        helper.make_node("Gather", ["shapes", "first"], ["height"], axis=3),
        helper.make_node("ReduceSum", ["agreement", "last"], ["agreed"], keepdims=0),
        helper.make_node("Mul", ["agreed", "nothing"], ["not_used"]),
        helper.make_node("Mul", ["height", "four"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["alone"]),
        helper.make_node("Mul", ["alone", "seen"], ["only_seen"]),
        helper.make_node("Add", ["only_seen", "not_used"], ["conf"]),
    ]
    weights = [
        helper.make_tensor("first", TensorProto.INT64, [], [0]),
        helper.make_tensor("last", TensorProto.INT64, [1], [3]),
        helper.make_tensor("nothing", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("four", TensorProto.FLOAT, [], [4.0]),
    ]

    def tensors(cards: Any) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["p", "c", *(n for n in one.shape[2:])]) for name, one in cards.items()
        ]

    graph = helper.make_graph(nodes, "net", tensors(confidence.INPUTS), tensors(confidence.OUTPUTS), weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    monkeypatch.setattr(confidence, "network_file", lambda: path)
    return path


def fooled(a: dict[str, Any]) -> None:
    """One view is 20 px off and sure of it; its heatmaps show that it is not."""
    a["uv_px"][0, 1] += (20, 10)
    a["maps"][0, 1] *= 0.02


def off_m(lift: Lift) -> float:
    poses = lift.see(standing(), change=fooled)
    return float(np.linalg.norm(poses.xyz_m[0] - standing(), axis=1)[IN_BLAZE].mean())


def test_a_view_that_only_its_heatmaps_give_away_counts_less() -> None:
    assert off_m(Lift(LiftAlgebraic, **LEARNED)) < 0.3 * off_m(Lift(LiftAlgebraic))


def test_right_views_are_as_right_as_before() -> None:
    poses = Lift(LiftAlgebraic, **LEARNED).see(standing(0.3))
    assert poses.xyz_m[0] == pytest.approx(standing(0.3), abs=1e-3)
    assert poses.tier == "algebraic"


def test_the_volume_starts_from_them_too() -> None:
    lift = Lift(LiftVolumetric, **LEARNED)
    poses = lift.see(standing())
    assert poses.tier == "volumetric"
    assert np.linalg.norm(poses.xyz_m[0] - standing(), axis=1).max() < 0.02


def test_heatmaps_are_asked_for_only_then() -> None:
    assert LiftAlgebraic.wants_maps(LiftAlgebraic.Settings(**LEARNED))
    assert not LiftAlgebraic.wants_maps(LiftAlgebraic.Settings())


def test_it_says_what_they_run_on_and_closes_it() -> None:
    lift = Lift(LiftAlgebraic, **LEARNED)
    assert lift.node.runs_on.startswith("triangulation.confidence on ")
    assert Lift(LiftAlgebraic).node.runs_on == ""
    lift.node.close()


def test_without_heatmaps_they_are_painted() -> None:
    def none(a: dict[str, Any]) -> None:
        a["maps"] = a["rois"] = None

    lift = Lift(LiftAlgebraic, maps=False, **LEARNED)
    assert lift.see(standing(), change=none).xyz_m[0] == pytest.approx(standing(), abs=1e-3)
    assert lift.said == ["node: there are no heatmaps: they are painted around the key points of every view"]


def test_nobody() -> None:
    assert len(Lift(LiftAlgebraic, **LEARNED).see().ids) == 0


def test_a_network_that_is_gone(network: Path) -> None:
    network.unlink()
    with pytest.raises(EngineError, match=r"there is no such network file"):
        Lift(LiftAlgebraic, **LEARNED)


def test_a_skeleton_with_the_joints_is_taken() -> None:
    LiftAlgebraic.check(LiftAlgebraic.Settings(**LEARNED), {"views": Caps(skeleton="body25")})
    node = LiftAlgebraic(LiftAlgebraic.Settings())
    node.close()
    node.open(Studio(ring().names).context(rig=ring(), caps=caps("views", skeleton="coco17")))
