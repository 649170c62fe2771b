"""A network for actions is trained: it gets better, goes on where it stopped, begins with another, and its file computes what it computed in torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'posepipe[train]'")
pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'posepipe[train]'")

from posepipe.engines.engine import EngineOptions, open_engine  # noqa: E402
from posepipe.engines.models.action.net import ActionNet  # noqa: E402
from posepipe.engines.models.action.train import Plan, export, predictor, take_weights, train, width_of  # noqa: E402
from posepipe.engines.models.checkpoint import steps_done  # noqa: E402
from posepipe.pipeline.errors import EngineError  # noqa: E402

LABELS = ("up", "down", "still")


def batch(seed: int) -> tuple[Any, Any]:
    """Noise; `up` and `down` have one joint rise or fall."""
    rng = np.random.default_rng(seed)
    windows = rng.normal(0, 0.3, (32, 24, 13, 7)).astype(np.float32)
    label = rng.integers(3, size=32)
    windows[label < 2, :, 4, 2] += np.where(label[label < 2] == 0, 1, -1)[:, None] * np.linspace(-1, 1, 24)
    return windows, label


def batches() -> Iterator[tuple[Any, Any]]:
    seed = 0
    while True:
        seed += 1
        yield batch(seed)


def judge(run: Any) -> dict[str, float]:
    windows, label = batch(10_000)
    return {"right": float((run(windows).argmax(axis=1) == label).mean() * 100)}


def run_on(path: Path, windows: Any) -> Any:
    with open_engine(path, EngineOptions(threads=1, runtime="onnxruntime", device="cpu", precision="fp32")) as engine:
        return engine({"clip": windows})["p"]


def trained(net: ActionNet) -> ActionNet:
    """With weights and statistics that are not those of the beginning."""
    rng = torch.Generator().manual_seed(3)
    for name, value in net.state_dict().items():
        if value.dtype.is_floating_point:
            value.copy_(torch.rand(value.shape, generator=rng) * (1.0 if "var" in name else 0.2) + 0.1)
    return net


def test_it_learns_goes_on_and_refuses_other_labels(tmp_path: Path) -> None:
    said: list[str] = []
    train(batches(), judge, tmp_path, Plan(30, LABELS, width=12, every=20), tell=said.append)
    assert steps_done(tmp_path) == 30
    path = train(batches(), judge, tmp_path, Plan(60, LABELS, width=12, every=20), tell=said.append)
    assert path == tmp_path / "action.onnx"
    assert steps_done(tmp_path) == 60
    assert "going on at step 30 of 60" in " ".join(said)
    rights = [float(line.rpartition("right ")[2]) for line in said if "right" in line]
    assert len(rights) == 4  # at 20, at the end of the first, at 40 and 60
    assert rights[-1] > 60
    assert rights[-1] > rights[0]
    assert (tmp_path / "curve.png").stat().st_size > 1000
    windows, label = batch(20_000)
    assert (run_on(path, windows).argmax(axis=1) == label).mean() > 0.6
    with pytest.raises(EngineError, match="the checkpoint is of another network"):
        train(batches(), judge, tmp_path, Plan(70, ("up", "down", "other"), width=12), tell=said.append)


def test_the_file_computes_what_torch_does_for_any_number(tmp_path: Path) -> None:
    net = trained(ActionNet(4, width=12)).eval()
    path = export(net, tmp_path / "a.onnx")
    windows = np.random.default_rng(3).normal(0, 0.4, (7, 24, 13, 7)).astype(np.float32)
    p = predictor(net)(windows)
    assert run_on(path, windows) == pytest.approx(p, abs=1e-5)
    assert run_on(path, windows[:1]) == pytest.approx(p[:1], abs=1e-5)
    assert p.sum(axis=1) == pytest.approx(np.ones(7), abs=1e-5)


def test_scores_are_what_the_last_block_says_and_every_block_says_something() -> None:
    net = ActionNet(4, width=12, blocks=3)
    said = net(torch.randn(5, 24, 13, 7))
    assert [tuple(s.shape) for s in said] == [(5, 4)] * 3
    assert len(net.again) == 2


def test_another_training_begins_with_a_file_whatever_its_labels(tmp_path: Path) -> None:
    net = trained(ActionNet(9, width=12))
    path = export(net, tmp_path / "a.onnx")
    assert width_of(path) == 12
    other = ActionNet(3, width=12)
    taken = take_weights(other, path)
    mine, given = other.state_dict(), net.state_dict()
    same = [n for n in mine if mine[n].shape == given[n].shape and mine[n].dtype.is_floating_point]
    assert taken == len(same)
    assert all(torch.equal(mine[n], given[n]) for n in same)
    assert taken > 25
    said: list[str] = []
    train(batches(), judge, tmp_path / "out", Plan(1, LABELS, width=12), begin_with=path, tell=said.append)
    assert said[0].startswith(f"beginning with {taken} of ")
    train(batches(), judge, tmp_path / "out", Plan(2, LABELS, width=12), begin_with=path, tell=said.append)
    assert not any(line.startswith("beginning") for line in said[1:])


def test_equal_weights_are_found_too(tmp_path: Path) -> None:
    path = export(ActionNet(3, width=12), tmp_path / "a.onnx")
    assert take_weights(ActionNet(3, width=12), path) > 25


def test_a_file_of_another_kind_or_width_is_refused(tmp_path: Path) -> None:
    path = export(ActionNet(3, width=12), tmp_path / "a.onnx")
    with pytest.raises(
        EngineError, match=r"its weights are not those of this network: .* missing or of another shape, first beside.0.weight"
    ):
        take_weights(ActionNet(3, width=18), path)
    (tmp_path / "b.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(EngineError, match="this is no ONNX file"):
        width_of(tmp_path / "b.onnx")
    with pytest.raises(EngineError, match="this is no ONNX file"):
        width_of(tmp_path / "none.onnx")
    import onnx

    empty = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.save(empty, tmp_path / "c.onnx")
    with pytest.raises(EngineError, match="this network was not trained by posepipe"):
        width_of(tmp_path / "c.onnx")
