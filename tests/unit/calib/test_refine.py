"""The fine step: peaks where they agree with what is expected, the expectation where they do not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.calib.project import project, undistort
from posepipe.calib.refine import refine
from posepipe.calib.samples import random_rig

RIG = random_rig(np.random.default_rng(5))
POINTS_M = np.random.default_rng(6).uniform([-0.6, -0.6, 0.2], [0.6, 0.6, 1.7], (17, 3))
LIMITS = {"inlier_px": 40.0, "sigma_px": 8.0}


def seen(points_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact key points [1,4,17,2] as rays, and confidences of 1."""
    uv_px = project(RIG, points_m).uv_px[None]
    return undistort(RIG, uv_px), np.isfinite(uv_px[..., 0]).astype(np.float64)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_exact_views_win_over_a_vague_expectation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rays, conf = seen(POINTS_M)
    vague = POINTS_M + rng.normal(0, 0.05, POINTS_M.shape)
    found = refine(RIG, rays, conf, prior_m=vague[None], prior_sigma_m=np.full((1, 17), 0.2), **LIMITS)
    several = found.used[0].sum(axis=0) >= 3
    assert several.sum() >= 12
    assert np.linalg.norm(found.xyz_m[0] - POINTS_M, axis=1)[several].max() < 0.012


def test_views_that_contradict_the_body_are_not_believed() -> None:
    rays, conf = seen(POINTS_M)
    wrong = rays.copy()
    wrong[0, 1] += 0.3
    found = refine(RIG, wrong, conf, prior_m=POINTS_M[None], prior_sigma_m=np.full((1, 17), 0.03), **LIMITS)
    assert not found.used[0, 1].any()
    assert np.linalg.norm(found.xyz_m[0] - POINTS_M, axis=1).max() < 0.01
    assert (found.conf[0] < 0.8).all()  # one of four is against it


def test_without_a_view_a_joint_stays_where_it_is_expected_and_says_so() -> None:
    rays, conf = seen(POINTS_M)
    conf[0, :, 9] = 0
    spread = np.full((1, 17), 0.05)
    found = refine(RIG, rays, conf, prior_m=POINTS_M[None], prior_sigma_m=spread, **LIMITS)
    assert np.allclose(found.xyz_m[0, 9], POINTS_M[9])
    assert found.sigma_m[0, 9] == pytest.approx(0.05)
    assert found.conf[0, 9] == pytest.approx(0.15)
    assert not found.used[0, :, 9].any()
    assert np.isnan(found.residual_px[0, :, 9]).all()
    assert (found.sigma_m[0, :9] < 0.03).all()


def test_one_view_pulls_the_expectation_across_its_ray_but_not_along_it() -> None:
    rays, conf = seen(POINTS_M)
    conf[0, 1:] = 0
    moved = POINTS_M + np.array([0.02, -0.02, 0.02])
    found = refine(RIG, rays, conf, prior_m=moved[None], prior_sigma_m=np.full((1, 17), 0.1), **LIMITS)
    camera = RIG.cameras[0]
    at = conf[0, 0] > 0
    ray = POINTS_M[at] - camera.centre_m
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    off = found.xyz_m[0, at] - POINTS_M[at]
    along = np.abs((off * ray).sum(axis=1))
    across = np.linalg.norm(off - (off * ray).sum(axis=1, keepdims=True) * ray, axis=1)
    before = (moved - POINTS_M)[at]
    before_across = np.linalg.norm(before - (before * ray).sum(axis=1, keepdims=True) * ray, axis=1)
    assert (across < 0.5 * before_across).all()
    assert np.allclose(along, np.abs((before * ray).sum(axis=1)), atol=0.01)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0, -1.0])
def test_where_nothing_is_expected_there_is_no_point(broken: float) -> None:
    rays, conf = seen(POINTS_M)
    spread = np.full((1, 17), 0.05)
    spread[0, 3] = broken
    found = refine(RIG, rays, conf, prior_m=POINTS_M[None], prior_sigma_m=spread, **LIMITS)
    assert np.isnan(found.xyz_m[0, 3]).all()
    assert found.conf[0, 3] == 0
    assert np.isinf(found.sigma_m[0, 3])
    assert np.isfinite(np.delete(found.xyz_m[0], 3, axis=0)).all()


def test_views_of_nan_are_no_views() -> None:
    rays, conf = seen(POINTS_M)
    rays[0, 2] = np.nan
    found = refine(RIG, rays, conf, prior_m=POINTS_M[None], prior_sigma_m=np.full((1, 17), 0.1), **LIMITS)
    assert not found.used[0, 2].any()
    assert np.linalg.norm(found.xyz_m[0] - POINTS_M, axis=1).max() < 0.03


def test_weights_say_how_exact_a_view_is_and_leave_the_confidence_alone() -> None:
    rays, conf = seen(POINTS_M)
    off = rays.copy()
    off[0, 1] += 0.004
    conf = 0.8 * conf
    vague = {"prior_m": POINTS_M[None], "prior_sigma_m": np.full((1, 17), 0.5), **LIMITS}
    equal = refine(RIG, off, conf, **vague)
    doubted = refine(RIG, off, conf, weights=np.where(np.arange(4)[None, :, None] == 1, 0.01, 1.0) * conf, **vague)
    errors = [np.linalg.norm(found.xyz_m[0] - POINTS_M, axis=1) for found in (equal, doubted)]
    assert (errors[1] < 0.5 * errors[0]).all()
    both = equal.used[0].all(axis=0) & doubted.used[0].all(axis=0)
    assert both.any()
    assert np.allclose(equal.conf[0, both], doubted.conf[0, both])
