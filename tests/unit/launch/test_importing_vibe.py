"""posepipe import vibe: files with made-up numbers of the right shapes stand for the published ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import smpl_kit

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'posepipe[train]'")

from posepipe.engines.assets import user_card  # noqa: E402
from posepipe.engines.engine import Contract, EngineOptions, open_engine  # noqa: E402
from posepipe.engines.models.triangulation import resnet  # noqa: E402
from posepipe.engines.models.vibe.published import Features, MeanRegressor, Vibe  # noqa: E402
from posepipe.launch.cli import main  # noqa: E402

OPTIONS = EngineOptions(threads=1, runtime="onnxruntime", device="cpu", precision="fp32")


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """A backbone with one block in every stage: the file is a third as large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BLOCKS, 50, (1, 1, 1, 1))
        yield


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(0)
    net = Vibe().eval()
    torch.nn.init.normal_(net.regressor.decpose.weight, 0, 0.01)
    return net


@pytest.fixture(scope="module")
def checkpoint(net: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vibe") / "vibe_model_wo_3dpw.pth.tar"
    torch.save({"epoch": 1, "gen_state_dict": net.state_dict(), "performance": np.float64(56.56)}, path)
    return path


def refused(capsys: pytest.CaptureFixture[str], out: Path, *line: str) -> str:
    assert main(["import", "vibe", *line, "--out", str(out)]) == 2
    assert not [*out.glob("*.onnx"), *out.glob("*.toml")]
    return " ".join(capsys.readouterr().err.split())


def test_both_networks_run_by_their_cards_and_say_what_the_checkpoint_does(
    net: Any, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    deep = Features().eval()
    torch.save({"model": {**deep.state_dict(), **MeanRegressor().state_dict()}}, tmp_path / "spin.pth.tar")
    out = tmp_path / "vibe"
    assert main(["import", "vibe", "--checkpoint", str(checkpoint), "--spin", str(tmp_path / "spin.pth.tar"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "vibe.step: 21,309,597 numbers from" in said
    assert "non-commercial scientific research" in said
    assert sorted(p.name for p in out.iterdir()) == ["card.toml", "features.onnx", "features.toml", "network.onnx"]
    cards = [user_card(out / name) for name in ("features.toml", "card.toml")]
    assert [card.name for card in cards] == ["vibe.features", "vibe.step"]
    assert cards[0].preprocess is not None
    assert (cards[0].preprocess.colour, cards[0].preprocess.size, cards[0].preprocess.padding) == ("rgb", (224, 224), 1.1)
    pictures = np.random.default_rng(2).standard_normal((3, 2, 3, 224, 224)).astype(np.float32)
    paths = [card.path(card.files[0].name) for card in cards]
    contracts = [Contract.of(card.inputs, card.outputs) for card in cards]
    state, found = np.zeros((2, 2, 1024), np.float32), []
    with open_engine(paths[0], OPTIONS, contract=contracts[0]) as see, open_engine(paths[1], OPTIONS, contract=contracts[1]) as step:
        for instant in pictures:  # one picture of each of two people
            answer = step({"features": see({"picture": instant})["features"], "state": state})
            state = answer["state_after"].copy()
            found.append({name: array.copy() for name, array in answer.items()})
    with torch.inference_mode():
        features = torch.stack([deep(torch.from_numpy(instant)) for instant in pictures], dim=1)
        whole = net(features)
    assert np.stack([a["theta"] for a in found], axis=1) == pytest.approx(whole.theta.numpy(), abs=2e-4)
    assert np.stack([a["rotations"] for a in found], axis=1) == pytest.approx(whole.rotations.numpy(), abs=1e-4)
    smpl_kit.write_pickle(tmp_path / "SMPL_NEUTRAL.pkl", smpl_kit.made_up())
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {"crop": pictures[0, 0], "world_from_camera": np.eye(3), "pelvis_m": np.array([1.0, 2.0, 0.9])}
    exec(example(), given)
    given["see"].close()
    given["step"].close()
    assert given["posed"].joints_m("smpl24")[0, 0] == pytest.approx([1, 2, 0.9])
    assert given["states"][("anna", "cam_1")].shape == (2, 1024)


def example() -> str:
    """The program in docs/vibe.md."""
    text = (Path(__file__).parents[3] / "docs" / "vibe.md").read_text(encoding="utf-8")
    return text.partition("```python\n")[2].partition("```")[0]


def test_a_folder_with_a_network_in_it_is_left_alone(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "card.toml").write_text("mine")
    assert main(["import", "vibe", "--checkpoint", "nowhere", "--out", str(tmp_path)]) == 2
    assert "there is a network in it already" in capsys.readouterr().err
    assert (tmp_path / "card.toml").read_text() == "mine"


def test_what_is_no_vibe_is_refused_before_anything_is_written(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "there is no such file -> give the path of the checkpoint, vibe_model_wo_3dpw.pth.tar" in refused(
        capsys, out, "--checkpoint", "nowhere"
    )
    (html := tmp_path / "a.pth.tar").write_text("<html>Sorry, you can't view or download this file at this time.</html>")
    assert "it does not begin like a file of torch" in refused(capsys, out, "--checkpoint", str(html))
    line = ("--checkpoint", str(checkpoint))
    assert "not of SPIN -> give it with --checkpoint" in refused(capsys, out, *line, "--spin", str(checkpoint))
    assert "cannot read the mean" in refused(capsys, out, *line, "--smpl-mean", "nowhere.npz")
    torch.save({"gen_state_dict": {"encoder.gru.weight_ih_l0": torch.zeros(3072, 2048)}}, html)
    says = refused(capsys, out, "--checkpoint", str(html), "--smpl-mean", str(mean_file(tmp_path)))
    assert "the weights do not fit (4 keys, the network has 23): encoder.gru.weight_hh_l0 is missing; " in says
    assert "; and " in says
    assert not out.exists()


def mean_file(folder: Path) -> Path:
    np.savez(folder / "mean.npz", pose=np.zeros(144), shape=np.zeros(10), cam=np.zeros(3))
    return folder / "mean.npz"


def test_nothing_is_kept_of_numbers_that_blow_up_nor_is_the_folder_of_another(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(checkpoint, weights_only=False)["gen_state_dict"]
    state["regressor.deccam.bias"] = torch.full((3,), 3e38)
    torch.save({"gen_state_dict": state}, tmp_path / "big.pth.tar")
    (mine := tmp_path / "mine").mkdir()
    (mine / "notes.txt").write_text("kept")
    says = refused(capsys, mine, "--checkpoint", str(tmp_path / "big.pth.tar"))
    assert "the network gives numbers that are not finite in 'theta'" in says
    assert [p.name for p in mine.iterdir()] == ["notes.txt"]
    refused(capsys, tmp_path / "new", "--checkpoint", str(tmp_path / "big.pth.tar"))
    assert not (tmp_path / "new").exists()


def test_without_torch_it_says_what_to_install(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "-> pip install posepipe[train]" in refused(capsys, tmp_path / "out", "--checkpoint", str(checkpoint))
