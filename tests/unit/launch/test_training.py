"""What networks are trained on: the same batches whoever draws them, and nothing of what they are judged on."""

import itertools
import multiprocessing
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posepipe.calib.motion import Clip
from posepipe.calib.posebank import Track
from posepipe.calib.samples import Sampler
from posepipe.launch import drawing
from posepipe.launch.cli import main
from posepipe.launch.drawing import batches, cubed, judged, split
from posepipe.launch.training import Judge, can_train, spread_factors
from posepipe.pipeline.errors import EngineError, PosepipeError, SourceError
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17
from tests.people import standing

STANDING_M = standing()[[BLAZEPOSE33.index(joint) for joint in COCO17.joints]].astype(np.float32)
TRACKS = [Track("stand", "stand", 30.0, np.repeat(STANDING_M[None], 3, axis=0), np.zeros(16, np.float32))]


def test_a_batch_is_the_same_whoever_draws_it_and_another_one_is_not() -> None:
    drawing._begin(TRACKS, 1)
    one, again, next_ = drawing._batch(1, 5, 2), drawing._batch(1, 5, 2), drawing._batch(1, 6, 2)
    assert np.array_equal(one.volume, again.volume)
    assert np.array_equal(one.target, again.target, equal_nan=True)
    assert not np.array_equal(one.volume, next_.volume)


def test_worker_processes_draw_in_order_and_end_with_their_reader() -> None:
    drawing._begin(TRACKS, 1)
    wanted = [drawing._batch(1, number, 1).target for number in (3, 4)]
    drawn = batches(TRACKS, seed=1, first=3, size=1, workers=1)
    assert all(np.array_equal(next(drawn).target, target, equal_nan=True) for target in wanted)
    drawn.close()
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_is_told_of() -> None:
    drawn = batches(TRACKS, seed=1, first=0, size=1, workers=1)
    next(drawn)
    for worker in multiprocessing.active_children():
        worker.kill()
    with pytest.raises(PosepipeError, match="was killed") as told:
        list(itertools.islice(drawn, 9))
    assert "--workers" in told.value.hint


def test_without_a_worker_there_is_nothing_to_learn_from() -> None:
    with pytest.raises(PosepipeError, match="workers is 0"):
        next(batches(TRACKS, seed=1, first=0, size=1, workers=0))


def test_targets_lie_where_the_joints_are_in_the_cube() -> None:
    sampler = Sampler(TRACKS, seed=2)
    for _ in range(5):
        seen = sampler.draw()
        cube, volume, target = cubed(seen)
        inside = np.isfinite(target[:, 0])
        assert inside.any()
        assert np.allclose(cube.world(target[inside]), seen.truth_m[inside], atol=1e-5)
        assert volume.shape == (32, 32, 32, 17)


def test_the_judge_gives_the_error_in_mm_of_what_it_is_shown() -> None:
    judge = Judge(TRACKS, seed=3, count=4, views=(4,))
    scores = judge(lambda volume: (np.zeros((len(volume), 17, 3), np.float32), np.ones((len(volume), 17), np.float32)))
    assert set(scores) == {"4 views", "4 views p95", "triangulated 4", "triangulated 4 p95"}
    reach_mm = np.linalg.norm(STANDING_M - STANDING_M[[11, 12]].mean(axis=0), axis=1).mean() * 1000
    assert scores["4 views"] == pytest.approx(reach_mm, rel=0.15)  # in the middle of the cube are the hips
    assert scores["triangulated 4"] < 60


def test_spread_factors_make_a_spread_one_standard_deviation() -> None:
    rng = np.random.default_rng(4)
    answers: dict[str, np.ndarray] = {}

    def run(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Off by 2 % of the side in every axis, and claims 1 %."""
        return answers["target"] + rng.normal(0, 0.02, (1, 17, 3)).astype(np.float32), np.full((1, 17), 0.01, np.float32)

    def remember(seen: object) -> object:
        out = cubed(seen)  # type: ignore[arg-type]
        answers["target"] = out[2][None]
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("posepipe.launch.training.cubed", remember)
        factors = spread_factors(TRACKS, seed=5, count=120)(run)
    assert factors.shape == (17,)
    assert np.allclose(factors, 2.0, atol=0.35)


def clip(name: str) -> Clip:
    return Clip(name, 30.0, "stand", np.zeros((9, 24, 3), np.float32), np.zeros((9, 19, 4), np.float32), np.zeros((9, 3), np.float32))


def test_recordings_are_kept_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they were cut into pieces."""
    names = [f"{letter}{piece}" for letter in "abcdefg" for piece in ("", "#2", "#3")]
    monkeypatch.setattr(drawing, "read_motion", lambda path: {name: clip(name) for name in names})
    monkeypatch.setattr(drawing, "bank", lambda clips, **how: [(c.name, how["seed"]) for c in clips])
    trained, kept_out = split(Path("motion"), shapes=1, seed=4)
    assert kept_out == [(n, 5) for n in names if n[0] in "af"]
    assert trained == [(n, 4) for n in names if n[0] not in "af"]


def test_one_recording_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "read_motion", lambda path: {name: clip(name) for name in ("a", "a#2")})
    with pytest.raises(SourceError, match="one recording in it, a,") as told:
        split(Path("motion"), shapes=1, seed=0)
    assert told.value.where == "motion"
    assert "motion import" in told.value.hint


def test_nothing_is_judged_where_a_studio_has_no_place_for_a_cube(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cube must not come from the truth."""
    sampler = Sampler(TRACKS, seed=6)
    first, second = sampler.draw(), sampler.draw()
    blind = replace(first, conf=np.zeros_like(first.conf))
    drawn = iter([blind, second])
    monkeypatch.setattr(sampler, "draw", lambda: next(drawn))
    assert judged(sampler) is second


@pytest.mark.parametrize("package", ["torch", "matplotlib"])
def test_a_package_that_is_missing_is_told_of_before_anything_is_done(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    pytest.importorskip("torch", reason="pip install 'posepipe[train]'")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EngineError, match=f"training needs {package}") as told:
        can_train()
    assert "posepipe[train]" in told.value.hint


@pytest.mark.parametrize("option", ["steps", "workers", "threads"])
def test_counts_below_one_are_refused_before_anything_is_done(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="pip install 'posepipe[train]'")
    line = ["train", "triangulation", "--motion", str(tmp_path), "--out", str(tmp_path / "out"), f"--{option}", "0"]
    assert main(line) != 0
    assert f"--{option} is 0" in capsys.readouterr().err


def test_train_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "triangulation", "--motion", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) != 0
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert "Traceback" not in said
