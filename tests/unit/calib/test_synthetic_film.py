"""Whole recordings, small: films, rig and truth agree with each other and with what the pictures show. Needs OpenGL through EGL."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from synthetic_kit import needs_egl

from posepipe.calib import load_rig, project
from posepipe.calib import synthetic_film as film
from posepipe.calib.synthetic import Options, Studio, studio
from posepipe.calib.synthetic_maps import maps_file, read_maps
from posepipe.calib.synthetic_mesh import box
from posepipe.calib.synthetic_truth import Truth, read_truth
from posepipe.pipeline.errors import RecordError, SourceError
from posepipe.pipeline.skeleton import COCO17

SMALL = Options(seed=2, cameras=2, people=2, seconds=0.3, fps=10.0, size_px=(320, 240), furniture=2, noise=0.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Studio, Truth]:
    needs_egl()
    folder = tmp_path_factory.mktemp("synth") / "hall"
    scene = studio(SMALL)
    done: list[int] = []
    truth = film.render(scene, folder, maps=True, progress=done.append)
    assert done == [1, 2, 3]
    return folder, scene, truth


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def test_the_folder_holds_what_was_promised(made: tuple[Path, Studio, Truth]) -> None:
    folder, scene, truth = made
    assert sorted(p.name for p in folder.iterdir()) == [
        "cam1.maps.npz",
        "cam1.mp4",
        "cam2.maps.npz",
        "cam2.mp4",
        "rig.toml",
        "scene.json",
        "truth.npz",
    ]
    assert [p.name for p in folder.parent.iterdir()] == ["hall"]
    read = read_truth(folder)
    for field in dataclasses.fields(truth):
        if isinstance(value := getattr(truth, field.name), np.ndarray):
            np.testing.assert_array_equal(getattr(read, field.name), value)
    assert read.scene.people[1].clip in ("walk", "reach", "squat")
    rig = load_rig(folder / "rig.toml")
    np.testing.assert_array_equal(rig.camera_from_world, scene.rig.camera_from_world)
    for name in rig.names:
        with av.open(str(folder / f"{name}.mp4")) as file:
            video = file.streams.video[0]
            assert (video.codec_context.name, video.width, video.height, video.average_rate) == ("h264", 320, 240, 10)
            times = [float(frame.time) for frame in file.decode(video=0)]
        np.testing.assert_allclose(times, read.t_s, atol=1e-6)


def test_the_pixels_of_the_truth_are_the_rigs_projection(made: tuple[Path, Studio, Truth]) -> None:
    folder, _, _ = made
    truth, rig = read_truth(folder), load_rig(folder / "rig.toml")
    expected = project(rig, truth.coco17_m.reshape(-1, 3)).uv_px.reshape(2, 2, 3, 17, 2)
    np.testing.assert_allclose(truth.coco17_uv_px, expected, atol=2e-3)
    np.testing.assert_array_equal(truth.root_m, truth.smpl24_m[:, :, 0])
    np.testing.assert_allclose(truth.body25_m[:, :, 4], truth.coco17_m[:, :, COCO17.index("right_wrist")])


def test_the_picture_shows_the_person_where_the_truth_says(made: tuple[Path, Studio, Truth]) -> None:
    """Visible joints of the limbs lie on or at the silhouette of their own person, and trousers have the colour of trousers."""
    folder, _, _ = made
    truth = read_truth(folder)
    hits = trousers = 0
    for c, name in enumerate(truth.cameras):
        frames = pictures(folder / f"{name}.mp4")
        for k in range(3):
            maps = read_maps(folder, name, k)
            assert maps.depth_mm.shape == (240, 320)
            np.testing.assert_array_equal(maps.part > 0, maps.person > 0)
            for p in range(2):
                for j in range(5, 17):
                    if truth.coco17_visible[c, p, k, j]:
                        u, v = np.round(truth.coco17_uv_px[c, p, k, j]).astype(int)
                        around = maps.person[max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2]
                        assert (around == p + 1).any(), (name, p, COCO17.joints[j])
                        hits += 1
                legs = (maps.person == p + 1) & np.isin(maps.part, (7, 8, 9, 10))
                inner = legs & np.roll(legs, 2, 0) & np.roll(legs, -2, 0) & np.roll(legs, 2, 1) & np.roll(legs, -2, 1)
                if inner.sum() > 20:
                    seen = frames[k][inner].astype(float).mean(axis=0)
                    worn = np.array(truth.scene.people[p].colours["trousers"]) ** (1 / 2.2) * 255
                    assert np.linalg.norm(seen / seen.sum() - worn / worn.sum()) < 0.12
                    trousers += 1
    assert hits > 60
    assert trousers > 6


def test_the_maps_silhouette_is_the_pictures(made: tuple[Path, Studio, Truth], tmp_path: Path) -> None:
    """Where the same scene without its people looks different, there are people or their shadows; where the map has a person, it differs."""
    folder, scene, _ = made
    film.render(dataclasses.replace(scene, actors=()), tmp_path / "empty")
    for name in ("cam1", "cam2"):
        other = pictures(tmp_path / "empty" / f"{name}.mp4")[0].astype(float)
        person = read_maps(folder, name, 0).person > 0
        changed = np.abs(pictures(folder / f"{name}.mp4")[0] - other).max(axis=2) > 12
        assert person.sum() > 500
        assert changed[person].mean() > 0.85
        rows = np.nonzero(person.any(axis=1))[0]
        above = changed[: max(rows[0] - 3, 0)]
        assert above.mean() < 0.01 if above.size else True


def test_a_box_in_front_hides_exactly_what_is_behind_it(made: tuple[Path, Studio, Truth], tmp_path: Path) -> None:
    _, scene, _ = made
    still = dataclasses.replace(scene, actors=scene.actors[:1], room=scene.room[:2])
    free = film.render(still, tmp_path / "free")
    camera = still.rig.cameras[0]
    body = free.coco17_m[0, 0].mean(axis=0)
    towards = camera.centre_m[:2] - body[:2]
    at = body[:2] + 0.9 * towards / np.linalg.norm(towards)
    yaw = float(np.arctan2(towards[1], towards[0]))
    wall = box(at, np.array([0.1, 3.0, 0.7]), yaw, np.full(3, 0.5))
    hidden = film.render(dataclasses.replace(still, room=(*still.room, wall)), tmp_path / "hidden")
    eye, joints = camera.centre_m, free.coco17_m[0, 0].astype(float)
    along = towards / np.linalg.norm(towards)
    crosses = (0.95 - (joints[:, :2] - body[:2]) @ along) / ((eye - joints)[:, :2] @ along)
    height = joints[:, 2] + crosses * (eye - joints)[:, 2]
    clear, behind = height > 0.8, height < 0.6
    assert behind.any()
    assert clear.any()
    assert not hidden.coco17_visible[0, 0, 0][behind].any()
    np.testing.assert_array_equal(hidden.coco17_visible[0, 0, 0][clear], free.coco17_visible[0, 0, 0][clear])
    assert free.coco17_visible[0, 0, 0][5:].mean() > 0.5


def test_skew_and_shake_are_in_the_pictures_truth_not_in_the_rig(tmp_path: Path) -> None:
    needs_egl()
    scene = studio(dataclasses.replace(SMALL, people=1, drift_ppm=500, shake_mm=8))
    truth = film.render(scene, tmp_path / "off")
    assert (truth.capture_t_s[0] == truth.t_s).all()
    assert (truth.capture_t_s[1] != truth.t_s).all()
    exact = project(scene.rig, truth.coco17_m[0].reshape(-1, 3)).uv_px.reshape(2, 3, 17, 2)
    assert np.linalg.norm(truth.coco17_uv_px[:, 0] - exact, axis=-1).max() > 0.5
    for c, camera in enumerate(scene.rig.cameras):
        for k in range(3):
            joints = scene.actors[0].joints_m("coco17", truth.capture_t_s[c, k : k + 1])[0]
            local = joints @ truth.camera_from_world[c, k, :, :3].T + truth.camera_from_world[c, k, :, 3]
            moved = dataclasses.replace(camera, camera_from_world=np.eye(4)[:3])
            expected = project(type(scene.rig)((moved,), units_stated=True), local).uv_px[0]
            np.testing.assert_allclose(truth.coco17_uv_px[c, 0, k], expected, atol=2e-3)


def test_the_same_seed_gives_the_same_bytes(made: tuple[Path, Studio, Truth], tmp_path: Path) -> None:
    folder, _, _ = made
    film.render(studio(SMALL), tmp_path / "again", maps=True)
    for path in folder.iterdir():
        if path.suffix in (".mp4", ".json", ".toml") or path.name.endswith(".maps.npz"):
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_noise_is_noise_and_another_in_every_picture(tmp_path: Path) -> None:
    grain = film._Grain(1, 4.0)
    grey = np.full((90, 160, 3), 128, np.uint8)
    one, two = grain.over(grey).astype(float), grain.over(grey).astype(float)
    assert 3.5 < one.std() < 4.5
    assert abs(one.mean() - 128) < 0.2
    assert np.abs(one - two).mean() > 2
    assert film._Grain(1, 0.0).over(grey) is grey


def test_a_folder_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RecordError, match=r"--out: .* is there already\n  -> name a folder that does not exist yet, or is empty"):
        film.render(studio(dataclasses.replace(SMALL, people=0)), tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_rendering_that_breaks_off_leaves_nothing(tmp_path: Path, fault: BaseException) -> None:
    needs_egl()

    def stop(_: int) -> None:
        raise fault

    scene = studio(dataclasses.replace(SMALL, people=0, furniture=0))
    with pytest.raises((KeyboardInterrupt, RecordError)) as caught:
        film.render(scene, tmp_path / "deep" / "hall", progress=stop)
    if isinstance(fault, OSError):
        assert "the recording cannot be written (No space left on device)" in str(caught.value)
        assert "nothing of the recording was kept" in str(caught.value)
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What FFmpeg says when the film does not fit is told in the same words."""
    needs_egl()

    def full(self: Any, picture: np.ndarray) -> None:
        raise av.error.FFmpegError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(film._Film, "add", full)
    with pytest.raises(RecordError, match=r"cannot be written \(No space left on device\)[\s\S]*free some space"):
        film.render(studio(dataclasses.replace(SMALL, people=0, furniture=0)), tmp_path / "hall")
    assert list(tmp_path.iterdir()) == []


def test_an_ffmpeg_without_h264(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(RecordError, match="this FFmpeg has no encoder libx264"):
        film.render(studio(dataclasses.replace(SMALL, people=0)), tmp_path / "hall")
    assert list(tmp_path.iterdir()) == []


def test_maps_that_are_not_there(made: tuple[Path, Studio, Truth], tmp_path: Path) -> None:
    folder, _, _ = made
    with pytest.raises(SourceError, match=r"camera cam9 has no maps\n  -> render the recording with --maps"):
        read_maps(folder, "cam9", 0)
    with pytest.raises(SourceError, match="it has no frame 3"):
        read_maps(folder, "cam1", 3)
    maps_file(tmp_path, "cam1").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(SourceError, match="damaged or cut off"):
        read_maps(tmp_path, "cam1", 0)
