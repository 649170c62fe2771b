"""`posepipe train action`: what is learned from, what is kept out, how it is judged, and the card that comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_kit import labels, record

from posepipe.calib.action_samples import Labelled, Take
from posepipe.calib.action_window import joints_in
from posepipe.calib.motion_import import read_recording, write_motion
from posepipe.launch.cli import main
from posepipe.launch.training_action import Judge, action, of_motion, split
from posepipe.pipeline.errors import EngineError, SourceError
from posepipe.pipeline.skeleton import BLAZEPOSE33
from tests.motion_kit import bvh
from tests.people import standing

STANDING = standing()[joints_in(BLAZEPOSE33)].astype(np.float32)
HOW: dict[str, Any] = {
    "name": "my.hands", "begin_with": "", "steps": 60, "width": 12, "minutes": None, "threads": 1, "seed": 1, "fresh": False
}  # fmt: skip


def one(recording: str, label: str, seconds: float = 2.0) -> Labelled:
    count = round(seconds * 15)
    return Labelled(
        recording,
        label,
        np.repeat(STANDING[None], count, axis=0),
        np.ones((count, 13), np.bool_),
        np.arange(count) / 15,
        f"{recording}.csv:2",
    )


def studio(folder: Path, count: int = 3) -> Path:
    for k in range(count):
        record(folder / f"take{k}.jsonl", 8, up=(4, 8), seed=k)
        labels(folder / f"take{k}.csv", "0,3.8,down", "4.2,7.9,up")
    return folder


def test_a_fold_is_kept_out_by_recording() -> None:
    found = [one(f"{label}{k}", label) for label in ("walk", "run") for k in range(5)] + [one("only", "bow")]
    parts = split(found, fold=0, seed=1)
    assert parts.labels == ("bow", "run", "walk")
    assert parts.judged == ("run", "walk")
    assert len(parts.kept_out) == 2
    assert not {x.recording for x in parts.kept_out} & {x.recording for x in parts.trained}
    assert {x.recording for f in range(5) for x in split(found, fold=f, seed=1).kept_out} == {x.recording for x in found} - {"only"}


def test_one_label_and_one_recording_are_refused_with_the_place() -> None:
    with pytest.raises(EngineError, match=r"a\.csv:2: there is one label, 'walk': nothing can be told apart"):
        split([one("a", "walk"), one("b", "walk")], fold=0, seed=1)
    with pytest.raises(EngineError, match="every label has one recording only, and none can be kept out"):
        split([one("a", "walk"), one("a", "run")], fold=0, seed=1)


def test_the_judge_counts_windows_and_takes_evenly_over_labels() -> None:
    def take(recording: str, label: str, ticks: int) -> Take:
        return Take(recording, label, np.repeat(STANDING[None], ticks, axis=0), np.ones((ticks, 13), np.bool_))

    judge = Judge([take("a", "walk", 300), take("b", "run", 30), take("c", "run", 30), take("d", "run", 5)], ("run", "walk"))
    always_run = judge(lambda windows: np.tile(np.array([0.9, 0.1], np.float32), (len(windows), 1)))
    assert always_run == {"windows": 50, "takes": 50}
    assert judge.found.tolist() == [[1, 0], [1, 0]]


def test_a_studio_trains_on_its_own_recordings_and_runs_what_comes_of_it(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'posepipe[train]'")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'posepipe[train]'")
    from posepipe.engines.action import ActionNetwork, action_card
    from posepipe.engines.engine import EngineOptions

    recordings, out = studio(tmp_path), tmp_path / "net"
    action(None, recordings, out, **HOW)
    assert {p.name for p in out.iterdir()} == {"action.onnx", "card.toml", "checkpoint.pt", "curve.json", "curve.png"}
    card = action_card(str(out / "card.toml"))
    assert (card.name, card.labels) == ("my.hands", ("down", "up"))
    assert "minutes of 2 recordings to learn 2 labels from" in card.measured["data"]
    assert "chance is 50 %" in card.measured["accuracy"]
    network = ActionNetwork(str(out / "card.toml"), EngineOptions(threads=1, runtime="onnxruntime", device="cpu"))
    assert network(np.zeros((1, 24, 13, 7), np.float32)).shape == (1, 2)
    network.close()
    before = (out / "action.onnx").read_bytes()
    action(None, recordings, out, **HOW)  # nothing is left to do
    assert (out / "action.onnx").read_bytes() == before
    assert "chance is 50 %" in action_card(str(out / "card.toml")).measured["accuracy"]
    action(None, recordings, tmp_path / "next", **HOW | {"begin_with": str(out / "card.toml"), "steps": 2, "width": 99})
    assert (tmp_path / "next" / "card.toml").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "hands"}, "'hands' cannot name a network"),
        ({"name": "my hands.x"}, "'my hands.x' cannot name a network"),
        ({"steps": 0}, "0 steps are no training"),
        ({"width": 5}, "a layer of 5 features cannot be divided"),
        ({"begin_with": "lifter.baseline"}, "there is no network 'lifter.baseline' for actions"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'posepipe[train]'")
    with pytest.raises(EngineError, match=says):
        action(None, studio(tmp_path, 2), tmp_path / "net", **HOW | change)
    assert not (tmp_path / "net").exists()


def test_labels_that_are_too_short_to_be_seen_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'posepipe[train]'")
    for k in range(2):
        record(tmp_path / f"t{k}.jsonl", 4)
        labels(tmp_path / f"t{k}.csv", "0,3,walk", "3,3.2,nod")
    with pytest.raises(SourceError, match="no take of nod that is long enough\n  -> half a second"):
        action(None, tmp_path, tmp_path / "net", **HOW)


def test_motion_without_labels_is_refused_and_with_them_is_seen_on_several_bodies(tmp_path: Path) -> None:
    clip = motion_clip(tmp_path)
    write_motion([clip], tmp_path / "motion", sources=["walk.bvh"])
    found = of_motion(tmp_path / "motion", seed=1)
    assert [one.label for one in found] == ["stroll"] * 3
    assert found[0].xyz_m.shape == (len(found[0].t_s), 13, 3)
    assert np.diff(found[0].t_s) == pytest.approx(1 / clip.fps)
    heights = [one.xyz_m[0, 3, 2] for one in found]
    assert len({round(float(h), 3) for h in heights}) == 3
    write_motion([replace(clip, label="")], tmp_path / "bare", sources=["walk.bvh"])
    with pytest.raises(SourceError, match=r"1 clips have no label, first walk\n  -> write them into clips\.json"):
        of_motion(tmp_path / "bare", seed=1)


def motion_clip(folder: Path) -> Any:
    (folder / "walk.bvh").write_text(bvh())
    return read_recording(folder / "walk.bvh", label="stroll", fps=30.0)


def test_the_command_says_in_two_lines_what_is_wrong_with_a_label_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'posepipe[train]'")
    studio(tmp_path, 2)
    labels(tmp_path / "take1.csv", "0,3.8,down", "3,7.9,up")
    assert main(["train", "action", "--recordings", str(tmp_path), "--out", str(tmp_path / "net")]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}/take1.csv:3: 3 to 7.9 s (up) overlaps 0 to 3.8 s (down) of line 2\n  -> one label at a time" in said
    for wrong in ([], ["--recordings", "a", "--motion", "b"]):
        with pytest.raises(SystemExit):
            main(["train", "action", "--out", str(tmp_path / "net"), *wrong])
