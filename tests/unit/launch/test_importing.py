"""posepipe import openpose: a file with random numbers of the right shapes stands for CMU's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe_kit import caffemodel, made_up

from posepipe.engines.assets import user_card
from posepipe.engines.engine import EngineOptions
from posepipe.engines.models.openpose.bottomup import BottomUp
from posepipe.engines.models.openpose.networks import find, imported, imported_folder
from posepipe.engines.models.openpose.plan import plan
from posepipe.launch.cli import main
from posepipe.nodes.heatmap_paf import HeatmapPaf
from posepipe.pipeline.packet import Frame


@pytest.fixture(scope="module")
def body25(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "pose_iter_584000.caffemodel"
    path.write_bytes(caffemodel(made_up(plan("body25"))))
    return path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def refused(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    assert main(["import", "openpose", *line]) == 2
    assert imported() == ()
    return " ".join(capsys.readouterr().err.split())


def test_an_imported_network_is_run_by_its_name(body25: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "openpose", str(body25)]) == 0
    out = capsys.readouterr().out
    assert "openpose.body25: 26,166,084 numbers in 213 layers" in out
    assert "engine: openpose.body25" in out
    assert "non-commercial research only" in out
    assert imported() == ("openpose.body25",)
    card = user_card(imported_folder("openpose.body25") / "card.toml")
    assert card.present()
    assert "non-commercial" in card.licence
    settings: Any = HeatmapPaf.Settings(engine="openpose.body25", joints="network")
    HeatmapPaf.check(settings, {})
    assert HeatmapPaf.caps(settings, {}).skeleton == "body25"
    options = EngineOptions(runtime="onnxruntime", threads=1)
    network = BottomUp("openpose.body25", options, pictures_px=[(96, 64)], short_px=32)
    grey = np.full((64, 96), 90, np.uint8)
    (bodies,) = network.infer([Frame("c", 0, 0, "i420", 96, 64, (grey, grey[:32, :48], grey[:32, :48]))])
    assert bodies.points.shape[1:] == (25, 3)
    assert (network.engine.inputs[0].shape, network.network.short_px) == ((-1, 3, 32, 48), 368)
    assert (network.network.pixels.bgr, network.network.pixels.mean, network.network.pixels.std) == (True, (128,) * 3, (256,) * 3)
    network.close()


def test_it_has_the_name_that_it_is_given(body25: Path) -> None:
    assert main(["import", "openpose", str(body25), "--model", "body25", "--name", "openpose.hall_2"]) == 0
    assert imported() == ("openpose.hall_2",)
    assert find("openpose.hall_2").parts.skeleton == "body25"


def test_the_other_network_is_refused(body25: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says = refused(capsys, str(body25), "--model", "coco18")
    assert "these are the weights of body25, not of coco18" in says
    assert "write --model body25" in says


def test_half_a_file_is_refused(body25: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (half := tmp_path / "half.caffemodel").write_bytes(body25.read_bytes()[:50_000_000])
    says = refused(capsys, str(half))
    assert f"{half}: not a whole caffemodel: it ends in the middle" in says
    assert "a broken download ends early" in says


def test_a_file_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.caffemodel: cannot read the weights" in refused(capsys, "nowhere.caffemodel")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("openpose.light", "is the name of another network"),
        ("blazepose.full", "is the name of another network"),
        ("../../etc", "cannot be a network's name"),
        ("body25", "cannot be a network's name"),
    ],
)
def test_names_that_cannot_be_are_refused_before_the_file_is_read(capsys: pytest.CaptureFixture[str], name: str, says: str) -> None:
    assert says in refused(capsys, "nowhere.caffemodel", "--name", name)


def test_numbers_that_blow_up_are_not_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    layers = made_up(plan("body25"))
    layers["Mconv7_stage1_L1"] = tuple(np.full_like(a, 3e38) for a in layers["Mconv7_stage1_L1"])
    (path := tmp_path / "big.caffemodel").write_bytes(caffemodel(layers))
    assert "the network gives numbers that are not finite" in refused(capsys, str(path))
