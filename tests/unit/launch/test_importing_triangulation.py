"""posepipe import triangulation: a file with random numbers of the right shapes stands for the published one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install posepipe[train]")

from posepipe.engines.assets import home as home_folder  # noqa: E402
from posepipe.engines.assets import user_card  # noqa: E402
from posepipe.engines.crop import Rois  # noqa: E402
from posepipe.engines.engine import EngineOptions, open_engine  # noqa: E402
from posepipe.engines.models.triangulation import resnet  # noqa: E402
from posepipe.engines.models.triangulation.net import Algebraic, Volumetric  # noqa: E402
from posepipe.engines.network import TopDown, topdown_card  # noqa: E402
from posepipe.launch.cli import main  # noqa: E402
from posepipe.pipeline.packet import Frame  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """A backbone with one block in every stage: the file is a third as large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BLOCKS, 14, (1, 1, 1, 1))
        yield


def saved(net: Any, path: Path) -> Path:
    torch.save({f"module.{k}": v for k, v in net.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def algebraic(tmp_path_factory: pytest.TempPathFactory, shallow: None) -> Path:
    torch.manual_seed(0)
    return saved(Algebraic(14), tmp_path_factory.mktemp("algebraic") / "weights.pth")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def refused(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    assert main(["import", "triangulation", *line]) == 2
    assert not [*home_folder().glob("imported/*/*")]
    return " ".join(capsys.readouterr().err.split())


def test_an_algebraic_network_is_run_by_its_card(algebraic: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "triangulation", str(algebraic), "--kind", "algebraic"]) == 0
    folder = home / "imported" / "triangulation.paper-algebraic"
    out = capsys.readouterr().out
    assert " numbers, algebraic network with ResNet-14" in out
    assert "triangulation.paper-algebraic:" in out
    assert f"engine: {folder / 'card.toml'}" in out
    assert out.count("Human3.6M") == 1
    assert "no commercial use" in out
    assert sorted(p.name for p in folder.iterdir()) == ["card.toml", "network.onnx", "solve.onnx"]
    card = topdown_card(str(folder / "card.toml"))
    assert card.present()
    assert (card.skeleton, card.preprocess.colour, card.preprocess.mean[0]) == ("human36m17", "bgr", 123.675)  # type: ignore[union-attr]
    network = TopDown(str(folder / "card.toml"), EngineOptions(runtime="onnxruntime", precision="fp32", threads=1), batch=1)
    grey = np.full((640, 480), 90, np.uint8)
    frame = Frame("c", 0, 0, "i420", 480, 640, (grey, grey[:320, :240], grey[:320, :240]))
    uv_px, conf = network.infer([frame], Rois(np.array([[240.0, 320.0]]), np.array([400.0]), np.zeros(1)))
    network.close()
    assert uv_px.shape == (1, 17, 2)
    assert np.abs(uv_px - [240, 320]).max() < 200
    assert np.all((conf > 0) & (conf < 1))
    with open_engine(folder / "solve.onnx", EngineOptions(runtime="onnxruntime", threads=1)) as engine:
        assert [i.shape for i in engine.inputs] == [(-1, -1, 17, 3), (-1, -1, 3, 4)]


def test_a_volumetric_network_has_a_card_for_its_pictures_and_one_for_its_volume(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(Volumetric(14, how="conf"), tmp_path / "weights.pth")
    line = ["import", "triangulation", str(path), "--kind", "volumetric", "--aggregation", "conf_norm", "--name", "triangulation.hall_2"]
    assert main(line) == 0
    folder = home / "imported" / "triangulation.hall_2"
    assert "views aggregated by conf_norm" in capsys.readouterr().out
    assert {p.name for p in folder.iterdir()} == {"card.toml", "volume.toml", "network.onnx", "unproject.onnx", "volume.onnx"}
    pictures, volume = user_card(folder / "card.toml"), user_card(folder / "volume.toml")
    assert (pictures.name, volume.name) == ("triangulation.hall_2", "triangulation.hall_2-volume")
    assert pictures.present()
    assert volume.present()
    assert set(pictures.outputs) == {"features", "confidences"}
    with open_engine(folder / "unproject.onnx", EngineOptions(runtime="onnxruntime", threads=1)) as engine:
        assert {i.name for i in engine.inputs} == {"features", "grid", "seen", "confidences"}
    assert main(line) == 2
    assert "'triangulation.hall_2' is the name of another network" in capsys.readouterr().err


def test_the_other_network_is_refused(algebraic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says = refused(capsys, str(algebraic), "--kind", "volumetric")
    assert "these are the weights of the algebraic network -> write --kind algebraic" in says
    assert "leave --aggregation out" in refused(capsys, str(algebraic), "--kind", "algebraic", "--aggregation", "sum")


def test_the_first_differences_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {f"module.{k}": v for k, v in Algebraic(14).state_dict().items()}
    del state["module.backbone.layer1.0.conv1.weight"]
    state["module.backbone.final_layer.weight"] = torch.zeros(19, 256, 1, 1)
    torch.save(state, tmp_path / "weights.pth")
    says = refused(capsys, str(tmp_path / "weights.pth"), "--kind", "algebraic")
    assert "backbone.layer1.0.conv1.weight is missing; backbone.final_layer.weight is [19, 256, 1, 1] instead of [17, 256, 1, 1]" in says


def test_half_a_file_and_no_checkpoint_are_refused(algebraic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path := tmp_path / "weights.pth").write_bytes(algebraic.read_bytes()[:1_000_000])
    assert "not a whole checkpoint" in refused(capsys, str(path), "--kind", "algebraic")
    path.write_text("<html>Sorry, you can't view or download this file at this time.</html>")
    assert "it does not begin like a file of torch" in refused(capsys, str(path), "--kind", "algebraic")
    assert "there is no such file" in refused(capsys, "nowhere.pth", "--kind", "algebraic")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("blazepose.full", "is the name of another network"),
        ("../../etc", "cannot be a network's name"),
        ("paper", "cannot be a network's name"),
    ],
)
def test_names_that_cannot_be_are_refused_before_the_file_is_read(capsys: pytest.CaptureFixture[str], name: str, says: str) -> None:
    assert says in refused(capsys, "nowhere.pth", "--kind", "algebraic", "--name", name)


def test_without_torch_it_says_what_to_install(
    algebraic: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else real(name, *a))
    assert "-> pip install posepipe[train]" in refused(capsys, str(algebraic), "--kind", "algebraic")


def test_numbers_that_blow_up_are_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Algebraic(14)
    with torch.no_grad():
        net.backbone.final_layer.bias.fill_(3e38)
    says = refused(capsys, str(saved(net, tmp_path / "weights.pth")), "--kind", "algebraic")
    assert "the network gives numbers that are not finite" in says
