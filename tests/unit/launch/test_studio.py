"""From a studio file to what can run: the files that it names, its rig, and what has to be fetched first."""

from __future__ import annotations

from pathlib import Path

import people
import pytest
from text_kit import HALL

from posepipe.calib import save_rig
from posepipe.launch import studio
from posepipe.pipeline.errors import GraphError, PullError, RigError


def write(folder: Path, *changes: tuple[str, str]) -> Path:
    text = HALL
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "hall.yaml").write_text(text)
    return folder / "hall.yaml"


def refused(folder: Path, *changes: tuple[str, str]) -> str:
    with pytest.raises((GraphError, RigError)) as caught:
        studio.complete(studio.load(write(folder, *changes)))
    return str(caught.value).replace(f"{folder}/", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_rig(people.ring(4), tmp_path / "hall.rig.toml")
    return tmp_path


# the rig ----------------------------------------------------------------------------------------------------------------------


def test_the_rig_has_the_cameras_of_the_studio_in_their_order(folder: Path) -> None:
    whole = studio.complete(studio.load(write(folder, ("north: north.mp4\n      east: east.mp4", "east: e.mp4\n      north: n.mp4"))))
    assert whole.rig is not None
    assert whole.rig.names == ("east", "north")


def test_a_studio_that_lifts_needs_a_rig(folder: Path) -> None:
    with pytest.raises(GraphError, match=r"'heatmaps' .heatmap.topdown. needs a calibration, but the studio has no rig"):
        studio.load(write(folder, ("rig: hall.rig.toml\n", "")))


@pytest.mark.parametrize(
    ("image", "scale", "offset_px"),
    [
        ("{scale: 1.5}", (1.5, 1.5), (0.0, 0.0)),
        ("{scale: [1.5, 2], offset_px: [0, -7.3]}", (1.5, 2.0), (0.0, -7.3)),
        ("{offset_px: [1, 2]}", (1.0, 1.0), (1.0, 2.0)),
    ],
)
def test_image_transforms(folder: Path, image: str, scale: tuple[float, float], offset_px: tuple[float, float]) -> None:
    whole = studio.complete(studio.load(write(folder, ("rig: hall.rig.toml", f"rig: {{file: hall.rig.toml, image: {{east: {image}}}}}"))))
    assert whole.rig is not None
    north, east = whole.rig.cameras
    assert (east.calibration_from_video.scale, east.calibration_from_video.offset_px) == (scale, offset_px)
    assert north.calibration_from_video.is_identity


@pytest.mark.parametrize(
    ("rig", "says"),
    [
        ("rig: [a]", "hall.yaml:2: rig is ['a']: Expected `object`, got `array`\n  -> rig: FILE, or rig: {file: FILE, image:"),
        ("rig: {fil: a}", "hall.yaml:2: rig is {'fil': 'a'}: Object contains unknown field `fil`\n  -> rig: FILE, or"),
        ("rig: {image: {}}", "hall.yaml:2: rig is {'image': {}}: Object missing required field `file`\n  -> rig: FILE, or"),
        (
            "rig: {file: hall.rig.toml, image: {east: {scal: 2}}}",
            "Object contains unknown field `scal` - at `$.image[...]`\n  -> rig: FILE, or rig: {file: FILE, image: {cam01: {scale: [1, 1]",
        ),
        ("rig: {file: hall.rig.toml, image: {east: {scale: wide}}}", "Expected `float | array`, got `str` - at `$.image[...].scale`"),
        ("rig: {file: hall.rig.toml, image: {east: {scale: [1]}}}", "Expected `array` of length 2, got 1 - at `$.image[...].scale`"),
        ("rig: {file: hall.rig.toml, image: {east: {scale: 0}}}", "hall.yaml:2: image transform with scale [0.0, 0.0]"),
        ("rig: {file: hall.rig.toml, image: {east: 2}}", "Expected `object`, got `int` - at `$.image[...]`"),
        ("rig: {file: hall.rig.toml, image: {aest: {scale: 1.1}}}", "hall.yaml:2: hall.rig.toml: image: names camera 'aest'"),
        ("rig: none.toml", "hall.yaml:2: none.toml: "),
        ("rig: 5", "hall.yaml:2: rig is 5"),
    ],
)
def test_a_rig_that_cannot_be_is_told_with_its_line(folder: Path, rig: str, says: str) -> None:
    assert says in refused(folder, ("rig: hall.rig.toml", rig))


def test_a_camera_that_the_calibration_lacks(folder: Path) -> None:
    assert refused(folder, ("east: east.mp4", "eats: east.mp4")).startswith(
        "hall.yaml:2: hall.rig.toml: the calibration lacks camera 'eats'; it has north, east, south, west, the studio has north, eats\n  -> did you mean 'east'?"
    )


# files and what has to be fetched ---------------------------------------------------------------------------------------------


def test_paths_are_beside_the_studio_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = studio.resolver(folder)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve("a/b.mp4") == folder / "a" / "b.mp4"
    assert resolve("/c.mp4") == Path("/c.mp4")
    assert resolve("~/c.mp4") == Path("/home/somebody/c.mp4")


def test_what_was_not_fetched_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEPIPE_HOME", str(folder / "home"))
    with pytest.raises(PullError, match=r"'pose2sim\.single' is not on this machine\n  -> run `posepipe pull pose2sim\.single`"):
        studio.resolver(folder)("pull:pose2sim.single/cam01.mp4")


def test_what_a_studio_wants_in_the_order_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEPIPE_HOME", str(folder / "home"))
    assert studio.wanted(studio.load(write(folder))) == []
    plan = studio.load(
        write(folder, ("north: north.mp4", "north: pull:pose2sim.single/cam01.mp4"), ("engine: stub", "engine: blazepose.full"))
    )
    assert studio.wanted(plan) == studio.missing(plan) == ["pose2sim.single", "blazepose.full", "blazepose.detector"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pull:pose2sim.sngle/cam01.mp4", "there is nothing to pull that is called 'pose2sim.sngle'\n  -> did you mean 'pose2sim.single'?"),
        ("pull:pose2sim.single/cam1.mp4", "pose2sim.single has no file 'cam1.mp4'\n  -> did you mean 'cam01.mp4'?"),
    ],
)
def test_something_that_nobody_can_fetch_is_told_with_its_line(folder: Path, uri: str, message: str) -> None:
    assert refused(folder, ("east: east.mp4", f"east: {uri}")) == f"hall.yaml:8: '{uri}': {message}"
