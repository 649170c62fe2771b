"""A recording far behind its studio is led to a key picture that is due, and every frame passed over is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from capture_kit import LOST, Camera
from clips import encode, number_of

pytestmark = pytest.mark.usefixtures("closed")


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


@pytest.mark.parametrize(("until_s", "first"), [(0.3, 0), (1.0, 30), (7.99, 210), (3600.5, 108_000)])
def test_a_recording_that_is_started_again_is_where_it_would_be(tmp_path: Path, until_s: float, first: int) -> None:
    """30 frames at 30 Hz, one key picture: whole rounds are passed over without reading them, and the numbers go on."""
    camera = Camera(encode(tmp_path / "clip.mp4", 30, gop=60), loop=True)
    camera.node.resume(until_s)
    frame = camera.node.step()
    assert frame is not None
    assert (frame.seq, number_of(frame)) == (first, 0)
    assert camera.node.due_s() == pytest.approx(first / 30 + 1 / 30)


def test_a_resampled_recording_is_where_it_would_be(tmp_path: Path) -> None:
    camera = Camera(encode(tmp_path / "clip.mp4", 30, gop=60), loop=True, fps=15)
    camera.node.resume(10.2)
    assert camera.node.due_s() == pytest.approx(152 / 15), "the last point of the grid before that moment but one"
    frame = camera.node.step()
    assert frame is not None
    assert (frame.seq, number_of(frame)) == (152, 4)
