"""posepipe synth render: what it prints and makes, and what it refuses before anything is drawn."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from posepipe.calib.synthetic_truth import read_truth
from posepipe.launch.cli import main

LINE = ["synth", "render", "--seconds", "0.2", "--fps", "10", "--size", "160x120", "--cameras", "2"]


def can_draw() -> None:
    """Skip, saying what is missing, where nothing can be drawn."""
    moderngl = pytest.importorskip("moderngl", reason='needs moderngl: pip install "posepipe[synth]"')
    try:
        moderngl.create_context(standalone=True, require=330, backend="egl").release()
    except Exception as error:  # the binding raises bare Exception
        pytest.skip(f"needs OpenGL through EGL (apt install libegl1 libgl1-mesa-dri): {error}")


def test_a_recording_is_made_and_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    can_draw()
    out = tmp_path / "hall"
    line = [*LINE, "--out", str(out), "--seed", "7", "--people", "2", "--clip", "squat", "--clip", "walk", "--drift", "50", "--maps"]
    assert main(line) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 cameras, 2 frames at 10 fps, squat (squatting), walk (walking);" in said
    assert "% of key points in sight" in said
    truth = read_truth(out)
    assert (truth.scene.seed, truth.scene.frames, truth.scene.size_px, truth.cameras) == (7, 2, (160, 120), ("cam1", "cam2"))
    assert truth.scene.options["drift_ppm"] == 50
    assert (out / "cam1.maps.npz").exists()
    assert main(line) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--cameras", "1"], "1 is not a whole number from 2 to 16"),
        (["--people", "nine"], "nine is not a whole number from 0 to 8"),
        (["--size", "640"], "640 is not a size such as 1280x720"),
        (["--size", "641x480"], "641x480: H.264 films have even widths and heights"),
        (["--seconds", "0"], "0 is not a number above 0"),
        (["--shake", "-1"], "-1 is not a number of 0 or more"),
        (["--drift", "lots"], "lots is not a number of 0 or more"),
    ],
)
def test_numbers_that_cannot_be(more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["synth", "render", "--out", str(tmp_path / "hall"), *more])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "hall").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rig", "hall.rig.toml", "--cameras", "4"], "--rig with --size or --cameras"),
        (["--rig", "hall.rig.toml"], "hall.rig.toml"),
        (["--motion", "clips"], "clips"),
        (["--clip", "wlak"], "did you mean 'walk'?"),
    ],
)
def test_what_is_not_there(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["synth", "render", "--out", "hall", "--seconds", "0.1", *more]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moderngl", None)
    assert main([*LINE, "--out", str(tmp_path / "hall"), "--people", "0"]) == 2
    assert 'pip install "posepipe[synth]"' in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
