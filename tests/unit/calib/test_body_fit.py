"""Shapes of people who were not used to make anything, found from their joints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.calib.body import Body, Posed, load_body
from posepipe.calib.body_fit import fit
from posepipe.pipeline.skeleton import COCO17

LIMBS = [
    (COCO17.index(f"{side}_{a}"), COCO17.index(f"{side}_{b}"))
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
    for side in ("left", "right")
]
BENDS = {"elbow": 1.0, "knee": 0.7, "shoulder": 0.9, "hip": 0.5, "wrist": 0.4}
INSTANTS = 90


def turns(rng: np.random.Generator, angle: float, count: int) -> np.ndarray[Any, Any]:
    """[count,3,3]: about any axis, by about that angle (Rodrigues)."""
    axis = rng.standard_normal((count, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    by = rng.normal(0, angle, (count, 1, 1))
    k = np.cross(np.eye(3)[None], axis[:, None])
    return np.eye(3) + np.sin(by) * k + (1 - np.cos(by)) * k @ k


def moving(body: Body, shape: Any, seed: int, count: int = INSTANTS) -> Posed:
    """That person in so many random poses: limbs anyhow, the back a little."""
    rng = np.random.default_rng(seed)
    world = np.empty((count, len(body.bones), 3, 3))
    for b, (name, parent) in enumerate(zip(body.bones, body.parents, strict=True)):
        own = turns(rng, BENDS.get(name.rpartition("_")[2], 0.08), count)
        world[:, b] = own if parent < 0 else world[:, parent] @ own
    return body.pose(shape, world, rng.uniform(-2, 2, (count, 3)))


def seen(posed: Posed, rng: np.random.Generator, noise_m: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """As a studio sees it: errors, of which half stay, one joint in thirty somewhere else, one in ten not at all."""
    xyz = posed.joints_m("coco17").astype(np.float64)
    xyz += rng.normal(0, noise_m / 2, xyz.shape[1:]) + rng.normal(0, noise_m, xyz.shape)
    wild = rng.random(xyz.shape[:2]) < 1 / 30
    xyz[wild] += rng.normal(0, 0.2, (wild.sum(), 3))
    xyz[rng.random(xyz.shape[:2]) < 0.1] = np.nan
    return xyz, np.full(xyz.shape[:2], max(noise_m, 0.001))


def limbs_m(body: Body, shape: Any) -> np.ndarray[Any, Any]:
    """Limb lengths [8] of a shape, arms and legs as they hang."""
    rest = body.pose(shape, np.broadcast_to(np.eye(3), (1, len(body.bones), 3, 3)), np.zeros((1, 3))).joints_m("coco17")[0]
    return np.array([np.linalg.norm(rest[a] - rest[b]) for a, b in LIMBS])


def errors_mm(noise_m: float, people: int = 12) -> tuple[float, float]:
    """Of limb lengths, and of those of the mean body."""
    body = load_body()
    found: list[float] = []
    mean: list[float] = []
    for seed in range(people):
        rng = np.random.default_rng(1000 + seed)
        shape = body.draw(rng)
        estimate = fit(body, *seen(moving(body, shape, seed), rng, noise_m))
        found.append(float(np.abs(limbs_m(body, estimate) - limbs_m(body, shape)).mean()))
        mean.append(float(np.abs(limbs_m(body, np.zeros(16)) - limbs_m(body, shape)).mean()))
    return 1000 * float(np.mean(found)), 1000 * float(np.mean(mean))


def test_exact_joints_of_unknown_people_give_their_limbs_to_two_millimetres() -> None:
    found, mean = errors_mm(0.0)
    assert found < 1.5
    assert mean > 15


@pytest.mark.parametrize(("noise_m", "most"), [(0.01, 0.25), (0.025, 0.4)])
def test_joints_as_a_studio_sees_them_are_worth_most_of_the_way(noise_m: float, most: float) -> None:
    found, mean = errors_mm(noise_m)
    assert found < most * mean


def test_the_stature_follows_though_nobody_saw_the_head_s_top() -> None:
    body = load_body()
    rng = np.random.default_rng(3)
    for seed in range(6):
        shape = body.draw(rng)
        estimate = fit(body, *seen(moving(body, shape, seed), rng, 0.01))
        true, found, mean = (float(np.ptp(body.rest(k).vertices_m[:, 2])) for k in (shape, estimate, np.zeros(16)))
        assert abs(found - true) < max(0.035, 0.5 * abs(mean - true))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.floats(-np.pi, np.pi), st.integers(1, 20))
def test_neither_place_nor_direction_nor_order_matter(seed: int, turn: float, count: int) -> None:
    body = load_body()
    rng = np.random.default_rng(seed)
    xyz, sigma = seen(moving(body, body.draw(rng), seed, count), rng, 0.01)
    c, s = np.cos(turn), np.sin(turn)
    elsewhere = xyz @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T + (3, -2, 0.5)
    order = rng.permutation(count)
    np.testing.assert_allclose(fit(body, elsewhere[order], sigma[order]), fit(body, xyz, sigma), atol=1e-6)


def test_one_joint_that_is_known_badly_counts_less() -> None:
    body = load_body()
    rng = np.random.default_rng(8)
    shape = body.draw(rng)
    xyz = moving(body, shape, 8).joints_m("coco17").astype(np.float64)
    wrist = COCO17.index("left_wrist")
    xyz[:, wrist] = xyz[:, COCO17.index("left_elbow")] + 1.6 * (xyz[:, wrist] - xyz[:, COCO17.index("left_elbow")])
    sure = np.full(xyz.shape[:2], 0.005)
    unsure = sure.copy()
    unsure[:, wrist] = 0.3
    true = limbs_m(body, shape)
    wrong, right = (np.abs(limbs_m(body, fit(body, xyz, sigma)) - true).max() for sigma in (sure, unsure))
    assert right < 0.01 < wrong


def test_legs_that_were_never_seen_are_guessed_from_the_arms() -> None:
    body = load_body()
    rng = np.random.default_rng(4)
    found: list[float] = []
    mean: list[float] = []
    for seed in range(10):
        shape = body.draw(rng)
        xyz, sigma = seen(moving(body, shape, seed), rng, 0.005)
        xyz[:, [COCO17.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("knee", "ankle")]] = np.nan
        true = limbs_m(body, shape)
        found.append(float(np.abs(limbs_m(body, fit(body, xyz, sigma)) - true)[4:].mean()))
        mean.append(float(np.abs(limbs_m(body, np.zeros(16)) - true)[4:].mean()))
    assert np.mean(found) < 0.8 * np.mean(mean)


@pytest.mark.parametrize("count", [0, 1, 30])
def test_nothing_seen_is_the_mean_body(count: int) -> None:
    sigma = np.full((count, 17), 0.01)
    assert fit(load_body(), np.full((count, 17, 3), np.nan), sigma).tolist() == [0.0] * 16
    assert fit(load_body(), np.zeros((count, 17, 3)), np.full((count, 17), np.nan)).tolist() == [0.0] * 16


def test_joints_all_in_one_place_are_no_fault() -> None:
    shape = fit(load_body(), np.zeros((5, 17, 3)), np.full((5, 17), 0.01))
    assert np.isfinite(shape).all()


@pytest.mark.parametrize(("xyz", "sigma"), [((5, 18, 3), (5, 18)), ((5, 17, 3), (4, 17)), ((17, 3), (17,)), ((5, 17, 2), (5, 17))])
def test_arrays_of_another_shape_are_refused(xyz: tuple[int, ...], sigma: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"joints .* and their standard deviations .* are not \[T,17,3\] and \[T,17\]"):
        fit(load_body(), np.zeros(xyz), np.zeros(sigma))
