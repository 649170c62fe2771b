"""A rig refuses what is not one, and says what to write."""

import numpy as np
import pytest
from people import looking_at
from rigs import LENS, MATRIX, camera, ring

from posepipe.calib import Camera, ImageTransform, Rig
from posepipe.pipeline.errors import RigError


def test_centre_is_where_the_camera_was_put():
    assert camera(centre_m=(1.5, -2.0, 1.9)).centre_m == pytest.approx([1.5, -2.0, 1.9])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "a camera without a name"),
        ({"width_px": 0}, "image size 0x1920"),
        ({"matrix": np.diag([-1.0, 1, 1])}, "focal length -1"),
        ({"matrix": MATRIX.T}, "is it transposed"),
        ({"matrix": MATRIX[:2]}, "matrix has shape [2, 3], not [3, 3]"),
        ({"matrix": MATRIX * np.nan}, "matrix holds a number that is not finite"),
        ({"distortion": np.arange(8.0)}, "8 distortion coefficients"),
        ({"distortion": np.array([np.inf])}, "distortion holds a number that is not finite"),
        ({"camera_from_world": np.diag([1.0, 1, -1]) @ looking_at((4, 0, 2))}, "det R = -1"),
        ({"camera_from_world": 2 * looking_at((4, 0, 2))}, "the rotation is not one"),
        ({"camera_from_world": np.full((3, 4), np.nan)}, "camera_from_world holds a number that is not finite"),
    ],
)
def test_a_camera_that_is_none_is_refused(change, message):
    good = {
        "name": "north",
        "width_px": 1088,
        "height_px": 1920,
        "matrix": MATRIX,
        "distortion": LENS,
        "camera_from_world": looking_at((4, 0, 2)),
    }
    with pytest.raises(RigError) as error:
        Camera(**(good | change))
    assert message in str(error.value)
    assert error.value.hint


def test_a_rounded_rotation_becomes_an_exact_one():
    pose = np.round(looking_at((4, 1, 2)), 5)
    rotation = Camera("a", 10, 10, MATRIX, LENS, pose).camera_from_world[:, :3]
    assert np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-14
    assert np.abs(rotation - pose[:, :3]).max() < 2e-5


def test_arrays_cannot_be_written_and_short_distortion_is_padded():
    rig = Rig((camera(distortion=np.array([-0.1, 0.02])),))
    assert rig.cameras[0].distortion.tolist() == [-0.1, 0.02, 0, 0, 0]
    for array in (rig.camera_from_world, rig.focal_px, rig.normal_from_video, rig.cameras[0].matrix):
        with pytest.raises(ValueError, match="read-only"):
            array.flat[0] = 0


@pytest.mark.parametrize("numbers", [{"scale": (0.0, 1.0)}, {"scale": (1.0, float("nan"))}, {"offset_px": (float("inf"), 0.0)}])
def test_an_image_transform_that_is_none_is_refused(numbers):
    with pytest.raises(RigError, match="two positive scales"):
        ImageTransform(**numbers)


def test_names_must_differ():
    with pytest.raises(RigError, match="camera 'a' is there twice"):
        Rig((camera("a"), camera("a", (0, 4, 2))))
    with pytest.raises(RigError, match="a rig without cameras"):
        Rig(())


def test_millimetres_are_recognised_and_the_line_to_write_is_told():
    far = tuple(camera(n, c) for n, c in (("a", (4000, 0, 2000)), ("b", (-3500, 900, 2000))))
    with pytest.raises(RigError) as error:
        Rig(far, where="calib.toml")
    assert "seems to be in millimetres" in str(error.value)
    assert 'units = "mm"' in str(error.value)
    assert len(Rig(far, units_stated=True)) == 2


def test_select_orders_and_names_both_lists():
    rig = ring(3)
    assert rig.select(["cam03", "cam01"]).names == ("cam03", "cam01")
    with pytest.raises(RigError) as error:
        rig.select(["cam01", "cam04"])
    message = str(error.value)
    assert "lacks camera 'cam04'" in message
    assert "it has cam01, cam02, cam03, the studio has cam01, cam04" in message
    assert "did you mean" in message


def test_videos_of_the_calibrated_size_pass_and_unused_cameras_do_not_matter():
    ring(4).check_videos({"cam02": (1088, 1920)}, where="studio.yaml")


def test_a_video_of_another_size_is_refused_with_the_line_to_add():
    with pytest.raises(RigError) as error:
        ring(2).check_videos({"cam01": (1080, 1920)}, where="studio.yaml")
    message = str(error.value)
    assert message.startswith("studio.yaml: camera 'cam01' was calibrated at 1088x1920, its video is 1080x1920")
    assert "image: {cam01: {scale: [1.0074, 1.0000], offset_px: [0, 0]}}" in message
    assert "verify it" in message


def test_the_proposed_line_maps_picture_corners_onto_picture_corners():
    with pytest.raises(RigError) as error:
        ring(2).check_videos({"cam01": (544, 960)}, where="studio.yaml")
    assert "scale: [2.0000, 2.0000], offset_px: [0.5, 0.5]" in str(error.value)


def test_an_image_transform_is_checked_against_the_video():
    rig = ring(2).with_image({"cam01": ImageTransform((1.0074, 1.0074), (0.0, -7.3))})
    rig.check_videos({"cam01": (1080, 1920), "cam02": (1088, 1920)}, where="studio.yaml")
    with pytest.raises(RigError, match=r"maps v of the 1080x3840 video to -8..3861"):
        rig.check_videos({"cam01": (1080, 3840)}, where="studio.yaml")


def test_an_image_transform_for_an_unknown_camera_is_refused():
    with pytest.raises(RigError, match=r"names camera 'cam1', which the calibration does not have[\s\S]*did you mean 'cam02'|did you mean"):
        ring(2).with_image({"cam1": ImageTransform()})
