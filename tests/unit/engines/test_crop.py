from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from engine_kit import frame
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from posepipe.engines.crop import Rois, crop_rgb, image_from_crop, to_image
from posepipe.pipeline.errors import EngineError
from posepipe.pipeline.packet import Frame

W, H = 960, 720


def roi(x: float, y: float, side: float, angle: float = 0.0) -> Rois:
    return Rois(np.array([[x, y]]), np.array([side]), np.array([angle]))


def cut(f: Frame, r: Rois, size: int = 256) -> NDArray[np.uint8]:
    out = np.full((size, size, 3), 99, np.uint8)
    crop_rgb(f, image_from_crop(r, size=size)[0], out)
    return out


def blob(x: float, y: float, sigma: float) -> NDArray[np.uint8]:
    gx, gy = (np.exp(-((np.arange(n) - c) ** 2) / (2 * sigma**2)) for n, c in ((W, x), (H, y)))
    return (16 + 200 * gy[:, None] * gx[None]).round().astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    side=st.floats(100, 2500),
    angle=st.floats(-3.2, 3.2),
    at=st.tuples(st.floats(0.25, 0.75), st.floats(0.25, 0.75)),
    shift=st.tuples(st.floats(-0.15, 0.15), st.floats(-0.15, 0.15)),
    form=st.sampled_from(["i420", "nv12"]),
    size=st.sampled_from([224, 256]),
)
def test_points_of_a_crop_map_back_to_the_picture(side: float, angle: float, at: Any, shift: Any, form: Any, size: int) -> None:
    x, y = at[0] * W, at[1] * H
    sigma = max(3.0, 2.5 * side / size)
    picture = frame(blob(x, y, sigma), form=form)
    r = roi(x + shift[0] * side, y + shift[1] * side, side, angle)
    seen = cut(picture, r, size)[:, :, 1].astype(float)
    seen[seen < 12] = 0  # the tails that 8 bits cut off unevenly
    rows, columns = np.mgrid[:size, :size]
    centre = np.array([[[(seen * columns).sum(), (seen * rows).sum()]]]) / seen.sum()
    back = to_image(image_from_crop(r, size=size), centre)[0, 0]
    reach = 3 * sigma
    if reach < x < W - reach and reach < y < H - reach and reach < (0.5 - max(map(abs, shift))) * side:
        assert np.abs(back - (x, y)).max() < 0.1 * max(1.0, side / size / 2)


def test_the_corners_of_a_crop_are_those_of_its_region() -> None:
    m = image_from_crop(roi(100, 50, 40), size=256)
    corners = to_image(m, np.array([[[-0.5, -0.5], [255.5, 255.5], [127.5, 127.5]]]))[0]
    np.testing.assert_allclose(corners, [[80, 30], [120, 70], [100, 50]])


def test_up_leans_with_the_angle() -> None:
    m = image_from_crop(roi(100, 50, 40, np.pi / 2), size=256)
    top = to_image(m, np.array([[[127.5, -0.5]]]))[0, 0]
    np.testing.assert_allclose(top, [120, 50], atol=1e-9)


def test_a_region_of_its_own_size_is_the_picture_itself() -> None:
    rng = np.random.default_rng(1)
    y = cv2.GaussianBlur(rng.integers(16, 235, (256, 256)).astype(np.uint8), (0, 0), 1)
    grey = cut(frame(y), roi(127.5, 127.5, 256))
    want = np.clip((y.astype(float) - 16) * 255 / 219, 0, 255)
    assert np.abs(grey[:, :, 0] - want).max() <= 1


# BT.601: red, green and blue at three quarters, in video range and in full range
@pytest.mark.parametrize(
    ("yuv", "full_range", "rgb"),
    [
        ((16, 128, 128), False, (0, 0, 0)),
        ((235, 128, 128), False, (255, 255, 255)),
        ((82, 90, 240), False, (255, 0, 0)),
        ((145, 54, 34), False, (0, 255, 0)),
        ((41, 240, 110), False, (0, 0, 255)),
        ((0, 128, 128), True, (0, 0, 0)),
        ((255, 128, 128), True, (255, 255, 255)),
        ((76, 85, 255), True, (255, 0, 0)),
        ((150, 44, 21), True, (0, 255, 0)),
        ((29, 255, 107), True, (0, 0, 255)),
        ((100, 128, 128), True, (100, 100, 100)),
    ],
)
@pytest.mark.parametrize("form", ["i420", "nv12"])
def test_colours(yuv: Any, full_range: bool, rgb: Any, form: Any) -> None:
    f = frame(np.full((H, W), yuv[0], np.uint8), yuv[1], yuv[2], form=form, full_range=full_range)
    out = cut(f, roi(W / 2, H / 2, 500, 0.3))
    assert np.abs(out.reshape(-1, 3).astype(int) - rgb).max() <= 3


