"""Learned weights are trained on what the other networks are trained on, and judged on what they are judged on."""

from pathlib import Path
from typing import Any

import pytest

from posepipe.launch import training_confidence
from posepipe.launch.cli import main

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'posepipe[train]'")


def test_the_command_keeps_out_the_same_recordings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, Any] = {}

    def split(motion: Path, **how: int) -> tuple[list[str], list[str]]:
        asked.update(motion=motion, **how)
        return ["trained"] * 4, ["kept out"]

    def confidence(*tracks: Any, **how: Any) -> Path:
        asked.update(tracks=tracks, count=how["count"], seed=how["seed"])
        return Path("out") / "confidence.onnx"

    monkeypatch.setattr(training_confidence, "split", split)
    monkeypatch.setattr(training_confidence, "confidence", confidence)
    assert main(["train", "confidence", "--motion", "clips", "--out", "out", "--examples", "12", "--seed", "7"]) == 0
    assert asked["tracks"] == (["trained"] * 4, ["kept out"], Path("out"))
    assert (asked["motion"], asked["count"], asked["seed"]) == (Path("clips"), 12, 7)
    said = capsys.readouterr().out
    assert "4 tracks to train on, 1 kept out of it" in said
    assert "confidence.onnx" in said


def test_no_examples_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "confidence", "--motion", "clips", "--out", "out", "--examples", "0"]) != 0
    assert "--examples is 0" in capsys.readouterr().err


def test_motion_that_is_not_there_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "confidence", "--motion", str(tmp_path / "nowhere"), "--out", str(tmp_path)]) != 0
    assert "nowhere" in capsys.readouterr().err
