"""A recording acts as a camera: every picture at its time, in order, at the asked rate, round after round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_kit import Camera
from clips import encode, number_of

from posepipe.nodes._video import RecordedVideo
from posepipe.pipeline.packet import Frame

pytestmark = pytest.mark.usefixtures("closed")


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


def test_what_a_file_says_of_itself(clip: Path) -> None:
    info = Camera(clip).node.info
    assert (info.width, info.height, info.rate_hz, info.frames, info.codec) == (64, 48, 30.0, 30, "h264")
    assert Camera(clip, fps=12.5).node.info.rate_hz == 12.5


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


@pytest.mark.parametrize("name", ["late.mkv", "late.mp4", "late.ts"])
def test_a_loop_is_whole_from_its_first_round_whatever_its_first_stamp(tmp_path: Path, name: str) -> None:
    file = encode(tmp_path / name, times_ms=[5000 + 40 * i for i in range(25)])
    assert Camera(file, loop=True).numbers(60) == [i % 25 for i in range(60)]


def test_a_file_that_cannot_be_rewound_ends_with_a_word(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(clip, loop=True)
    video = camera.node._video
    assert isinstance(video, RecordedVideo)

    def one_way() -> None:
        raise OSError(29, "Illegal seek")

    monkeypatch.setattr(video._next, "begin", one_way)
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


@pytest.mark.parametrize(("codec", "name"), [("libx264", "coarse.mp4"), ("libx265", "coarse_265.mp4")])
def test_edges_of_blocks_stay_where_they_are_not_smoothed(tmp_path: Path, codec: str, name: str) -> None:
    """Coarse coding leaves edges around blocks, which the codec's own filter takes away; all else is the same."""
    strong = {"crf": "40"} if codec == "libx264" else {"x265-params": "log-level=0:sao=0:crf=40"}
    file = encode(tmp_path / name, 20, size=(128, 96), codec=codec, b_frames=0, options=strong)
    smooth, rough = ([f for _, f in Camera(file, deblock=on).frames() if f is not None] for on in (True, False))
    assert [f.seq for f in rough] == [f.seq for f in smooth] == list(range(20))

    def unrest(frame: Frame) -> float:
        return float(np.abs(np.diff(frame.planes[0].astype(float), axis=1)).sum())

    assert unrest(rough[0]) > unrest(smooth[0])
    assert float(np.abs(rough[0].planes[0].astype(float) - smooth[0].planes[0]).mean()) < 8


def test_a_codec_without_a_filter_is_the_same_either_way(tmp_path: Path) -> None:
    file = encode(tmp_path / "clip.mkv", 5, codec="ffv1")
    one, other = ([f.planes[0].tobytes() for _, f in Camera(file, deblock=on).frames() if f is not None] for on in (True, False))
    assert one == other


def test_a_frame_outlives_the_next_ones(clip: Path) -> None:
    camera = Camera(clip)
    frames = [frame for _, frame in camera.frames() if frame is not None]
    camera.node.close()
    assert [number_of(frame) for frame in frames] == list(range(30))