def test_both_formats_give_the_same_crop() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 256, (H, W)).astype(np.uint8)
    u, v = (rng.integers(0, 256, (H // 2, W // 2)).astype(np.uint8) for _ in range(2))
    r = roi(400, 300, 700, 0.4)
    np.testing.assert_array_equal(cut(frame(y, u, v), r), cut(frame(y, u, v, form="nv12"), r))


def test_colour_edges_are_where_brightness_edges_are() -> None:
    """A crop across an edge that luma and chroma share has it in one place."""
    y, u = np.full((H, W), 16, np.uint8), np.full((H // 2, W // 2), 128, np.uint8)
    y[:, 480:], u[:, 240:] = 120, 200
    out = cut(frame(y, u), roi(480, 360, 64), 256).astype(float)
    edges = [np.interp(0.5 * (c[0] + c[-1]), c, np.arange(256)) for c in (out[128, :, 1], out[128, :, 2])]
    assert abs(edges[0] - edges[1]) < 8  # half a chroma pixel of a fourfold enlargement


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("form", ["i420", "nv12"])
def test_outside_of_the_frame_is_black(full_range: bool, form: Any) -> None:
    f = frame(np.full((H, W), 200, np.uint8), form=form, full_range=full_range)
    out = cut(f, roi(0, 0, 800))
    assert out[:120, :120].max() <= 1
    assert out[136:, 136:].min() >= 195
    assert cut(f, roi(-2000, 300, 800, 0.5)).max() <= 1


def test_nothing_of_the_row_padding_is_seen() -> None:
    """The padding of these frames is bright; the crop's black border must not be."""
    out = cut(frame(np.full((H, W), 16, np.uint8)), roi(W, H, 900))
    assert out.max() <= 1


@pytest.mark.parametrize("side", [300, 700, 1500, 2400])
def test_fine_patterns_do_not_alias(side: float) -> None:
    """A chequerboard of single pixels is grey wherever it is cut at half size or less."""
    y = np.where((np.add.outer(np.arange(H), np.arange(W)) % 2) > 0, 235, 16).astype(np.uint8)
    inside = cut(frame(y), roi(W / 2, H / 2, side, 0.2), 64)[28:36, 28:36]
    assert np.abs(inside.astype(int) - 127).max() < 40


def test_regions_know_which_are_there() -> None:
    r = Rois(np.array([[1, 2], [np.nan, 2], [1, 2], [1, 2]]), np.array([5, 5, np.nan, 0]), np.zeros(4))
    assert r.there.tolist() == [True, False, False, False]
    assert len(r) == 4
    assert not Rois.none(3).there.any()


def supersampled(f: Frame, m: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """[size,size,3] in floating point: every pixel the mean of 8 x 8 bilinear looks at the planes."""
    s = 8
    black = 0.0 if f.full_range else 16.0
    u, v = (f.planes[1][..., 0], f.planes[1][..., 1]) if f.format == "nv12" else (f.planes[1], f.planes[2])
    in_chroma = np.column_stack([m[:, :2] / 2, (m[:, 2] - 0.5) / 2])

    def look(plane: NDArray[Any], to_plane: NDArray[np.float64], border: float) -> NDArray[np.float64]:
        at = (np.arange(size * s) + 0.5) / s - 0.5
        spots = np.stack(np.meshgrid(at, at), -1)
        xy = (spots @ to_plane[:, :2].T + to_plane[:, 2]).astype(np.float32)
        framed = np.pad(plane.astype(np.float32), 1, constant_values=border)
        seen = cv2.remap(framed, xy[..., 0] + 1, xy[..., 1] + 1, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=border)
        return seen.reshape(size, s, size, s).mean(axis=(1, 3)).astype(float)

    luma, chroma = (1.0, 1.0) if f.full_range else (255 / 219, 255 / 224)
    y = (look(f.planes[0], m, black) - black) * luma
    du, dv = ((look(p, in_chroma, 128.0) - 128) * chroma for p in (u, v))
    return np.clip(np.stack([y + 1.402 * dv, y - 0.344136 * du - 0.714136 * dv, y + 1.772 * du], -1), 0, 255)


def scenery(seed: int) -> tuple[NDArray[np.uint8], ...]:
    """Planes with detail at all sizes, as pictures have it."""
    rng = np.random.default_rng(seed)

    def plane(h: int, w: int) -> NDArray[np.uint8]:
        layers = [cv2.resize(rng.normal(0, 2.5 * n**0.5, (h // n + 1, w // n + 1)), (w, h)) for n in (2, 4, 12, 40, 120)]
        return np.clip(128 + np.sum(layers, axis=0), 16, 235).astype(np.uint8)

    return plane(H, W), plane(H // 2, W // 2), plane(H // 2, W // 2)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("form", ["i420", "nv12"])
@pytest.mark.parametrize(("side", "angle"), [(60, 0.4), (300, -0.3), (520, 1.2), (700, 3.0), (1100, 0.0), (1100, 0.7), (1700, -2.0)])
def test_a_crop_is_near_one_of_many_samples_a_pixel(side: float, angle: float, form: Any, full_range: bool) -> None:
    f = frame(*scenery(4), form=form, full_range=full_range)
    r = roi(500, 330, side, angle)
    error = cut(f, r) - supersampled(f, image_from_crop(r, size=256)[0], 256)
    inside = np.abs(error[8:-8, 8:-8])
    assert abs(error[8:-8, 8:-8].mean()) < 0.3
    assert inside.mean() < 2.6


@given(
    side=st.floats(1, 9000),
    angle=st.floats(-7, 7),
    at=st.tuples(st.floats(-0.7, 1.7), st.floats(-0.7, 1.7)),
    form=st.sampled_from(["i420", "nv12"]),
    size=st.sampled_from([2, 64, 224]),
)
@settings(max_examples=60, deadline=None)
def test_a_plain_wall_is_plain_and_nothing_else_is_seen(side: float, angle: float, at: Any, form: Any, size: int) -> None:
    """Wherever the crop lies: the wall, black, or between them; never the padding and never memory that was not filled."""
    f = frame(np.full((90, 120), 126, np.uint8), form=form)
    r = roi(at[0] * 120, at[1] * 90, side, angle)
    out = cut(f, r, size).astype(int)
    assert np.ptp(out, axis=2).max() <= 1
    assert out.max() <= 129
    m = image_from_crop(r, size=size)[0]
    rows, columns = np.mgrid[:size, :size]
    x, y = (m[i, 0] * columns + m[i, 1] * rows + m[i, 2] for i in range(2))
    reach = 16 + 2 * side / size
    well_inside = (x > reach) & (x < 119 - reach) & (y > reach) & (y < 89 - reach)
    far_away = (x < -reach) | (x > 119 + reach) | (y < -reach) | (y > 89 + reach)
    assert (out[well_inside] == 128).all()
    assert (out[far_away] == 0).all()


@pytest.mark.parametrize("form", ["i420", "nv12"])
@pytest.mark.parametrize("side", [60, 500, 900])
def test_padded_rows_are_cut_as_those_without(form: Any, side: float) -> None:
    """Also where the rows are read with what lies between them, to the last byte of the picture."""
    tight = frame(*scenery(6), form=form)
    tight = Frame("cam", 0, 0, tight.format, W, H, tuple(np.ascontiguousarray(p) for p in tight.planes))
    padded = Frame(
        "cam", 0, 0, tight.format, W, H, tuple(np.pad(p, ((0, 0), (0, 64), *[(0, 0)] * (p.ndim - 2)))[:, :-64] for p in tight.planes)
    )
    for at in ((400, 300), (W - side / 2, H - side / 2)):
        np.testing.assert_array_equal(cut(tight, roi(*at, side)), cut(padded, roi(*at, side)))


def test_bright_beyond_white_and_dark_below_black_is_cut_off() -> None:
    """With the strongest colours that bytes can hold."""
    for luma, u, v, rgb in (
        (255, 255, 255, (255, 125, 255)),
        (0, 0, 0, (0, 135, 0)),
        (255, 0, 0, (74, 255, 20)),
        (0, 255, 255, (184, 0, 237)),
    ):
        out = cut(frame(np.full((H, W), luma, np.uint8), u, v), roi(W / 2, H / 2, 300))
        assert np.abs(out.reshape(-1, 3).astype(int) - rgb).max() <= 1


@pytest.mark.parametrize("form", ["i420", "nv12"])
def test_planes_that_run_backwards_are_cut_as_they_are_seen(form: Any) -> None:
    plain = frame(*scenery(5), form=form)
    turned = Frame("cam", 0, 0, plain.format, W, H, tuple(np.ascontiguousarray(p)[:, ::-1] for p in plain.planes))
    straight = Frame("cam", 0, 0, plain.format, W, H, tuple(np.ascontiguousarray(p[:, ::-1]) for p in plain.planes))
    np.testing.assert_array_equal(cut(turned, roi(300, 300, 500, 0.3)), cut(straight, roi(300, 300, 500, 0.3)))


@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf, 1e30, -1e12])
def test_a_region_that_is_nowhere_is_refused(x: float) -> None:
    with pytest.raises(EngineError, match=r"^cam: a crop cannot be cut by the map .*\n  -> cut only the regions that are `there`"):
        cut(frame(np.full((H, W), 100, np.uint8)), roi(x, 0, 100))
