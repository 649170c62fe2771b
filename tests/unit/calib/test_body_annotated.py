"""Key points by the joints: a little off the heads of the bones, the same on both sides, and moving with the body."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.calib.body import load_body
from posepipe.pipeline.skeleton import BODY25, COCO17

BODY = load_body()
LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")


def posed(turn: np.ndarray):  # type: ignore[no-untyped-def]
    return BODY.pose(np.zeros(BODY.shapes), np.broadcast_to(turn, (1, len(BODY.bones), 3, 3)), np.zeros((1, 3)))


def off(turn: np.ndarray, name: str) -> np.ndarray:
    """A key point against the head of its bone."""
    still = posed(turn)
    return np.asarray(still.joints_m("coco17")[0, COCO17.index(name)] - still.heads_m[0, BODY.bones.index(name)])


@pytest.mark.parametrize("limb", LIMBS)
def test_a_point_lies_near_its_joint_and_both_sides_are_mirrored(limb: str) -> None:
    left, right = off(np.eye(3), f"left_{limb}"), off(np.eye(3), f"right_{limb}")
    assert np.linalg.norm(left) < 0.035
    np.testing.assert_allclose(left, right * [-1, 1, 1], atol=2e-3)


@pytest.mark.parametrize("limb", LIMBS)
def test_it_turns_with_the_body(limb: str) -> None:
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(off(quarter, f"left_{limb}"), quarter @ off(np.eye(3), f"left_{limb}"), atol=1e-5)


def test_shoulders_lie_higher_and_hips_further_in_front_and_inside() -> None:
    assert off(np.eye(3), "left_shoulder")[2] == pytest.approx(0.025, abs=1e-5)
    np.testing.assert_allclose(off(np.eye(3), "left_hip"), [-0.02, -0.02, 0], atol=1e-5)
    np.testing.assert_allclose(off(np.eye(3), "right_wrist"), 0, atol=1e-5)


def test_neck_and_mid_hip_are_between_them() -> None:
    points = posed(np.eye(3)).joints_m("body25")[0]
    for name, limb in (("neck", "shoulder"), ("mid_hip", "hip")):
        between = (points[BODY25.index(f"left_{limb}")] + points[BODY25.index(f"right_{limb}")]) / 2
        np.testing.assert_allclose(points[BODY25.index(name)], between, atol=1e-6)
