"""The picture of a studio shows what is there: judged by what stands where, not by its bytes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mosaic_kit import HEIGHT, RIG, WIDTH, frames, mosaic, near, nobody, packet, painted, standing

from posepipe.calib.project import project
from posepipe.nodes._canvas import AMBER, GREEN, SIDES
from posepipe.nodes.view_mosaic import Mosaic, arrange
from posepipe.pipeline.skeleton import COCO17

# arrangement ----------------------------------------------------------------------------------------------------------------


@given(cameras=st.integers(1, 16), aspect=st.floats(0.5, 2.4), width=st.integers(480, 3840))
def test_nothing_overlaps_and_all_is_inside(cameras: int, aspect: float, width: int) -> None:
    cells, scene, (w, h) = arrange(cameras, aspect, width, 40)
    assert w == width
    assert h % 2 == 0
    assert len(cells) == cameras
    covered = np.zeros((h, w), np.uint8)
    for rect in (*cells, scene):
        assert min(rect.width, rect.height) >= 16
        part = rect.of(covered)
        assert part.shape == (rect.height, rect.width)
        part += 1
    assert covered.max() == 1
    assert scene.width >= 0.2 * w


# the whole picture ----------------------------------------------------------------------------------------------------------


def in_cell(m: Mosaic, camera: int, points_m: Any) -> Any:
    """Pixels of the picture [N,2] of world points, through the calibration."""
    cell = m.cells[camera]
    uv = project(RIG, np.asarray(points_m, np.float64)).uv_px[camera]
    scale = min(cell.width / WIDTH, cell.height / HEIGHT)
    offset = ((cell.width - WIDTH * scale) / 2 + cell.x, (cell.height - HEIGHT * scale) / 2 + cell.y)
    return uv * scale + offset


def test_skeletons_stand_where_the_calibration_puts_them() -> None:
    m, body = mosaic(), standing()
    picture = painted(m, body)
    assert picture.shape == (*m.size_px[::-1], 3)
    for camera in range(3):
        for side, joints in ((1, ("left_wrist", "left_knee")), (2, ("right_wrist", "right_knee"))):
            for u, v in in_cell(m, camera, body.xyz_m[0, [COCO17.index(j) for j in joints]]):
                around = picture[round(v) - 3 : round(v) + 4, round(u) - 3 : round(u) + 4]
                if camera == 1:  # from the side the legs hide each other
                    assert near(around, SIDES[1]).any() or near(around, SIDES[2]).any()
                else:
                    assert near(around, SIDES[side]).any(), (camera, joints)
        cell = m.cells[camera].of(picture)
        colourful = (cell.max(axis=2).astype(int) - cell.min(axis=2)) > 60
        height = np.flatnonzero(colourful.any(axis=1))
        (_, top), (_, bottom) = in_cell(m, camera, [[0, 0, 1.65], [0, 0, 0.08]]) - (0, m.cells[camera].y)
        assert abs(height.min() - top) < 8, "nothing colourful above the head"
        assert abs(height.max() - bottom) < 12, "nor below the feet"


def test_without_a_rig_there_are_skeletons_in_space_only() -> None:
    m = mosaic(None)
    picture = painted(m, standing())
    for cell in m.cells:
        part = cell.of(picture)
        assert not near(part, SIDES[1]).any()
        assert not near(part, SIDES[2]).any()
    scene = m.scene_at.of(picture)
    assert near(scene, SIDES[1]).sum() > 50
    assert near(scene, SIDES[2]).sum() > 50


def test_a_missing_camera_is_grey_with_its_last_picture_and_says_so() -> None:
    m = mosaic()
    painted(m, standing(), frames(luma=180))
    picture = painted(m, standing(), frames(missing=("east",)))
    gone, there = (m.cells[i].of(picture) for i in (1, 0))
    label = near(gone, AMBER, 40)
    assert label.sum() > 30
    assert not near(there, AMBER, 40).any()
    rest = gone[~cv2.dilate(label.astype(np.uint8), np.ones((5, 5))).astype(bool)]
    assert np.ptp(rest.astype(int), axis=1).mean() < 3, "no colour but the label's"
    assert 30 < np.median(rest) < 90, "the last picture, darkened"


def test_a_camera_that_never_came_is_an_empty_panel() -> None:
    m = Mosaic(frames(missing=("east",)), RIG, studio="hall", width_px=1280, offline=True)
    picture = painted(m, standing(), frames(missing=("east",)))
    assert near(m.cells[1].of(picture), AMBER, 40).sum() > 30


def test_nobody_there_draws_nobody() -> None:
    m = mosaic()
    picture = painted(m, nobody())
    for cell in m.cells:
        assert not near(cell.of(picture), SIDES[1]).any()


@pytest.mark.parametrize("width_px", [480, 1280, 2560])
def test_the_person_is_large_in_space_and_the_map_has_cameras_and_people(width_px: int) -> None:
    m = mosaic(width_px=width_px)
    for x in np.linspace(-0.5, 0.5, 20):
        m.remember(standing(x_m=float(x)))
    picture = m.paint(frames(), packet(standing(x_m=0.5)), [""])
    scene = m.scene_at.of(picture)
    rows = np.flatnonzero((near(scene, SIDES[1]) | near(scene, SIDES[2]))[: round(0.9 * len(scene))].any(axis=1))
    assert 0.4 < np.ptp(rows) / len(scene) < 0.8
    at = m._map_at
    assert near(at.of(picture), GREEN, 30).sum() > 10


@settings(deadline=None, max_examples=20)
@given(x=st.floats(-200, 200), y=st.floats(-200, 200), z=st.floats(-50, 50), sigma=st.one_of(st.floats(0, 100), st.just(float("nan"))))
def test_people_anywhere_are_painted_or_left_out_but_never_a_fault(x: float, y: float, z: float, sigma: float) -> None:
    body = standing()
    body.xyz_m[0] += np.array([x, y, z], np.float32)
    body.xyz_m[0, 3] = np.nan
    body.sigma_m[:] = sigma
    m = mosaic(width_px=480)
    assert painted(m, body, words=["walking"]).shape[1] == 480


def test_what_somebody_does_stands_over_his_head_and_nowhere_else() -> None:
    plain, said = (painted(mosaic(), standing(), words=[words]) for words in ("", "walking"))
    m, changed = mosaic(), (plain != said).any(axis=2)
    outside = changed.copy()
    for camera, cell in enumerate(m.cells):
        rows, columns = np.nonzero(cell.of(changed))
        (head_u, head_v), (_, chest_v) = in_cell(m, camera, [[0, 0, 1.65], [0, 0, 1.2]]) - (cell.x, cell.y)
        assert 0 < head_v - rows.max() < 2.5 * m._label_px
        assert abs((columns.min() + columns.max()) / 2 - head_u) < 0.1 * cell.width
        assert chest_v > rows.max()
        cell.of(outside)[:] = False
    scene = m.scene_at.of(outside)
    rows = np.flatnonzero(scene.any(axis=1))
    person = near(m.scene_at.of(plain), SIDES[1]) | near(m.scene_at.of(plain), SIDES[2])
    assert rows.max() < np.flatnonzero(person[: round(0.9 * len(person))].any(axis=1)).min()
    scene[:] = False
    assert not outside.any()


@pytest.mark.parametrize(("x_m", "z_m"), [(-1.7, 0.0), (1.7, 0.0), (0.0, 1.2), (0.0, -1.2)])
def test_words_at_the_edge_stay_in_the_picture(x_m: float, z_m: float) -> None:
    body = standing(x_m=x_m)
    body.xyz_m[0, :, 2] += z_m
    word = "an action with a rather long name"
    plain, said = (painted(mosaic(), body, words=[words]) for words in ("", word))
    middle = painted(mosaic(), standing(), words=[word])
    cell = mosaic().cells[0]
    written = [
        int((cell.of(picture) != cell.of(blank)).any(axis=2).sum())
        for picture, blank in ((said, plain), (middle, painted(mosaic(), standing())))
    ]
    assert written[0] > 0.5 * written[1]
