"""A recording acts as a camera: every picture at its time, in order, each one handed on or counted as lost, whatever the file is like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import damaged, encode, number_of, rewrite
from node_kit import Studio

from posepipe.nodes._video import RecordedVideo, open_video
from posepipe.nodes.capture_video import CaptureVideo
from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.node import FrameLost
from posepipe.pipeline.packet import Frame

LOST = -1
RAW = {"codec": "ffv1", "container": "matroska"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 pictures at 30 per second with B-pictures, a key picture every 12."""
    return encode(tmp_path_factory.mktemp("clips") / "clip.mp4")


OPEN: list[CaptureVideo] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


class Camera:
    """An opened capture.video that is asked for frames as the runner asks."""

    def __init__(self, file: Path | str, *, loop: bool = False, offline: bool = False, **settings: Any) -> None:
        self.studio = Studio()
        self.reasons: list[str] = []
        self.node = CaptureVideo(CaptureVideo.Settings(uri=str(file), **settings))
        OPEN.append(self.node)
        self.node.open(self.studio.context(key="north", loop=loop, offline=offline))

    def frames(self, most: int = 500) -> Iterator[tuple[float, Frame | None]]:
        """(due in seconds, frame or None where it was lost) up to the end."""
        for _ in range(most):
            due = self.node.due_s()
            assert due is not None
            try:
                frame = self.node.step()
            except FrameLost as lost:
                self.reasons.append(str(lost))
                yield due, None
                continue
            if frame is None:
                return
            yield due, frame

    def numbers(self, most: int = 500) -> list[int]:
        return [LOST if frame is None else number_of(frame) for _, frame in self.frames(most)]


def refused(file: Path | str, **settings: Any) -> str:
    with pytest.raises(SourceError) as caught:
        Camera(file, **settings)
    return str(caught.value)


