"""The view in space: left is left, everyone is in it, and trails last as long as their person."""

from __future__ import annotations

import numpy as np
from mosaic_kit import CAMERAS, RIG, nobody, standing

from posepipe.nodes._scene import Scene, _Eye
from posepipe.pipeline.packet import Poses
from posepipe.pipeline.skeleton import COCO17


def test_left_and_right_in_space_follow_the_view() -> None:
    """Seen from the front (the person faces the eye), the left hand is on the right of the picture."""
    eye = _Eye(np.array([0, 0, 1.0]), -np.pi / 2, 400, 400)  # the eye is at -y
    body = standing().xyz_m[0].astype(np.float64)
    uv, depth = eye.project(body)
    assert uv[COCO17.index("right_wrist"), 0] < uv[COCO17.index("nose"), 0] < uv[COCO17.index("left_wrist"), 0]
    assert uv[COCO17.index("nose"), 1] < uv[COCO17.index("left_ankle"), 1]
    np.testing.assert_allclose(eye.uv(np.array([0, 0, 1.0])), (0.58 * 400, 200), atol=1e-6)
    assert (depth > 0).all()


def test_what_is_behind_the_eye_is_nowhere() -> None:
    eye = _Eye(np.array([0, 0, 1.0]), 0.0, 400, 400)
    assert np.isnan(eye.uv(np.array([100.0, 0, 1.0]))).all()


def test_trails_fade_when_a_person_has_gone() -> None:
    scene = Scene(RIG)
    for x in range(10):
        scene.remember(standing(x_m=x / 10), COCO17)
    assert len(scene._trails[5]) == 10
    for _ in range(10):
        scene.remember(nobody(), COCO17)
    assert scene._trails == {}


def test_the_view_steps_back_for_people_far_apart() -> None:
    scene, body = Scene(RIG), standing(x_m=-2)
    other = standing(x_m=2)
    stacked = {k: np.concatenate((getattr(body, k), getattr(other, k))) for k in ("xyz_m", "conf", "sigma_m", "reproj_px", "views_used")}
    scene.remember(Poses(CAMERAS, "coco17", body.sync, "algebraic", np.array([5, 6]), **stacked), COCO17)
    view = _Eye(scene._target, -np.pi / 2, 400, 400, shown_m=scene._shown_m)
    uv = view.uv(stacked["xyz_m"].astype(np.float64))
    assert (uv > 0).all()
    assert (uv < 400).all()


def test_a_trail_needs_no_hips() -> None:
    body = standing()
    body.conf[0, [COCO17.index("left_hip"), COCO17.index("right_hip")]] = 0
    scene = Scene(None)
    scene.remember(body, COCO17)
    assert np.isfinite(scene._trails[5][0]).all()
    body.conf[:] = 0
    scene.remember(body, COCO17)
    assert len(scene._trails[5]) == 1, "a person without a joint has no place"
