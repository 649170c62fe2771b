"""posepipe import lifter: what was made of a checkpoint computes what the checkpoint's network does, in pixels and millimetres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'posepipe[train]'")

from posepipe.engines.assets import home, user_card  # noqa: E402
from posepipe.engines.engine import EngineOptions, open_engine  # noqa: E402
from posepipe.engines.models.lifter.net import Lifter  # noqa: E402
from posepipe.launch.cli import main  # noqa: E402


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "home"))


@pytest.fixture
def given(tmp_path: Path) -> tuple[Lifter, list[str]]:
    net = Lifter().eval()
    torch.save({"state_dict": net.state_dict(), "err": np.float64(1)}, tmp_path / "gt.pth.tar")
    np.savez(tmp_path / "in.npz", mean=np.full(32, 500.0), std=np.full(32, 100.0))
    np.savez(tmp_path / "out.npz", mean=np.full(48, 10.0), std=np.full(48, 200.0))
    return net, [str(tmp_path / "gt.pth.tar"), "--stats-3d", str(tmp_path / "out.npz"), "--stats-2d", str(tmp_path / "in.npz")]


def test_pixels_go_in_and_millimetres_come_out(given: tuple[Lifter, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    net, arguments = given
    assert main(["import", "lifter", *arguments]) == 0
    said = capsys.readouterr().out
    assert "4,291,632 numbers" in said
    assert "academic research only" in said
    card = user_card(home() / "imported" / "lifter.human36m" / "card.toml")
    assert "research only" in card.licence
    pixels = np.random.default_rng(0).uniform(300, 700, (3, 16, 2)).astype(np.float32)
    with open_engine(card.path("network.onnx"), EngineOptions(threads=1, runtime="onnxruntime", device="cpu", precision="fp32")) as engine:
        xyz_mm = engine({"joints": pixels})["xyz_mm"]
    with torch.inference_mode():
        wanted = net(torch.from_numpy((pixels.reshape(3, 32) - 500) / 100)).numpy() * 200 + 10
    assert (xyz_mm[:, 0] == 0).all()
    assert xyz_mm[:, 1:].reshape(3, 48) == pytest.approx(wanted, abs=2e-4 * float(np.abs(wanted).max()))


def test_a_name_that_is_taken_and_one_that_is_none(given: tuple[Lifter, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    _, arguments = given
    assert main(["import", "lifter", *arguments]) == 0
    for more, says in (([], "is the name of another network"), (["--name", "mine"], "'mine' cannot be a network's name")):
        assert main(["import", "lifter", *arguments, *more]) != 0
        assert says in capsys.readouterr().err


def test_nothing_is_kept_of_a_network_that_does_not_run(
    given: tuple[Lifter, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, arguments = given
    np.savez(tmp_path / "out.npz", mean=np.full(48, 3e38), std=np.full(48, 3e38))
    assert main(["import", "lifter", *arguments]) != 0
    assert "the network gives numbers that are not finite" in capsys.readouterr().err
    assert not (home() / "imported" / "lifter.human36m").exists()


def test_without_torch_it_says_what_to_install(
    given: tuple[Lifter, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["import", "lifter", *given[1]]) != 0
    assert "pip install posepipe[train]" in capsys.readouterr().err
