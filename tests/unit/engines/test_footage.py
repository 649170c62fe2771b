"""Pictures of a recording: which, in which order, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from clips import encode, number_of

from posepipe.engines.assets import Asset, asset
from posepipe.engines.footage import pictures
from posepipe.pipeline.errors import EngineError, PullError


@pytest.fixture
def recording(tmp_path: Path) -> Asset:
    """Two cameras of 30 pictures, in the place of the real ones."""
    real = asset("pose2sim.single")
    files = []
    for member, name in zip(real.files, ("north.mp4", "south.mp4"), strict=False):
        path = encode(tmp_path / name)
        files.append(type(member)(name=name, sha256="", bytes=path.stat().st_size))
    return replace(real, files=tuple(files), beside=tmp_path)


def test_pictures_are_spread_evenly_camera_after_camera(recording: Asset) -> None:
    seen = [(f.camera, f.seq, number_of(f)) for f in pictures(recording, instants=4)]
    assert seen == [(camera, at, at) for camera in ("north", "south") for at in (0, 10, 19, 29)]
    assert len(list(pictures(recording, instants=1000))) == 60
    assert [f.seq for f in pictures(recording, instants=1)] == [0, 0]


def test_a_picture_is_as_large_as_it_is(recording: Asset) -> None:
    frame = next(pictures(recording, instants=1))
    assert (frame.width, frame.height, frame.format) == (64, 48, "i420")
    assert [p.shape for p in frame.planes] == [(48, 64), (24, 32), (24, 32)]


def test_a_network_is_no_recording() -> None:
    with pytest.raises(EngineError, match=r"blazepose\.full is a network"):
        next(pictures(asset("blazepose.full"), instants=1))


def test_a_recording_that_is_not_here_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(PullError, match=r"posepipe pull pose2sim\.single|not on this machine"):
        next(pictures(asset("pose2sim.single"), instants=1))


def test_a_recording_without_video(recording: Asset) -> None:
    with pytest.raises(EngineError, match="no video in this recording"):
        next(pictures(replace(recording, files=()), instants=1))


def test_a_damaged_video_is_named(recording: Asset) -> None:
    path = recording.folder / "north.mp4"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(EngineError, match="cannot be read") as e:
        next(pictures(recording, instants=1))
    assert str(path) in str(e.value)
