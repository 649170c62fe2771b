"""The body: linear in its shape, skinned as the formula says, key points where bones and skin are, charts that cover it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.calib.body import BONES, PART_NAMES, PARTS, SHAPES, load_body, rotations_of_6d
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.skeleton import BODY25, COCO17

BODY = load_body()
MEAN = np.zeros(SHAPES)
STILL = np.eye(3)[None, None].repeat(len(BONES), axis=1)


def turns(rng, count):
    return rotations_of_6d(rng.standard_normal((count, len(BONES), 6)))


def drawn(seed):
    return BODY.draw(np.random.default_rng(seed))


def test_the_mean_body_is_a_person():
    vertices = BODY.rest(MEAN).vertices_m
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    assert 1.65 < high[2] - low[2] < 1.78
    assert 0.9 < high[0] - low[0] < 1.3
    posed = BODY.pose(MEAN, STILL, np.zeros((1, 3)))
    at = dict(zip(COCO17.joints, posed.joints_m("coco17")[0], strict=True))
    assert at["left_wrist"][0] > 0.3 > -0.3 > at["right_wrist"][0]
    assert at["nose"][1] < at["left_ear"][1] - 0.05
    assert at["nose"][2] > at["left_shoulder"][2] > at["left_hip"][2] > at["left_knee"][2] > at["left_ankle"][2]


def test_shapes_are_people_of_many_sizes():
    rng = np.random.default_rng(0)
    heights = [np.ptp(BODY.rest(BODY.draw(rng)).vertices_m[:, 2]) for _ in range(60)]
    assert 1.4 < min(heights) < 1.62
    assert 1.82 < max(heights) < 2.05


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_body_at_rest_is_its_rest_pose(seed):
    shape = drawn(seed)
    posed = BODY.pose(shape, STILL, np.array([[1.0, 2.0, 3.0]]))
    rest = BODY.rest(shape)
    assert posed.vertices_m(0) == pytest.approx(rest.vertices_m + np.float32([1, 2, 3]), abs=1e-5)
    assert posed.heads_m[0] == pytest.approx(rest.joints_m + np.array([1, 2, 3]), abs=1e-9)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_all_bones_turned_alike_turn_the_body(seed):
    rng = np.random.default_rng(seed)
    one = rotations_of_6d(rng.standard_normal(6))
    posed = BODY.pose(drawn(seed), one[None, None].repeat(len(BONES), axis=1), np.array([[0.3, -1.0, 0.9]]))
    still = BODY.pose(drawn(seed), STILL, np.zeros((1, 3)))
    move = np.array([0.3, -1.0, 0.9])
    assert posed.vertices_m(0) == pytest.approx(still.vertices_m(0) @ one.T + move, abs=1e-5)
    for layout in ("coco17", "body25", "smpl24"):
        assert posed.joints_m(layout)[0] == pytest.approx(still.joints_m(layout)[0] @ one.T + move, abs=1e-5)


def test_skin_is_the_weighted_mean_of_where_its_bones_take_it():
    rng = np.random.default_rng(5)
    shape, rotations = drawn(5), turns(rng, 2)
    posed = BODY.pose(shape, rotations, rng.standard_normal((2, 3)))
    rest, skin = BODY.rest(shape), posed.vertices_m(1)
    for v in rng.integers(0, len(skin), 50):
        expected = np.zeros(3)
        for bone, share in zip(BODY._skin_bones[v], BODY._skin_shares[v], strict=True):
            expected += share * (rotations[1, bone] @ (rest.vertices_m[v] - rest.joints_m[bone]) + posed.heads_m[1, bone])
        assert skin[v] == pytest.approx(expected, abs=1e-5)


def test_bones_keep_their_lengths_in_any_pose():
    shape = drawn(3)
    rest = BODY.rest(shape).joints_m
    heads = BODY.pose(shape, turns(np.random.default_rng(1), 4), np.zeros((4, 3))).heads_m
    parents = list(BODY.parents[1:])
    assert np.linalg.norm(heads[:, 1:] - heads[:, parents], axis=2) == pytest.approx(
        np.broadcast_to(np.linalg.norm(rest[1:] - rest[parents], axis=1), (4, 23)), abs=1e-9
    )


def test_points_on_the_head_move_with_it_and_touch_the_skin():
    rotations = STILL.copy()
    rotations[0, BONES.index("head")] = rotations_of_6d(np.array([0.0, -1.0, 1.0, 0.0, 0.0, 0.0]))
    still, turned = (BODY.pose(MEAN, r, np.zeros((1, 3))) for r in (STILL, rotations))
    nose = [p.joints_m("coco17")[0, 0] for p in (still, turned)]
    assert nose[0][1] < -0.09
    assert nose[1][0] > 0.09
    for posed in (still, turned):
        for name in ("nose", "left_eye", "right_ear"):
            point = posed.joints_m("coco17")[0, COCO17.index(name)]
            assert np.linalg.norm(posed.vertices_m(0) - point, axis=1).min() < 0.02


def test_feet_of_body25_stand_on_the_floor_of_the_rest_pose():
    posed = BODY.pose(MEAN, STILL, np.zeros((1, 3)))
    sole = posed.vertices_m(0)[:, 2].min()
    feet = posed.joints_m("body25")[0]
    for side in ("left", "right"):
        toe, small, heel, ankle = (feet[BODY25.index(f"{side}_{part}")] for part in ("big_toe", "small_toe", "heel", "ankle"))
        assert toe[1] < ankle[1] < heel[1]
        assert all(p[2] - sole < 0.05 for p in (toe, small, heel))
    assert feet[BODY25.index("mid_hip")] == pytest.approx((feet[BODY25.index("left_hip")] + feet[BODY25.index("right_hip")]) / 2, abs=1e-6)


def test_left_and_right_are_mirrored():
    still = BODY.pose(MEAN, STILL, np.zeros((1, 3)))
    for layout in (COCO17, BODY25):
        at = dict(zip(layout.joints, still.joints_m(layout.name)[0], strict=True))
        for name, point in at.items():
            if name.startswith("left_"):
                assert at["right" + name[4:]] == pytest.approx(point * [-1, 1, 1], abs=2e-3)


def test_every_part_has_a_chart_and_no_face_has_two():
    assert len(PART_NAMES) == PARTS
    assert set(BODY.part.tolist()) == set(range(1, PARTS + 1))
    assert (np.ptp(BODY.part[BODY.faces].astype(int), axis=1) == 0).all()
    for part in range(1, PARTS + 1):
        uv = BODY.uv[BODY.part == part]
        assert (uv.min(axis=0) == 0).all()
        assert (uv.max(axis=0) == 1).all()


def test_charts_hold_the_surface_once():
    """Triangles of a chart hardly overlap: their areas, signs kept, nearly add up to their areas without signs."""
    for part in range(1, PARTS + 1):
        faces = BODY.faces[BODY.part[BODY.faces[:, 0]] == part]
        a, b, c = (BODY.uv[faces[:, k]].astype(np.float64) for k in range(3))
        area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
        folded = 1 - abs(area.sum()) / np.abs(area).sum()
        assert folded < (0.45 if "hand" in PART_NAMES[part - 1] or "head" in PART_NAMES[part - 1] else 0.2), PART_NAMES[part - 1]


def test_parts_lie_where_their_names_say():
    rest = BODY.rest(MEAN).vertices_m
    middle = {name: rest[BODY.part == p].mean(axis=0) for p, name in enumerate(PART_NAMES, 1)}
    for name, at in middle.items():
        if "left" in name:
            other = middle[name.replace("left", "right")]
            assert at[0] > 0.01 > -0.01 > other[0]
            assert at == pytest.approx(other * [-1, 1, 1], abs=0.02)
        if "front" in name:
            assert at[1] < middle[name.replace("front", "back")][1]


def test_the_skin_is_closed_but_for_its_holes_and_normals_look_out():
    posed = BODY.pose(drawn(9), STILL, np.zeros((1, 3)))
    skin, normals = posed.vertices_m(0), posed.normals(0)
    assert np.linalg.norm(normals, axis=1) == pytest.approx(np.ones(len(skin)), abs=1e-3)
    assert normals[BODY.welded] == pytest.approx(normals, abs=0)
    assert skin[BODY.welded] == pytest.approx(skin, abs=0)
    a, b, c = (skin[BODY.faces[:, k]].astype(np.float64) for k in range(3))
    volume = (a * np.cross(b, c)).sum() / 6
    assert 0.03 < volume < 0.2


def test_six_numbers_are_columns_row_by_row():
    r = rotations_of_6d(np.random.default_rng(0).standard_normal((5, 6)))
    assert r @ r.transpose(0, 2, 1) == pytest.approx(np.broadcast_to(np.eye(3), (5, 3, 3)), abs=1e-12)
    assert np.linalg.det(r) == pytest.approx(np.ones(5))
    assert rotations_of_6d(r[..., :2].reshape(5, 6)) == pytest.approx(r)


def test_six_numbers_pose_like_matrices():
    r = turns(np.random.default_rng(2), 3)
    by_matrix, by_six = (BODY.pose(MEAN, x, np.zeros((3, 3))) for x in (r, r[..., :2].reshape(3, len(BONES), 6)))
    assert by_matrix.heads_m == pytest.approx(by_six.heads_m)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a shape has 16 numbers"):
        BODY.rest(np.zeros(10))
    with pytest.raises(ValueError, match=r"are not \[T,24,3,3\]"):
        BODY.pose(MEAN, np.zeros((2, 23, 3, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"are not \[T,24,3,3\]"):
        BODY.pose(MEAN, STILL, np.zeros((2, 3)))
    with pytest.raises(GraphError, match="no key points 'coco18'") as e:
        BODY.pose(MEAN, STILL, np.zeros((1, 3))).joints_m("coco18")
    assert "coco17" in str(e.value)
