"""Heatmaps handed on: coco17's channels as probabilities, and exactly what of the frame they cover."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from engine_kit import frame
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.engines.assets import Asset, catalogue
from posepipe.engines.card import Preprocess, TensorCard
from posepipe.engines.crop import Rois, image_from_crop, to_image
from posepipe.engines.decoders import MapLayout, open_maps_decoder
from posepipe.engines.decoders.heatmaps import probabilities
from posepipe.engines.engine import EngineOptions
from posepipe.engines.network import TopDown, has_maps, map_regions
from posepipe.pipeline.errors import PullError
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17

STUB = EngineOptions(runtime="stub")
BLAZE = [BLAZEPOSE33.index(j) for j in COCO17.joints]


def card(shape: tuple[int, ...], *, size: tuple[int, int] = (192, 256), skeleton: str = "coco17", **decoder: Any) -> Asset:
    outputs = {"maps": TensorCard(shape, "float32")}
    fields = {"skeleton": skeleton, "outputs": outputs, "preprocess": Preprocess(size=size), "decoder": {"kind": "heatmaps", **decoder}}
    return replace(catalogue()["rtmpose.m"], name="my.net", **fields)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("values", ["logits", "probabilities"])
def test_channels_are_picked_and_are_probabilities(layout: str, values: str) -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(0, 40, (2, 39, 64, 64)).astype(np.float32) if values == "logits" else rng.random((2, 39, 64, 64), np.float32)
    given_ = maps if layout == "nchw" else np.ascontiguousarray(maps.transpose(0, 2, 3, 1))
    decode, where = open_maps_decoder(
        card((-1, *given_.shape[1:]), size=(256, 256), skeleton="blazepose33", layout=layout, values=values, cell_px=4.0, offset_px=-0.5)
    )
    found = decode({"maps": given_})
    want = maps[:, BLAZE].transpose(0, 2, 3, 1).astype(np.float64)
    want = 1 / (1 + np.exp(-want)) if values == "logits" else want
    assert where == MapLayout((64, 64), 4.0, -0.5)
    assert (found.maps.shape, found.maps.dtype, found.uv_px.shape) == ((2, 64, 64, 17), np.float32, (2, 33, 2))
    np.testing.assert_allclose(found.maps, want, atol=1e-6)


def test_values_outside_of_probabilities_are_cut_off_and_nan_stays() -> None:
    maps = np.array([[[[-0.1, 0.5], [1.2, np.nan]]]], np.float32)
    np.testing.assert_array_equal(probabilities(maps, channels=np.array([0]), logits=False)[0, :, :, 0], [[0, 0.5], [1, np.nan]])
    assert np.isnan(probabilities(maps, channels=np.array([0]), logits=True)[0, 1, 1, 0])


@settings(max_examples=60, deadline=None)
@given(
    centre=st.tuples(st.floats(-500, 3000), st.floats(-500, 3000)),
    side=st.floats(20, 2000),
    angle=st.floats(-3.2, 3.2),
    cells=st.sampled_from([((64, 64), (256, 256), 4.0, -0.5), ((48, 64), (192, 256), 4.0, 0.0), ((40, 24), (320, 192), 8.0, 3.5)]),
)
def test_a_cell_lies_where_the_packet_says(centre: Any, side: float, angle: float, cells: Any) -> None:
    (wide, high), size, cell_px, offset_px = cells
    rois = Rois(np.array([centre]), np.array([side]), np.array([angle]))
    at = np.array([(0, 0), (wide - 1, 0), (3, high - 1), (wide / 2, high / 2)])
    want = to_image(image_from_crop(rois, size=size), (cell_px * at + offset_px)[None])[0]
    x, y, covered, turned = map_regions(rois, MapLayout((wide, high), cell_px, offset_px), size=size)[0]
    away = (at - [wide / 2, high / 2]) * covered / max(wide, high)
    cos, sin = np.cos(turned), np.sin(turned)
    np.testing.assert_allclose(np.array([x, y]) + away @ np.array([[cos, sin], [-sin, cos]]), want, atol=1e-6 * (1 + side))


def test_blazepose_covers_the_crop_itself() -> None:
    rois = Rois(np.array([[300.0, 200.0]]), np.array([256.0]), np.array([0.7]))
    covered = map_regions(rois, MapLayout((64, 64), 4.0, -0.5), size=(256, 256))
    np.testing.assert_allclose(covered, [[300, 200, 256, 0.7]], atol=1e-9)


def test_a_network_hands_maps_and_joints_out_together() -> None:
    network = TopDown("stub", STUB, maps=True)
    pictures = [frame(np.full((480, 640), 90, np.uint8))] * 3
    rois = Rois(np.array([[320.0, 240], [np.nan, np.nan], [100, 100]]), np.array([300.0, np.nan, 200]), np.array([0.3, 0, -1]))
    uv_px, conf, maps, covered = network.infer_maps(pictures, rois)
    plain = TopDown("stub", STUB)
    for ours, theirs in zip((uv_px, conf), plain.infer(pictures, rois), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (maps.shape, network.map_shape, plain.map_shape) == ((3, 64, 64, 17), (64, 64, 17), None)
    assert np.isnan(covered[1]).all()
    assert not maps[1].any()
    for i in (0, 2):
        for joint in (0, 7, 16):
            row, column = np.unravel_index(maps[i, :, :, joint].argmax(), (64, 64))
            x, y, side, turned = covered[i].astype(np.float64)
            cos, sin = np.cos(turned), np.sin(turned)
            at = np.array([x, y]) + np.array([column - 32, row - 32]) * side / 64 @ np.array([[cos, sin], [-sin, cos]])
            assert np.linalg.norm(at - uv_px[i, BLAZE[joint]]) < side / 64
    nobody = network.infer_maps(pictures[:1], Rois.none(1))
    assert (nobody[2].shape, np.isnan(nobody[3]).all()) == ((1, 64, 64, 17), True)


@pytest.mark.parametrize(
    ("name", "there"),
    [("stub", True), ("blazepose.full", True), ("blazepose.lite", True), ("rtmpose.m", False), ("movenet.thunder", False)],
)
def test_which_networks_have_maps(name: str, there: bool) -> None:
    assert has_maps(name) is there


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (card((-1, 17, 64, 64)), r"heatmaps of 64 x 64 cells for a picture of 192 x 256\n  -> give the size in the card"),
        (card((-1, 17, -1, -1), cell_px=4.0), r"heatmaps of -1 x -1 cells"),
    ],
)
def test_maps_that_cannot_be_placed_are_not_handed_on(one: Asset, says: str) -> None:
    with pytest.raises(PullError, match=says):
        open_maps_decoder(one)
