"""Random rigs: cameras that see the middle through lenses that do not fold; shaking and clocks of the size that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.calib import project
from posepipe.calib.synthetic_rig import capture_times, covers, look_at, middle, random_rig, shaken
from posepipe.pipeline.errors import RigError


@given(st.integers(0, 10**6), st.integers(2, 16))
@settings(max_examples=20)
def test_every_camera_sees_the_middle_of_the_room(seed: int, count: int) -> None:
    rig = random_rig(np.random.default_rng(seed), count, (640, 480))
    assert rig.names == tuple(f"cam{c + 1}" for c in range(count))
    people = np.array([[0, 0, 1.0], [0.2, 0.2, 0.6], [-0.2, 0, 1.4]])
    assert project(rig, people).visible.all()
    for camera in rig.cameras:
        assert covers(camera)
        assert 1.2 <= camera.centre_m[2] <= 3.0
        assert 0.69 * 640 < camera.matrix[0, 0] < 1.31 * 640
        assert camera.camera_from_world[1, 2] < -0.7, "upside down"
    centres = np.stack([c.centre_m for c in rig.cameras])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + 9 * np.eye(count)
    assert apart.min() > 0.5
    assert np.linalg.norm(middle(rig)[:2]) < 0.6 or count == 2, "two that face each other do not tell how far away it is"


def test_a_seed_is_a_rig() -> None:
    one, same, other = (random_rig(np.random.default_rng(seed), 4, (640, 480)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.camera_from_world, same.camera_from_world)
    np.testing.assert_array_equal(one.distortion, same.distortion)
    assert np.abs(one.camera_from_world - other.camera_from_world).max() > 0.1


@pytest.mark.parametrize("count", [0, 1, 17])
def test_too_few_or_too_many_cameras(count: int) -> None:
    with pytest.raises(RigError, match=rf"{count} cameras\n  -> a synthetic studio has 2 to 16"):
        random_rig(np.random.default_rng(0), count, (640, 480))


def test_looking_at_a_point_puts_it_on_the_axis_and_up_is_up() -> None:
    pose = look_at(np.array([3.0, -2.0, 2.5]), np.array([0.1, 0.2, 1.0]))
    on_axis, above = (pose[:, :3] @ np.array(p) + pose[:, 3] for p in ([0.1, 0.2, 1.0], [0.1, 0.2, 1.5]))
    np.testing.assert_allclose(on_axis[:2], 0, atol=1e-12)
    assert on_axis[2] > 0
    assert above[1] < on_axis[1]
    np.testing.assert_allclose(pose[:, :3] @ pose[:, :3].T, np.eye(3), atol=1e-12)


def test_shaking_moves_cameras_by_what_was_asked() -> None:
    rig = random_rig(np.random.default_rng(3), 3, (640, 480))
    poses = shaken(np.random.default_rng(4), rig, 400, 5.0)
    np.testing.assert_allclose(poses[..., :3] @ poses[..., :3].swapaxes(-1, -2), np.broadcast_to(np.eye(3), (3, 400, 3, 3)), atol=1e-9)
    moved = (
        poses[..., :3] @ [0, 0, 1.0]
        + poses[..., 3]
        - (rig.camera_from_world[:, None, :, :3] @ [0, 0, 1.0] + rig.camera_from_world[:, None, :, 3])
    )
    assert 3e-3 < moved.std(axis=1).mean() < 15e-3
    still = shaken(np.random.default_rng(4), rig, 10, 0.0)
    np.testing.assert_array_equal(still, np.repeat(rig.camera_from_world[:, None], 10, axis=1))


def test_clocks_drift_by_no_more_than_was_asked() -> None:
    exact = capture_times(np.random.default_rng(0), 3, 90, 30.0, 0.0)
    np.testing.assert_array_equal(exact, np.tile(np.arange(90) / 30.0, (3, 1)))
    off = capture_times(np.random.default_rng(0), 3, 9000, 30.0, 200.0) - np.arange(9000) / 30.0
    assert (off[0] == 0).all()
    assert np.abs(off[1:, 0]).max() <= 0.25 / 30
    assert np.abs(off[1:, -1] - off[1:, 0]).min() > 0
    assert np.abs(off[1:, -1] - off[1:, 0]).max() <= 200e-6 * 300
