"""The movements that need no recording: of people, on the floor, smooth, and their rotations agree with their joints."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.calib.synthetic_motion import _TREE, SEGMENTS, Movement, movements

MOVEMENTS = movements(seconds=6.0)


def turned(quat: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Vectors [3] turned by quaternions x y z w [T,4]."""
    axis, w = quat[:, :3], quat[:, 3:]
    across = np.cross(axis, vector)
    return np.asarray(vector + 2 * (w * across + np.cross(axis, across)))


@pytest.mark.parametrize("one", MOVEMENTS, ids=lambda m: m.name)
def test_a_movement_is_a_persons(one: Movement) -> None:
    joints = one.joints24_m
    assert joints.shape == (360, 24, 3)
    assert np.isfinite(joints).all()
    assert np.abs(joints[:, [10, 11], 2].min(axis=1) - 0.02).max() < 1e-9, "no foot on the floor"
    assert (joints[:, 15, 2] > 0.7).all()
    assert np.linalg.norm(np.diff(joints, axis=0), axis=-1).max() * one.fps < 6.0, "faster than six metres a second"
    assert np.abs(joints[:, 0, :2]).max() < 1.2


@pytest.mark.parametrize("one", MOVEMENTS, ids=lambda m: m.name)
def test_rotations_and_joints_tell_the_same(one: Movement) -> None:
    y_up = np.stack([one.joints24_m[..., 0], one.joints24_m[..., 2], -one.joints24_m[..., 1]], axis=-1)
    assert np.abs(np.linalg.norm(one.segment_quat_xyzw, axis=-1) - 1).max() < 1e-9
    for joint, parent, segment, direction, length_m in _TREE:
        rest = length_m * np.array(direction) / np.linalg.norm(direction)
        expected = turned(one.segment_quat_xyzw[:, SEGMENTS.index(segment)], rest)
        assert np.abs(y_up[:, joint] - y_up[:, parent] - expected).max() < 1e-9, (joint, segment)
    assert np.abs(y_up[:, 0] - one.root_m).max() < 1e-9


def test_the_walker_goes_where_it_faces_and_its_left_is_left() -> None:
    walk = MOVEMENTS[0].joints24_m
    left = walk[:, 1] - walk[:, 2]
    forward = np.cross(left[:-1], [0.0, 0.0, 1.0])
    moved = np.diff(walk[:, 0], axis=0) * [1, 1, 0]  # it bobs too
    cosine = np.sum(forward * moved, axis=1) / np.linalg.norm(forward, axis=1) / np.linalg.norm(moved, axis=1)
    assert cosine.min() > 0.9
    toes = walk[:-1, 10] - walk[:-1, 7]
    assert (np.sum(toes * forward, axis=1) > 0).all()


def test_knees_and_elbows_bend_as_they_can() -> None:
    for one in MOVEMENTS:
        j = one.joints24_m
        for hip, knee, ankle, toe in ((1, 4, 7, 10), (2, 5, 8, 11)):
            straight = (j[:, hip] + j[:, ankle]) / 2
            front = (j[:, toe] - j[:, ankle]) * [1, 1, 0]
            bend = np.sum((j[:, knee] - straight) * front, axis=1)
            assert (bend > -0.005).all(), (one.name, "the knee bends backwards")


def test_a_squat_goes_down() -> None:
    height = MOVEMENTS[2].joints24_m[:, 0, 2]
    assert height.max() > 0.85
    assert height.min() < 0.65
