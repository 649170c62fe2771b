"""Cards of networks for actions: what is one, what is refused with which words, and what an opened network gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from posepipe.engines.action import ActionNetwork, action_card, action_file, check_labels, write_card
from posepipe.engines.assets import catalogue
from posepipe.engines.engine import EngineOptions
from posepipe.pipeline.errors import EngineError, PullError

OPTIONS = EngineOptions(threads=1, runtime="onnxruntime", device="cpu")
LABELS = ("walk", 'say "hello"')


def constant(folder: Path, p: tuple[float, ...] = (0.25, 0.75)) -> Path:
    """A network that always says the same."""
    held = [
        onnx.numpy_helper.from_array(np.zeros((24 * 13 * 7, len(p)), np.float32), "w"),
        onnx.numpy_helper.from_array(np.array(p, np.float32), "b"),
    ]
    nodes = [helper.make_node("Flatten", ["clip"], ["flat"]), helper.make_node("Gemm", ["flat", "w", "b"], ["p"])]
    take, give = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("clip", ["N", 24, 13, 7]), ("p", ["N", len(p)])))
    graph = helper.make_graph(nodes, "constant", [take], [give], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "net.onnx")
    about = {"summary": "always the same", "licence": "none", "file": "net.onnx", "measured": {"accuracy": "none, \u00e4h"}}
    return write_card(folder / "card.toml", name="my.net", labels=LABELS, **about)


def test_a_card_that_is_written_can_be_read_and_its_network_opened(tmp_path: Path) -> None:
    path = str(constant(tmp_path))
    card = action_card(path)
    assert (card.labels, card.measured["accuracy"]) == (LABELS, "none, \u00e4h")
    assert action_file(path) == {path: tmp_path / "net.onnx"}
    network = ActionNetwork(path, OPTIONS, batch=2)
    assert network.labels == LABELS
    assert network(np.zeros((3, 24, 13, 7), np.float32)) == pytest.approx(np.tile([0.25, 0.75], (3, 1)))
    network.close()


def test_a_stub_studio_runs_it_all_the_same(tmp_path: Path) -> None:
    network = ActionNetwork(str(constant(tmp_path)), EngineOptions(threads=1, runtime="stub", device="cpu"))
    assert network.engine.runtime != "stub"
    network.close()


@pytest.mark.parametrize("p", [(0.5, 0.75), (1.5, -0.5), (float("nan"), 0.5)])
def test_answers_that_are_no_probabilities_are_refused(tmp_path: Path, p: tuple[float, float]) -> None:
    path = str(constant(tmp_path, p))
    with pytest.raises(EngineError, match="the network's answers are no probabilities: they do not add up to 1") as e:
        ActionNetwork(path, OPTIONS, batch=1)
    assert (e.value.where, e.value.hint) == (path, "train it again, or export it with its softmax")


def test_a_network_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"there is no network 'lifter.baseline' for actions"):
        action_card("lifter.baseline")
    path = constant(tmp_path)
    path.write_text(path.read_text().replace("labels =", "# labels ="))
    with pytest.raises(EngineError, match="the card has no labels\n  -> train one with `posepipe train action`"):
        action_card(str(path))


def test_labels_and_answers_must_agree_in_number(tmp_path: Path) -> None:
    path = constant(tmp_path)
    path.write_text(path.read_text().replace('labels = ["walk"', 'labels = ["run", "walk"'))
    says = r"the card has clip \[-1, 24, 13, 7\]; p \[-1, 2\]; with 3 labels wanted are \[-1, 24, 13, 7\] in and \[-1, 3\] out"
    with pytest.raises(EngineError, match=says):
        action_card(str(path))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ((), "there are no labels: nothing can be told apart"),
        (("walk",), "there is one label, 'walk': nothing can be told apart"),
        (("walk", "run", "walk"), "the label 'walk' is there twice"),
        (("walk", " "), "' ' cannot be a label"),
        (("walk", "unknown"), "'unknown' cannot be a label"),
    ],
)
def test_labels_with_which_nothing_is_said_are_refused(labels: tuple[str, ...], says: str) -> None:
    with pytest.raises(EngineError) as e:
        check_labels(labels, where="here")
    assert e.value.what.startswith(says)
    assert e.value.hint


def test_a_card_whose_file_is_away_says_so(tmp_path: Path) -> None:
    path = constant(tmp_path)
    (tmp_path / "net.onnx").unlink()
    with pytest.raises(PullError, match=r"the card names 'net\.onnx', which is not beside it"):
        action_file(str(path))


def test_the_shipped_network_is_whole_and_gives_probabilities() -> None:
    assert [name for name, card in catalogue().items() if card.labels] == ["action.skeleton"]
    network = ActionNetwork("action.skeleton", OPTIONS, batch=1)
    p = network(np.random.default_rng(0).normal(0, 0.4, (5, 24, 13, 7)).astype(np.float32))
    assert p.shape == (5, len(network.labels))
    assert "walking" in network.labels
    one_by_one = np.concatenate(
        [network(clip[None]) for clip in np.random.default_rng(0).normal(0, 0.4, (5, 24, 13, 7)).astype(np.float32)]
    )
    assert one_by_one == pytest.approx(p, abs=1e-5)
    network.close()
