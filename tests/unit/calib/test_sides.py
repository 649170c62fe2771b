"""Views that take left for right are set right, and nothing else is touched."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import body, ring

from posepipe.calib import facing_of, mirror_of, project, triangulate, triangulate_sides, undistort
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17

MIRROR = mirror_of(BLAZEPOSE33)
FACING = facing_of(BLAZEPOSE33)
LIMITS = {"inlier_px": 60.0, "sigma_px": 8.0}


def seen(rig, xyz, *, sigma_px=4.0, seed=0):
    """uv [1,C,33,2] and conf [1,C,33] of one person."""
    rng = np.random.default_rng(seed)
    uv = project(rig, xyz).uv_px[None]
    return uv + rng.normal(0, sigma_px, uv.shape), rng.uniform(0.6, 0.9, uv.shape[:3])


def exchange(uv, conf, views, joints=slice(None)):
    uv, conf = uv.copy(), conf.copy()
    for c in views:
        uv[0, c, joints], conf[0, c, joints] = uv[0, c, MIRROR[joints]], conf[0, c, MIRROR[joints]]
    return uv, conf


def solve(rig, uv, conf):
    return triangulate_sides(rig, undistort(rig, uv), conf, mirror=MIRROR, **LIMITS)


@pytest.mark.parametrize("skeleton", [BLAZEPOSE33, COCO17])
def test_mirror_pairs_left_with_right(skeleton):
    mirror = mirror_of(skeleton)
    assert (mirror[mirror] == np.arange(len(mirror))).all()
    assert skeleton.joints[mirror[skeleton.index("left_knee")]] == "right_knee"
    assert mirror[skeleton.index("nose")] == skeleton.index("nose")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), turn=st.floats(0, 6.28), view=st.integers(0, 3))
def test_a_view_that_sees_the_back_as_the_front_is_set_right(seed, turn, view):
    rig = ring(4)
    xyz = body(seed, turn_rad=turn)
    uv, conf = seen(rig, xyz, seed=seed)
    good, none = solve(rig, uv, conf)
    points, exchanged = solve(rig, *exchange(uv, conf, [view]))
    assert not none.any()
    assert np.linalg.norm(points.xyz_m - good.xyz_m, axis=-1).max() < 0.06, "only pairs too close to tell apart may stay exchanged"
    assert not np.delete(exchanged[0], view, axis=0).any()
    if exchanged[0, view].any():
        assert points.used[0, view].mean() > 0.9


def test_an_exchanged_view_counts_again():
    rig = ring(4)
    uv, conf = exchange(*seen(rig, body(turn_rad=0.4)), [2])
    before = triangulate(rig, undistort(rig, uv), conf, **LIMITS)
    points, exchanged = solve(rig, uv, conf)
    assert before.used[0, 2].mean() < 0.5
    assert points.used[0].all()
    assert exchanged[0, 2].sum() == (np.arange(33) != MIRROR).sum()
    assert points.sigma_m.max() < 0.02


def test_two_of_five_views_are_set_right():
    rig = ring(5)
    xyz = body(3, turn_rad=1.0)
    points, exchanged = solve(rig, *exchange(*seen(rig, xyz), [0, 3]))
    assert exchanged[0].any(axis=1).tolist() == [True, False, False, True, False]
    assert np.linalg.norm(points.xyz_m[0] - xyz, axis=1).max() < 0.03


def test_crossed_legs_in_one_view_are_set_right_alone():
    rig = ring(4)
    xyz = body(1, turn_rad=0.4)
    legs = np.array([j for j, name in enumerate(BLAZEPOSE33.joints) if any(part in name for part in ("knee", "ankle"))])
    points, exchanged = solve(rig, *exchange(*seen(rig, xyz), [1], legs))
    assert np.flatnonzero(exchanged[0, 1]).tolist() == legs.tolist()
    assert exchanged.sum() == len(legs)
    assert np.linalg.norm(points.xyz_m[0] - xyz, axis=1).max() < 0.03


def test_views_that_are_wrong_in_another_way_are_left_alone():
    rig = ring(4)
    uv, conf = seen(rig, body(2, turn_rad=0.7))
    uv[0, 1] += 250
    points, exchanged = solve(rig, uv, conf)
    plain = triangulate(rig, undistort(rig, uv), conf, **LIMITS)
    assert not exchanged.any()
    assert np.array_equal(points.xyz_m, plain.xyz_m)


def test_every_person_is_judged_alone():
    rig = ring(4)
    one, other = body(0, turn_rad=0.4), body(1, at_m=(0.5, 0.4), turn_rad=2.0)
    a, b = exchange(*seen(rig, one), [1]), seen(rig, other)
    uv, conf = np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])
    points, exchanged = solve(rig, uv, conf)
    assert exchanged.any(axis=2).tolist() == [[False, True, False, False], [False] * 4]
    assert np.linalg.norm(points.xyz_m - [one, other], axis=-1).max() < 0.03


def test_nobody_and_nothing_seen():
    rig = ring(4)
    points, exchanged = triangulate_sides(rig, np.zeros((0, 4, 33, 2)), np.zeros((0, 4, 33)), mirror=MIRROR, **LIMITS)
    assert points.xyz_m.shape == (0, 33, 3)
    assert exchanged.shape == (0, 4, 33)
    points, exchanged = triangulate_sides(rig, np.full((1, 4, 33, 2), np.nan), np.zeros((1, 4, 33)), mirror=MIRROR, **LIMITS)
    assert np.isnan(points.xyz_m).all()
    assert not exchanged.any()


@pytest.mark.parametrize("skeleton", [BLAZEPOSE33, COCO17])
@pytest.mark.parametrize("posture", ["standing", "lying", "upside down"])
def test_a_body_tells_its_left_from_its_right(skeleton, posture):
    turn = {
        "standing": np.eye(3),
        "lying": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
        "upside down": np.diag([1.0, -1, -1]),
    }[posture]
    at = [BLAZEPOSE33.index(name) for name in skeleton.joints]
    xyz = forward(body())[at] @ turn.T
    facing, mirror = facing_of(skeleton), mirror_of(skeleton)
    assert facing.handed(xyz) == pytest.approx(1, abs=0.1)
    assert facing.handed(xyz[mirror]) == pytest.approx(-1, abs=0.1)
    assert facing.handed(np.full((len(at), 3), np.nan)) == 0


def forward(xyz):
    """The body with a face and feet that point where its front is: left is at +x, so forward is -y."""
    xyz = xyz.copy()
    for j, name in enumerate(BLAZEPOSE33.joints):
        if name == "nose" or "foot_index" in name:
            xyz[j, 1] = -0.15
        elif "ear" in name or "heel" in name:
            xyz[j, 1] = 0.05
    return xyz


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), turn=st.floats(0, 6.28), view=st.integers(0, 1))
def test_with_two_views_the_body_decides_which_of_them_is_wrong(seed, turn, view):
    rig = ring(4).select(["cam01", "cam02"])
    xyz = forward(body(seed, turn_rad=0))
    cos, sin = np.cos(turn), np.sin(turn)
    xyz = xyz @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    uv, conf = exchange(*seen(rig, xyz, sigma_px=1, seed=seed), [view])
    points, exchanged = triangulate_sides(rig, undistort(rig, uv), conf, mirror=MIRROR, facing=FACING, **LIMITS)
    if exchanged.any():
        assert FACING.handed(points.xyz_m[0]) > 0.5
        assert exchanged[0].any(axis=1).tolist() == [view == 0, view == 1]
        error = np.linalg.norm(points.xyz_m[0] - xyz, axis=1)
        assert np.nanmedian(error) < 0.03
