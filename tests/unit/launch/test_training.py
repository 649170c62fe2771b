"""What networks are trained on: the same batches whoever draws them, and nothing of what they are judged on."""

from pathlib import Path

import numpy as np
import pytest

from posepipe.calib.posebank import Track
from posepipe.calib.samples import Sampler
from posepipe.launch import drawing
from posepipe.launch.drawing import batches, cubed
from posepipe.launch.training import Judge, spread_factors
from posepipe.pipeline.errors import PosepipeError
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


def test_train_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from posepipe.launch.cli import main

    assert main(["train", "triangulation", "--motion", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) != 0
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert "Traceback" not in said
