"""People drawn for training: what they are seen as follows from where they are."""

import numpy as np
import pytest

from posepipe.calib.cube import cube_around
from posepipe.calib.posebank import Track
from posepipe.calib.project import project
from posepipe.calib.samples import CELLS, Sampler, algebraic, look, place, random_rig, volume_of
from posepipe.calib.sides import exchange_maps, mirror_of
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17
from tests.people import standing

STANDING_M = standing()[[BLAZEPOSE33.index(joint) for joint in COCO17.joints]]
TRACK = Track("walk", "walk", 30.0, np.repeat(STANDING_M[None].astype(np.float32), 5, axis=0), np.zeros(16, np.float32))


def test_the_same_seed_draws_the_same() -> None:
    one, two = (Sampler([TRACK], seed=7).draw() for _ in range(2))
    for name in ("truth_m", "rois", "maps", "uv_px", "conf", "hidden"):
        assert np.array_equal(getattr(one, name), getattr(two, name), equal_nan=True), name
    assert not np.array_equal(one.truth_m, Sampler([TRACK], seed=8).draw().truth_m)


@pytest.mark.parametrize("views", [2, 3, 4])
def test_so_many_cameras_see_the_person_as_asked(views: int) -> None:
    sampler = Sampler([TRACK], seed=1, views={views: 1.0})
    counts = [sampler.draw().views for _ in range(20)]
    assert max(counts) == views
    assert min(counts) >= 2
    assert np.mean(counts) > views - 0.5


def test_key_points_lie_where_the_joints_are_seen() -> None:
    sampler = Sampler([TRACK], seed=3, occlusion=0.0)
    errors = []
    for _ in range(30):
        seen = sampler.draw()
        off = np.linalg.norm(seen.uv_px - project(seen.rig, seen.truth_m).uv_px, axis=2) / seen.rois[:, 2:3]
        errors.append(off[~seen.hidden & (seen.conf > 0.3)])
    errors = np.concatenate(errors)
    errors = errors[np.isfinite(errors)]
    assert len(errors) > 500
    assert np.median(errors) < 0.03
    assert np.percentile(errors, 25) > 0.001  # a detector is never exact


def test_a_pose_keeps_its_shape_and_its_height_wherever_it_is_put() -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        placed = place(rng, STANDING_M)
        assert np.allclose(np.sort(placed[:, 2]), np.sort(STANDING_M[:, 2]))
        for a, b in COCO17.bones:
            before, after = (np.linalg.norm(x[a] - x[b]) for x in (STANDING_M, placed))
            mirrored = np.linalg.norm(STANDING_M[mirror_of(COCO17)][a] - STANDING_M[mirror_of(COCO17)][b])
            assert np.isclose(after, before) or np.isclose(after, mirrored)


def test_occluders_hide_joints_and_hidden_joints_are_less_certain() -> None:
    rng = np.random.default_rng(4)
    rig = random_rig(rng)
    free = [look(rng, rig, STANDING_M, views=4, occlusion=0.0).hidden.mean() for _ in range(20)]
    behind = [look(rng, rig, STANDING_M, views=4, occlusion=1.0) for _ in range(40)]
    assert np.mean([s.hidden.mean() for s in behind]) > np.mean(free) + 0.1
    hidden = np.concatenate([s.conf[s.hidden & np.isfinite(s.rois[:, 2:3])] for s in behind])
    shown = np.concatenate([s.conf[~s.hidden & np.isfinite(s.rois[:, 2:3])] for s in behind])
    assert hidden.mean() < shown.mean() - 0.1


def test_the_volume_peaks_near_the_joints() -> None:
    sampler = Sampler([TRACK], seed=11, views={4: 1.0}, occlusion=0.0)
    away = []
    for _ in range(8):
        seen = sampler.draw()
        points, exchanged = algebraic(seen)
        cube = cube_around(points.xyz_m[0])
        assert cube is not None
        volume = volume_of(seen, cube, exchanged[0])
        assert volume.shape == (32, 32, 32, 17)
        assert 0 <= volume.min() <= volume.max() <= 1
        top = np.stack([np.unravel_index(volume[..., j].argmax(), volume.shape[:3]) for j in range(17)])
        away.append(np.linalg.norm(cube.world(top / 31 - 0.5) - seen.truth_m, axis=1))
    assert np.median(away) < 0.1


def test_exchanged_sides_are_exchanged_in_the_maps_of_that_view_alone() -> None:
    mirror = mirror_of(COCO17)
    maps = np.random.default_rng(0).random((3, CELLS, CELLS, 17), np.float32)
    nothing = np.zeros((3, 17), np.bool_)
    assert exchange_maps(maps, nothing, mirror) is maps
    one = nothing.copy()
    one[1] = True
    out = exchange_maps(maps, one, mirror)
    assert np.array_equal(out[1], maps[1][..., mirror])
    assert np.array_equal(out[[0, 2]], maps[[0, 2]])
    pair = nothing.copy()
    pair[2, [9, 10]] = True
    out = exchange_maps(maps, pair, mirror)
    assert np.array_equal(out[2][..., 9], maps[2][..., 10])
    assert np.array_equal(out[2][..., 5], maps[2][..., 5])
