"""`follow` of smooth.vibe: joints stand where the cameras see them, and move as the network says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from node_kit import MS, T0_NS, Studio, caps, packet, poses
from vibe_kit import network

from posepipe.nodes._vibe_follow import Follow
from posepipe.nodes.smooth_vibe import SmoothVibe
from posepipe.pipeline.skeleton import COCO17

HIPS = [COCO17.index("left_hip"), COCO17.index("right_hip")]


def followed(answers: Any, measured: Any, *, hz: float = 60.0, seen: Any = None) -> Any:
    """One person: given [T,17,3] for answers and measured, each [T,17,3] or what becomes it."""
    answers, measured = np.broadcast_arrays(np.asarray(answers, np.float32), np.asarray(measured, np.float32))
    seen = np.ones(answers.shape[:2], np.bool_) if seen is None else seen
    follow, row = Follow(), np.zeros(1, np.int64)
    follow.grow(0)
    out = [
        follow.step(row, np.array([k == 0]), np.full(1, 1 / hz), answers[k : k + 1], measured[k : k + 1], seen[k : k + 1])[0][0]
        for k in range(len(answers))
    ]
    return np.stack(out)


def still(count: int, x_m: float = 0.0) -> Any:
    return np.full((count, 17, 3), x_m, np.float32)


@pytest.mark.parametrize("hz", [15.0, 30.0, 60.0, 120.0])
def test_what_the_cameras_agree_on_is_where_he_stands_after_half_a_second(hz: float) -> None:
    """However often he is seen."""
    out = followed(still(int(hz)), still(int(hz), 0.03), hz=hz)
    assert np.abs(out[0] - 0).max() < 0.03
    assert np.abs(out[int(hz / 2) :] - 0.03).max() < 0.002


def test_noise_of_the_key_points_does_not_come_through() -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, (120, 17, 3))
    out = followed(still(120), noise)[20:]
    shaken, calm = (np.linalg.norm(np.diff(x, 2, axis=0), axis=-1).mean() for x in (noise, out))
    assert calm < shaken / 10


def test_an_even_motion_is_not_late() -> None:
    away = 2 / 60 * np.arange(90)[:, None, None] * np.ones((1, 17, 3))  # 2 m/s along every axis
    assert np.abs(followed(away, away)[45:] - away[45:]).max() < 0.002


def test_a_joint_that_is_elsewhere_for_some_instants_pulls_hardly() -> None:
    measured = still(60)
    measured[30:33, 9] = 0.6
    out = followed(still(60), measured)
    assert np.abs(out[:, 9]).max() < 0.05
    assert np.abs(np.delete(out, 9, axis=1)).max() == 0


def test_a_joint_that_is_not_seen_stays_as_far_from_the_answer() -> None:
    answers, measured, seen = still(120), still(120, 0.03), np.ones((120, 17), np.bool_)
    answers[60:] += 0.1
    measured[60:], seen[60:] = np.nan, False
    assert np.abs(followed(answers, measured, seen=seen)[-1] - 0.13).max() < 0.002


def test_people_have_rows_of_their_own_and_begin_at_the_answer() -> None:
    follow = Follow()
    for row in range(3):
        follow.grow(row)
    rows, since_s, seen = np.array([2, 0]), np.full(2, 1 / 30), np.ones((2, 17), np.bool_)
    both = np.concatenate([still(1, 1.0), still(1, -1.0)])
    for k in range(30):
        out, moved = follow.step(rows, np.full(2, k == 0), since_s, both, both + np.float32([[[0.02]], [[0.0]]]), seen)
    np.testing.assert_allclose(out[0], 1.02, atol=2e-3)
    np.testing.assert_allclose(out[1], -1.0, atol=1e-6)
    np.testing.assert_allclose(moved, [[0.02] * 3, [0] * 3], atol=2e-3)
    out, _ = follow.step(rows[:1], np.ones(1, np.bool_), since_s[:1], still(1, 5.0), still(1, 5.0), seen[:1])
    np.testing.assert_allclose(out[0], 5.0)


@given(st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=30), st.floats(0.004, 0.5))
def test_it_is_never_further_from_the_answer_than_what_is_measured(places: list[float], since_s: float) -> None:
    measured = np.array(places, np.float32)[:, None, None] * np.ones((1, 17, 3), np.float32)
    out = followed(still(len(places)), measured, hz=1 / since_s)
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= np.abs(measured).max() + 1e-6


def test_the_body_goes_with_the_joints(tmp_path: Path) -> None:
    engine, rng = network(tmp_path), np.random.default_rng(1)
    path = [poses(rng.normal(0, 0.02, (1, 17, 3)) + 0.01 * k, skeleton="coco17") for k in range(20)]
    given_by: dict[bool, Any] = {}
    for follow in (False, True):
        node = SmoothVibe(SmoothVibe.Settings(engine=engine, follow=follow))
        node.open(Studio().context(caps=caps("poses", skeleton="coco17"), offline=True, engines={"runtime": "onnxruntime", "threads": 1}))
        given_by[follow] = [p.body for k, body in enumerate(path) for p in node.step(packet(body, seq=k, t_ns=T0_NS + 33 * k * MS))]
        node.close()
    for with_it, without in zip(given_by[True], given_by[False], strict=True):
        moved = (with_it.xyz_m - without.xyz_m)[:, HIPS].mean(axis=1)
        np.testing.assert_allclose(with_it.bodies.root_m - without.bodies.root_m, moved, atol=1e-5)
        np.testing.assert_array_equal(with_it.bodies.pose, without.bodies.pose)
    assert np.abs(given_by[True][-1].xyz_m - given_by[False][-1].xyz_m).max() > 1e-3
