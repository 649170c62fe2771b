"""What a lifter is judged on, and what it is trained on."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.calib.posebank import Track
from posepipe.calib.samples import Sampler
from posepipe.calib.single import INPUTS, from_hips
from posepipe.calib.single_samples import seen_views
from posepipe.launch.training_lifter import Judge, camera_frame, live_batches, published_batches
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17
from tests.people import standing

STANDING_M = standing()[[BLAZEPOSE33.index(joint) for joint in COCO17.joints]].astype(np.float32)
TRACKS = [Track("stand", "stand", 30.0, np.repeat(STANDING_M[None], 3, axis=0), np.zeros(16, np.float32))]
REACH_MM = np.linalg.norm(STANDING_M - STANDING_M[[11, 12]].mean(axis=0), axis=1).mean() * 1000


def test_the_judge_gives_the_error_in_mm_and_nothing_for_the_truth() -> None:
    judge = Judge(TRACKS, seed=1, count=40)
    assert (judge.true.conf > 0).all()
    nothing = judge(lambda view: (np.full((len(view), 17, 3), 1e-3, np.float32), np.ones((len(view), 17), np.float32)))
    assert nothing["true 2D"] == pytest.approx(REACH_MM, rel=0.01)
    assert nothing["seen"] == pytest.approx(REACH_MM, rel=0.01)
    answers = iter([from_hips(views.looks(), views.truth_m) for views in (judge.true, judge.seen)])
    perfect = judge(lambda view: (next(answers), np.full((len(view), 17), 0.03, np.float32)))
    assert perfect["true 2D"] == perfect["seen"] == 0
    assert perfect["distance %"] < 2
    assert perfect["placed"] < 150


def test_the_published_network_is_judged_in_the_cameras_frame() -> None:
    judge = Judge(TRACKS, seed=1, count=40)
    truth = camera_frame(judge.true)
    assert judge.published(lambda uv: (truth, truth[..., 0])) == {"true 2D": 0}
    assert judge.published(lambda uv: (np.zeros_like(truth), truth[..., 0]))["true 2D"] == pytest.approx(REACH_MM, rel=1e-3)


def test_batches_are_the_same_by_seed_and_hold_both_kinds_of_views() -> None:
    seen = seen_views(Sampler(TRACKS, seed=2, views={4: 1.0}), 40)
    one, again = (next(live_batches(TRACKS, seen, seed=4)) for _ in range(2))
    assert np.array_equal(one[0], again[0])
    assert np.array_equal(one[1], again[1])
    view, target = one
    assert view.shape == (256, INPUTS)
    assert np.isfinite(view).all()
    assert np.isfinite(target).all()
    believed = view[:, 34:51]
    assert set(np.unique(believed[:128])) <= {0, 1}
    assert 0 < believed[128:].mean() < 1
    assert np.linalg.norm(target, axis=2).mean() * 1000 == pytest.approx(REACH_MM, rel=1e-3)


def test_published_batches_show_all_joints() -> None:
    views = next(published_batches(TRACKS, seed=4))
    assert (views.conf > 0).all()
    assert len(views.conf) == 64
