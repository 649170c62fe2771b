"""Learned weights on their way through triangulation, and what the first look says of the views."""

from dataclasses import replace

import numpy as np
import pytest
from rigs import ring

from posepipe.calib import project, undistort
from posepipe.calib.sides import facing_of, mirror_of, triangulate_sides
from posepipe.calib.weighted import AGREEMENTS, CERTAIN, first_look, triangulate_weighted
from posepipe.engines import confidence
from posepipe.pipeline.skeleton import COCO17

MIRROR = mirror_of(COCO17)
HOW = {"mirror": MIRROR, "inlier": 0.05, "sigma": 0.012}
SIDE = 900.0


def people(count=2, views=4, noise_px=3.0, seed=0):
    """A rig, truth [P,17,3], key points [P,C,17,2] with noise, and the sides of the crops."""
    rng, rig = np.random.default_rng(seed), ring(views)
    xyz = rng.uniform([-0.6, -0.6, 0], [0.6, 0.6, 1.9], (count, 17, 3))
    uv = np.stack([project(rig, one).uv_px for one in xyz]) + rng.normal(0, noise_px, (count, views, 17, 2))
    return rig, xyz, uv, np.full((count, views), SIDE)


def look(rig, uv, side, conf=None):
    return first_look(rig, undistort(rig, uv), np.full(uv.shape[:3], 0.8) if conf is None else conf, side, **HOW)


def test_both_rooms_count_the_same_numbers():
    assert AGREEMENTS == confidence.AGREEMENTS
    assert CERTAIN == confidence.CERTAIN


def test_weights_that_are_the_peaks_give_plain_triangulation():
    rig, _, uv, side = people()
    conf = np.random.default_rng(1).uniform(0.3, 1, uv.shape[:3])
    rays = undistort(rig, uv)
    plain, _ = triangulate_sides(rig, rays, conf, mirror=MIRROR, inlier_px=0.05 * side, sigma_px=0.012 * side)
    same = triangulate_weighted(rig, rays, conf, side, lambda order, agreement, heights: heights, **HOW)
    assert same.xyz_m == pytest.approx(plain.xyz_m, abs=1e-5)
    assert np.array_equal(same.conf, plain.conf)
    assert np.array_equal(same.used, plain.used)
    assert (same.sigma_m <= plain.sigma_m).all()
    assert (same.sigma_m >= 0.4 * plain.sigma_m).all()


def test_a_view_that_the_weights_distrust_moves_nothing():
    rig, xyz, uv, side = people(noise_px=0.0)
    uv[0, 2, 9] += [25.0, 20.0]
    rays, conf = undistort(rig, uv), np.full(uv.shape[:3], 0.8)

    def weigh(order, agreement, heights):
        weights = heights.copy()
        weights[0, 2, 9] = 1e-3
        return weights

    believed = triangulate_sides(rig, rays, conf, mirror=MIRROR, inlier_px=0.05 * side, sigma_px=0.012 * side)[0]
    told = triangulate_weighted(rig, rays, conf, side, weigh, **HOW)
    assert np.linalg.norm(believed.xyz_m[0, 9] - xyz[0, 9]) > 0.005
    assert np.linalg.norm(told.xyz_m[0, 9] - xyz[0, 9]) < 1e-4


def test_a_joint_that_the_weights_leave_without_a_point_keeps_the_first():
    rig, _, uv, side = people()
    rays, conf = undistort(rig, uv), np.full(uv.shape[:3], 0.8)

    def weigh(order, agreement, heights):
        weights = heights.copy()
        weights[1, :, 5] = 0
        return weights

    first, told = look(rig, uv, side).points, triangulate_weighted(rig, rays, conf, side, weigh, **HOW)
    assert np.array_equal(told.xyz_m[1, 5], first.xyz_m[1, 5])
    assert told.conf[1, 5] == first.conf[1, 5] > 0
    assert np.array_equal(told.used[1, :, 5], first.used[1, :, 5])


def test_the_view_that_is_off_is_the_one_that_the_agreement_shows():
    rig, _, uv, side = people(noise_px=1.0, views=5)
    uv[0, 3, 7] += [40.0, 35.0]
    agreement = look(rig, uv, side).agreement[0, :, 7]
    for k in (0, 6, 7, 8):
        assert agreement[:, k].argmax() == 3, k
    assert agreement[:, 1].tolist() == [1, 1, 1, 0, 1]
    assert agreement[:, 2] == pytest.approx(0.8)
    assert agreement[:, 3] == pytest.approx(1.25)


