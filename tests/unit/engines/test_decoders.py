"""Families of networks as decoders: what was painted into outputs is read out of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from posepipe.engines.assets import Asset, catalogue
from posepipe.engines.card import Preprocess, TensorCard
from posepipe.engines.decoders import FAMILIES, Joints, People, family, figure, open_decoder, stub_answers
from posepipe.engines.decoders.boxes import grid, keep
from posepipe.pipeline.errors import EngineError, PullError
from posepipe.pipeline.skeleton import COCO17, skeleton

MODELS = sorted(n for n, a in catalogue().items() if a.decoder and family(a).gives in ("joints", "people"))
SIZE = (192, 256)


def card(outputs: dict[str, tuple[int, ...]], *, size: tuple[int, int] = SIZE, joints: str = "coco17", **decoder: Any) -> Asset:
    """A card of a network that takes pictures of `size`."""
    tensors = {name: TensorCard(shape, "float32") for name, shape in outputs.items()}
    base = catalogue()["rtmpose.m"]
    return replace(base, name="my.net", skeleton=joints, outputs=tensors, preprocess=Preprocess(size=size), decoder=decoder)


def hills(x: float, y: float, *, sigma: float = 2.0, height: float = 0.9) -> NDArray[np.float32]:
    """[1,17,64,48] the same hill in every map."""
    r, c = np.mgrid[:64, :48]
    one = height * np.exp(-((c - x) ** 2 + (r - y) ** 2) / (2 * sigma**2))
    return np.broadcast_to(one, (1, 17, 64, 48)).astype(np.float32)


def heatmaps(**options: Any) -> Callable[..., Joints]:
    return open_decoder(card({"maps": (-1, 17, 64, 48)}, kind="heatmaps", **options))


# heatmaps


@pytest.mark.parametrize(("refine", "within"), [("argmax", 0.51), ("quarter", 0.26), ("dark", 0.03), ("centroid", 0.35)])
@settings(max_examples=40, deadline=None)
@given(x=st.floats(8, 39), y=st.floats(8, 55), height=st.floats(0.3, 1.0))
def test_a_hill_is_found_to_a_part_of_a_cell(refine: str, within: float, x: float, y: float, height: float) -> None:
    found = heatmaps(refine=refine)({"maps": hills(x, y, height=height)})
    assert np.abs(found.uv_px[0] / 4 - (x, y)).max() < within
    assert found.conf[0, 3] == pytest.approx(hills(x, y, height=height)[0, 0].max(), abs=1e-6)


@pytest.mark.parametrize("refine", ["argmax", "quarter", "dark", "centroid"])
@pytest.mark.parametrize(("x", "y"), [(0, 0), (47, 0), (0, 63), (47, 63), (1, 62)])
def test_a_hill_in_a_corner_stays_near_it(refine: str, x: int, y: int) -> None:
    found = heatmaps(refine=refine)({"maps": hills(x, y)})
    assert np.abs(found.uv_px[0] / 4 - (x, y)).max() < 1.5


def test_a_flat_map_is_no_reason_to_step_away() -> None:
    flat = np.full((1, 17, 64, 48), 0.1, np.float32)
    flat[0, :, 20, 30] = 0.2
    np.testing.assert_allclose(heatmaps(refine="dark")({"maps": flat}).uv_px[0] / 4, np.tile([30, 20], (17, 1)), atol=0.01)


@pytest.mark.parametrize("refine", ["argmax", "quarter", "dark", "centroid"])
def test_logits_are_read_as_the_probabilities_that_they_are(refine: str) -> None:
    p = hills(20.3, 30.6).astype(np.float64) * 0.98 + 0.001
    a = heatmaps(refine=refine)({"maps": p.astype(np.float32)})
    b = heatmaps(refine=refine, values="logits")({"maps": np.log(p / (1 - p)).astype(np.float32)})
    np.testing.assert_allclose(a.uv_px, b.uv_px, atol=2e-3)
    np.testing.assert_allclose(a.conf, b.conf, atol=1e-5)


def test_channels_cells_and_layout_are_the_cards() -> None:
    maps = np.zeros((1, 20, 64, 48), np.float32)
    for k in range(20):
        maps[0, k, 10 + k, 5 + k] = 0.5
    order = [*range(16, -1, -1)]
    plain = open_decoder(card({"m": (-1, 20, 64, 48)}, kind="heatmaps", refine="argmax", channels=order, cell_px=4.0, offset_px=-0.5))
    found = plain({"m": maps})
    np.testing.assert_allclose(found.uv_px[0, 0], [(5 + 16) * 4 - 0.5, (10 + 16) * 4 - 0.5])
    last = open_decoder(
        card({"m": (-1, 64, 48, 20)}, kind="heatmaps", refine="argmax", layout="nhwc", channels=order, cell_px=4.0, offset_px=-0.5)
    )
    np.testing.assert_array_equal(last({"m": np.ascontiguousarray(maps.transpose(0, 2, 3, 1))}).uv_px, found.uv_px)


# simcc


def simcc(x: float, y: float, height: float = 0.8, width: float = 3.0) -> dict[str, NDArray[np.float32]]:
    lines = [height * np.exp(-((np.arange(n) - at) ** 2) / (2 * width**2)) for n, at in ((384, x), (512, y))]
    return {name: np.broadcast_to(one, (1, 17, len(one))).astype(np.float32) for name, one in zip(("sx", "sy"), lines, strict=True)}


def simcc_decoder(*, size: tuple[int, int] = SIZE, **options: Any) -> Callable[..., Joints]:
    return open_decoder(card({"sx": (-1, 17, 384), "sy": (-1, 17, 512)}, size=size, kind="simcc", x="sx", y="sy", **options))


@settings(max_examples=40, deadline=None)
@given(st.floats(10, 373), st.floats(10, 501))
def test_simcc_peaks_are_pixels_by_the_split(x: float, y: float) -> None:
    found = simcc_decoder()(simcc(x, y))
    assert np.abs(found.uv_px[0] - (x / 2, y / 2)).max() <= 0.2501, "a bin is half a pixel"
    soft = simcc_decoder(refine="soft")(simcc(x, y))
    assert np.abs(soft.uv_px[0] - (x / 2, y / 2)).max() < 0.12
    assert simcc_decoder(split=4.0, size=(96, 128))(simcc(x, y)).uv_px == pytest.approx(found.uv_px / 2)


def test_simcc_confidence_is_the_lower_peak_and_never_beyond_one() -> None:
    outputs = simcc(100, 200)
    outputs["sy"] = outputs["sy"] * 0.5
    assert simcc_decoder()(outputs).conf == pytest.approx(0.4)
    assert simcc_decoder()(simcc(100, 200, height=1.7)).conf.max() == 1
    assert simcc_decoder()(simcc(100, 200, height=-1.0)).conf.max() == 0


# tables


def test_tables_are_read_in_their_order_and_unit() -> None:
    table = np.zeros((2, 1, 17, 3), np.float32)
    table[1, 0, 5] = (0.25, 0.5, 0.75)  # y, x, score
    shares = open_decoder(card({"t": (-1, 1, 17, 3)}, kind="regression"))({"t": table})
    np.testing.assert_allclose(shares.uv_px[1, 5], [0.5 * 192 - 0.5, 0.25 * 256 - 0.5])
    assert shares.conf[1, 5] == 0.75
    pixels = open_decoder(card({"t": (-1, 1, 17, 3)}, kind="regression", order="xys", unit="px", values="logits", offset_px=-0.5))
    found = pixels({"t": table * 100})
    np.testing.assert_allclose(found.uv_px[1, 5], [24.5, 49.5])
    assert found.conf[1, 5] == pytest.approx(1)
    assert found.conf[0, 0] == 0.5


def test_people_of_a_centre_network_come_the_surest_first() -> None:
    made = card({"t": (1, 6, 56)}, size=(256, 256), kind="centre", min_score=0.3)
    table = np.repeat(stub_answers(made)["t"][:1], 6, axis=0)
    table[:, -1] = (0.1, 0.5, 0.29, 0.9, 0.0, 0.3)
    table[3, 1:51:3] += 0.1  # to the right by a tenth
    (people,) = open_decoder(made)({"t": table[None]})
    assert people.score == pytest.approx([0.9, 0.5, 0.3])
    np.testing.assert_allclose(people.points_px[0] - people.points_px[1], np.tile([25.6, 0], (4, 1)), atol=1e-4)
    hips, rim, chest, _ = people.points_px[1]
    assert rim[1] < chest[1] < hips[1]


# boxes


def painted(boxes: list[tuple[float, float, float, float, float]], *, classes: int = 80, person: int = 0) -> NDArray[np.float32]:
    """Raw grid outputs [1,3549,5 + classes] with boxes left, top, right, bottom, score at the cells of the finest grid around their middles."""
    cells, stride = grid((416, 416), (8, 16, 32))
    rows = np.zeros((1, len(cells), 5 + classes), np.float32)
    for left, top, right, bottom, score in boxes:
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        free = np.where(rows[0, :, 4] == 0, np.abs(cells * stride[:, None] - middle).sum(axis=1), np.inf)
        at = int(np.argmin(free))
        rows[0, at, :2] = middle / stride[at] - cells[at]
        rows[0, at, 2:4] = np.log(np.array([right - left, bottom - top]) / stride[at])
        rows[0, at, 4], rows[0, at, 5 + person] = score, 1.0
    return rows


def boxes(**options: Any) -> Callable[..., list[People]]:
    return open_decoder(card({"o": (-1, 3549, 85)}, size=(416, 416), kind="boxes", **options))


@settings(max_examples=40, deadline=None)
@given(st.floats(5, 200), st.floats(5, 200), st.floats(20, 200), st.floats(20, 200), st.floats(0.31, 1))
def test_a_box_is_read_out_of_the_grid(x: float, y: float, w: float, h: float, score: float) -> None:
    (people,) = boxes()({"o": painted([(x, y, x + w, y + h, score)])})
    np.testing.assert_allclose(people.box_px, [[x - 0.5, y - 0.5, x + w - 0.5, y + h - 0.5]], atol=2e-3)
    assert people.score == pytest.approx([score])
    hips, rim = people.points_px[0, :2]
    assert hips == pytest.approx([x + w / 2 - 0.5, y + 0.48 * h - 0.5], abs=1e-2)
    assert np.linalg.norm(rim - hips) == pytest.approx(0.52 * h, rel=1e-3), "the circle reaches the feet"


def test_other_classes_and_unsure_boxes_are_nobody() -> None:
    assert len(boxes()({"o": painted([(10, 10, 100, 200, 0.9)], person=16)})[0].score) == 0
    assert len(boxes()({"o": painted([(10, 10, 100, 200, 0.29)])})[0].score) == 0
    assert len(boxes(person=16)({"o": painted([(10, 10, 100, 200, 0.9)], person=16)})[0].score) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 90), st.floats(0, 90), st.floats(5, 60), st.floats(5, 60)), max_size=12), st.floats(0.2, 0.8))
def test_what_is_kept_does_not_overlap_and_what_is_not_does(raw: list[tuple[float, float, float, float]], overlap: float) -> None:
    all_boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in raw]).reshape(-1, 4)
    kept = keep(all_boxes, overlap)
    for i, box in enumerate(all_boxes):
        better = [_iou(box, all_boxes[k]) for k in range(i) if kept[k]]
        assert kept[i] == (max(better, default=0) <= overlap)


def _iou(a: Any, b: Any) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = w * h if w > 0 and h > 0 else 0.0
    return float(both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both))


def test_boxes_that_the_network_sorted_out() -> None:
    rows = np.array([[[10, 20, 110, 220, 0.9], [0, 0, 50, 50, 0.8], [200, 20, 300, 220, 0.1], [12, 20, 112, 220, 0.7]]], np.float32)
    made = card({"dets": (-1, -1, 5), "labels": (-1, -1)}, size=(320, 320), kind="boxes", form="ready", output="dets")
    (people,) = open_decoder(made)({"dets": rows, "labels": np.array([[0, 7, 0, 0]])})
    np.testing.assert_allclose(people.box_px, [[9.5, 19.5, 109.5, 219.5]])
    (nobody,) = open_decoder(made)({"dets": rows[:, :0], "labels": np.zeros((1, 0), np.int64)})
    assert nobody.points_px.shape == (0, 4, 2)


# all of them


@pytest.mark.parametrize("name", MODELS)
def test_every_shipped_card_reads_the_person_that_its_stub_shows(name: str) -> None:
    shipped = catalogue()[name]
    assert shipped.preprocess is not None
    wide, high = shipped.preprocess.size
    found = open_decoder(shipped)({n: np.stack([a, a]) for n, a in stub_answers(shipped).items()})
    if isinstance(found, Joints):
        layout = skeleton(shipped.skeleton)
        assert found.uv_px.shape == (2, len(layout.joints), 2)
        assert found.conf.min() > 0.9
        want = figure(layout.joints) * (wide, high)
        assert np.abs(found.uv_px[0] - want).max() < 0.02 * max(wide, high)
    else:
        assert [len(people.score) for people in found] == [1, 1]
        hips, rim, chest = found[0].points_px[0, :3]
        assert abs(hips[0] - wide / 2) < 0.05 * wide
        assert rim[1] < chest[1] < hips[1]


@pytest.mark.parametrize("name", MODELS)
def test_no_shipped_card_lets_nan_through(name: str) -> None:
    shipped = catalogue()[name]
    outputs = {n: np.array(np.stack([a, a])) for n, a in stub_answers(shipped).items()}
    bad = next(n for n, a in outputs.items() if a.dtype.kind == "f")
    outputs[bad][1] = np.nan
    with pytest.raises(EngineError) as e:
        open_decoder(shipped)(outputs)
    assert (e.value.where, bad in e.value.what, "NaN" in e.value.what, "items [1]" in e.value.what) == (name, True, True, True)


def test_an_unknown_family_or_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(PullError, match=r"\[my.net.decoder\]: there is no decoder 'heatmap'\n  -> did you mean 'heatmaps'\?"):
        family(card({"m": (-1, 17, 64, 48)}, kind="heatmap"))
    with pytest.raises(PullError, match=r"the card has no decoder"):
        family(card({"m": (-1, 17, 64, 48)}))
    with pytest.raises(PullError, match=r"unknown field `refin`\n  -> did you mean 'refine'\?"):
        heatmaps(refin="dark")
    with pytest.raises(PullError, match=r"there is no output 'simcc_x'"):
        open_decoder(card({"sx": (-1, 17, 384), "sy": (-1, 17, 512)}, kind="simcc"))
    with pytest.raises(PullError, match=r"which of the 2 outputs is it\?"):
        open_decoder(card({"a": (-1, 17, 64, 48), "b": (-1, 17, 64, 48)}, kind="heatmaps"))


def test_the_families_are_modules_that_exist() -> None:
    import importlib

    for kind, one in FAMILIES.items():
        module = importlib.import_module(one.module)
        if one.gives != "parts":
            assert callable(module.decoder), kind
            assert callable(module.answers), kind


def test_the_figure_stands_upright_with_its_left_on_the_right() -> None:
    at = figure(COCO17.joints)
    nose, hip, ankle = (at[COCO17.index(n)] for n in ("nose", "left_hip", "left_ankle"))
    assert nose[1] < hip[1] < ankle[1]
    assert at[COCO17.index("left_wrist"), 0] > at[COCO17.index("right_wrist"), 0]


@pytest.mark.parametrize(
    ("made", "outputs", "says"),
    [
        (card({"m": (-1, 16, 64, 48)}, kind="heatmaps"), {"m": (1, 16, 64, 48)}, r"'m' is \[-1, 16, 64, 48\], .* at least 17 maps for the 17"),
        (card({"m": (-1, -1, 64, 48)}, kind="heatmaps"), {"m": (1, 16, 64, 48)}, r"'m' is \[1, 16, 64, 48\], .* at least 17 maps for the 17"),
        (card({"m": (-1, 17, 64)}, kind="heatmaps"), {"m": (1, 17, 64)}, r"'m' is \[-1, 17, 64\]"),
        (card({"simcc_x": (-1, 26, 9), "simcc_y": (-1, 26, 9)}, kind="simcc"), {"simcc_x": (1, 26, 9), "simcc_y": (1, 26, 9)}, r"reads \[N,17,bins\]"),
        (card({"t": (-1, 33, 3)}, kind="regression"), {"t": (1, 33, 3)}, r"regression reads \[N,17,3\] for coco17"),
        (card({"t": (-1, 6, 57)}, kind="centre"), {"t": (1, 6, 57)}, r"centre reads \[N,P,56\]"),
        (card({"o": (-1, 100, 85)}, kind="boxes", size=(416, 416)), {"o": (1, 100, 85)}, r"boxes reads \[N,3549,5 \+ classes\]"),
        (card({"o": (-1, 3549, 6)}, kind="boxes", size=(416, 416), person=1), {"o": (1, 3549, 6)}, r"boxes reads \[N,3549,5 \+ classes\]"),
        (card({"d": (-1, -1, 4), "labels": (-1, -1)}, kind="boxes", form="ready", output="d"), {"d": (1, 3, 4), "labels": (1, 3)}, r"reads \[N,P,5\]"),
    ],
)  # fmt: skip
def test_an_output_of_another_shape_is_refused(made: Asset, outputs: dict[str, tuple[int, ...]], says: str) -> None:
    with pytest.raises(EngineError, match=says) as e:
        open_decoder(made)({n: np.zeros(shape, np.float32) for n, shape in outputs.items()})
    assert (e.value.where, "correct skeleton" in e.value.hint) == ("my.net", True)
