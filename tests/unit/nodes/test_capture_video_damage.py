"""What is damaged is counted as lost and the rest goes on; what cannot be opened says why and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_kit import LOST, Camera, refused
from clips import damaged, encode, number_of, rewrite

pytestmark = pytest.mark.usefixtures("closed")


# what is damaged --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_damaged_pictures_are_counted_and_the_rest_goes_on(tmp_path: Path, name: str) -> None:
    good = encode(tmp_path / "good.mp4", gop=1, b_frames=0)
    camera = Camera(rewrite(good, tmp_path / name, lambda i, p: damaged(p) if i in (10, 11, 20) else p))
    assert camera.numbers() == [LOST if i in (10, 11, 20) else i for i in range(30)]
    assert camera.reasons == ["corrupt picture"] * 3
    assert camera.studio.warnings == []


def test_numbers_and_times_go_on_over_what_was_lost(tmp_path: Path) -> None:
    good = encode(tmp_path / "good.mp4", gop=1, b_frames=0)
    frames = list(Camera(rewrite(good, tmp_path / "bad.mp4", lambda i, p: damaged(p) if i == 3 else p)).frames())
    assert [frame and frame.seq for _, frame in frames][:6] == [0, 1, 2, None, 4, 5]
    assert [due for due, _ in frames] == pytest.approx([i / 30 for i in range(30)])


def test_all_of_a_group_is_told_when_its_key_picture_is_gone(tmp_path: Path) -> None:
    good = encode(tmp_path / "good.mp4", gop=10, b_frames=0)
    numbers = Camera(rewrite(good, tmp_path / "bad.mp4", lambda i, p: damaged(p) if i == 10 else p)).numbers()
    assert len(numbers) == 30, "every picture of the file is handed on or counted"
    assert numbers[:10] == list(range(10))
    assert numbers[10] == LOST
    assert numbers[20:] == list(range(20, 30))


def test_a_damaged_picture_is_lost_at_every_point_of_time_that_it_was_for(tmp_path: Path) -> None:
    good = encode(tmp_path / "good.mp4", 6, gop=1, b_frames=0)
    bad = rewrite(good, tmp_path / "bad.mp4", lambda i, p: damaged(p) if i == 2 else p)
    assert Camera(bad, fps=60).numbers() == [0, 0, 1, 1, LOST, LOST, 3, 3, 4, 4, 5, 5]
    assert Camera(bad, fps=15).numbers() == [0, LOST, 4]


def test_a_file_cut_in_the_middle_plays_as_far_as_it_goes_and_says_so(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4", gop=1, b_frames=0, options={"movflags": "faststart"})
    file = rewrite(whole, tmp_path / "cut.mp4", lambda i, p: p, options={"movflags": "faststart"})
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    camera = Camera(file)
    numbers = camera.numbers()
    had = len(numbers)
    assert 10 < had < 30
    assert [n for n in numbers[:-1] if n != LOST] == list(range(had - 1)), "only the picture at the cut may be damaged"
    assert camera.studio.warnings == [f"camera north: ends after {had} of 30 frames: the file is truncated"]


def test_a_trimmed_clip_starts_where_it_was_trimmed(tmp_path: Path) -> None:
    """Phones trim with an edit list: the pictures before the cut are still in the file, and must not be shown, timed or counted."""
    whole = encode(tmp_path / "whole.mp4", gop=30, b_frames=0)

    def earlier(_: int, packet: Any) -> Any:
        shift = round(10 / 30 / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        return packet

    camera = Camera(rewrite(whole, tmp_path / "trimmed.mp4", earlier, options={"avoid_negative_ts": "disabled"}))
    frames = list(camera.frames())
    assert [frame and number_of(frame) for _, frame in frames] == list(range(10, 30))
    assert frames[0][0] == 0.0
    assert camera.node.info.frames == 20
    assert camera.studio.warnings == []


# what cannot be opened --------------------------------------------------------------------------------------------------------


def test_a_missing_file_says_what_is_beside_it(clip: Path) -> None:
    assert (
        refused(clip.parent / "clip2.mp4") == f"camera north: there is no file {clip.parent}/clip2.mp4\n  -> beside it there is: clip.mp4"
    )
    assert refused("/no/such/folder/a.mp4") == (
        "camera north: there is no file /no/such/folder/a.mp4\n  -> check the path; it is relative to the studio file"
    )


def test_files_that_are_no_videos(tmp_path: Path, clip: Path) -> None:
    empty, text, headless = tmp_path / "empty.mp4", tmp_path / "notes.mp4", tmp_path / "headless.mp4"
    empty.touch()
    text.write_text("not a video\n" * 50)
    headless.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert refused(empty) == f"camera north: {empty} is empty (0 bytes)\n  -> record or copy it again"
    for file in (text, headless):
        assert refused(file) == (
            f"camera north: {file} is not a video that can be read\n  -> truncated (the index at its end is missing), or not a video: copy it again from where it was recorded"
        )
    assert refused(tmp_path).startswith(f"camera north: {tmp_path} is a folder\n")


def test_a_stream_without_time_stamps_says_what_to_do(tmp_path: Path) -> None:
    file = encode(tmp_path / "raw.h264", container="h264")
    assert (
        refused(file)
        == f"camera north: {file} has no time stamps\n  -> put it into a container: ffmpeg -framerate 30 -i IN -c copy OUT.mp4"
    )


def test_a_file_with_sound_only(tmp_path: Path) -> None:
    import av

    file = tmp_path / "sound.wav"
    with av.open(str(file), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        out.mux(stream.encode(sound))
    assert refused(file) == f"camera north: {file} has no video stream\n  -> name a file with pictures"


def test_a_codec_that_nobody_can_decode(tmp_path: Path) -> None:
    file = encode(tmp_path / "clip.avi", codec="mjpeg", pix_fmt="yuvj420p")
    file.write_bytes(file.read_bytes().replace(b"MJPG", b"ZZZZ"))
    assert refused(file) == f"camera north: {file}: no decoder for its codec\n  -> re-encode: ffmpeg -i IN -c:v libx264 OUT.mp4"


@pytest.mark.parametrize("uri", ["rtsp://camera/1", "/dev/video0", "udp://239.0.0.1:5000"])
def test_a_live_stream_cannot_be_run_offline(uri: str) -> None:
    assert refused(uri, offline=True) == f"camera north: {uri} is a live stream\n  -> --offline needs recordings; leave it out"
