"""The slim volumetric network: its answer follows the heatmaps, its export answers the same, and a training can be broken off."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'posepipe[train]'")

from posepipe.engines.engine import EngineOptions, open_engine  # noqa: E402
from posepipe.engines.models.triangulation.slim import Opinion, Slim, expectation, log_weights  # noqa: E402
from posepipe.engines.models.triangulation.train import Batch, Plan, export, predictor, train  # noqa: E402
from posepipe.pipeline.errors import EngineError  # noqa: E402

SMALL = (4, 6, 8)
PLAN = Plan(steps=6, every=3, widths=SMALL)


def blobs(rng: np.random.Generator, count: int) -> Batch:
    """Volumes with one round blob for every joint, and where it is."""
    target = rng.uniform(-0.3, 0.3, (count, 17, 3)).astype(np.float32)
    at = np.arange(32) / 31 - 0.5
    axes = [np.exp(-0.5 * ((at[None, None] - target[..., k : k + 1]) / 0.04) ** 2) for k in range(3)]
    return Batch(np.einsum("njx,njy,njz->nxyzj", *axes).astype(np.float32), target)


def judge(run):
    batch = blobs(np.random.default_rng(9), 2)
    xyz, _ = run(batch.volume)
    return {"off": float(np.abs(xyz - batch.target).mean() * 2500)}


def endless(seed: int = 0):
    rng = np.random.default_rng(seed)
    while True:
        yield blobs(rng, 2)


def test_untrained_it_believes_the_heatmaps() -> None:
    batch = blobs(np.random.default_rng(0), 2)
    torch.manual_seed(0)
    xyz, spread = predictor(Slim(SMALL))(batch.volume)
    assert np.abs(xyz - batch.target).max() < 0.005, "finer than the cells of 0.065"
    # 0.04 over the root of two, squared maps being narrower; cells of 2 / 31, 1 / sqrt(12) of that; and what is added before any training, exp(-4).
    assert np.allclose(spread, np.sqrt(0.04**2 / 2 + (2 / 31) ** 2 / 12 + np.exp(-8)), atol=0.006)


def test_what_is_counted_of_a_cell_is_its_mean_and_where_its_weight_lies() -> None:
    torch.manual_seed(4)
    volume = torch.rand(2, 32, 32, 32, 17)
    said = Slim(SMALL).eval()(volume)
    cells = volume.view(2, 16, 2, 16, 2, 16, 2, 17)
    assert torch.allclose(said.mean, cells.mean((2, 4, 6)).permute(0, 4, 1, 2, 3), atol=1e-5)
    for axis, halves in enumerate((2, 4, 6)):
        others = [k for k in (2, 4, 6) if k != halves]
        low, high = cells.mean(others).unbind(halves - sum(k < halves for k in others))
        assert torch.allclose(said.lean[:, axis], ((high - low) / 4 / 31).permute(0, 4, 1, 2, 3), atol=1e-6)


def opinions(volume: Any) -> Opinion:
    """Of an untrained network, with chance in place of what it would have learned."""
    said = Slim(SMALL).eval()(volume)
    return said._replace(log_factor=torch.randn_like(said.log_factor), log_doubt=torch.randn_like(said.log_doubt) - 6)


def test_expectation_is_the_softmax_of_its_weights() -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        said = opinions(torch.from_numpy(blobs(np.random.default_rng(1), 2).volume))
        mean, spread = expectation(said)
        p = torch.softmax(log_weights(said).flatten(2), dim=2)
    middles = (2 * torch.arange(16) + 0.5) / 31 - 0.5
    cells = torch.stack(torch.meshgrid(middles, middles, middles, indexing="ij")).flatten(1)  # [3, cells]
    from_cells = torch.einsum("njc,ac->nja", p, cells)
    inside = torch.einsum("njc,najc->nja", p, (said.lean / (said.mean[:, None] + 1e-3)).flatten(3))
    assert torch.allclose(mean, from_cells + inside, atol=1e-5)
    variance = torch.einsum("njc,njac->nja", p, (cells - from_cells[..., None]) ** 2).mean(2)
    assert torch.allclose(spread**2, variance + (p * said.log_doubt.flatten(2).exp()).sum(2), rtol=1e-3, atol=1e-6)


def test_an_opinion_beyond_all_numbers_stays_finite() -> None:
    with torch.no_grad():
        said = opinions(torch.zeros(1, 32, 32, 32, 17))
        mean, spread = expectation(said._replace(log_factor=torch.full_like(said.log_factor, 1e5), log_doubt=said.log_doubt + 1e5))
    assert torch.isfinite(mean).all()
    assert torch.allclose(mean, torch.zeros_like(mean), atol=1e-5)
    assert torch.isfinite(spread).all()


def test_the_file_answers_as_the_network_does(tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(2)
    net, batch = Slim(SMALL).eval(), blobs(np.random.default_rng(3), 3)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    widen = np.linspace(0.5, 2, 17).astype(np.float32)
    session = onnxruntime.InferenceSession(str(export(net, tmp_path / "slim.onnx", widen=widen)))
    xyz, spread = predictor(net)(batch.volume)
    for items in (1, 3):
        found = session.run(["xyz", "spread"], {"volume": batch.volume[:items]})
        assert np.allclose(found[0], xyz[:items], atol=1e-4)
        assert np.allclose(found[1], spread[:items] * widen, atol=1e-4)


def test_the_torch_runtime_answers_as_onnx_runtime_does(tmp_path: Path) -> None:
    """Which runs it on a GPU without TensorRT. In bf16 the layers are coarse; what is expected over the voxels is float32."""
    torch.manual_seed(2)
    net, batch = Slim(SMALL).eval(), blobs(np.random.default_rng(3), 3)
    path = export(net, tmp_path / "slim.onnx", widen=np.ones(17, np.float32))
    found = {}
    for runtime, precision in (("onnxruntime", "fp32"), ("torch", "fp32"), ("torch", "bf16")):
        with open_engine(path, EngineOptions(runtime=runtime, precision=precision, device="cpu", threads=1)) as engine:
            found[runtime, precision] = {n: a.copy() for n, a in engine({"volume": batch.volume}).items()}
    wanted = found.pop(("onnxruntime", "fp32"))
    for (_, precision), given in found.items():
        for name in ("xyz", "spread"):
            assert np.allclose(given[name], wanted[name], atol=1e-5 if precision == "fp32" else 1e-3), (precision, name)


def test_training_writes_what_it_made_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    said: list[str] = []
    train(endless(), judge, tmp_path, PLAN, tell=said.append, seconds=0.0)
    assert not said
    path = train(endless(), judge, tmp_path, PLAN, tell=said.append)
    assert path == tmp_path / "slim.onnx"
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint.pt", "curve.json", "curve.png", "slim.onnx"}
    assert [line.split(",")[0] for line in said] == [
        "going on at step 0 of 6 (" + str(tmp_path / "checkpoint.pt") + ")",
        "step 3 of 6",
        "step 6 of 6",
    ]
    said.clear()
    train(endless(), judge, tmp_path, PLAN, tell=said.append)
    assert said == [f"going on at step 6 of 6 ({tmp_path / 'checkpoint.pt'})"]


def test_training_learns(tmp_path: Path) -> None:
    """Heatmaps that are all displaced by the same step: only the network can know."""

    def displaced():
        for batch in endless(5):
            yield Batch(np.roll(batch.volume, 3, axis=1), batch.target)

    def off(run):
        batch = next(displaced())
        return {"off": float(np.abs(run(batch.volume)[0] - batch.target).mean() * 2500)}

    scores: list[str] = []
    train(displaced(), off, tmp_path, Plan(steps=120, every=60, widths=(8, 8, 8), learning_rate=1e-2, average=0.9), tell=scores.append)
    first, last = (float(line.rpartition(" ")[2]) for line in scores)
    assert last < 0.8 * 80, (first, last)  # 3 of 31 cells of 2.5 m in one of three axes are 80 mm


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    train(endless(), judge, tmp_path, PLAN, tell=lambda _: None, seconds=0.0)
    with pytest.raises(EngineError, match="the checkpoint is of another network") as e:
        train(endless(), judge, tmp_path, Plan(steps=6, widths=(4, 6, 10)), tell=lambda _: None)
    assert "--fresh" in e.value.hint


def test_joints_outside_the_cube_teach_nothing(tmp_path: Path) -> None:
    def outside():
        for batch in endless():
            target = batch.target.copy()
            target[:, ::2] = np.nan
            yield Batch(batch.volume, target)

    train(outside(), judge, tmp_path, PLAN, tell=lambda _: None)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all(torch.isfinite(v).all() for v in state["net"].values() if v.dtype.is_floating_point)