def test_the_distance_from_the_others_is_that_from_their_triangulation():
    """Without noise of its own, a view is as far from the point of the others as it was moved."""
    rig, _, uv, side = people(noise_px=0.0)
    moved = 0.02 * SIDE
    uv[0, 1, 3, 0] += moved
    found = look(rig, uv, side).agreement[0, 1, 3, 8]
    away = np.sqrt(np.exp(4 * found) - 0.05)
    assert away == pytest.approx(moved / (0.012 * SIDE), rel=0.05)


def test_a_view_with_its_sides_exchanged_is_described_in_the_order_that_was_used():
    rig, xyz, uv, side = people(count=1, noise_px=1.0)
    uv[0, 2] = uv[0, 2, MIRROR]
    first = look(rig, uv, side)
    assert np.array_equal(first.order[0, 2], MIRROR)
    assert np.array_equal(first.order[0, 0], np.arange(17))
    assert np.linalg.norm(first.points.xyz_m[0] - xyz[0], axis=1).max() < 0.02
    assert first.agreement[0, :, :, 1].all()


def test_what_is_not_seen_is_described_by_zeros_and_two_views_are_enough():
    rig, _, uv, side = people()
    conf = np.full(uv.shape[:3], 0.8)
    conf[0, 2:], uv[1, 0, 4], conf[1, :, 6] = 0, np.nan, [0.8, 0, 0, 0]
    first = look(rig, uv, side, conf)
    assert not first.agreement[0, 2:].any()
    assert not first.agreement[1, 0, 4].any()
    assert first.agreement[1, 0, 6, 4] == 0
    assert np.isfinite(first.agreement).all()
    assert not first.agreement[0, :, :, 8:].any()


def test_nobody_is_no_error():
    rig, _, uv, side = people()
    nobody = triangulate_weighted(
        rig, undistort(rig, uv[:0]), np.zeros((0, 4, 17)), side[:0], lambda order, agreement, heights: heights, **HOW
    )
    assert nobody.xyz_m.shape == (0, 17, 3)


def test_where_the_body_is_and_which_way_it_faces_is_not_seen():
    """People who stand elsewhere and are turned, with their cameras, are described alike: along their own axes."""
    rig, _, uv, side = people(count=1, noise_px=2.0)
    first = first_look(rig, undistort(rig, uv), np.full(uv.shape[:3], 0.8), side, facing=facing_of(COCO17), **HOW)
    turn = np.array([[np.cos(0.7), -np.sin(0.7), 0], [np.sin(0.7), np.cos(0.7), 0], [0, 0, 1]])
    world_from_old = np.vstack([np.column_stack([turn, [1.5, -0.4, 0.2]]), [0, 0, 0, 1]])
    cameras = [replace(c, camera_from_world=c.camera_from_world @ np.linalg.inv(world_from_old)) for c in rig.cameras]
    other = first_look(
        replace(rig, cameras=tuple(cameras)), undistort(rig, uv), np.full(uv.shape[:3], 0.8), side, facing=facing_of(COCO17), **HOW
    )
    assert other.agreement[..., 10:] == pytest.approx(first.agreement[..., 10:], abs=2e-3)
    assert other.axes[0] == pytest.approx(first.axes[0] @ turn.T, abs=1e-4)
    to_left = first.points.xyz_m[0, [5, 11]] - first.points.xyz_m[0, [6, 12]]
    assert first.axes[0] @ first.axes[0].T == pytest.approx(np.eye(3), abs=1e-9)
    assert first.axes[0, 1] @ to_left.sum(axis=0) == pytest.approx(0, abs=1e-6)
    assert first.axes[0, 0] @ to_left.sum(axis=0) > 0
    # The step from a point to a ray is across the ray, and as long as what is left over says in pixels.
    step, direction = first.agreement[..., 13:16], first.agreement[..., 16:19]
    assert np.abs((step * direction).sum(axis=-1)).max() < 1e-4
    assert np.linalg.norm(direction, axis=-1) == pytest.approx(1, abs=1e-5)
    hips = first.agreement[0, 0, [11, 12], 10:13]
    assert hips.mean(axis=0) == pytest.approx(0, abs=1e-5)


def test_without_knowing_the_sides_nothing_is_said_of_the_body():
    rig, _, uv, side = people()
    assert not look(rig, uv, side).agreement[..., 10:].any()
