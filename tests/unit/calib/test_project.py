"""Projection against OpenCV, and back again."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import LENS, MATRIX, camera, ring

from posepipe.calib import ImageTransform, Rig, project, undistort

lenses = st.tuples(
    st.floats(-0.3, 0.3), st.floats(-0.1, 0.2), st.floats(-0.003, 0.003), st.floats(-0.003, 0.003), st.floats(-0.05, 0.05)
).map(np.array)
images = st.builds(ImageTransform, st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)), st.tuples(st.floats(-100, 100), st.floats(-100, 100)))


def test_projection_is_opencvs():
    rig = ring(4)
    xyz = np.random.default_rng(1).uniform([-1, -1, 0], [1, 1, 2], (200, 3))
    ours = project(rig, xyz)
    for k, c in enumerate(rig.cameras):
        rotation, translation = c.camera_from_world[:, :3], c.camera_from_world[:, 3]
        theirs = cv2.projectPoints(xyz, cv2.Rodrigues(rotation)[0], translation, c.matrix, c.distortion)[0][:, 0]
        assert ours.uv_px[k] == pytest.approx(theirs, abs=1e-8)
        assert ours.depth_m[k] == pytest.approx(xyz @ rotation[2] + translation[2])


def test_the_image_transform_maps_video_pixels_onto_calibration_pixels():
    image = ImageTransform((1.0074, 1.01), (3.0, -7.3))
    plain, cropped = Rig((camera(),)), Rig((camera(image=image),))
    xyz = np.array([[0.1, 0.2, 1.1], [-0.3, 0.1, 0.4]])
    in_video, in_calibration = project(cropped, xyz).uv_px, project(plain, xyz).uv_px
    assert in_video * image.scale + image.offset_px == pytest.approx(in_calibration)
    assert undistort(cropped, in_video[None]) == pytest.approx(undistort(plain, in_calibration[None]), abs=1e-12)


def test_points_behind_the_camera_and_outside_of_the_picture():
    rig = Rig((camera(centre_m=(4, 0, 1)),))
    seen = project(rig, np.array([[0, 0, 1.0], [8, 0, 1.0], [0, 0, 3.5]]))
    assert seen.visible[0].tolist() == [True, False, False]
    assert np.isnan(seen.uv_px[0, 1]).all()
    assert seen.uv_px[0, 2, 1] < 0
    assert seen.depth_m[0] == pytest.approx([4, -4, 4])


def test_a_folding_lens_gives_nothing_beyond_its_fold():
    rig = Rig((camera(centre_m=(4, 0, 1), distortion=np.array([-0.4])),))
    radius = np.sqrt(1 / (3 * 0.4))
    assert rig.fold_radius[0] == pytest.approx(radius)
    uv = project(rig, np.array([[0, 0, 1 + 4 * 0.99 * radius], [0, 0, 1 + 4 * 1.01 * radius]])).uv_px[0]
    assert np.isfinite(uv[0]).all()
    assert np.isnan(uv[1]).all()
    unreachable = np.array([[[[540.0, 955 - 1675 * radius]]]])
    assert np.isnan(undistort(rig, unreachable)).all()


def test_nan_stays_nan_and_spoils_nothing_else():
    uv = np.full((2, 1, 3, 2), 700.0, np.float32)
    uv[1, 0, 1, 0] = np.nan
    rays = undistort(Rig((camera(),)), uv)
    assert np.isnan(rays[1, 0, 1]).all()
    assert np.isfinite(rays).sum() == rays.size - 2


@settings(max_examples=150, deadline=None)
@given(lens=lenses, image=images, seed=st.integers(0, 1000))
def test_a_pixel_undistorted_is_the_ray_it_came_from(lens, image, seed):
    rig = Rig((camera(centre_m=(4, 0, 1), distortion=lens, image=image),))
    xyz = np.random.default_rng(seed).uniform([-1, -1.2, 0], [1, 1.2, 2.4], (20, 3))
    in_camera = xyz @ rig.camera_from_world[0, :, :3].T + rig.camera_from_world[0, :, 3]
    truth = in_camera[:, :2] / in_camera[:, 2:]
    inside = np.hypot(*truth.T) < 0.75 * rig.fold_radius[0]
    uv = project(rig, xyz).uv_px
    rays = undistort(rig, uv[None])[0, 0]
    assert rays[inside] == pytest.approx(truth[inside], abs=1e-9)


def test_undistortion_is_opencvs():
    rig = Rig((camera(),))
    uv = np.random.default_rng(2).uniform([0, 0], [1088, 1920], (1, 1, 50, 2))
    theirs = cv2.undistortPoints(uv[0, 0], MATRIX, LENS, criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-14))
    assert undistort(rig, uv)[0, 0] == pytest.approx(theirs[:, 0], abs=1e-9)
