"""Limb lengths are learnt from the person and steady what is seen badly, without moving what is seen well."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import body

from posepipe.calib import LimbLengths, limbs_of
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17

LIMBS = limbs_of(BLAZEPOSE33)
KNEE, ANKLE = BLAZEPOSE33.index("left_knee"), BLAZEPOSE33.index("left_ankle")


def lengths(xyz):
    return np.linalg.norm(xyz[..., LIMBS[:, 1], :] - xyz[..., LIMBS[:, 0], :], axis=-1)


def learnt(*, sigma_m=0.01, instants=40, seed=0):
    """Limb lengths that have seen a still person, and that person."""
    rng = np.random.default_rng(seed)
    truth, limbs = body(seed), LimbLengths(LIMBS)
    for _ in range(instants):
        limbs.hold(truth + rng.normal(0, sigma_m, truth.shape), np.full(33, sigma_m))
    return limbs, truth


@pytest.mark.parametrize("skeleton", [BLAZEPOSE33, COCO17])
def test_limbs_are_thighs_shins_and_arms(skeleton):
    pairs = {(skeleton.joints[a], skeleton.joints[b]) for a, b in limbs_of(skeleton)}
    assert len(pairs) == 8
    assert ("left_hip", "left_knee") in pairs
    assert ("right_elbow", "right_wrist") in pairs


def test_nothing_moves_before_the_lengths_are_known():
    limbs, rng = LimbLengths(LIMBS), np.random.default_rng(0)
    for _ in range(14):
        xyz = body() + rng.normal(0, 0.02, (33, 3))
        assert np.array_equal(limbs.hold(xyz, np.full(33, 0.02)), xyz)
    assert np.isnan(limbs.length_m).all()
    limbs.hold(body(), np.full(33, 0.02))
    assert np.isfinite(limbs.length_m).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_lengths_are_the_persons_own(seed):
    limbs, truth = learnt(seed=seed)
    assert limbs.length_m == pytest.approx(lengths(truth), abs=0.012)


def test_a_guessed_ankle_follows_and_a_well_seen_knee_stays():
    limbs, truth = learnt()
    xyz, sigma = truth.copy(), np.full(33, 0.01)
    down = (truth[ANKLE] - truth[KNEE]) / np.linalg.norm(truth[ANKLE] - truth[KNEE])
    xyz[ANKLE] += 0.15 * down
    sigma[ANKLE] = 0.1
    held = limbs.hold(xyz, sigma)
    assert np.linalg.norm(held[ANKLE] - truth[ANKLE]) < 0.03
    assert np.linalg.norm(held[KNEE] - truth[KNEE]) < 0.005


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), sigma=st.floats(0.01, 0.04))
def test_it_comes_nearer_to_the_truth_on_average(seed, sigma):
    limbs, truth = learnt(sigma_m=sigma, seed=seed)
    rng = np.random.default_rng(seed + 1)
    joints = np.unique(LIMBS)
    raw = truth + rng.normal(0, sigma, (200, *truth.shape))
    held = np.array([limbs.hold(xyz, np.full(33, sigma)) for xyz in raw])
    assert ((held - truth)[:, joints] ** 2).mean() < ((raw - truth)[:, joints] ** 2).mean()
    assert lengths(held).std(axis=0).mean() < 0.85 * lengths(raw).std(axis=0).mean()


def test_other_joints_and_missing_ones_are_left_as_they_are():
    limbs, truth = learnt()
    xyz, sigma = truth + 0.05, np.full(33, 0.02)
    xyz[KNEE], sigma[KNEE] = np.nan, np.inf
    held = limbs.hold(xyz.astype(np.float32), sigma.astype(np.float32))
    others = np.setdiff1d(np.arange(33), LIMBS)
    assert held[others] == pytest.approx(xyz[others], abs=1e-6)
    assert np.isnan(held[KNEE]).all()
    assert np.isfinite(np.delete(held, KNEE, axis=0)).all()


def test_badly_seen_limbs_teach_nothing():
    limbs = LimbLengths(LIMBS)
    for _ in range(50):
        limbs.hold(body(), np.full(33, 0.06))
    assert np.isnan(limbs.length_m).all()


def test_a_wrong_start_is_forgotten():
    limbs = LimbLengths(LIMBS)
    for _ in range(20):
        limbs.hold(1.2 * body(), np.full(33, 0.02))
    assert limbs.length_m == pytest.approx(1.2 * lengths(body()))
    for _ in range(300):
        limbs.hold(body(), np.full(33, 0.02))
    assert limbs.length_m == pytest.approx(lengths(body()))
