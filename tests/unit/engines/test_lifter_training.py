"""A lifter is trained: it gets better, goes on where it stopped, and its ONNX file computes what it computed in torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'posepipe[train]'")
pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'posepipe[train]'")

from posepipe.engines.engine import EngineOptions, open_engine  # noqa: E402
from posepipe.engines.models.checkpoint import steps_done  # noqa: E402
from posepipe.engines.models.lifter.net import INPUTS, Live  # noqa: E402
from posepipe.engines.models.lifter.train import Batch, Plan, export, predictor, train  # noqa: E402
from posepipe.pipeline.errors import EngineError  # noqa: E402

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(0, 0.1, (INPUTS, 51)).astype(np.float32)


def batches(inputs: int = INPUTS) -> Iterator[Batch]:
    rng = np.random.default_rng(1)
    while True:
        view = rng.normal(0, 1, (32, inputs)).astype(np.float32)
        yield Batch(view, (view @ MATRIX[:inputs]).reshape(-1, 17, 3))


def judge(run):  # type: ignore[no-untyped-def]
    view = next(batches()).view
    return {"error": float(np.linalg.norm(run(view)[0] - (view @ MATRIX).reshape(-1, 17, 3), axis=2).mean() * 1000)}


def test_it_learns_goes_on_and_refuses_another_network(tmp_path: Path) -> None:
    said: list[str] = []
    plan = Plan(80, width=64, every=40)
    train(batches(), judge, tmp_path, Plan(40, width=64, every=40), tell=said.append)
    path = train(batches(), judge, tmp_path, plan, tell=said.append)
    assert path == tmp_path / "lifter.onnx"
    assert steps_done(tmp_path) == 80
    assert "going on at step 40 of 80" in " ".join(said)
    errors = [float(line.rpartition("error ")[2]) for line in said if "error" in line]
    assert errors[1] < errors[0]
    assert (tmp_path / "curve.png").stat().st_size > 1000
    with pytest.raises(EngineError, match="the checkpoint is of another network"):
        train(batches(), judge, tmp_path, Plan(90, width=32), tell=said.append)


def test_the_file_computes_what_torch_does(tmp_path: Path) -> None:
    net = Live(64)
    for _ in range(3):
        net(torch.randn(16, INPUTS))
    view = np.random.default_rng(3).normal(0, 1, (5, INPUTS)).astype(np.float32)
    xyz, spread = predictor(net, Plan(1))(view)
    with open_engine(
        export(net, tmp_path / "l.onnx"), EngineOptions(threads=1, runtime="onnxruntime", device="cpu", precision="fp32")
    ) as engine:
        found = engine({"view": view})
    assert found["xyz"] == pytest.approx(xyz, abs=1e-4)
    assert found["spread"] == pytest.approx(spread, rel=1e-4)
    assert (spread > 0).all()


def test_the_published_recipe_answers_in_metres(tmp_path: Path) -> None:
    mean, std = np.full((17, 3), 0.5, np.float32), np.full((17, 3), 2.0, np.float32)
    plan = Plan(3, "published", 32, mean=mean, std=std, every=3)
    path = train(
        batches(34),
        lambda run: {"error": float(np.abs(run(np.zeros((1, 34), np.float32))[0]).mean())},
        tmp_path,
        plan,
        tell=lambda line: None,
    )
    assert path == tmp_path / "checkpoint.pt"
    net = plan.build()
    torch.nn.init.zeros_(net.w2.weight)
    torch.nn.init.ones_(net.w2.bias)
    xyz, spread = predictor(net, plan)(np.zeros((2, 34), np.float32))
    assert xyz == pytest.approx(np.full((2, 17, 3), 2.5))
    assert (spread == 1).all()
