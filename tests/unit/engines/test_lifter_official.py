"""Published checkpoints of the lifter load, and compute what the program that wrote them computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifter_kit import forward, published_weights, write_tensorflow

from posepipe.engines.models.lifter.tensorflow import read
from posepipe.pipeline.errors import EngineError

torch = pytest.importorskip("torch", reason="needs torch: pip install 'posepipe[train]'")

from posepipe.engines.models.lifter import official  # noqa: E402
from posepipe.engines.models.lifter.net import Lifter  # noqa: E402


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    return published_weights()


@pytest.fixture(scope="module")
def tensorflow(weights: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tensorflow(tmp_path_factory.mktemp("tf") / "checkpoint-4874200", weights)


def torch_checkpoint(path: Path, net: Any, **more: Any) -> Path:
    """As the torch port writes it, with numpy's numbers beside the weights."""
    held = {"epoch": 3, "lr": np.float64(1e-3), "step": 9, "err": np.float64(44.1), "state_dict": net.state_dict(), "optimizer": {}, **more}
    torch.save(held, path)
    return path


def test_the_published_network_has_its_size_and_keys() -> None:
    net = Lifter()
    assert sum(p.numel() for p in net.parameters()) == 4_291_632
    keys = set(net.state_dict())
    assert {"w1.weight", "batch_norm1.running_var", "linear_stages.1.w2.bias", "linear_stages.0.batch_norm2.weight", "w2.bias"} <= keys


def test_a_tensorflow_checkpoint_is_read_to_the_bit(weights: dict[str, Any], tensorflow: Path) -> None:
    found = read(tensorflow)
    assert set(found) == set(weights) - {"global_step"}
    assert all(np.array_equal(found[name], weights[name]) for name in found)


@pytest.mark.parametrize("max_norm", [True, False])
def test_a_tensorflow_checkpoint_computes_what_its_program_does(weights: dict[str, Any], tensorflow: Path, max_norm: bool) -> None:
    x = np.random.default_rng(1).normal(0, 1, (5, 32))
    net = official.load(tensorflow.with_name(tensorflow.name + ".index"), max_norm=max_norm)
    with torch.inference_mode():
        ours = net(torch.from_numpy(x.astype(np.float32))).numpy()
    theirs = forward(weights, x, max_norm=max_norm)
    assert ours == pytest.approx(theirs, abs=1e-4 * np.abs(theirs).max())


def test_a_torch_checkpoint_is_the_same_network(tmp_path: Path) -> None:
    net = Lifter().eval()
    x = torch.randn(4, 32)
    found = official.load(torch_checkpoint(tmp_path / "gt_ckpt_best.pth.tar", net))
    with torch.inference_mode():
        assert torch.equal(found(x), net(x))


def test_statistics_of_all_joints_and_of_those_in_use_are_the_same(tmp_path: Path) -> None:
    mean, std = np.arange(96.0), np.zeros(96)
    used = [3 * j + a for j in official.RAW if j != 0 for a in range(3)]
    std[used] = np.arange(1.0, 49)
    torch.save({"mean": mean, "std": std, "dim_use": np.array(used)}, tmp_path / "stat_3d.pth.tar")
    np.savez(tmp_path / "own.npz", mean=mean[used], std=std[used])
    whole, own = (official.statistics(tmp_path / name) for name in ("stat_3d.pth.tar", "own.npz"))
    assert np.array_equal(whole.mean_out, own.mean_out)
    assert np.array_equal(own.std_out, np.arange(1.0, 49))
    assert (whole.mean_out[0], len(whole.mean_in)) == (3.0, 32)


def test_the_neck_goes_out_and_the_hip_is_where_everything_is_from(tmp_path: Path) -> None:
    np.savez(tmp_path / "out.npz", mean=np.repeat(np.arange(16.0), 3), std=np.full(48, 1e-9))
    net = official.Published(Lifter().eval(), official.statistics(tmp_path / "out.npz"))
    with torch.inference_mode():
        xyz = net(torch.zeros(1, 16, 2)).numpy()[0]
    assert (xyz[0] == 0).all()
    assert xyz[official.JOINTS.index("neck_nose"), 0] == pytest.approx(8, abs=1e-5)


def test_weights_of_another_network_are_refused_with_the_first_differences(tmp_path: Path) -> None:
    path = torch_checkpoint(tmp_path / "a.pth.tar", Lifter(34, 51))
    with pytest.raises(
        EngineError, match=r"w1.weight is \[1024, 34\] instead of \[1024, 32\].*w2.weight is \[51, 1024\] instead of \[48, 1024\]"
    ):
        official.load(path)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    net = Lifter()
    net.state_dict()["w2.bias"][3] = float("nan")
    with pytest.raises(EngineError, match=r"w2\.bias has numbers that are not finite"):
        official.load(torch_checkpoint(tmp_path / "a.pth.tar", net))


def test_max_norm_has_to_be_said_of_tensorflow_alone(tensorflow: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not say whether its matrices are scaled"):
        official.load(tensorflow)
    with pytest.raises(EngineError, match="torch's port does not scale"):
        official.load(torch_checkpoint(tmp_path / "a.pth.tar", Lifter()), max_norm=True)


def test_a_tensorflow_checkpoint_that_is_not_whole(weights: dict[str, Any], tmp_path: Path) -> None:
    prefix = write_tensorflow(tmp_path / "checkpoint-1", {"linear_model/b1": weights["linear_model/b1"]})
    with pytest.raises(EngineError, match=r"linear size 1024") as refused:
        official.load(prefix, max_norm=False)
    assert "w1.weight is missing" in str(refused.value)
    data = prefix.with_name("checkpoint-1.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(EngineError, match="the checkpoint's data end early"):
        read(prefix)
    data.unlink()
    with pytest.raises(EngineError, match=r"cannot read the checkpoint's data: No such file"):
        read(prefix)
    index = prefix.with_name("checkpoint-1.index")
    index.write_bytes(index.read_bytes()[:-9])
    with pytest.raises(EngineError, match="not an index of a TensorFlow checkpoint, or one that ends early"):
        read(prefix)


@pytest.mark.parametrize("content", [b"nothing", b""])
def test_statistics_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stat_3d.pth.tar").write_bytes(content)
    with pytest.raises(EngineError, match="these are no statistics of a training set"):
        official.statistics(tmp_path / "stat_3d.pth.tar")


def test_statistics_of_other_joints(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mean=np.zeros(51), std=np.ones(51))
    with pytest.raises(EngineError, match="mean and std have 51 and 51 numbers; wanted are 96 or 48"):
        official.statistics(tmp_path / "a.npz")
