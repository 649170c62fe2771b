"""A person whom fewer than two views show is lifted from one, and nothing jumps when that begins and ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from baseline_kit import always, true_answer
from lift_kit import IN_BLAZE, Lift, without
from people import standing

from posepipe.calib.single import size_of
from posepipe.nodes.lift_algebraic import LiftAlgebraic
from posepipe.nodes.lift_volumetric import LiftVolumetric
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Caps

WHO = (0,)
STEP_MS = 1000 / 30


def run(lift: Lift, shown: list[bool], *, speed_m_s: float = 0.0, first: int = 0) -> list[Any]:
    """One person under one name; where not `shown` to all, only the second camera sees it."""
    given = []
    for k, all_see in enumerate(shown, start=first):
        person = standing(speed_m_s * k * STEP_MS / 1000)
        given.append(lift.see(person, ids=WHO, ms=k * STEP_MS, change=None if all_see else without(0, 2, 3)))
    return given


@pytest.fixture
def true_card(tmp_path: Path) -> str:
    return always(tmp_path, true_answer(standing(), 1))


@pytest.mark.parametrize("use", [LiftAlgebraic, LiftVolumetric])
def test_without_it_one_view_makes_nobody_anew(use: Any) -> None:
    assert {p.tier for p in run(Lift(use), [False] * 3)} <= {"algebraic", "held", "volumetric"}
    assert all(len(p.ids) == 0 for p in run(Lift(use), [False] * 3))


@pytest.mark.parametrize("use", [LiftAlgebraic, LiftVolumetric])
def test_with_it_one_view_is_enough_and_the_tier_says_so(use: Any, true_card: str) -> None:
    lift = Lift(use, single=true_card)
    before, alone, after = run(lift, [True] * 3), run(lift, [False] * 20, first=3), run(lift, [True] * 20, first=23)
    assert {p.tier for p in alone} == {"lifted"}
    assert "lifted" not in {p.tier for p in before + after}
    assert alone[-1].xyz_m[0, IN_BLAZE] == pytest.approx(standing()[IN_BLAZE], abs=0.01)
    assert {p.ids[0] for p in before + alone + after} == {0}
    if use is LiftAlgebraic:
        assert "card.toml on onnxruntime fp32" in lift.node.runs_on


def test_a_network_that_is_wrong_does_not_make_the_skeleton_jump(tmp_path: Path) -> None:
    wrong = true_answer(standing(), 1) + np.array([[0.0, 0.0, 0.0]] * 5 + [[0.1, 0.2, 0.0]] * 6 + [[0.0] * 3] * 6)
    lift = Lift(LiftAlgebraic, single=always(tmp_path, wrong), blend_s=0.4)
    given = run(lift, [True] * 3 + [False] * 20 + [True] * 20)
    xyz_m = np.array([p.xyz_m[0, IN_BLAZE] for p in given])
    steps_m = np.linalg.norm(np.diff(xyz_m, axis=0), axis=2).max(axis=1)
    difference_m = np.linalg.norm(xyz_m[20] - standing()[IN_BLAZE], axis=1).max()
    assert difference_m > 0.1
    assert steps_m.max() < difference_m / 6
    assert steps_m[2] < 0.01
    assert xyz_m[-1] == pytest.approx(standing()[IN_BLAZE], abs=1e-3)


def test_without_blending_it_is_there_at_once(tmp_path: Path) -> None:
    wrong = true_answer(standing(), 1) + np.array([[0.0, 0.0, 0.0]] * 5 + [[0.1, 0.2, 0.0]] * 6 + [[0.0] * 3] * 6)
    given = run(Lift(LiftAlgebraic, single=always(tmp_path, wrong), blend_s=0), [True] * 3 + [False] * 3)
    assert np.linalg.norm(given[3].xyz_m - given[2].xyz_m, axis=2)[0, IN_BLAZE].max() > 0.1


def test_someone_who_walks_goes_on_walking_through_the_change(true_card: str) -> None:
    given = run(Lift(LiftAlgebraic, single=true_card), [True] * 6 + [False] * 2, speed_m_s=1.0)
    moved_m = np.diff([p.xyz_m[0, IN_BLAZE, 0].mean() for p in given])
    assert moved_m[5] == pytest.approx(STEP_MS / 1000, abs=0.01)


def test_a_persons_own_limbs_say_how_far_away_it_is(tmp_path: Path) -> None:
    small = always(tmp_path, 0.9 * true_answer(standing(), 1))
    unknown = run(Lift(LiftAlgebraic, single=small), [False])[0]
    known = run(Lift(LiftAlgebraic, single=small), [True] * 5 + [False] * 20)[-1]
    off_m = [np.linalg.norm(p.xyz_m[0, IN_BLAZE] - standing()[IN_BLAZE], axis=1).mean() for p in (unknown, known)]
    assert off_m[0] > 0.3
    assert off_m[1] < 0.02
    assert known.sigma_m[0, IN_BLAZE].mean() < unknown.sigma_m[0, IN_BLAZE].mean()


def test_a_size_needs_four_limbs_and_stays_within_reason() -> None:
    given = np.full((1, 8), 0.4)
    few, tall, giant = np.full((1, 8), np.nan), np.full((1, 8), 0.44), np.full((1, 8), 0.8)
    few[0, :3] = 0.44
    assert [float(size_of(known, given)[0]) for known in (few, tall, giant)] == pytest.approx([1, 1.1, 1.25])


def test_people_of_two_kinds_at_once(true_card: str) -> None:
    def only_second_of_the_first(a: dict[str, Any]) -> None:
        a["uv_px"][0, [0, 2, 3]], a["conf"][0, [0, 2, 3]] = np.nan, 0

    poses = Lift(LiftAlgebraic, single=true_card).see(standing(), standing(0.8), ids=(3, 4), change=only_second_of_the_first)
    assert (poses.tier, poses.ids.tolist()) == ("lifted", [3, 4])
    assert poses.views_used[0, IN_BLAZE].max() == 1
    assert poses.views_used[1, IN_BLAZE].min() >= 2


def test_time_that_goes_backwards_begins_anew(true_card: str) -> None:
    lift = Lift(LiftAlgebraic, single=true_card)
    run(lift, [True] * 3, first=100)
    poses = run(lift, [False] * 2)[-1]
    assert poses.xyz_m[0, IN_BLAZE] == pytest.approx(standing()[IN_BLAZE], abs=0.01)


def test_a_network_that_is_no_lifter_is_refused_before_the_start() -> None:
    for use in (LiftAlgebraic, LiftVolumetric):
        engine = {} if use is LiftAlgebraic else {"engine": "stub"}
        with pytest.raises(GraphError, match=r"single is 'blazepose.full': there is no network"):
            use.check(use.Settings(single="blazepose.full", **engine), {"views": Caps(skeleton="blazepose33")})


def test_the_path_of_a_card_is_relative_to_the_studio_file() -> None:
    for use in (LiftAlgebraic, LiftVolumetric):
        assert use.Settings(single="my/card.toml").beside(Path("/studio")).single == "/studio/my/card.toml"
    both = LiftVolumetric.Settings(single="my/card.toml", engine="v/card.toml").beside(Path("/studio"))
    assert (both.single, both.engine) == ("/studio/my/card.toml", "/studio/v/card.toml")
