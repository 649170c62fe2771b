"""A run beside its truth: whom a skeleton is taken for, which moment it is compared with, and what is said about the difference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import truth_kit as kit
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.calib.evaluate import Run, _nearest, joints_compared, match
from posepipe.calib.evaluate_alone import figures_alone
from posepipe.calib.evaluate_figures import figures, instant_errors_mm
from posepipe.calib.synthetic_truth import Truth
from posepipe.pipeline.errors import RecordError
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17, HUMAN36M17

BODY = [COCO17.joints[j] for j in COCO17.body]


def found(run: Run, told: Truth, **options: Any) -> dict[str, Any]:
    return figures(match(run, told, **options), run, told, rig=kit.rig(told))


def moved(run: Run, by_m: tuple[float, float, float], rows: Any = slice(None)) -> Run:
    xyz = run.xyz_m.copy()
    xyz[rows] += np.array(by_m)
    return replace(run, xyz_m=xyz)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8, unique=True), st.lists(st.floats(-9, 60), min_size=1, max_size=8))
def test_the_nearest_true_frame(times: list[int], wanted: list[float]) -> None:
    rising = np.array(sorted(times), np.float64)
    off = np.abs(np.array(wanted)[:, None] - rising)
    assert off[np.arange(len(wanted)), _nearest(rising, np.array(wanted))].tolist() == off.min(axis=1).tolist()


def test_who_says_the_truth_has_no_error() -> None:
    told = kit.truth()
    all_of_it = found(kit.run(told), told)
    assert (all_of_it["mpjpe_mm"], all_of_it["p95_mm"], all_of_it["acceleration_error_mm_per_frame2"]) == (0, 0, 0)
    assert all_of_it["people"] == {"true": 24, "matched": 24, "missed": 0, "ghosts": 0, "identity_changes": 0}
    assert all_of_it["instants"] == {"recorded": 12, "compared": 12, "outside": 0}
    assert all_of_it["pcp"]["mean"] == all_of_it["joints_seen"] == all_of_it["pck"]["share"][0] == all_of_it["pck"]["auc"] == 1
    assert all_of_it["reproj_px"]["p95"] < 1e-3
    assert set(all_of_it["reproj_px"]["cameras"]) == set(told.cameras)
    assert all_of_it["reproj_px_published"] == 2.5
    assert list(all_of_it["per_joint"]) == BODY
    assert all_of_it["warnings"] == []


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_a_shift_is_its_length_for_every_joint_and_nothing_from_the_hips(seed: int) -> None:
    direction = np.random.default_rng(seed).normal(size=3)
    told, shift = kit.truth(frames=5), 0.06 * direction / np.linalg.norm(direction)
    off = found(moved(kit.run(told), tuple(shift)), told)
    assert off["mpjpe_mm"] == off["median_mm"] == off["p95_mm"] == pytest.approx(60, abs=0.01)
    assert off["root_relative_mpjpe_mm"] == pytest.approx(0, abs=0.01)
    assert off["pa_mpjpe_mm"] == pytest.approx(0, abs=0.01)
    assert off["acceleration_error_mm_per_frame2"] == pytest.approx(0, abs=0.01)
    assert [row["mpjpe_mm"] for row in off["per_joint"].values()] == [pytest.approx(60, abs=0.01)] * 12
    assert off["reproj_px"]["median"] > 1
    pck = dict(zip(off["pck"]["mm"], off["pck"]["share"], strict=True))
    assert (pck[55], pck[65]) == (0, 1)


@given(st.permutations(range(4)))
@settings(max_examples=24)
def test_the_order_of_people_does_not_matter(order: list[int]) -> None:
    told = kit.truth(frames=4, crowd=4)
    run = moved(kit.run(told), (0.01, 0.02, 0.0))
    rows = (np.arange(4)[:, None] * 4 + np.array(order)).ravel()
    mixed = replace(run, xyz_m=run.xyz_m[rows], ids=run.ids[rows])
    assert found(mixed, told) == found(run, told)


def test_missed_people_ghosts_and_changes_of_identity_are_counted() -> None:
    told = kit.truth()
    run = moved(kit.run(told), (0.0, 0.0, 40.0), rows=[0, 3])
    run.ids[12:] += 100
    off = found(run, told)
    assert off["people"] == {"true": 24, "matched": 22, "missed": 2, "ghosts": 2, "identity_changes": 2}
    assert off["mpjpe_mm"] == 0
    assert off["joints_seen"] == 1
    assert off["pck"]["share"][0] == off["pcp"]["mean"] == pytest.approx(22 / 24, abs=1e-4), "whoever is missed has all joints wrong"
    assert sum(group["joints"] * group["missing"] for group in off["by_visible"]) == pytest.approx(2 * 12, abs=0.1)


def test_joints_that_were_not_seen_are_left_out_of_means_and_are_wrong_in_shares() -> None:
    told = kit.truth(crowd=1)
    run = kit.run(told)
    run.xyz_m[:, COCO17.index("left_ankle")] = np.nan
    off = found(run, told)
    assert off["mpjpe_mm"] == 0
    assert off["per_joint"]["left_ankle"] == {"mpjpe_mm": None, "p95_mm": None, "root_relative_mm": None, "pa_mm": None, "seen": 0}
    assert off["joints_seen"] == off["pck"]["share"][-1] == pytest.approx(11 / 12, abs=1e-4)
    assert off["pcp"]["shin"] == 0.5


def test_a_person_who_is_absent_is_neither_missed_nor_found() -> None:
    told = kit.truth()
    coco = told.coco17_m.copy()
    coco[1, :6] = np.nan
    absent = replace(told, coco17_m=coco)
    off = found(kit.run(told), absent)
    assert off["people"] == {"true": 18, "matched": 18, "missed": 0, "ghosts": 6, "identity_changes": 0}


def test_a_skeleton_of_nothing_is_nobody() -> None:
    told = kit.truth(crowd=1)
    run = kit.run(told)
    run.xyz_m[3] = np.nan
    assert found(run, told)["people"] == {"true": 12, "matched": 11, "missed": 1, "ghosts": 0, "identity_changes": 0}


def test_instants_that_were_lost_leave_the_others_in_their_place() -> None:
    told = kit.truth()
    run = kit.only(kit.run(told), np.array([2, 3, 4, 7, 9]))
    off = found(run, told)
    assert off["instants"] == {"recorded": 5, "compared": 5, "outside": 0}
    assert off["mpjpe_mm"] == 0
    one = kit.only(kit.run(told), np.array([7]))
    assert found(one, told)["mpjpe_mm"] == 0
    assert found(one, told)["acceleration_error_mm_per_frame2"] is None


def test_a_live_run_at_half_speed_is_put_in_its_time() -> None:
    told = kit.truth()
    slow = kit.run(told, speed=0.5)
    assert found(slow, told, speed=0.5)["mpjpe_mm"] == 0
    warning = found(slow, told)["warnings"][0]
    assert "an instant every 80.00 ms, a true frame every 40.00 ms" in warning
    assert warning.endswith("say --speed 0.5")


def test_a_recording_that_was_resampled_is_right_as_it_is() -> None:
    told = kit.truth()
    half = kit.only(kit.run(told), np.arange(0, 12, 2))
    half = replace(half, seq=np.arange(6))
    assert found(half, told)["mpjpe_mm"] == 0
    assert "right if the recording was resampled" in found(half, told)["warnings"][0]
    assert found(replace(half, start_ns=int(half.t_ns[0])), told)["warnings"] == [], "who knows the start knows the speed"


def test_pictures_that_were_taken_late_are_compared_with_the_moment_at_which_they_were() -> None:
    """The kit's people walk at 1 m/s, so 10 ms are 10 mm."""
    told = kit.truth(skew_s=0.010)
    run = kit.run(told)
    off = found(run, told)
    body = [name for name in BODY if name != "left_wrist"]
    assert [off["per_joint"][name]["mpjpe_mm"] for name in body] == [pytest.approx(10 * 11 / 12, abs=0.01)] * len(body)
    walked = moved(run, (0.0, 0.010, 0.0))
    assert found(walked, told)["per_joint"]["left_hip"]["mpjpe_mm"] == pytest.approx(10 / 12, abs=0.01), "only the last has no next frame"