# order and time ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("h264.mp4", {}),
        ("h264.mkv", {}),
        ("h264.ts", {}),
        ("h264.avi", {}),
        ("pyramid.mp4", {"options": {"bf": "8", "b-pyramid": "normal", "b_strategy": "0"}, "b_frames": 8, "gop": 30}),
        ("intra.mp4", {"gop": 1, "b_frames": 0}),
        ("h265.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=0"}}),
        ("mpeg4.avi", {"codec": "mpeg4", "b_frames": 0, "options": {"qscale": "1", "flags": "+qscale"}}),
        ("vp8.webm", {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "1M"}}),
        ("ffv1.mkv", {"codec": "ffv1"}),
    ],
)
def test_pictures_come_in_the_order_of_time(tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    camera = Camera(encode(tmp_path / name, **how))
    frames = list(camera.frames())
    assert [frame and number_of(frame) for _, frame in frames] == list(range(30))
    assert [frame and frame.seq for _, frame in frames] == list(range(30))
    assert [due for due, _ in frames] == pytest.approx([i / 30 for i in range(30)], abs=6e-4)
    assert camera.studio.warnings == []
    assert camera.node.step() is None, "the end stays the end"


def test_the_time_is_known_before_the_picture_is_decoded(clip: Path) -> None:
    camera = Camera(clip)
    assert [camera.node.due_s() for _ in range(3)] == [0.0, 0.0, 0.0]
    camera.node.step()
    assert camera.node.due_s() == pytest.approx(1 / 30)


def test_the_first_picture_is_the_start_whatever_its_stamp(tmp_path: Path) -> None:
    file = encode(tmp_path / "late.mkv", times_ms=[5000 + 40 * i for i in range(10)])
    assert [round(due, 3) for due, _ in Camera(file).frames()] == [round(0.04 * i, 3) for i in range(10)]


def test_variable_rate(tmp_path: Path) -> None:
    times = [0, 33, 66, 133, 300, 305, 400]
    frames = list(Camera(encode(tmp_path / "vfr.mkv", times_ms=times)).frames())
    assert [round(due * 1000) for due, _ in frames] == times
    assert [frame and number_of(frame) for _, frame in frames] == list(range(7))


@pytest.mark.parametrize(("speed", "last_s"), [(0.5, 58 / 30), (1.0, 29 / 30), (4.0, 7.25 / 30)])
def test_speed_changes_the_pace_and_nothing_else(clip: Path, speed: float, last_s: float) -> None:
    frames = list(Camera(clip, speed=speed).frames())
    assert frames[-1][0] == pytest.approx(last_s)
    assert [frame and number_of(frame) for _, frame in frames] == list(range(30))


def test_offline_the_times_are_the_recordings_own_and_it_plays_once(clip: Path) -> None:
    frames = list(Camera(clip, speed=0.5, loop=True, offline=True).frames())
    assert len(frames) == 30
    assert frames[-1][0] == pytest.approx(29 / 30)


# looping ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.avi"])
def test_a_loop_goes_on_in_time_and_in_number(tmp_path: Path, name: str) -> None:
    camera = Camera(encode(tmp_path / name), loop=True)
    frames = list(camera.frames(75))
    assert [frame and number_of(frame) for _, frame in frames] == [i % 30 for i in range(75)]
    assert [frame and frame.seq for _, frame in frames] == list(range(75))
    assert np.diff([due for due, _ in frames]) == pytest.approx(1 / 30, abs=1.1e-3)
    assert camera.studio.warnings == []


def test_a_loop_of_a_variable_rate_keeps_its_gaps(tmp_path: Path) -> None:
    camera = Camera(encode(tmp_path / "vfr.mkv", times_ms=[0, 40, 120, 160]), loop=True)
    due = [due * 1000 for due, _ in camera.frames(9)]
    period = due[4] - 160
    assert due == pytest.approx([0, 40, 120, 160, 160 + period, 200 + period, 280 + period, 320 + period, 320 + 2 * period], abs=0.01)
    assert 20 <= period <= 60


def test_a_short_recording_waits_for_the_others_before_it_starts_again(clip: Path) -> None:
    camera = Camera(clip, loop=True)
    camera.node.begin_rounds_together(1.5)
    due = [round(due * 30) for due, _ in camera.frames(65)]
    assert due == [*range(30), *range(45, 75), *range(90, 95)]
    resampled = Camera(clip, loop=True, fps=60)
    resampled.node.begin_rounds_together(1.5)
    frames = list(resampled.frames(130))
    assert [round(due * 60) for due, _ in frames] == [*range(60), *range(90, 150), *range(180, 190)], "no picture is shown in the pause"
    assert [frame and number_of(frame) for _, frame in frames][58:64] == [29, 29, 0, 0, 1, 1]


def test_a_file_that_cannot_be_rewound_ends_with_a_word(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(clip, loop=True)
    video = camera.node._video
    assert isinstance(video, RecordedVideo)

    class OneWay:
        def seek(self, *_: Any, **__: Any) -> None:
            raise OSError(29, "Illegal seek")

    monkeypatch.setattr(video, "_container", OneWay())
    assert camera.numbers() == list(range(30))
    assert camera.studio.warnings == ["camera north: cannot be played again: Illegal seek"]


# another rate -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "want"),
    [
        (30, list(range(30))),
        (15, list(range(0, 30, 2))),
        (60, [i // 2 for i in range(60)]),
        (10, list(range(0, 30, 3))),
        (20, [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22, 24, 25, 27, 28]),
        (45, [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 9, 10, 11, 11, 12, 13, 13, 14, 15, 15, 16, 17, 17, 18, 19, 19, 20, 21, 21, 22, 23, 23, 24, 25, 25, 26, 27, 27, 28, 29, 29]),
    ],
)  # fmt: skip
def test_resampling_takes_the_nearest_picture(clip: Path, fps: int, want: list[int]) -> None:
    camera = Camera(clip, fps=fps)
    frames = list(camera.frames())
    assert [frame and number_of(frame) for _, frame in frames] == want
    assert [due for due, _ in frames] == pytest.approx([i / fps for i in range(len(want))])
    assert [frame and frame.seq for _, frame in frames] == list(range(len(want)))
    assert (camera.node.info.rate_hz, camera.node.info.frames) == (fps, len(want))


def test_a_variable_rate_becomes_even(tmp_path: Path) -> None:
    file = encode(tmp_path / "vfr.mkv", times_ms=[0, 20, 40, 100, 200, 210, 300])
    assert [round(due * 1000) for due, _ in Camera(file, fps=10).frames()] == [0, 100, 200, 300]
    assert Camera(file, fps=10).numbers() == [0, 3, 4, 6]


def test_resampling_goes_on_through_a_loop(clip: Path) -> None:
    assert Camera(clip, fps=15, loop=True).numbers(35) == [*range(0, 30, 2), *range(0, 30, 2), *range(0, 10, 2)]


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


# far behind -------------------------------------------------------------------------------------------------------------------


def skip_after(camera: Camera, shown: int, until_s: float) -> tuple[int, list[int]]:
    """How many frames a skip costs after so many were shown, and which pictures come then."""
    before = camera.numbers(shown)
    assert len(before) == shown
    passed = camera.node.skip(until_s)
    return passed, camera.numbers()


@pytest.mark.parametrize(
    ("until_s", "passed"),
    [
        (0.2, 0),  # no key picture is due by then
        (11.9 / 30, 0),
        (12.0 / 30 + 1e-6, 9),  # the one at 12 is
        (0.79, 9),
        (24.1 / 30, 9),  # the one at 24 is due as well, and out of sight: 20 packets
    ],
)
def test_a_skip_leads_to_a_key_picture_that_is_due(tmp_path: Path, until_s: float, passed: int) -> None:
    camera = Camera(encode(tmp_path / "clip.mp4", 60, gop=12, b_frames=0))
    got, numbers = skip_after(camera, 3, until_s)
    assert got == passed
    assert numbers == list(range(3 + passed, 60))


def test_a_skip_takes_the_last_key_picture_that_is_due(tmp_path: Path) -> None:
    camera = Camera(encode(tmp_path / "clip.mp4", 60, gop=5, b_frames=0))
    passed, numbers = skip_after(camera, 3, 0.6)
    assert (passed, numbers) == (12, list(range(15, 60)))


def test_no_key_picture_in_sight_is_no_reason_to_give_up_the_file(tmp_path: Path) -> None:
    camera = Camera(encode(tmp_path / "clip.mp4", 60, gop=60, b_frames=0))
    passed, numbers = skip_after(camera, 3, 100.0)
    assert (passed, numbers) == (0, list(range(3, 60)))


def test_a_skip_with_b_pictures_loses_nothing_uncounted(tmp_path: Path) -> None:
    camera = Camera(encode(tmp_path / "clip.mp4", 60, gop=12, b_frames=3))
    passed, numbers = skip_after(camera, 3, 0.5)
    assert passed == 9
    assert [n for n in numbers if n != LOST] == [i for i in range(12, 60) if numbers[i - 12] != LOST]
    assert len(numbers) == 48
    frames = Camera(encode(tmp_path / "again.mp4", 60, gop=12, b_frames=3))
    list(frames.frames(3))
    frames.node.skip(0.5)
    due, frame = next(frames.frames(1))
    assert due == pytest.approx(12 / 30)
    assert frame is not None
    assert frame.seq == 12


def test_a_skip_can_lead_into_the_next_round(clip: Path) -> None:
    camera = Camera(clip, loop=True)
    camera.numbers(20)
    assert camera.node.skip(1.05) == 10
    due, frame = next(camera.frames(1))
    assert due == pytest.approx(1.0)
    assert frame is not None
    assert (number_of(frame), frame.seq) == (0, 30)


def test_a_skip_follows_the_speed(tmp_path: Path) -> None:
    camera = Camera(encode(tmp_path / "clip.mp4", 60, gop=5, b_frames=0), speed=0.5)
    assert skip_after(camera, 3, 0.6)[0] == 2, "half a second of the studio is a quarter of a second of the recording"


def test_a_resampled_recording_skips_points_of_time(tmp_path: Path) -> None:
    camera = Camera(encode(tmp_path / "clip.mp4", 60, gop=5, b_frames=0), fps=15)
    camera.numbers(2)
    passed = camera.node.skip(0.5)
    assert passed == 4
    due, frame = next(camera.frames(1))
    assert frame is not None
    assert (frame.seq, number_of(frame), round(due, 4)) == (6, 12, 0.4)


# picture formats --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (62, 46), (1, 1), (64, 1)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "nv12"])
def test_planes(tmp_path: Path, size: tuple[int, int], pix_fmt: str) -> None:
    file = encode(tmp_path / "clip.nut", 3, size=size, codec="rawvideo", pix_fmt=pix_fmt)
    frame = Camera(file).node.step()
    assert frame is not None
    width, height = size
    half = ((height + 1) // 2, (width + 1) // 2)
    assert (frame.width, frame.height, frame.format) == (width, height, "nv12" if pix_fmt == "nv12" else "i420")
    assert [p.shape for p in frame.planes] == [(height, width), *([(*half, 2)] if pix_fmt == "nv12" else [half, half])]
    for plane in frame.planes:
        assert plane.dtype == np.uint8
        assert not plane.flags.writeable
        assert plane.base is not None, "a view into the decoder's buffer, no copy"


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "name", "full"),
    [
        ("yuv420p", "libx264", "a.mp4", False),
        ("yuvj420p", "mjpeg", "a.avi", True),
        ("yuvj422p", "mjpeg", "a.avi", True),
        ("yuv422p", "libx264", "a.mp4", False),
        ("yuv444p", "libx264", "a.mp4", False),
        ("gray", "ffv1", "a.mkv", False),
    ],
)
def test_other_layouts_become_420_and_say_their_range(tmp_path: Path, pix_fmt: str, codec: str, name: str, full: bool) -> None:
    frame = Camera(encode(tmp_path / name, 2, codec=codec, pix_fmt=pix_fmt)).node.step()
    assert frame is not None
    assert (frame.format, frame.full_range) == ("i420", full)
    assert [p.shape for p in frame.planes] == [(48, 64), (24, 32), (24, 32)]
    white_to_black = (float(frame.planes[0][:, 40:].mean()) - (0 if full else 16)) / (255 if full else 219)
    assert white_to_black == pytest.approx((30 - 16) / 219, abs=0.01), "the first picture is dark, in the range that the frame states"


def test_a_frame_outlives_the_next_ones(clip: Path) -> None:
    camera = Camera(clip)
    frames = [frame for _, frame in camera.frames() if frame is not None]
    camera.node.close()
    assert [number_of(frame) for frame in frames] == list(range(30))


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


def test_a_live_stream_cannot_be_run_offline(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import posepipe.nodes.capture_video as module

    class Live(module.LiveVideo):
        def __init__(self) -> None:
            pass

        def close(self) -> None:
            pass

        info = open_video(str(clip), camera="a", resolve=Path, fps=None, options={}, timeout_s=1).info

    monkeypatch.setattr(module, "open_video", lambda *_, **__: Live())
    assert (
        refused("rtsp://camera/1", offline=True)
        == "camera north: rtsp://camera/1 is a live stream\n  -> --offline needs recordings; leave it out"
    )


def test_what_a_file_says_of_itself(clip: Path) -> None:
    info = Camera(clip).node.info
    assert (info.width, info.height, info.rate_hz, info.frames, info.codec) == (64, 48, 30.0, 30, "h264")
    assert Camera(clip, fps=12.5).node.info.rate_hz == 12.5
