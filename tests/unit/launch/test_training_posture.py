"""The posture is trained on people who go the way of lift.volumetric, drawn from what the other networks are trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posepipe.calib.body import load_body
from posepipe.calib.motion import Clip
from posepipe.calib.posebank import Track, bank
from posepipe.calib.synthetic_motion import movements
from posepipe.engines.engine import EngineOptions
from posepipe.engines.volume import VolumeNetwork
from posepipe.launch import training_posture
from posepipe.launch.cli import main
from posepipe.launch.drawing import SIDE_M

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'posepipe[train]'")


@pytest.fixture(scope="module")
def tracks() -> list[Track]:
    clips = [Clip(m.name, m.fps, m.label, *(a.astype(np.float32) for a in m[3:])) for m in movements(seconds=4.0, fps=15.0)]
    return bank(clips, body=load_body(), shapes=1, seed=0)


def test_the_command_keeps_out_the_same_recordings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, Any] = {}

    def split(motion: Path, **how: int) -> tuple[list[str], list[str]]:
        asked.update(motion=motion, **how)
        return ["trained"] * 4, ["kept out"]

    def posture(*tracks: Any, **how: Any) -> Path:
        asked.update(tracks=tracks, **how)
        return Path("out") / "posture.onnx"

    monkeypatch.setattr(training_posture, "split", split)
    monkeypatch.setattr(training_posture, "posture", posture)
    words = ["train", "posture", "--motion", "clips", "--out", "out", "--examples", "12", "--seed", "7", "--workers", "3"]
    assert main(words) == 0
    assert asked["tracks"] == (["trained"] * 4, ["kept out"], Path("out"))
    assert [asked[k] for k in ("motion", "count", "seed", "workers", "engine")] == [Path("clips"), 12, 7, 3, "triangulation.slim"]
    said = capsys.readouterr().out
    assert "4 tracks to train on, 1 kept out of it" in said
    assert "posture.onnx" in said


@pytest.mark.parametrize("option", ["examples", "workers"])
def test_none_of_what_it_needs_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "posture", "--motion", "clips", "--out", "out", f"--{option}", "0"]) != 0
    assert f"--{option} is 0" in capsys.readouterr().err


@pytest.mark.parametrize("hardly", [True, False])
def test_examples_are_people_as_the_node_has_them(tracks: list[Track], hardly: bool) -> None:
    network = VolumeNetwork("stub", EngineOptions())
    found = training_posture.examples(tracks, network, count=12, seed=3, hardly=hardly)
    again = training_posture.examples(tracks, network, count=12, seed=3, hardly=hardly)
    network.close()
    assert found.joints.shape == (12, 17, 20)
    assert np.isfinite(found.joints).all()
    for name in ("joints", "base", "truth"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
    off_m = np.linalg.norm(found.base - found.truth, axis=2) * SIDE_M
    assert np.median(off_m) < 0.1


def test_it_is_trained_and_judged_by_views(tracks: list[Track], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posepipe.engines.models.triangulation import posture as network

    plan = network.Plan
    monkeypatch.setattr(network, "Plan", lambda seed: plan(steps=4, every=2, batch=8, seed=seed))
    said: list[str] = []
    how = {"count": 20, "seed": 1, "engine": "stub", "workers": 1}
    path = training_posture.posture(tracks, tracks, tmp_path, tell=said.append, **how)  # type: ignore[arg-type]
    assert path.is_file()
    assert said[0] == "20 people, each of them twice, the second time with left and right exchanged"
    assert [line.partition(",")[0] for line in said[1:]] == ["step 2 of 4", "step 4 of 4"]
    assert "4 views" in said[1]
    assert "2 views" in said[1]
