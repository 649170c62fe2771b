"""One view of a person, as a lifter gets it, and the room that its answer is put into."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.calib.posebank import Track
from posepipe.calib.project import project, undistort
from posepipe.calib.samples import Sampler, random_rig
from posepipe.calib.single import FEWEST, INPUTS, from_hips, looks, stand
from posepipe.calib.single_samples import TrueViews, mirrored, seen_views
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17
from tests.people import looking_at, standing

STANDING_M = standing()[[BLAZEPOSE33.index(joint) for joint in COCO17.joints]]
TRACK = Track("walk", "walk", 30.0, np.repeat(STANDING_M[None].astype(np.float32), 5, axis=0), np.zeros(16, np.float32))
LEFT, RIGHT = (COCO17.index(f"{side}_shoulder") for side in ("left", "right"))


def rays_of(pose: np.ndarray, points_m: np.ndarray) -> np.ndarray:
    local = points_m @ pose[:, :3].T + pose[:, 3]
    return local[None, :, :2] / local[None, :, 2:]


def look_from(x: float, y: float, z: float, *, target: tuple[float, float, float] = (0.0, 0.0, 1.0), people: np.ndarray = STANDING_M):  # type: ignore[no-untyped-def]
    pose = looking_at((x, y, z), target)
    return looks(rays_of(pose, people), np.ones((1, 17)), pose)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 3))
def test_the_truth_stands_where_it_was_seen(seed: int, camera: int) -> None:
    rng = np.random.default_rng(seed)
    rig = random_rig(rng)
    people_m = np.stack([STANDING_M + np.array([*rng.uniform(-1, 1, 2), 0]) for _ in range(2)])
    uv_px = np.stack([project(rig, one).uv_px[camera] for one in people_m])
    rays = np.stack([undistort(rig, project(rig, one).uv_px[None])[0, camera] for one in people_m])
    view = looks(rays, np.isfinite(uv_px[..., 0]).astype(float), rig.camera_from_world[camera])
    placed, sigma = stand(view, from_hips(view, people_m), np.full((2, 17), 0.03), ray_rad=np.full(2, 1e-3))
    assert placed[view.enough] == pytest.approx(people_m[view.enough], abs=1e-5)
    assert np.isfinite(sigma[view.enough]).all()
    assert np.isnan(placed[~view.enough]).all()


def test_what_the_network_gets_does_not_depend_on_where_the_camera_looks_or_how_it_is_turned() -> None:
    one = look_from(3.0, 1.0, 1.5)
    other = look_from(3.0, 1.0, 1.5, target=(0.4, -0.3, 1.3))
    pose = looking_at((3.0, 1.0, 1.5))
    rolled = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ pose
    turned = looks(rays_of(rolled, STANDING_M), np.ones((1, 17)), rolled)
    assert other.inputs == pytest.approx(one.inputs, abs=1e-5)
    assert turned.inputs == pytest.approx(one.inputs, abs=1e-5)
    assert one.inputs.shape == (1, INPUTS)
    assert np.isclose(np.sqrt((one.inputs[0, :34] ** 2).sum() / 17), 1, atol=1e-5)


def test_a_person_twice_as_far_away_looks_half_as_large() -> None:
    near, far = look_from(0.0, 6.0, 1.0), look_from(0.0, 12.0, 1.0)
    assert far.inputs[0, :34] == pytest.approx(near.inputs[0, :34], abs=0.02)
    assert near.inputs[0, -1] - far.inputs[0, -1] == pytest.approx(np.log(2), abs=0.01)


def test_axes_of_a_view_are_right_ahead_and_up() -> None:
    view = look_from(0.0, -4.0, 1.0)  # from behind: the person looks along +y, as the camera does
    assert view.world_from_view[0] == pytest.approx(np.eye(3), abs=0.02)
    target = from_hips(view, STANDING_M[None])[0]
    assert target[LEFT, 0] < 0 < target[RIGHT, 0]
    assert target[COCO17.index("nose"), 1] > 0.05


@pytest.mark.parametrize("height_m", [5.0, -4.0])
def test_a_camera_straight_above_or_below_still_has_a_view(height_m: float) -> None:
    pose = (
        np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, height_m]])
        if height_m > 0
        else np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -height_m]])
    )
    view = looks(rays_of(pose, STANDING_M), np.ones((1, 17)), pose)
    assert np.isfinite(view.inputs).all()
    placed, _ = stand(view, from_hips(view, STANDING_M[None]), np.full((1, 17), 0.03), ray_rad=np.full(1, 1e-3))
    assert placed[0] == pytest.approx(STANDING_M, abs=1e-5)
    assert np.linalg.det(view.world_from_view[0]) == pytest.approx(1)


def test_a_joint_that_is_not_seen_is_zero_and_not_nan() -> None:
    pose = looking_at((3.0, 1.0, 1.5))
    rays, conf = rays_of(pose, STANDING_M), np.ones((1, 17))
    rays[0, 9], conf[0, 10] = np.nan, 0
    view = looks(rays, conf, pose)
    assert (view.inputs[0, [9, 17 + 9, 34 + 9, 10, 17 + 10, 34 + 10]] == 0).all()
    assert np.isfinite(view.inputs).all()
    placed, sigma = stand(view, from_hips(view, STANDING_M[None]), np.full((1, 17), 0.03), ray_rad=np.full(1, 1e-3))
    assert placed[0] == pytest.approx(STANDING_M, abs=1e-5)  # where the answer has it
    assert sigma[0, 9] > sigma[0, 7]


def test_too_little_of_a_body_is_nobody() -> None:
    pose = looking_at((3.0, 1.0, 1.5))
    conf = np.zeros((1, 17))
    conf[0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] = 1
    assert FEWEST == 6
    view = looks(rays_of(pose, STANDING_M), conf, pose)
    placed, sigma = stand(view, np.zeros((1, 17, 3)), np.full((1, 17), 0.03), ray_rad=np.full(1, 1e-3))
    assert (view.enough[0], np.isnan(placed).all(), np.isinf(sigma).all()) == (False, True, True)


def test_nobody_at_all() -> None:
    view = looks(np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros((3, 4)))
    placed, sigma = stand(view, np.zeros((0, 17, 3)), np.zeros((0, 17)), ray_rad=np.zeros(0))
    assert (view.inputs.shape, placed.shape, sigma.shape) == ((0, INPUTS), (0, 17, 3), (0, 17))


def test_bones_that_are_a_tenth_too_long_stand_a_tenth_too_far_away() -> None:
    view = look_from(0.0, -5.0, 0.9)
    longer = 1.1 * from_hips(view, STANDING_M[None])
    placed, sigma = stand(view, longer, np.full((1, 17), 0.03), ray_rad=np.full(1, 1e-3))
    assert placed[0, 11:13, 1].mean() + 5 == pytest.approx(5 * 1.1, rel=0.01)
    assert (np.linalg.norm(placed[0] - STANDING_M, axis=1) < 3 * sigma[0] * np.sqrt(3)).all()


def test_a_joint_far_from_its_line_of_sight_is_left_where_the_body_says() -> None:
    pose = looking_at((0.0, -4.0, 1.0))
    rays = rays_of(pose, STANDING_M)
    rays[0, 9, 0] += 0.2  # a wrist 0.8 m off: another person's
    view = looks(rays, np.ones((1, 17)), pose)
    placed, _ = stand(view, from_hips(view, STANDING_M[None]), np.full((1, 17), 0.03), ray_rad=np.full(1, 1e-3))
    assert np.linalg.norm(placed[0, 9] - STANDING_M[9]) < 0.25
    assert np.linalg.norm(placed[0, 5:9] - STANDING_M[5:9], axis=1).max() < 0.25


def test_true_views_are_the_same_by_seed_and_inside_the_picture() -> None:
    rigs = [random_rig(np.random.default_rng(1))]
    one, again = (TrueViews([TRACK], rigs, seed=5).draw(6) for _ in range(2))
    assert np.array_equal(one.uv_px, again.uv_px, equal_nan=True)
    shown = one.conf > 0
    assert (np.count_nonzero(shown[:, list(COCO17.body)], axis=1) >= FEWEST).all()
    assert (one.uv_px[shown] > -1).all()
    assert (one.uv_px[shown] < [1921, 1081]).all()


def test_seen_views_lie_around_the_true_ones() -> None:
    rng = np.random.default_rng(2)
    seen = seen_views(Sampler([TRACK], seed=3, rigs=[random_rig(rng)], views={4: 1.0}), 60)
    assert len(seen.conf) >= 60
    truth = np.einsum("nij,nkj->nki", seen.camera_from_world[:, :, :3], seen.truth_m) + seen.camera_from_world[:, None, :, 3]
    off = np.linalg.norm(seen.rays - truth[..., :2] / truth[..., 2:], axis=2)[seen.conf > 0.5]
    assert 0.001 < np.median(off) < 0.03


def test_a_mirror_exchanges_sides() -> None:
    view = look_from(2.0, -4.0, 1.3)
    target = from_hips(view, STANDING_M[None])
    inputs, turned = mirrored(view.inputs, target)
    assert inputs[0, LEFT] == -view.inputs[0, RIGHT]
    assert inputs[0, 17 + LEFT] == view.inputs[0, 17 + RIGHT]
    assert turned[0, LEFT] == pytest.approx(target[0, RIGHT] * [-1, 1, 1])
    twice = mirrored(inputs, turned)
    assert np.array_equal(twice[0], view.inputs)
    assert np.array_equal(twice[1], target)
