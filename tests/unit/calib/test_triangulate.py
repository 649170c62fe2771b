"""Triangulation against truth: exact on clean views, unmoved by outliers, and honest about what it does not know."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import camera, ring

from posepipe.calib import Rig, project, triangulate, undistort

JOINTS = 33


def truth(count, seed=0):
    return np.random.default_rng(seed).uniform([-0.6, -0.6, 0.0], [0.6, 0.6, 1.9], (count, JOINTS, 3))


def views(rig, xyz):
    """uv_px [P,C,J,2] of points [P,J,3]."""
    return project(rig, xyz.reshape(-1, 3)).uv_px.reshape(len(rig), len(xyz), JOINTS, 2).transpose(1, 0, 2, 3).copy()


def noisy(rig, xyz, *, sigma_px, seed=1, lowest=0.3):
    """Key points with noise sigma_px / sqrt(conf), and conf [P,C,J]."""
    rng = np.random.default_rng(seed)
    uv = views(rig, xyz)
    conf = rng.uniform(lowest, 1, uv.shape[:3])
    return uv + rng.normal(0, sigma_px, uv.shape) / np.sqrt(conf)[..., None], conf


def error_m(points, xyz):
    return np.linalg.norm(points.xyz_m - xyz, axis=-1)


@settings(max_examples=60, deadline=None)
@given(cameras=st.integers(3, 9), seed=st.integers(0, 10_000), radius=st.floats(2.5, 12))
def test_clean_views_give_the_point(cameras, seed, radius):
    rig = ring(cameras, radius_m=radius)
    xyz = truth(1, seed)
    points = triangulate(rig, undistort(rig, views(rig, xyz)), np.ones((1, cameras, JOINTS)), inlier_px=30, sigma_px=5)
    assert error_m(points, xyz).max() < 1e-6
    assert points.used.all()
    assert points.residual_px.max() < 1e-3
    assert points.conf == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), subset=st.sets(st.integers(0, 5), min_size=2, max_size=6), nan=st.booleans())
def test_any_two_or_more_views_will_do(seed, subset, nan):
    rig = ring(6, arc=3.0)
    xyz = truth(1, seed)
    uv, conf = views(rig, xyz), np.ones((1, 6, JOINTS))
    absent = [c for c in range(6) if c not in subset]
    if nan:
        uv[:, absent] = np.nan
    else:
        conf[:, absent] = 0
    points = triangulate(rig, undistort(rig, uv), conf, inlier_px=30, sigma_px=5)
    assert error_m(points, xyz).max() < 1e-6
    assert (points.used.sum(1) == len(subset)).all()
    assert np.isnan(points.residual_px[:, absent]).all()


@pytest.mark.parametrize("conf", [[1.0, 0, 0, 0], [0.0, 0, 0, 0], [np.nan, 1, np.nan, np.nan]])
def test_one_view_gives_no_point(conf):
    rig = ring(4)
    xyz = truth(1)
    points = triangulate(
        rig, undistort(rig, views(rig, xyz)), np.repeat(np.array(conf)[None, :, None], JOINTS, 2), inlier_px=30, sigma_px=5
    )
    assert np.isnan(points.xyz_m).all()
    assert (points.conf == 0).all()
    assert np.isinf(points.sigma_m).all()
    assert not points.used.any()


def test_two_views_that_disagree_give_no_point():
    rig = ring(4).select(["cam01", "cam02"])
    uv = views(rig, truth(1))
    uv[:, 0, :, 1] += 150
    points = triangulate(rig, undistort(rig, uv), np.ones((1, 2, JOINTS)), inlier_px=30, sigma_px=5)
    assert np.isnan(points.xyz_m).all()
    assert (points.conf == 0).all()


def test_min_views_is_kept():
    rig = ring(4)
    xyz, conf = truth(1), np.ones((1, 4, JOINTS))
    conf[:, 3] = 0
    rays = undistort(rig, views(rig, xyz))
    assert np.isnan(triangulate(rig, rays, conf, inlier_px=30, sigma_px=5, min_views=4).xyz_m).all()
    assert np.isfinite(triangulate(rig, rays, conf, inlier_px=30, sigma_px=5, min_views=3).xyz_m).all()
    with pytest.raises(ValueError, match="min_views=1"):
        triangulate(rig, rays, conf, inlier_px=30, sigma_px=5, min_views=1)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), view=st.integers(0, 4), shift=st.floats(120, 900), angle=st.floats(0, 6.28))
def test_one_wrong_view_is_outvoted(seed, view, shift, angle):
    rig = ring(5)
    xyz = truth(1, seed)
    uv = views(rig, xyz)
    uv[:, view] += shift * np.array([np.cos(angle), np.sin(angle)])
    points = triangulate(rig, undistort(rig, uv), np.ones((1, 5, JOINTS)), inlier_px=30, sigma_px=5)
    assert error_m(points, xyz).max() < 1e-5
    assert not points.used[:, view].any()
    assert points.residual_px[:, view].min() > 30
    assert points.conf == pytest.approx(0.8)


def test_the_answer_is_the_weighted_minimum_of_the_reprojection_error():
    rig = ring(4, distortion=np.zeros(5))
    xyz = truth(3)
    uv, conf = noisy(rig, xyz, sigma_px=3)
    points = triangulate(rig, undistort(rig, uv), conf, inlier_px=1e5, sigma_px=3)

    def cost(at):
        off = np.linalg.norm(views(rig, at) - uv, axis=-1)
        return (conf * off**2).sum(1)

    best = cost(points.xyz_m)
    for axis in np.eye(3):
        for step in (-2e-4, 2e-4):
            assert (cost(points.xyz_m + step * axis) >= best * (1 - 1e-6)).all()


def test_confident_views_pull_harder():
    rig = ring(3)
    xyz = truth(2)
    uv = views(rig, xyz)
    uv[:, 0, :, 0] += 12
    rays = undistort(rig, uv)
    trusted, doubted = np.ones((2, 3, JOINTS)), np.ones((2, 3, JOINTS))
    doubted[:, 0] = 0.1
    kwargs = {"inlier_px": 200, "sigma_px": 5}
    assert (
        error_m(triangulate(rig, rays, doubted, **kwargs), xyz).mean()
        < 0.4 * error_m(triangulate(rig, rays, trusted, **kwargs), xyz).mean()
    )


@pytest.mark.parametrize("cameras", [3, 4, 8])
def test_sigma_is_what_it_says_on_clean_noise(cameras):
    rig = ring(cameras)
    xyz = truth(60)
    uv, conf = noisy(rig, xyz, sigma_px=6)
    points = triangulate(rig, undistort(rig, uv), conf, inlier_px=60, sigma_px=6)
    normalised = error_m(points, xyz) ** 2 / (3 * points.sigma_m**2)
    assert 0.75 < normalised.mean() < 1.15


def test_sigma_grows_when_the_noise_is_larger_than_claimed():
    rig = ring(8)
    xyz = truth(60)
    uv, conf = noisy(rig, xyz, sigma_px=15)
    points = triangulate(rig, undistort(rig, uv), conf, inlier_px=200, sigma_px=5)
    assert (error_m(points, xyz) ** 2 / (3 * points.sigma_m**2)).mean() < 2.5


def test_sigma_covers_errors_also_where_views_are_wrong():
    rig = ring(4)
    xyz = truth(200)
    uv, conf = noisy(rig, xyz, sigma_px=6)
    rng = np.random.default_rng(5)
    wrong = rng.random(conf.shape) < 0.15
    uv[wrong] += rng.normal(0, 200, (wrong.sum(), 2))
    points = triangulate(rig, undistort(rig, uv), conf, inlier_px=40, sigma_px=6)
    found = np.isfinite(points.xyz_m[..., 0])
    error = error_m(points, xyz)[found]
    assert found.mean() > 0.98
    assert np.median(error) < 0.025
    assert (error**2 / (3 * points.sigma_m[found] ** 2)).mean() < 2
    assert (error > 6 * points.sigma_m[found]).mean() < 0.01


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), baseline=st.floats(0.001, 0.2))
def test_nearly_parallel_rays_never_give_a_wild_point_with_a_small_sigma(seed, baseline):
    rig = Rig((camera("a", (4, 0, 1.5)), camera("b", (4, baseline, 1.5))))
    xyz = truth(1, seed)
    uv, conf = noisy(rig, xyz, sigma_px=3, seed=seed, lowest=1)
    points = triangulate(rig, undistort(rig, uv), conf, inlier_px=60, sigma_px=3)
    found = np.isfinite(points.sigma_m)
    error = error_m(points, xyz)[found]
    assert (error < np.maximum(0.02, 8 * points.sigma_m[found])).all()


def test_the_order_of_cameras_and_people_does_not_matter():
    rig = ring(5)
    xyz = truth(3)
    uv, conf = noisy(rig, xyz, sigma_px=6)
    a = triangulate(rig, undistort(rig, uv), conf, inlier_px=60, sigma_px=6)
    order, people = [3, 1, 4, 0, 2], [2, 0, 1]
    turned = rig.select([rig.names[k] for k in order])
    b = triangulate(turned, undistort(turned, uv[people][:, order]), conf[people][:, order], inlier_px=60, sigma_px=6)
    assert b.xyz_m == pytest.approx(a.xyz_m[people], abs=1e-5)


def test_thresholds_and_noise_may_differ_between_views():
    rig = ring(4)
    xyz = truth(1)
    uv = views(rig, xyz)
    uv[:, 2] += 50
    tight, wide = np.full((1, 4), 40.0), np.full((1, 4), 40.0)
    wide[0, 2] = 400
    noise = np.full((1, 4), 5.0)
    noise[0, 2] = 500
    rays, conf = undistort(rig, uv), np.ones((1, 4, JOINTS))
    assert not triangulate(rig, rays, conf, inlier_px=tight, sigma_px=5.0).used[:, 2].any()
    loose = triangulate(rig, rays, conf, inlier_px=wide, sigma_px=noise)
    assert loose.used.all()
    assert error_m(loose, xyz).max() < 1e-3
