"""posepipe eval: what is read, printed and written, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import truth_kit as kit

from posepipe.calib import save_rig
from posepipe.launch import cli, evaluation_picture
from posepipe.launch.evaluating import read_run


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def hall(tmp_path: Path) -> Path:
    """A folder with the truth and a run that is 30 mm off, of one of two people half the time."""
    told = kit.truth()
    run = kit.run(told)
    run.xyz_m[:, :, 2] += 0.03
    run.xyz_m[12::2] += 40
    kit.write(tmp_path / "truth", told)
    kit.write_run(tmp_path / "run.jsonl", run)
    return tmp_path


def test_a_run_is_read_as_it_was(tmp_path: Path) -> None:
    run = kit.only(kit.run(kit.truth()), np.array([1, 2, 5]))
    run.xyz_m[2, 4] = np.nan
    back = read_run(kit.write_run(tmp_path / "run.jsonl", run))
    assert (back.cameras, back.skeleton, back.views, back.tier) == (run.cameras, run.skeleton, run.views, run.tier)
    for name in ("seq", "t_ns", "instant", "ids", "xyz_m", "reproj_px"):
        np.testing.assert_array_equal(getattr(back, name), getattr(run, name))
    assert back.views_used is None, "a file from before views were written"
    run = replace(run, views_used=np.arange(6 * 17).reshape(6, 17) % 5)
    np.testing.assert_array_equal(read_run(kit.write_run(tmp_path / "run.jsonl", run)).views_used, run.views_used)


def test_errors_by_the_views_behind_a_joint(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = read_run(hall / "run.jsonl")
    used = np.full(run.xyz_m.shape[:2], 4)
    used[:, 13] = 2
    run.xyz_m[:, 13, 2] += 0.06
    kit.write_run(hall / "run.jsonl", replace(run, views_used=used))
    assert cli.main(["eval", str(hall / "run.jsonl"), "--truth", str(hall / "truth"), "--json", str(hall / "out.json")]) == 0
    assert "views behind the joint" in capsys.readouterr().out
    few, many = json.loads((hall / "out.json").read_text())["by_views_used"]
    assert (few["views"], few["joints"], few["mpjpe_mm"]) == (2, 18, 90)
    assert (many["views"], many["joints"], many["mpjpe_mm"]) == (4, 18 * 11, 30)
    kit.write_run(hall / "run.jsonl", replace(run, views_used=used[:, :16]))
    assert cli.main(["eval", str(hall / "run.jsonl"), "--truth", str(hall / "truth")]) == 2
    assert "instant 0: 16 joints, the header names 17\n  -> the file was changed" in capsys.readouterr().err


def test_against_the_truth(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--truth", str(hall / "truth"), "--json", str(hall / "out.json")]
    assert cli.main(["eval", str(hall / "run.jsonl"), *arguments]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for text in (
        "12 of 12 instants",
        "18 of 24 found, 6 missed, 6 ghosts",
        "left_wrist",
        "cameras that truly see the joint",
        "PCP: 75.0 %",
    ):
        assert text in said.out
    row = next(line for line in said.out.splitlines() if line.startswith("all"))
    assert row.split() == ["all", "30.0", "30.0", "0.0", "0.0", "100.0", "%"]
    figures = json.loads((hall / "out.json").read_text())
    assert figures["mpjpe_mm"] == figures["per_joint"]["left_hip"]["p95_mm"] == 30
    assert figures["people"] == {"true": 24, "matched": 18, "missed": 6, "ghosts": 6, "identity_changes": 0}
    assert figures["truth"] == str(hall / "truth")
    assert figures["reproj_px"]["median"] > 1


def test_a_folder_with_one_run_is_that_run(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", str(hall), "--truth", str(hall / "truth")]) == 0
    assert f"{hall / 'run.jsonl'} against" in capsys.readouterr().out
    kit.write_run(hall / "second.jsonl", kit.run(kit.truth()))
    assert cli.main(["eval", str(hall), "--truth", str(hall / "truth")]) == 2
    assert "holds 2 recordings (run.jsonl, second.jsonl)" in capsys.readouterr().err
    assert cli.main(["eval", str(hall / "truth"), "--truth", str(hall / "truth")]) == 2
    assert "holds no recording (*.jsonl)" in capsys.readouterr().err


def test_without_truth(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_rig(kit.rig(kit.truth()), hall / "hall.rig.toml")
    assert cli.main(["eval", str(hall / "run.jsonl"), "--rig", str(hall / "hall.rig.toml"), "--json", str(hall / "out.json")]) == 0
    assert "12 instants in 0.4 s, body joints; no truth" in capsys.readouterr().out
    figures = json.loads((hall / "out.json").read_text())
    assert set(figures["per_person"]) == {"10", "11"}
    assert "truth" not in figures


@pytest.mark.parametrize("against", ["truth", "rig"])
def test_a_picture(hall: Path, against: str) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'posepipe[synth]'")
    save_rig(kit.rig(kit.truth()), hall / "hall.rig.toml")
    of = {"truth": hall / "truth", "rig": hall / "hall.rig.toml"}
    assert cli.main(["eval", str(hall / "run.jsonl"), f"--{against}", str(of[against]), "--png", str(hall / "out.png")]) == 0
    head = (hall / "out.png").read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    assert np.frombuffer(head[16:24], ">u4").tolist() == [1200, 800]


def test_a_picture_without_matplotlib_is_refused_before_the_work(
    hall: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluation_picture.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["eval", str(hall / "none.jsonl"), "--truth", str(hall / "truth"), "--png", str(hall / "out.png")]) == 2
    assert capsys.readouterr().err == (
        "posepipe: --png: a picture needs matplotlib, which is not installed\n  -> pip install 'posepipe[synth]'\n"
    )


def test_a_run_that_was_cut_off_is_used_as_far_as_it_goes(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (hall / "run.jsonl").read_bytes()
    (hall / "run.jsonl").write_bytes(whole[:-100])
    assert cli.main(["eval", str(hall / "run.jsonl"), "--truth", str(hall / "truth")]) == 0
    said = capsys.readouterr()
    assert "run.jsonl:13: the last line is cut" in said.err
    assert "11 of 11 instants" in said.out


def test_warnings_are_said_and_written(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit.write_run(hall / "slow.jsonl", kit.run(kit.truth(), speed=0.5))
    arguments = [str(hall / "slow.jsonl"), "--truth", str(hall / "truth"), "--json", str(hall / "out.json")]
    assert cli.main(["eval", *arguments]) == 0
    assert "posepipe: warning: an instant every 80.00 ms" in capsys.readouterr().err
    assert "--speed 0.5" in json.loads((hall / "out.json").read_text())["warnings"][0]
    assert cli.main(["eval", *arguments, "--speed", "0.5"]) == 0
    assert capsys.readouterr().err == ""


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert cli.main(["eval", *argv]) == 2
    return capsys.readouterr().err


def test_what_is_no_run_is_refused(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = ("--truth", str(hall / "truth"))
    assert "No such file" in refused(capsys, str(hall / "none.jsonl"), *truth)
    (hall / "empty.jsonl").write_bytes(b"")
    assert "holds no whole line, so nothing was recorded" in refused(capsys, str(hall / "empty.jsonl"), *truth)
    lines = (hall / "run.jsonl").read_bytes().splitlines(keepends=True)
    (hall / "head.jsonl").write_bytes(lines[0])
    assert "holds no instants, so there is nothing to compare" in refused(capsys, str(hall / "head.jsonl"), *truth)
    (hall / "twice.jsonl").write_bytes(b"".join([*lines, *lines[1:]]))
    assert "instant 0 comes after 11" in refused(capsys, str(hall / "twice.jsonl"), *truth)
    (hall / "short.jsonl").write_bytes(lines[0] + lines[1].replace(b'"xyz_m":[[', b'"xyz_m":[null,[', 1))
    assert "instant 0: 18 joints, the header names 17" in refused(capsys, str(hall / "short.jsonl"), *truth)
    (hall / "views.jsonl").write_bytes(lines[0] + lines[1].replace(b'"views":[0,1,2]', b'"views":[0,1,9]'))
    assert "instant 0 is of cameras that the header lacks" in refused(capsys, str(hall / "views.jsonl"), *truth)
    (hall / "layout.jsonl").write_bytes(b"".join([lines[0].replace(b'"coco17"', b'"coco99"'), *lines[1:]]))
    assert "its skeleton 'coco99' with 17 joints is not one that this posepipe knows" in refused(capsys, str(hall / "layout.jsonl"), *truth)


def test_the_truth_of_something_else_is_refused(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(hall / "run.jsonl")
    assert "there is no folder" in refused(capsys, run, "--truth", str(hall / "none"))
    assert "is no synthetic recording" in refused(capsys, run, "--truth", str(hall))
    kit.write_run(hall / "moon.jsonl", replace(kit.run(kit.truth()), cameras=("north", "east", "moon")))
    assert "camera 'moon' is not in the truth" in refused(capsys, str(hall / "moon.jsonl"), "--truth", str(hall / "truth"))
    late = kit.run(kit.truth())
    kit.write_run(hall / "late.jsonl", replace(late, seq=late.seq + 100))
    error = refused(capsys, str(hall / "late.jsonl"), "--truth", str(hall / "truth"))
    assert "no instant in common: the run is from second 4.00 to 4.44 of its recording, the truth from 0.00 to 0.44" in error


def test_where_nothing_can_be_written_is_refused_before_the_work(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, str(hall / "none.jsonl"), "--truth", str(hall / "truth"), "--json", str(hall / "no" / "out.json"))
    assert f"there is no folder {hall / 'no'}" in error
    (hall / "folder").mkdir()
    assert "Is a directory" in refused(capsys, str(hall / "run.jsonl"), "--truth", str(hall / "truth"), "--json", str(hall / "folder"))


def test_one_of_truth_and_rig_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["eval", "run.jsonl"])
    assert "one of the arguments --truth --rig is required" in capsys.readouterr().err
