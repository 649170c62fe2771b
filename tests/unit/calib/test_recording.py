"""The calibration of the four-camera recording means what we take it to mean: cameras around a floor, z up, looking at one place."""

import numpy as np
import pytest

from posepipe.calib import load_rig, project
from posepipe.engines.assets import asset
from posepipe.pipeline.errors import RigError

RECORDING = asset("pose2sim.single")

pytestmark = [
    pytest.mark.recording,
    pytest.mark.skipif(not RECORDING.present(), reason=f"needs {RECORDING.folder}: run `posepipe pull pose2sim.single`"),
]


@pytest.fixture(scope="module")
def rig():
    return load_rig(RECORDING.path("Calib.qca.txt"))


def test_cameras_stand_around_a_floor_and_look_down_at_one_place(rig):
    centres = np.array([c.centre_m for c in rig.cameras])
    forward = rig.camera_from_world[:, 2, :3]
    down = rig.camera_from_world[:, 1, :3]
    assert rig.names == ("cam01", "cam02", "cam03", "cam04")
    assert ((centres[:, 2] > 1.5) & (centres[:, 2] < 2.5)).all()
    assert (forward[:, 2] < 0).all()
    assert (down[:, 2] < -0.8).all()
    normals = np.eye(3) - forward[:, :, None] * forward[:, None]
    meeting = np.linalg.solve(normals.sum(0), (normals @ centres[..., None])[..., 0].sum(0))
    off = np.linalg.norm((normals @ (meeting - centres)[..., None])[..., 0], axis=1)
    assert off.max() < 0.6
    assert 0.2 < meeting[2] < 1.6


def test_a_person_in_the_middle_is_in_all_four_pictures(rig):
    seen = project(rig, np.array([[-0.8, 0.1, 0.1], [-0.8, 0.1, 1.0], [-0.8, 0.1, 1.7]]))
    assert seen.visible.all()
    assert (np.diff(seen.uv_px[:, :, 1], axis=1) < -200).all(), "higher in the world is higher in the picture"


def test_its_rescaled_videos_are_refused_without_an_image_transform(rig):
    with pytest.raises(RigError, match=r"cam01: \{scale: \[1\.0074, 1\.0000\], offset_px: \[0, 0\]\}"):
        rig.check_videos({"cam01": (1080, 1920), "cam03": (1088, 1920)}, where="studio.yaml")
    rig.check_videos({"cam03": (1088, 1920), "cam04": (1088, 1920)}, where="studio.yaml")