def test_the_instants_cameras_say_how_late_its_pictures_are() -> None:
    told = kit.truth()
    late = told.capture_t_s.copy()
    late[2] += 0.02
    told = replace(told, capture_t_s=late)
    one = replace(kit.run(told), views=((2,),) * 12)
    assert found(one, told)["per_joint"]["left_hip"]["mpjpe_mm"] == pytest.approx(20 * 11 / 12, abs=0.01)
    assert found(kit.run(told), told)["mpjpe_mm"] == 0


def test_groups_are_by_how_many_of_the_instants_cameras_see_a_joint() -> None:
    told = kit.truth(crowd=1)
    seen = told.coco17_visible.copy()
    seen[:] = True
    seen[0, :, :, COCO17.index("left_knee")] = False
    told = replace(told, coco17_visible=seen)
    run = kit.run(told)
    run.xyz_m[:, COCO17.index("left_knee"), 0] += 0.1
    assert [(g["cameras"], g["joints"], g["mpjpe_mm"]) for g in found(run, told)["by_visible"]] == [(2, 12, 100.0), (3, 132, 0.0)]
    fewer = replace(run, views=((1, 2),) * 6 + ((0, 1, 2),) * 6)
    assert [(g["cameras"], g["joints"]) for g in found(fewer, told)["by_visible"]] == [(2, 78), (3, 66)]
    assert [(g["cameras"], g["joints"], g["mpjpe_mm"]) for g in found(fewer, told)["by_cameras"]] == [(2, 72, 8.33), (3, 72, 8.33)]
    tiers = replace(run, tier=("volumetric",) * 9 + ("held",) * 3)
    assert [(g["tier"], g["joints"]) for g in found(tiers, told)["by_tier"]] == [("held", 36), ("volumetric", 108)]
    used = replace(run, views_used=np.where(np.arange(17) == COCO17.index("left_knee"), 2, 3) * np.ones((12, 1), np.int64))
    assert [(g["views"], g["joints"], g["mpjpe_mm"]) for g in found(used, told)["by_views_used"]] == [(2, 12, 100.0), (3, 132, 0.0)]


