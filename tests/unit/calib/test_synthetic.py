"""Scenes by seed: the same options are the same scene; people apart, furniture beside them, clips that fit; what cannot be is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from posepipe.calib import Camera, Rig
from posepipe.calib.synthetic import Options, Studio, studio
from posepipe.calib.synthetic_people import cut
from posepipe.calib.synthetic_sight import truth_without_sight
from posepipe.calib.toml import render
from posepipe.pipeline.errors import RigError, SourceError

SMALL = Options(seconds=1.0, fps=10.0, size_px=(160, 90))


@pytest.fixture(scope="module")
def three() -> Studio:
    return studio(dataclasses.replace(SMALL, seed=4, people=3, furniture=5, drift_ppm=300, exposure_ev=0.5, shake_mm=3))


def joints(scene: Studio) -> np.ndarray:
    return np.stack([a.joints_m("coco17", scene.t_s) for a in scene.actors])


def test_a_seed_is_a_scene(three: Studio) -> None:
    again = studio(three.options)
    np.testing.assert_array_equal(joints(again), joints(three))
    np.testing.assert_array_equal(again.capture_t_s, three.capture_t_s)
    np.testing.assert_array_equal(again.camera_from_world, three.camera_from_world)
    for one, same in zip(again.room, three.room, strict=True):
        np.testing.assert_array_equal(one.positions_m, same.positions_m)
    for one, same in zip(again.actors, three.actors, strict=True):
        np.testing.assert_array_equal(one.mesh.colour, same.mesh.colour)
    other = studio(dataclasses.replace(three.options, seed=5))
    assert not np.array_equal(joints(other), joints(three))


def test_more_furniture_leaves_people_and_cameras_as_they_were(three: Studio) -> None:
    more = studio(dataclasses.replace(three.options, furniture=6))
    np.testing.assert_array_equal(joints(more), joints(three))
    np.testing.assert_array_equal(more.rig.camera_from_world, three.rig.camera_from_world)


def test_people_keep_apart_on_the_floor_and_in_the_middle(three: Studio) -> None:
    where = joints(three)
    middle = where.mean(axis=2)[..., :2]
    for a in range(3):
        for b in range(a):
            assert np.linalg.norm(middle[a] - middle[b], axis=1).min() > 0.85
    assert np.linalg.norm(middle, axis=-1).max() < 2.0
    for actor in three.actors:
        points, normals = actor.skin(0.3)  # type: ignore[misc]
        assert -0.05 < points[:, 2].min() < 0.08
        assert 1.0 < np.ptp(points[:, 2]) < 2.2
        assert np.abs(np.linalg.norm(normals, axis=1) - 1).max() < 1e-4


def test_shapes_and_clothes_differ(three: Studio) -> None:
    assert len({tuple(a.shape) for a in three.actors}) == 3
    assert len({tuple(a.colours["shirt"]) for a in three.actors}) == 3
    for actor in three.actors:
        worn = {tuple(np.round(c, 3)) for c in actor.mesh.colour}
        for name in ("skin", "hair", "shirt", "trousers", "shoes"):
            assert any(np.allclose(c, actor.colours[name], atol=2e-3) for c in worn), name
        assert set(actor.mesh.surface[:, 0]) == set(range(1, 25))
        assert set(actor.mesh.surface[:, 3]) == {actor.id + 1}


def test_nobody_stands_in_furniture(three: Studio) -> None:
    everywhere = joints(three)[..., :2].reshape(-1, 2)
    pieces = three.room[2:]
    assert len(pieces) >= 3
    for piece in pieces:
        corners = piece.positions_m[:, :2]
        centre = (corners.min(axis=0) + corners.max(axis=0)) / 2
        reach = np.linalg.norm(corners - centre, axis=1).max()
        assert np.linalg.norm(everywhere - centre, axis=1).min() > reach + 0.25


def test_points_and_joints_move_together_between_the_instants_of_a_clip(three: Studio) -> None:
    """Between two instants of the clip everything is on the straight line between them."""
    actor = three.actors[0]
    period = 1 / actor.clip.fps
    a, mid, b = (actor.joints_m("coco17", np.array([t]))[0] for t in (2 * period, 2.5 * period, 3 * period))
    np.testing.assert_allclose(mid, (a + b) / 2, atol=1e-6)
    skin = [actor.skin(t)[0] for t in (2 * period, 2.5 * period, 3 * period)]  # type: ignore[index]
    np.testing.assert_allclose(skin[1], (skin[0] + skin[2]) / 2, atol=2e-6)


def test_outside_its_clip_a_person_is_absent(three: Studio) -> None:
    actor = three.actors[0]
    short = dataclasses.replace(actor, clip=cut(actor.clip, 0, 6))
    ends_s = 5 / actor.clip.fps
    assert short.skin(-0.01) is None
    assert short.skin(ends_s) is not None
    assert short.skin(ends_s + 0.01) is None
    seen = short.joints_m("smpl24", np.array([0.0, ends_s, ends_s + 0.01, -0.01]))
    assert np.isfinite(seen[:2]).all()
    assert np.isnan(seen[2:]).all()
    gone = truth_without_sight(dataclasses.replace(three, actors=(short,)))
    absent = np.isnan(gone.coco17_m[0, :, 0, 0])
    assert absent.any()
    np.testing.assert_array_equal(gone.action[0], np.where(absent, -1, 0))
    assert np.isnan(gone.coco17_uv_px[:, 0, absent]).all()


def test_the_clips_that_are_named_are_played() -> None:
    scene = studio(dataclasses.replace(SMALL, people=2, clips=("squat", "reach")))
    assert [a.clip.name for a in scene.actors] == ["squat", "reach"]
    assert scene.labels == ("reaching", "squatting")
    with pytest.raises(SourceError, match=r"the built-in motion: there is no clip 'squatt'\n  -> did you mean 'squat'\?"):
        studio(dataclasses.replace(SMALL, clips=("squatt",)))


def test_a_given_rig_is_used_as_it_is(tmp_path: Path) -> None:
    made = studio(dataclasses.replace(SMALL, people=0, cameras=3)).rig
    path = tmp_path / "hall.rig.toml"
    path.write_text(render(made))
    scene = studio(dataclasses.replace(SMALL, rig=path, people=0))
    np.testing.assert_array_equal(scene.rig.camera_from_world, made.camera_from_world)
    with pytest.raises(RigError, match="nowhere"):
        studio(dataclasses.replace(SMALL, rig=tmp_path / "nowhere.toml"))


@pytest.mark.parametrize(
    ("name", "width", "message"), [("odd", 161, "pictures of 161x90[\\s\\S]*even widths"), ("a/b", 160, "cannot name a file")]
)
def test_cameras_that_no_film_can_be_made_of(tmp_path: Path, name: str, width: int, message: str) -> None:
    camera = Camera(name, width, 90, np.array([[100.0, 0, 80], [0, 100, 45], [0, 0, 1]]), np.zeros(5), np.eye(4)[:3])
    path = tmp_path / "one.rig.toml"
    path.write_text(render(Rig((camera,))))
    with pytest.raises(RigError, match=message):
        studio(dataclasses.replace(SMALL, rig=path))
