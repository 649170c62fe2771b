"""What the pictures are made of: shrunk frames keep their colours, skeletons their sides, unsure joints are faint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from posepipe.nodes._canvas import SIDES, Rect, greyed, paint_skeleton, thumbnail
from posepipe.pipeline.packet import Frame
from posepipe.pipeline.skeleton import Skeleton

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


def test_rect_is_a_view() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    Rect(2, 3, 4, 5).of(image)[:] = 9
    assert image.sum() == 9 * 3 * 20
