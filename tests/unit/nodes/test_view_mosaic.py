"""The picture of a studio shows what is there: judged by what stands where, not by its bytes."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quota import file_limit

from posepipe.calib.project import project
from posepipe.calib.rig import Camera, Rig
from posepipe.nodes._canvas import AMBER, GREEN, SIDES, greyed, paint_skeleton, thumbnail
from posepipe.nodes._film import Film
from posepipe.nodes._scene import Scene, _Eye
from posepipe.nodes.view_mosaic import Mosaic, Rect, ViewMosaic, arrange
from posepipe.pipeline.errors import GraphError, RecordError
from posepipe.pipeline.node import Context
from posepipe.pipeline.packet import Frame, FrameSet, Packet, Poses, Sync
from posepipe.pipeline.skeleton import COCO17, Skeleton

CAMERAS = ("north", "east", "south")
WIDTH, HEIGHT = 640, 480
MS = 1_000_000


def looking(name: str, at_m: tuple[float, float, float]) -> Camera:
    """A camera there that looks at one metre above the origin."""
    centre = np.array(at_m, np.float64)
    forward = np.array([0, 0, 1.0]) - centre
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack((right, np.cross(forward, right), forward))
    pose = np.concatenate((rotation, (-rotation @ centre)[:, None]), axis=1)
    matrix = np.array([[500, 0, WIDTH / 2], [0, 500, HEIGHT / 2], [0, 0, 1.0]])
    return Camera(name, WIDTH, HEIGHT, matrix, np.zeros(5), pose)


RIG = Rig((looking("north", (0, 4, 1.6)), looking("east", (4, 0, 1.6)), looking("south", (0, -4, 1.6))))


def frame(camera: str, *, luma: int = 60) -> Frame:
    y = np.full((HEIGHT, WIDTH), luma, np.uint8)
    chroma = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)
    return Frame(camera, 0, 0, "i420", WIDTH, HEIGHT, (y, chroma, chroma))


def frames(seq: int = 0, *, missing: tuple[str, ...] = (), luma: int = 60) -> FrameSet:
    there = {c: frame(c, luma=luma) for c in CAMERAS if c not in missing}
    views = tuple(i for i, c in enumerate(CAMERAS) if c not in missing)
    lacks = tuple(i for i, c in enumerate(CAMERAS) if c in missing)
    return FrameSet(seq, seq * 33 * MS, CAMERAS, there, Sync(0, views, lacks))


def standing(*, x_m: float = 0.0, conf: float = 0.9) -> Poses:
    """One person of 17 joints, upright at (x, 0), arms out."""
    heights = {"nose": 1.6, "eye": 1.65, "ear": 1.62, "shoulder": 1.4, "elbow": 1.2, "wrist": 1.0, "hip": 0.95, "knee": 0.5, "ankle": 0.08}
    aside = {"nose": 0.0, "eye": 0.04, "ear": 0.08, "shoulder": 0.2, "elbow": 0.4, "wrist": 0.6, "hip": 0.12, "knee": 0.14, "ankle": 0.16}
    xyz = np.zeros((1, 17, 3), np.float32)
    for j, name in enumerate(COCO17.joints):
        side = 1 if name.startswith("left_") else -1
        part = name.rpartition("_")[2]
        xyz[0, j] = (x_m + side * aside[part], 0, heights[part])
    confidence, sigma = np.full((1, 17), conf, np.float32), np.full((1, 17), 0.02, np.float32)
    used = np.full((1, 17), 3, np.uint8)
    return Poses(
        CAMERAS, "coco17", Sync(0, (0, 1, 2), ()), "algebraic", np.array([5]), xyz, confidence, sigma, np.array([4.2], np.float32), used
    )


def nobody() -> Poses:
    p = standing()
    return Poses(
        CAMERAS, "coco17", p.sync, "algebraic", p.ids[:0], p.xyz_m[:0], p.conf[:0], p.sigma_m[:0], p.reproj_px[:0], p.views_used[:0]
    )


def packet(body: Poses, seq: int = 0, *, t_ms: float | None = None) -> Packet[Poses]:
    return Packet(seq, round((seq * 33 if t_ms is None else t_ms) * MS), "smooth", body, (), ())


def mosaic(rig: Rig | None = RIG, *, width_px: int = 1280) -> Mosaic:
    return Mosaic(frames(), rig, studio="hall", width_px=width_px, offline=True)


def painted(m: Mosaic, body: Poses, f: FrameSet | None = None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    m.remember(body)
    return m.paint(f or frames(), packet(body))


def near(image: Any, colour: tuple[int, int, int], tolerance: int = 60) -> Any:
    """Where a picture has about that colour [h,w]."""
    return np.abs(image.astype(int) - colour).max(axis=2) < tolerance


# frames ---------------------------------------------------------------------------------------------------------------------

RED = {False: (81, 90, 240), True: (76, 85, 255)}  # ITU-R BT.601 luma and chroma of pure red, limited and full range


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("kind", ["i420", "nv12"])
def test_a_shrunk_frame_has_the_colours_of_the_frame(kind: Any, full_range: bool) -> None:
    y, u, v = (
        np.full(shape, value, np.uint8)
        for shape, value in zip(((480, 640 + 64), (240, 320 + 32), (240, 320 + 32)), RED[full_range], strict=True)
    )
    y, u, v = y[:, :640], u[:, :320], v[:, :320]  # padded rows, as decoders make them
    planes = (y, u, v) if kind == "i420" else (y, np.stack((u, v), axis=-1))
    for plane in planes:
        plane.setflags(write=False)
    small = thumbnail(Frame("a", 0, 0, kind, 640, 480, planes, full_range), 160, 120)
    assert small.shape == (120, 160, 3)
    np.testing.assert_allclose(small.reshape(-1, 3).mean(axis=0), (0, 0, 255), atol=4)


def test_every_pixel_of_a_frame_counts() -> None:
    y = np.zeros((480, 640), np.uint8)
    y[::2, ::2] = y[1::2, 1::2] = 255
    chroma = np.full((240, 320), 128, np.uint8)
    small = thumbnail(Frame("a", 0, 0, "i420", 640, 480, (y, chroma, chroma), full_range=True), 150, 112)
    assert abs(small.astype(int) - 128).max() <= 6, "a fine pattern must become grey, not a new pattern"


def test_greyed_has_no_colour_and_is_dark() -> None:
    out = greyed(np.full((4, 4, 3), (10, 20, 250), np.uint8))
    assert (out[..., 0] == out[..., 2]).all()
    assert out.max() < 60


# skeletons ------------------------------------------------------------------------------------------------------------------

CROSS = Skeleton("cross", ("left_a", "left_b", "right_a", "right_b", "mid_a", "mid_b"), ((0, 1), (2, 3), (4, 5), (0, 2)), ())
PLACES = np.array([[20, 20], [20, 80], [80, 20], [80, 80], [50, 20], [50, 80]], np.float64)


def drawn(conf: list[float]) -> Any:
    image = np.zeros((100, 100, 3), np.uint8)
    paint_skeleton(image, PLACES, np.array(conf, np.float32), CROSS, thickness=2)
    return image


def test_sides_have_their_colours() -> None:
    image = drawn([1] * 6)
    for (x, y), side in (((20, 50), 1), ((80, 50), 2), ((50, 50), 0)):
        np.testing.assert_allclose(image[y, x], SIDES[side], atol=8)
    np.testing.assert_allclose(image[20, 35], SIDES[0], atol=8)  # between the sides


def test_what_is_not_seen_is_not_drawn_and_what_is_unsure_is_faint() -> None:
    image = drawn([1, 0, 1, 0.3, 1, 1])
    assert image[50, 20].max() == 0
    assert 0.3 * SIDES[2][0] < image[50, 80, 0] < 0.6 * SIDES[2][0]
    np.testing.assert_allclose(image[50, 50], SIDES[0], atol=8)
    assert drawn([0] * 6).max() == 0


def test_a_joint_that_projects_nowhere_does_no_harm() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    places = PLACES.copy()
    places[0], places[4] = np.nan, (1e9, 1e9)
    paint_skeleton(image, places, np.ones(6, np.float32), CROSS, thickness=2)
    assert image[50, 20].max() == 0
    np.testing.assert_allclose(image[50, 80], SIDES[2], atol=8)


# arrangement ----------------------------------------------------------------------------------------------------------------


@given(cameras=st.integers(1, 16), aspect=st.floats(0.5, 2.4), width=st.integers(480, 3840))
def test_nothing_overlaps_and_all_is_inside(cameras: int, aspect: float, width: int) -> None:
    cells, scene, (w, h) = arrange(cameras, aspect, width, 40)
    assert w == width
    assert h % 2 == 0
    assert len(cells) == cameras
    covered = np.zeros((h, w), np.uint8)
    for rect in (*cells, scene):
        assert min(rect.width, rect.height) >= 16
        part = rect.of(covered)
        assert part.shape == (rect.height, rect.width)
        part += 1
    assert covered.max() == 1
    assert scene.width >= 0.2 * w


# the whole picture ----------------------------------------------------------------------------------------------------------


def in_cell(m: Mosaic, camera: int, points_m: Any) -> Any:
    """Pixels of the picture [N,2] of world points, through the calibration."""
    cell = m.cells[camera]
    uv = project(RIG, np.asarray(points_m, np.float64)).uv_px[camera]
    scale = min(cell.width / WIDTH, cell.height / HEIGHT)
    offset = ((cell.width - WIDTH * scale) / 2 + cell.x, (cell.height - HEIGHT * scale) / 2 + cell.y)
    return uv * scale + offset


def test_skeletons_stand_where_the_calibration_puts_them() -> None:
    m, body = mosaic(), standing()
    picture = painted(m, body)
    assert picture.shape == (*m.size_px[::-1], 3)
    for camera in range(3):
        for side, joints in ((1, ("left_wrist", "left_knee")), (2, ("right_wrist", "right_knee"))):
            for u, v in in_cell(m, camera, body.xyz_m[0, [COCO17.index(j) for j in joints]]):
                around = picture[round(v) - 3 : round(v) + 4, round(u) - 3 : round(u) + 4]
                if camera == 1:  # from the side the legs hide each other
                    assert near(around, SIDES[1]).any() or near(around, SIDES[2]).any()
                else:
                    assert near(around, SIDES[side]).any(), (camera, joints)
        cell = m.cells[camera].of(picture)
        colourful = (cell.max(axis=2).astype(int) - cell.min(axis=2)) > 60
        height = np.flatnonzero(colourful.any(axis=1))
        (_, top), (_, bottom) = in_cell(m, camera, [[0, 0, 1.65], [0, 0, 0.08]]) - (0, m.cells[camera].y)
        assert abs(height.min() - top) < 8, "nothing colourful above the head"
        assert abs(height.max() - bottom) < 12, "nor below the feet"


def test_without_a_rig_there_are_skeletons_in_space_only() -> None:
    m = mosaic(None)
    picture = painted(m, standing())
    for cell in m.cells:
        part = cell.of(picture)
        assert not near(part, SIDES[1]).any()
        assert not near(part, SIDES[2]).any()
    scene = m.scene_at.of(picture)
    assert near(scene, SIDES[1]).sum() > 50
    assert near(scene, SIDES[2]).sum() > 50


def test_a_missing_camera_is_grey_with_its_last_picture_and_says_so() -> None:
    m = mosaic()
    painted(m, standing(), frames(luma=180))
    picture = painted(m, standing(), frames(missing=("east",)))
    gone, there = (m.cells[i].of(picture) for i in (1, 0))
    label = near(gone, AMBER, 40)
    assert label.sum() > 30
    assert not near(there, AMBER, 40).any()
    rest = gone[~cv2.dilate(label.astype(np.uint8), np.ones((5, 5))).astype(bool)]
    assert np.ptp(rest.astype(int), axis=1).mean() < 3, "no colour but the label's"
    assert 30 < np.median(rest) < 90, "the last picture, darkened"


def test_a_camera_that_never_came_is_an_empty_panel() -> None:
    m = Mosaic(frames(missing=("east",)), RIG, studio="hall", width_px=1280, offline=True)
    picture = painted(m, standing(), frames(missing=("east",)))
    assert near(m.cells[1].of(picture), AMBER, 40).sum() > 30


def test_nobody_there_draws_nobody() -> None:
    m = mosaic()
    picture = painted(m, nobody())
    for cell in m.cells:
        assert not near(cell.of(picture), SIDES[1]).any()


@pytest.mark.parametrize("width_px", [480, 1280, 2560])
def test_the_person_is_large_in_space_and_the_map_has_cameras_and_people(width_px: int) -> None:
    m = mosaic(width_px=width_px)
    for x in np.linspace(-0.5, 0.5, 20):
        m.remember(standing(x_m=float(x)))
    picture = m.paint(frames(), packet(standing(x_m=0.5)))
    scene = m.scene_at.of(picture)
    rows = np.flatnonzero((near(scene, SIDES[1]) | near(scene, SIDES[2]))[: round(0.9 * len(scene))].any(axis=1))
    assert 0.4 < np.ptp(rows) / len(scene) < 0.8
    at = m._map_at
    assert near(at.of(picture), GREEN, 30).sum() > 10


def test_left_and_right_in_space_follow_the_view() -> None:
    """Seen from the front (the person faces the eye), the left hand is on the right of the picture."""
    eye = _Eye(np.array([0, 0, 1.0]), -np.pi / 2, 400, 400)  # the eye is at -y
    body = standing().xyz_m[0].astype(np.float64)
    uv, depth = eye.project(body)
    assert uv[COCO17.index("right_wrist"), 0] < uv[COCO17.index("nose"), 0] < uv[COCO17.index("left_wrist"), 0]
    assert uv[COCO17.index("nose"), 1] < uv[COCO17.index("left_ankle"), 1]
    np.testing.assert_allclose(eye.uv(np.array([0, 0, 1.0])), (0.58 * 400, 200), atol=1e-6)
    assert (depth > 0).all()


def test_what_is_behind_the_eye_is_nowhere() -> None:
    eye = _Eye(np.array([0, 0, 1.0]), 0.0, 400, 400)
    assert np.isnan(eye.uv(np.array([100.0, 0, 1.0]))).all()


def test_trails_fade_when_a_person_has_gone() -> None:
    scene = Scene(RIG)
    for x in range(10):
        scene.remember(standing(x_m=x / 10), COCO17)
    assert len(scene._trails[5]) == 10
    for _ in range(10):
        scene.remember(nobody(), COCO17)
    assert scene._trails == {}


def test_the_view_steps_back_for_people_far_apart() -> None:
    scene, body = Scene(RIG), standing(x_m=-2)
    other = standing(x_m=2)
    stacked = {k: np.concatenate((getattr(body, k), getattr(other, k))) for k in ("xyz_m", "conf", "sigma_m", "reproj_px", "views_used")}
    scene.remember(Poses(CAMERAS, "coco17", body.sync, "algebraic", np.array([5, 6]), **stacked), COCO17)
    view = _Eye(scene._target, -np.pi / 2, 400, 400, shown_m=scene._shown_m)
    uv = view.uv(stacked["xyz_m"].astype(np.float64))
    assert (uv > 0).all()
    assert (uv < 400).all()


def test_a_trail_needs_no_hips() -> None:
    body = standing()
    body.conf[0, [COCO17.index("left_hip"), COCO17.index("right_hip")]] = 0
    scene = Scene(None)
    scene.remember(body, COCO17)
    assert np.isfinite(scene._trails[5][0]).all()
    body.conf[:] = 0
    scene.remember(body, COCO17)
    assert len(scene._trails[5]) == 1, "a person without a joint has no place"


# the node -------------------------------------------------------------------------------------------------------------------


class Studio:
    def __init__(self, folder: Path) -> None:
        self.folder, self.warnings = folder, []  # type: ignore[var-annotated]

    def node(self, file: str, **more: Any) -> ViewMosaic:
        made = ViewMosaic.Settings(file=str(self.folder / file), width_px=480, **more)
        ViewMosaic.check(made, {})
        node = ViewMosaic(made)
        node.open(
            Context(
                studio="hall",
                name="view",
                key="view",
                cameras=CAMERAS,
                caps={},
                graph_sha256="",
                offline=True,
                loop=False,
                rig=RIG,
                engines={},
                resolve=Path,
                now_ns=lambda: 0,
                stopping=threading.Event(),
                drop=lambda body, reason: None,
                warn=self.warnings.append,
            )
        )
        return node


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path)


def feed(node: ViewMosaic, count: int, *, every_ms: float = 1000 / 30, first: int = 0) -> None:
    for i in range(count):
        node.step(frames(first + i), packet(standing(x_m=0.01 * i), first + i, t_ms=i * every_ms))


def film_times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [round(float(f.pts * f.time_base), 3) for f in container.decode(video=0)]


def test_it_cannot_slow_the_studio() -> None:
    assert ViewMosaic.own_process
    assert ViewMosaic.default_queue == (1, "drop_oldest")


def test_a_film_shows_instants_at_their_times_at_most_fps_a_second(studio: Studio) -> None:
    node = studio.node("a.mp4", fps=15)
    feed(node, 61)
    node.close()
    times = film_times(studio.folder / "a.mp4")
    np.testing.assert_allclose(times, np.arange(31) / 15, atol=0.0021)
    with av.open(str(studio.folder / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.width == 480
        assert stream.codec_context.name == "h264"


def test_a_film_of_fewer_instants_has_them_all(studio: Studio) -> None:
    node = studio.node("a.mp4", fps=60)
    feed(node, 20, every_ms=100)
    node.close()
    assert len(film_times(studio.folder / "a.mp4")) == 20


def test_a_rate_between_those_of_the_instants_is_kept_on_average(studio: Studio) -> None:
    node = studio.node("a.mp4", fps=20)
    feed(node, 91)
    node.close()
    assert abs(len(film_times(studio.folder / "a.mp4")) - 61) <= 2


def test_without_an_h264_encoder_the_film_is_mpeg4(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    node = studio.node("a.mp4")
    feed(node, 10)
    node.close()
    with av.open(str(studio.folder / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
        assert sum(1 for _ in container.decode(video=0)) == 5


def test_a_killed_studio_leaves_a_film(tmp_path: Path) -> None:
    """Between two writes of the muxer the file holds whole fragments only: that is what a kill leaves."""
    film = Film(tmp_path / "a.mp4", fps=10)
    readable = []
    for i in range(65):
        film.add(np.full((64, 96, 3), i, np.uint8), i * 100 * MS)
        (tmp_path / "copy.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
        if i > 20:
            readable.append((i + 1, len(film_times(tmp_path / "copy.mp4"))))
    film.close()
    assert all(0 <= drawn - kept <= 21 for drawn, kept in readable), "at most the last two seconds are lost"
    assert len(film_times(tmp_path / "a.mp4")) == 65


def test_a_quota_ends_the_film_at_a_whole_fragment_and_the_studio_goes_on(studio: Studio) -> None:
    node = studio.node("a.mp4", fps=15)
    feed(node, 62)
    size = (studio.folder / "a.mp4").stat().st_size
    with file_limit(size + 1000):
        feed(node, 400)
        node.close()
    (warning,) = studio.warnings
    assert "the view has stopped, the studio goes on" in warning
    assert str(studio.folder / "a.mp4") in warning
    assert len(film_times(studio.folder / "a.mp4")) == 30


def test_a_quota_ends_the_snapshots_and_leaves_the_one_before(studio: Studio) -> None:
    node = studio.node("a.png", every_s=0.01)
    feed(node, 1)
    before = (studio.folder / "a.png").read_bytes()
    with file_limit(1000):
        feed(node, 5, first=1)
        node.close()
    assert len(studio.warnings) == 1
    assert os.listdir(studio.folder) == ["a.png"]
    assert (studio.folder / "a.png").read_bytes() == before


def test_a_snapshot_of_one_instant(studio: Studio) -> None:
    node = studio.node("a.png", at_seq=3)
    feed(node, 3)
    assert not (studio.folder / "a.png").stat().st_size
    feed(node, 1, first=4)  # 3 was dropped
    wanted = (studio.folder / "a.png").read_bytes()
    feed(node, 3, first=5)
    node.close()
    assert (studio.folder / "a.png").read_bytes() == wanted
    picture = cv2.imread(str(studio.folder / "a.png"))
    assert picture is not None
    assert picture.shape[1] == 480


def test_a_snapshot_now_and_then_and_at_the_end(studio: Studio) -> None:
    node = studio.node("a.png", every_s=1.0)
    pictures = []
    for i in range(70):
        node.step(frames(i), packet(standing(x_m=0.02 * i), i, t_ms=i * 1000 / 30))
        pictures.append((studio.folder / "a.png").read_bytes())
    node.close()
    changes = [i for i in range(1, 70) if pictures[i] != pictures[i - 1]]
    assert changes == [30, 60]
    assert (studio.folder / "a.png").read_bytes() != pictures[-1]


def test_by_default_the_last_instant_is_the_snapshot(studio: Studio) -> None:
    node = studio.node("a.png")
    feed(node, 3)
    assert (studio.folder / "a.png").stat().st_size == 0
    node.close()
    assert cv2.imread(str(studio.folder / "a.png")) is not None


@pytest.mark.parametrize("file", ["a.png", "a.mp4"])
def test_nothing_drawn_leaves_no_file(studio: Studio, file: str) -> None:
    studio.node(file).close()
    assert os.listdir(studio.folder) == []


@pytest.mark.parametrize("file", ["a.png", "a.mp4"])
def test_an_old_view_stays_until_there_is_a_new_one(studio: Studio, file: str) -> None:
    (studio.folder / file).write_text("old")
    studio.node(file).close()
    assert (studio.folder / file).read_text() == "old"


def test_a_folder_that_cannot_be_made_is_refused(studio: Studio) -> None:
    (studio.folder / "x").write_text("")
    with pytest.raises(RecordError) as e:
        studio.node("x/a.png")
    assert "cannot be written" in e.value.what


@pytest.mark.parametrize(
    ("made", "what", "hint"),
    [
        ({"file": "view.gif"}, ".png or .mp4", "view.mp4"),
        ({"file": "view.mp4", "at_seq": 3}, "at_seq is for snapshots", "leave at_seq out"),
        ({"file": "view.mp4", "every_s": 3}, "every_s is for snapshots", ".png"),
        ({"file": "view.png", "every_s": 3, "at_seq": 3}, "exclude each other", "leave one"),
    ],
)
def test_settings_that_cannot_work_are_refused(made: dict[str, Any], what: str, hint: str) -> None:
    with pytest.raises(GraphError) as e:
        ViewMosaic.check(ViewMosaic.Settings(**made), {})
    assert what in e.value.what
    assert hint in e.value.hint


@settings(deadline=None, max_examples=20)
@given(x=st.floats(-200, 200), y=st.floats(-200, 200), z=st.floats(-50, 50), sigma=st.one_of(st.floats(0, 100), st.just(float("nan"))))
def test_people_anywhere_are_painted_or_left_out_but_never_a_fault(x: float, y: float, z: float, sigma: float) -> None:
    body = standing()
    body.xyz_m[0] += np.array([x, y, z], np.float32)
    body.xyz_m[0, 3] = np.nan
    body.sigma_m[:] = sigma
    m = mosaic(width_px=480)
    assert painted(m, body).shape[1] == 480


def test_rect_is_a_view() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    Rect(2, 3, 4, 5).of(image)[:] = 9
    assert image.sum() == 9 * 3 * 20
