"""What can be known of the recordings before start, and what is refused then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import people
import pytest
from clips import encode

from posepipe.launch import preflight
from posepipe.nodes import Catalogue
from posepipe.nodes._video import StreamInfo
from posepipe.pipeline.errors import RigError, SourceError
from posepipe.pipeline.graph import Plan, load_plan

STUDIO = """\
studio: hall
nodes:
  capture:
    use: capture.video
    each: {north: north.mp4, east: east.mp4, south: south.mp4}
  instants: {use: sync.instant, from: capture}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    file = tmp_path / "hall.yaml"
    file.write_text(STUDIO)
    return load_plan(file, Catalogue())


def info(*, frames: int | None = 100, rate_hz: float = 30.0, size: tuple[int, int] = (640, 480)) -> StreamInfo:
    return StreamInfo(*size, rate_hz, frames, "h264")


def refused(plan: Plan, infos: dict[str, StreamInfo], **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        preflight.check(plan, None, infos, **options)
    return str(caught.value).replace(f"{plan.folder}/", "")


def test_cameras_that_agree_are_no_news(plan: Plan) -> None:
    assert preflight.check(plan, None, {"north": info(), "east": info(rate_hz=30.001), "south": info()}) == []


def test_one_camera_has_nobody_to_disagree_with(plan: Plan) -> None:
    assert preflight.check(plan, None, {"north": info(frames=3, rate_hz=12)}) == []


@pytest.mark.parametrize(("fast", "agrees"), [(30.2, True), (29.97, True), (31.0, False), (60.0, False)])
def test_rates(plan: Plan, fast: float, agrees: bool) -> None:
    infos = {"north": info(), "east": info(rate_hz=fast), "south": info()}
    if agrees:
        (warning,) = preflight.check(plan, None, infos)
        assert warning.startswith("cameras of slightly different rates: ")
        assert f"they drift {60_000 * (max(fast, 30) / min(fast, 30) - 1):.0f} ms apart in a minute" in warning
    else:
        assert refused(plan, infos) == (
            f"hall.yaml:3: cameras of different rates: east has {fast:g} frames/s, north has 30\n"
            "  -> resample them to one rate: fps: 30 in the capture node"
        )


def test_a_rate_that_nobody_knows_is_left_alone(plan: Plan) -> None:
    assert preflight.check(plan, None, {"north": info(), "east": info(rate_hz=0.0)}) == []


def test_different_lengths_are_said(plan: Plan) -> None:
    assert preflight.check(plan, None, {"north": info(), "east": info(frames=97), "south": info(frames=99)}) == [
        "cameras of different lengths: east has 97 frames, north has 100; the last 3 instants lack east. "
        "If they did not start together, cut them first."
    ]


def test_a_length_that_nobody_knows_is_left_alone(plan: Plan) -> None:
    assert preflight.check(plan, None, {"north": info(), "east": info(frames=None)}) == []


def test_footage_of_another_size_than_the_calibration(plan: Plan) -> None:
    rig = people.ring(3, width=640, height=480)
    preflight.check(plan, rig, {n: info() for n in rig.names})
    with pytest.raises(
        RigError,
        match=r"camera 'east' was calibrated at 640x480, its video is 320x240\n  -> .* image: \{east: \{scale: \[2\.0000, 2\.0000\]",
    ):
        preflight.check(plan, rig, {"north": info(), "east": info(size=(320, 240)), "south": info()})


def test_devices_and_streams_are_not_opened_to_look(tmp_path: Path) -> None:
    encode(tmp_path / "south.mp4", 5)
    file = tmp_path / "hall.yaml"
    file.write_text(STUDIO.replace("north.mp4", "/dev/video99").replace("east.mp4", "'rtsp://camera.invalid/1'"))
    infos = preflight.probe_recordings(load_plan(file, Catalogue()), lambda text: tmp_path / text)
    assert infos == {"south": StreamInfo(64, 48, 30.0, 5, "h264")}


def test_a_resampled_recording_has_the_new_rate(tmp_path: Path, plan: Plan) -> None:
    for name in plan.cameras:
        encode(tmp_path / f"{name}.mp4", 12)
    file = tmp_path / "hall.yaml"
    file.write_text(STUDIO.replace("    each:", "    fps: 15\n    each:"))
    infos = preflight.probe_recordings(load_plan(file, Catalogue()), lambda text: tmp_path / text)
    assert {(i.rate_hz, i.frames) for i in infos.values()} == {(15.0, 6)}
