"""Pictures of the synthetic studio against geometry: what is drawn where, and how deep. Needs OpenGL through EGL (a software rasteriser will do)."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from synthetic_kit import needs_egl

from posepipe.calib import Camera, Rig, project
from posepipe.calib.synthetic_gl import Renderer
from posepipe.calib.synthetic_lens import lens_of
from posepipe.calib.synthetic_mesh import CLOTH, Mesh, box, column, floor_and_walls, vertex_normals
from posepipe.calib.synthetic_rig import look_at, random_rig
from posepipe.pipeline.errors import RecordError, RigError

SUN = np.array([0.3, 0.2, 0.93])


def ball(centre_m: np.ndarray, radius_m: float, *, person: int, part: int = 7) -> tuple[Mesh, np.ndarray, np.ndarray]:
    """A sphere of triangles with a part and a person, its points and normals."""
    rows, columns = 24, 48
    polar, around = np.meshgrid(np.linspace(0.001, np.pi - 0.001, rows), np.arange(columns) * 2 * np.pi / columns, indexing="ij")
    unit = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=-1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    faces = np.concatenate([np.stack([a, a + columns, b], -1).reshape(-1, 3), np.stack([b, a + columns, b + columns], -1).reshape(-1, 3)])
    count = len(unit)
    surface = np.tile(np.array([part, 51, 204, person + 1], np.uint8), (count, 1))
    texture = np.c_[unit, np.full(count, CLOTH)].astype(np.float32)
    mesh = Mesh(faces.astype(np.int32), np.tile(np.float32([0.7, 0.05, 0.05]), (count, 1)), surface, texture)
    points = (unit * radius_m + centre_m).astype(np.float32)
    return mesh, points, vertex_normals(points, mesh.faces)


def test_normals_point_outwards_and_are_shared_where_a_mesh_is_welded() -> None:
    mesh, points, normals = ball(np.zeros(3), 1.0, person=0)
    assert np.abs(np.linalg.norm(normals, axis=1) - 1).max() < 1e-5
    assert np.sum(points * normals, axis=1).min() > 0.98
    doubled = np.r_[points, points[:1]]
    welded = np.r_[np.arange(len(points)), 0].astype(np.int32)
    faces = mesh.faces.copy()
    faces[0] = np.where(faces[0] == 0, len(points), faces[0])
    again = vertex_normals(doubled, faces, welded)
    np.testing.assert_allclose(again[:-1], normals, atol=1e-6)
    np.testing.assert_array_equal(again[-1], again[0])


@pytest.mark.parametrize("one", [box(np.zeros(2), np.array([0.5, 0.4, 1.0]), 0.3, np.ones(3)), column(np.zeros(2), 0.2, 2.0, np.ones(3))])
def test_furniture_stands_on_the_floor_and_faces_outwards(one: object) -> None:
    points, normals = one.positions_m, one.normals  # type: ignore[attr-defined]
    assert abs(points[:, 2].min()) < 1e-6
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    assert np.sum((points - middle) * normals, axis=1).min() > 0


def test_a_room_faces_inwards() -> None:
    for one in floor_and_walls(3.0, 2.5, floor=np.ones(3), walls=np.ones(3), kind=1):
        assert np.sum((one.positions_m - [0, 0, 1.2]) * one.normals, axis=1).max() < 0


@pytest.fixture(scope="module")
def two_balls() -> Iterator[tuple[Renderer, list[tuple[np.ndarray, np.ndarray]]]]:
    """A small ball (person 0) before a large one (person 1), seen from +x."""
    needs_egl()
    made = [ball(np.array([0.8, 0.0, 1.0]), 0.1, person=0, part=3), ball(np.array([-0.5, 0.0, 1.0]), 0.5, person=1, part=9)]
    room = floor_and_walls(4.5, 3.0, floor=np.full(3, 0.3), walls=np.full(3, 0.5), kind=1)
    renderer = Renderer(room, [m for m, _, _ in made], sun=SUN / np.linalg.norm(SUN), middle_m=np.array([0, 0, 1.0]))
    yield renderer, [(p, n) for _, p, n in made]
    renderer.close()


def camera(k1: float = 0.0) -> Camera:
    matrix = np.array([[300.0, 0, 161.3], [0, 305.0, 118.2], [0, 0, 1]])
    pose = look_at(np.array([3.5, 0.4, 1.6]), np.array([0.0, 0, 1.0]), roll_rad=0.1)
    return Camera("east", 320, 240, matrix, np.array([k1, -0.3 * k1, 1e-3, -5e-4, 0]), pose)


@pytest.mark.parametrize("k1", [0.0, -0.22, 0.1])
def test_points_are_drawn_where_the_rig_projects_them(two_balls: tuple[Renderer, list[tuple[np.ndarray, np.ndarray]]], k1: float) -> None:
    """The silhouette of a ball is that of its points through the lens: the same area, the same middle to a fifth of a pixel."""
    renderer, placed = two_balls
    cam = camera(k1)
    lens = lens_of(cam)
    for person, part in ((0, 3), (1, 9)):
        renderer.pose([placed[0] if person == 0 else None, placed[1] if person == 1 else None], np.empty((0, 2)))
        surface = lens.nearest(renderer.shoot(lens.flat, cam.camera_from_world).surface)
        drawn = surface[..., 3] == person + 1
        assert set(surface[drawn][:, 0]) == {part}
        np.testing.assert_allclose(surface[drawn][:, 1:3].mean(axis=0), [51, 204], atol=1)
        outline = cv2.convexHull(project(Rig((cam,), units_stated=True), placed[person][0]).uv_px[0].astype(np.float32))
        moments = cv2.moments(outline)
        rows, columns = np.nonzero(drawn)
        assert abs(len(rows) / moments["m00"] - 1) < 0.03
        expected = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
        np.testing.assert_allclose([columns.mean(), rows.mean()], expected, atol=0.2)


def test_depth_is_metres_along_the_axis(two_balls: tuple[Renderer, list[tuple[np.ndarray, np.ndarray]]]) -> None:
    renderer, placed = two_balls
    cam = camera()
    lens = lens_of(cam)
    renderer.pose(placed, np.empty((0, 2)))
    shot = renderer.shoot(lens.flat, cam.camera_from_world)
    points = placed[0][0]
    local = points @ cam.camera_from_world[:, :3].T + cam.camera_from_world[:, 3]
    front = local[np.sum(placed[0][1] * (cam.centre_m - points), axis=1) > 0.3 * np.linalg.norm(cam.centre_m - points, axis=1)]
    at = np.round(lens.flat.pixels(front[:, :2] / front[:, 2:])).astype(int)
    off_m = np.abs(shot.depth_m[at[:, 1], at[:, 0]] - front[:, 2])
    assert np.median(off_m) < 0.002
    assert off_m.max() < 0.015, "half a pixel on a surface that slants"
    assert np.isfinite(shot.depth_m).all(), "the room is closed but for its ceiling"


def test_a_picture_shows_the_colour_and_who_is_not_there_is_not_drawn(
    two_balls: tuple[Renderer, list[tuple[np.ndarray, np.ndarray]]],
) -> None:
    renderer, placed = two_balls
    cam = camera(-0.1)
    lens = lens_of(cam)
    renderer.pose([None, placed[1]], np.array([[0.0, 0.0]]))
    shot = renderer.shoot(lens.flat, cam.camera_from_world)
    assert set(np.unique(shot.surface[..., 3])) == {0, 2}
    body = lens.nearest(shot.surface)[..., 3] == 2
    rgb = lens.picture(shot.rgb)[body].astype(float).mean(axis=0)
    assert rgb[0] > 2 * rgb[1]
    assert lens.picture(renderer.shoot(lens.flat, cam.camera_from_world, exposure=2.0).rgb).mean() > lens.picture(shot.rgb).mean() + 20
    again = renderer.shoot(lens.flat, cam.camera_from_world)
    np.testing.assert_array_equal(again.rgb, shot.rgb)


def test_shadows_fall_away_from_the_sun(two_balls: tuple[Renderer, list[tuple[np.ndarray, np.ndarray]]]) -> None:
    renderer, placed = two_balls
    cam = camera()
    above = dataclasses.replace(cam, camera_from_world=look_at(np.array([0.01, 0.0, 2.9]), np.array([0.0, 0, 0])), distortion=np.zeros(5))
    lens = lens_of(above)
    sun = SUN / np.linalg.norm(SUN)
    on_floor = np.array([[-0.5, 0.0, 1.0] - sun / sun[2]])  # where the ray through the large ball's centre meets z = 0
    u, v = np.round(project(Rig((above,), units_stated=True), on_floor).uv_px[0, 0]).astype(int)
    renderer.pose([None, placed[1]], np.empty((0, 2)))
    shaded = lens.picture(renderer.shoot(lens.flat, above.camera_from_world).rgb)[v - 2 : v + 3, u - 2 : u + 3].mean()
    renderer.pose([None, None], np.empty((0, 2)))
    lit = lens.picture(renderer.shoot(lens.flat, above.camera_from_world).rgb)[v - 2 : v + 3, u - 2 : u + 3].mean()
    assert shaded < 0.85 * lit


def test_every_random_camera_can_be_drawn() -> None:
    for one in random_rig(np.random.default_rng(1), 16, (160, 90)).cameras:
        table = lens_of(one).table
        flat = lens_of(one).flat
        assert table.min() >= 1
        assert (table.reshape(-1, 2).max(axis=0) <= [flat.width - 2, flat.height - 2]).all()


def test_a_lens_that_folds_inside_the_picture() -> None:
    bent = dataclasses.replace(camera(), distortion=np.array([-2.0, 0, 0, 0, 0]))
    with pytest.raises(RigError, match="camera 'east': its lens model does not reach every pixel of its 320x240 picture"):
        lens_of(bent)


def test_a_picture_that_is_too_large() -> None:
    wide = dataclasses.replace(
        camera(), width_px=16000, height_px=20, matrix=np.array([[5e3, 0, 8e3], [0, 5e3, 10], [0, 0, 1]]), distortion=np.zeros(5)
    )
    with pytest.raises(RigError, match=r"its 16000x20 picture is too large to be drawn \(24004x34 before the lens\)"):
        lens_of(wide)


def test_without_moderngl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moderngl", None)
    with pytest.raises(RecordError, match=r'moderngl, which is not installed\n  -> pip install "posepipe\[synth\]"'):
        Renderer([], [], sun=SUN, middle_m=np.zeros(3))


def test_without_egl(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @staticmethod
        def create_context(**_: object) -> object:
            raise Exception("eglInitialize failed (0x3001)")  # what the binding raises

    monkeypatch.setitem(sys.modules, "moderngl", Broken)  # type: ignore[arg-type]
    with pytest.raises(RecordError, match=r"no OpenGL through EGL on this machine \(eglInitialize failed[\s\S]*apt install libegl1"):
        Renderer([], [], sun=SUN, middle_m=np.zeros(3))
