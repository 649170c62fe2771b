"""The kernel against sampling voxel by voxel with the projection of this room, and against the published formula."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import LENS, MATRIX, camera, ring

from posepipe.calib import ImageTransform, Rig, project
from posepipe.calib.unproject import _MEMORY, Cube, cells_from_video, unproject, unproject_pinhole
from posepipe.engines.crop import Rois, image_from_crop
from posepipe.pipeline.errors import EngineError

CUBE = Cube(np.array([0.1, -0.2, 1.0]), 2.2, 0.6)


def rois_around(rig, xyz_m=(0, 0, 1.0), side_px=900.0, angle=0.0):
    uv = project(rig, np.array([xyz_m])).uv_px[:, 0]
    return np.column_stack([uv, np.full(len(rig), side_px), np.full(len(rig), angle)])


def noise(rig, high=20, wide=20, joints=5, seed=0):
    return np.random.default_rng(seed).random((len(rig), high, wide, joints)).astype(np.float32)


def bilinear(one, cells):
    """One map [h,w,J] at cells [N,2] (NaN: nothing), 0 beyond it."""
    padded = np.zeros((one.shape[0] + 4, one.shape[1] + 4, one.shape[2]))
    padded[2:-2, 2:-2] = one
    u = np.clip(np.nan_to_num(cells[:, 0], nan=-2), -1.5, one.shape[1] + 0.5) + 2
    v = np.clip(np.nan_to_num(cells[:, 1], nan=-2), -1.5, one.shape[0] + 0.5) + 2
    c, r = np.floor(u).astype(int), np.floor(v).astype(int)
    fu, fv = (u - c)[:, None], (v - r)[:, None]
    upper = padded[r, c] * (1 - fu) + padded[r, c + 1] * fu
    lower = padded[r + 1, c] * (1 - fu) + padded[r + 1, c + 1] * fu
    return upper * (1 - fv) + lower * fv


def one_by_one(rig, maps, rois, cube, n, first=0.0):
    """What every view sees of every voxel, [C,n,n,n,J]."""
    uv = project(rig, cube.voxels_m(n).reshape(-1, 3)).uv_px
    affine = cells_from_video(rois, (maps.shape[2], maps.shape[1]), first=first)
    cells = np.einsum("cab,cnb->cna", affine[:, :, :2], uv) + affine[:, None, :, 2]
    return np.stack([bilinear(m, c) for m, c in zip(maps, cells, strict=True)]).reshape(len(rig), n, n, n, -1)


def softmax_over_views(seen):
    weight = np.exp(seen - seen.max(axis=0))
    return (seen * weight).sum(axis=0) / weight.sum(axis=0)


lenses = st.tuples(st.floats(-0.2, 0.2), st.floats(-0.1, 0.1), st.floats(-0.003, 0.003), st.floats(-0.003, 0.003), st.floats(-0.05, 0.05))
images = st.builds(ImageTransform, st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)), st.tuples(st.floats(-100, 100), st.floats(-100, 100)))


@settings(max_examples=40, deadline=None)
@given(
    lens=lenses.map(np.array),
    image=images,
    shape=st.tuples(st.integers(4, 30), st.integers(4, 30), st.sampled_from([1, 3, 8, 17, 32])),
    centre=st.tuples(st.floats(-4, 4), st.floats(-4, 4), st.floats(0, 2)),
    side=st.floats(0.5, 6),
    yaw=st.floats(-4, 4),
    angle=st.floats(-4, 4),
    first=st.sampled_from([0.0, 0.125, 0.5]),
    straight=st.booleans(),
)
def test_every_voxel_sees_what_its_projection_shows(lens, image, shape, centre, side, yaw, angle, first, straight):
    rig = Rig((camera(distortion=lens, image=image), camera("b", (-1, -4, 1), distortion=0 * lens if straight else lens)))
    maps, rois = noise(rig, *shape), rois_around(rig, side_px=700, angle=angle)
    cube = Cube(np.array(centre), side, yaw)
    volume = unproject(rig, maps, rois, cube, n=6, first=first)
    assert volume == pytest.approx(one_by_one(rig, maps, rois, cube, 6, first).sum(axis=0), abs=3e-4)


@pytest.mark.parametrize("joints", [3, 16, 17, 20, 24, 35])
@pytest.mark.parametrize("threads", [1, 2, 50])
def test_the_three_ways_to_join_views(joints, threads):
    rig = ring(4)
    maps, rois = 4 * noise(rig, 24, 18, joints), rois_around(rig)
    seen = one_by_one(rig, maps, rois, CUBE, 9)
    conf = np.random.default_rng(1).random((4, joints))
    kind = {"n": 9, "threads": threads}
    assert unproject(rig, maps, rois, CUBE, how="sum", **kind) == pytest.approx(seen.sum(axis=0), abs=1e-4)
    weighted = (conf[:, None, None, None] * seen).sum(axis=0) / conf.sum(axis=0)
    assert unproject(rig, maps, rois, CUBE, how="conf", conf=conf, **kind) == pytest.approx(weighted, abs=1e-4)
    assert unproject(rig, maps, rois, CUBE, how="softmax", **kind) == pytest.approx(softmax_over_views(seen), abs=1e-4)


@pytest.mark.parametrize("joints", [1, 16, 17, 24, 32])
@pytest.mark.parametrize("angle", [0.6, -0.6, 2.2, -2.2])
def test_what_the_memory_held_before_is_nowhere(joints, angle):
    """Columns that leave a turned crop by its corners, in memory that begins full of NaN: cells with weight 0 are read, too."""
    rig = ring(2)
    maps, rois = noise(rig, 5, 5, joints), rois_around(rig, side_px=400, angle=angle)
    clean = unproject(rig, maps, rois, CUBE, n=5)
    _MEMORY.floats[:] = np.nan
    assert np.array_equal(unproject(rig, maps, rois, CUBE, n=5), clean)
    assert np.isfinite(clean).all()


def test_the_softmax_holds_for_values_far_apart():
    rig = ring(3)
    maps = np.ones((3, 8, 8, 9), np.float32) * np.array([-500, 3, 900], np.float32)[:, None, None, None]
    small = Cube(np.array([0, 0, 1.0]), 0.1)
    assert unproject(rig, maps, rois_around(rig), small, n=3, how="softmax") == pytest.approx(900)


@pytest.mark.parametrize("how", ["sum", "conf", "softmax"])
def test_a_view_without_a_crop_does_not_exist(how):
    rig, conf = ring(4), np.full((4, 5), 0.5)
    maps, rois = noise(rig), rois_around(rig)
    rois[1], maps[1] = np.nan, np.nan
    rois[3, 2] = 0.0
    two = rig.select(["cam01", "cam03"])
    volume = unproject(rig, maps, rois, CUBE, n=7, how=how, conf=conf)
    assert np.array_equal(volume, unproject(two, maps[[0, 2]], rois[[0, 2]], CUBE, n=7, how=how, conf=conf[[0, 2]]))
    assert volume.any()


def test_no_view_at_all_is_an_empty_volume():
    rig, out = ring(2), np.ones((4, 4, 4, 5), np.float32)
    assert unproject(rig, noise(rig), np.full((2, 4), np.nan), CUBE, n=4, out=out) is out
    assert not out.any()


def test_a_cube_behind_every_camera_is_empty():
    rig = Rig((camera(centre_m=(4, 0, 1)), camera("b", (4, 0.5, 1))))
    behind = Cube(np.array([7.0, 0, 1]), 2.0)
    for how in ("sum", "softmax"):
        assert not unproject(rig, noise(rig), rois_around(rig, side_px=5000.0), behind, n=8, how=how).any()


def test_a_camera_inside_of_the_cube_adds_only_what_lies_before_it():
    rig = Rig((camera(centre_m=(0.3, 0, 1)),))
    maps, rois, cube = noise(rig), np.array([[540, 955, 6000, 0.0]]), Cube(np.array([0.3, 0, 1.0]), 2.0)
    volume = unproject(rig, maps, rois, cube, n=9)
    assert volume == pytest.approx(one_by_one(rig, maps, rois, cube, 9)[0], abs=1e-4)
    assert volume[:4].any()
    assert not volume[4:].any()


def test_confidence_of_nan_or_zero_is_a_view_that_does_not_count():
    rig, conf = ring(2), np.ones((2, 5))
    maps, rois = noise(rig), rois_around(rig)
    conf[0, 1], conf[1, 2], conf[:, 3] = np.nan, 0.0, 0.0
    volume, seen = unproject(rig, maps, rois, CUBE, n=5, how="conf", conf=conf), one_by_one(rig, maps, rois, CUBE, 5)
    assert volume[..., 1] == pytest.approx(seen[1][..., 1], abs=1e-4)
    assert volume[..., 2] == pytest.approx(seen[0][..., 2], abs=1e-4)
    assert not volume[..., 3].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_heatmaps_that_are_not_numbers_are_refused_by_the_camera_s_name(bad):
    rig = ring(3)
    maps = noise(rig)
    maps[1, 3, 4, 2] = bad
    with pytest.raises(EngineError, match=r"cam02: heatmaps hold numbers that are not finite\n.*precision: fp32"):
        unproject(rig, maps, rois_around(rig), CUBE, n=4)


def test_arrays_that_do_not_fit_are_refused():
    rig = ring(2)
    maps, rois = noise(rig), rois_around(rig)
    with pytest.raises(ValueError, match="2 cameras, maps of 2 and crops of 1"):
        unproject(rig, maps, rois[:1], CUBE)
    with pytest.raises(ValueError, match=r"how='conf' needs conf \[2,5\]"):
        unproject(rig, maps, rois, CUBE, how="conf")
    with pytest.raises(ValueError, match=r"out must be a contiguous float32 array \[4,4,4,5\]"):
        unproject(rig, maps, rois, CUBE, n=4, out=np.empty((4, 4, 4, 5)))
    kept = np.empty((4, 4, 4, 5), np.float32)
    kept.flags.writeable = False
    with pytest.raises(ValueError, match="that may be written"):
        unproject(rig, maps, rois, CUBE, n=4, out=kept)
    with pytest.raises(ValueError, match="a cube of 1 voxels a side: at least 2"):
        unproject(rig, maps, rois, CUBE, n=1)


@settings(max_examples=60, deadline=None)
@given(
    centre=st.tuples(st.floats(-500, 2000), st.floats(-500, 2000)),
    side=st.floats(20, 3000),
    angle=st.floats(-4, 4),
    size=st.sampled_from([(64, 64), (48, 64), (64, 48), (96, 96)]),
    card=st.sampled_from([(4.0, -0.5), (4.0, 0.27), (4.0, 0.0), (2.0, 0.0)]),
    seed=st.integers(0, 999),
)
def test_a_cell_lies_where_the_decoder_of_the_network_puts_it(centre, side, angle, size, card, seed):
    """Decoders put cell c at cell_px c + offset_px of the crop, and `image_from_crop` puts that into the video."""
    cell_px, offset_px = card
    rois = Rois(np.array([centre]), np.array([side]), np.array([angle]))
    cells = np.random.default_rng(seed).uniform(0, min(size), (6, 2))
    to_video = image_from_crop(rois, size=(int(size[0] * cell_px), int(size[1] * cell_px)))[0]
    uv = (cells * cell_px + offset_px) @ to_video[:, :2].T + to_video[:, 2]
    back = cells_from_video(np.array([[*centre, side, angle]]), size, first=(offset_px + 0.5) / cell_px)[0]
    assert uv @ back[:, :2].T + back[:, 2] == pytest.approx(cells, abs=1e-7)


def test_shares_of_the_cube_and_back():
    xyz = np.random.default_rng(0).normal(size=(10, 3))
    assert CUBE.world(CUBE.shares(xyz)) == pytest.approx(xyz)
    voxels = CUBE.voxels_m(5)
    assert CUBE.shares(voxels[1, 2, 4]) == pytest.approx([-0.25, 0, 0.5])
    assert voxels[2, 2, 2] == pytest.approx(CUBE.centre_m)
    along_x = voxels[4, 0, 0] - voxels[0, 0, 0]
    assert math.atan2(along_x[1], along_x[0]) == pytest.approx(CUBE.yaw_rad)


def paper_views(rig, size, crop=(-200.0, 200.0, 1500.0)):
    left, top, side = crop
    resized = np.array([[size / side, 0, -left * size / side], [0, size / side, -top * size / side], [0, 0, 1]])
    return np.stack([resized @ MATRIX @ c.camera_from_world for c in rig.cameras])


def test_the_published_geometry():
    """Point p of a map of w cells is read at p (w - 1) / w; what is not in front of the camera is 0."""
    rig = ring(3, distortion=0 * LENS)
    maps, projections = noise(rig, 12, 12), paper_views(rig, 12)
    volume = unproject_pinhole(projections, maps, CUBE, n=6, how="softmax")
    homogeneous = np.concatenate([CUBE.voxels_m(6).reshape(-1, 3), np.ones((216, 1))], axis=1) @ projections.transpose(0, 2, 1)
    ahead = homogeneous[..., 2] > 0
    cells = np.where(ahead[..., None], homogeneous[..., :2] / homogeneous[..., 2:], np.nan) * 11 / 12
    seen = np.stack([bilinear(m, c) for m, c in zip(maps, cells, strict=True)]).reshape(3, 6, 6, 6, 5)
    assert volume == pytest.approx(softmax_over_views(seen), abs=1e-4)
    conf = np.random.default_rng(0).random((3, 5))
    factors = unproject_pinhole(projections, maps, CUBE, n=6, how="conf", conf=conf)
    assert factors == pytest.approx((seen * conf[:, None, None, None]).sum(axis=0), abs=1e-4)
    projections[1], maps[1] = np.nan, np.nan
    assert unproject_pinhole(projections, maps, CUBE, n=6, how="sum") == pytest.approx(seen[0] + seen[2], abs=1e-4)


def test_a_depth_that_float32_cannot_divide_by_shows_nothing():
    """0 over 1e-42 is 0 times infinity: not a number, and no place in a map."""
    projections = np.zeros((1, 3, 4))
    projections[0, 2, 3] = 1e-42
    assert not unproject_pinhole(projections, np.ones((1, 8, 8, 17), np.float32), CUBE, n=16, how="sum").any()