def test_other_skeletons_are_compared_by_the_names_of_their_joints() -> None:
    told = kit.truth(crowd=1)
    xyz = np.full((12, 33, 3), 7.0)
    for name in set(BLAZEPOSE33.joints) & set(COCO17.joints):
        xyz[:, BLAZEPOSE33.index(name)] = told.coco17_m[0, :, COCO17.index(name)]
    run = replace(kit.run(told), skeleton="blazepose33", xyz_m=xyz)
    assert found(run, told)["mpjpe_mm"] == 0
    every = joints_compared(BLAZEPOSE33, "all")
    assert {"nose", "left_ear", "right_heel"} < set(every)
    assert "left_thumb" not in every
    assert set(joints_compared(HUMAN36M17, "all")) == {*joints_compared(HUMAN36M17, "body"), "nose"}
    assert found(run, told, joints="all")["per_joint"]["nose"]["mpjpe_mm"] == 0
    assert found(run, told, joints="all")["per_joint"]["left_heel"]["mpjpe_mm"] is None, "this truth has no heels"


def test_everything_is_json_also_when_nobody_is_there() -> None:
    told = kit.truth()
    empty = replace(
        kit.run(told), instant=np.empty(0, np.int64), ids=np.empty(0, np.int64), xyz_m=np.empty((0, 17, 3)), reproj_px=np.empty(0)
    )
    off = found(empty, told)
    assert (off["mpjpe_mm"], off["joints_seen"], off["people"]["missed"]) == (None, None, 24)
    assert off["pck"]["share"][-1] == 0
    assert "no skeleton lies within 0.5 m" in off["warnings"][0]
    assert np.isnan(instant_errors_mm(match(empty, told))).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": ("north", "east", "moon")}, "camera 'moon' is not in the truth of hall, which has north, east, south"),
        ({"start_ns": 0}, r"no instant in common: the run is from second 1700000000\.00 .* the truth from 0\.00 to 0\.44"),
    ],
)
def test_a_run_of_something_else_is_refused(change: dict[str, Any], message: str) -> None:
    told = kit.truth()
    with pytest.raises(RecordError, match=message):
        match(replace(kit.run(told), **change), told)


def test_a_run_without_instants_is_refused() -> None:
    told = kit.truth()
    with pytest.raises(RecordError, match="holds no instants"):
        match(kit.only(kit.run(told), np.empty(0, np.int64)), told)


def test_a_run_that_goes_on_after_the_truth_is_compared_as_far_as_that_goes() -> None:
    told = kit.truth(frames=20)
    short = replace(kit.truth(frames=12), where="short")
    off = found(kit.run(told), short)
    assert off["instants"] == {"recorded": 20, "compared": 12, "outside": 8}
    assert off["mpjpe_mm"] == 0
    assert "8 of 20 instants lie outside the truth" in off["warnings"][0]


# without truth ----------------------------------------------------------------------------------------------------------------


def test_a_run_alone_says_how_steady_it_is() -> None:
    told = kit.truth()
    run = kit.run(told)
    alone = figures_alone(run, rig=kit.rig(told))
    assert alone["instants"] == {"recorded": 12, "seconds": 0.44}
    assert alone["people"] == {"identities": 2, "per_instant": 2.0}
    assert (alone["joints_seen"], alone["reproj_px_published"]) == (1, 2.5)
    assert 0 < alone["in_pictures"] <= 3
    person = alone["per_person"][10]
    assert person["limb_variation_percent"]["thigh"] == [0, 0]
    assert person["limb_mm"]["thigh"] == [pytest.approx(421, abs=1)] * 2
    assert person["limb_variation_percent"]["forearm"][0] > 0, "the kit's left wrist leaves its elbow"
    assert person["lowest_ankle_m"] == 0.08
    assert alone["acceleration_mm_per_frame2"] == pytest.approx(0, abs=0.01)


def test_acceleration_of_a_run_alone_is_per_person_and_over_no_gap() -> None:
    told = kit.truth(crowd=1)
    run = kit.run(told)
    bent = run.xyz_m + 0.5 * 0.004 * np.arange(12.0)[:, None, None] ** 2 * np.array([1.0, 0, 0])
    assert figures_alone(replace(run, xyz_m=bent))["acceleration_mm_per_frame2"] == pytest.approx(4, abs=0.01)
    gaps = kit.only(replace(run, xyz_m=bent), np.array([0, 1, 3, 4, 6, 7]))
    assert figures_alone(gaps)["acceleration_mm_per_frame2"] is None


def test_a_run_alone_of_nobody() -> None:
    told = kit.truth()
    empty = replace(
        kit.run(told), instant=np.empty(0, np.int64), ids=np.empty(0, np.int64), xyz_m=np.empty((0, 17, 3)), reproj_px=np.empty(0)
    )
    alone = figures_alone(empty, rig=kit.rig(told))
    assert (alone["joints_seen"], alone["in_pictures"], alone["per_person"]) == (None, None, {})
