"""What a decoder's table says has to fit the outputs, the picture and the skeleton of its card: told when the card is read for a studio."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from posepipe.engines.assets import Asset, catalogue
from posepipe.engines.card import Preprocess, TensorCard
from posepipe.engines.decoders import decoder_options, fills, open_decoder, stub_answers
from posepipe.pipeline.errors import EngineError, PosepipeError, PullError

PARTS: dict[str, tuple[int, ...]] = {"heatmaps": (-1, 19, 32, 57), "fields": (-1, 38, 32, 57)}
BINS: dict[str, tuple[int, ...]] = {"simcc_x": (-1, 17, 384), "simcc_y": (-1, 17, 512)}
READY: dict[str, tuple[int, ...]] = {"dets": (-1, -1, 5), "labels": (-1, -1)}


def card(
    kind: str, outputs: dict[str, tuple[int, ...]], *, size: tuple[int, int] = (192, 256), joints: str = "coco17", **decoder: Any
) -> Asset:
    tensors = {name: TensorCard(shape, "float32") for name, shape in outputs.items()}
    fields: dict[str, Any] = {
        "skeleton": joints,
        "outputs": tensors,
        "preprocess": Preprocess(size=size),
        "decoder": {"kind": kind, **decoder},
    }
    return replace(catalogue()["rtmpose.m"], name="my.net", **fields)


def maps(*shape: int, **options: Any) -> Asset:
    return card("heatmaps", {"maps": shape or (-1, 17, 64, 48)}, **options)


def grid(*, cells: int = 3549, **options: Any) -> Asset:
    return card("boxes", {"o": (-1, cells, 85)}, size=(416, 416), **options)


def paf(outputs: dict[str, tuple[int, ...]] = PARTS, **options: Any) -> Asset:
    return card("paf", outputs, size=(456, 256), joints="coco18", **options)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (maps(channels=[*range(16), -100_000_000]), r"channels\[16\] is -100000000: Expected `int` >= 0"),
        (maps(channels=[*range(16), 10**30]), r"channels\[16\] is 10{30}: Expected `int` <= 65535"),
        (maps(channels=[0, 1, 2]), r"channels names 3 maps, the skeleton coco17 has 17 joints\n  -> write the map of every joint"),
        (maps(channels=[*range(16), 17]), r"'maps' is \[-1, 17, 64, 48\], the decoder .* at least 18 maps for the 17 joints"),
        (maps(layout="nhwc"), r"as nhwc, heatmaps of 64 x 17 cells for a picture of 192 x 256\n  -> write layout = \"nchw\""),
        (maps(-1, 64, 48, 17), r"as nchw, heatmaps of 17 x 48 cells for a picture of 192 x 256\n  -> write layout = \"nhwc\""),
        (maps(-1, 17, 48, 64), r"as nchw, heatmaps of 64 x 48 cells for a picture of 192 x 256\n  -> give the size in the card"),
        (maps(-1, 39, 64, 64, layout="nhwc", size=(256, 256)), r"heatmaps of 64 x 39 cells for .* 256 x 256\n  -> write layout"),
        (maps(cell_px=8.0), r"heatmaps of 48 x 64 cells of 8 px for a picture of 192 x 256\n  -> leave cell_px out: it is 4 by the sizes"),
        (maps(cell_px=0.5), r"of 0.5 px for a picture of 192 x 256\n  -> leave cell_px out: it is 4"),
        (maps(cell_px=float("nan")), r"cell_px is nan: Expected a finite number"),
        (maps(cell_px=float("inf")), r"cell_px is inf: Expected a finite number"),
        (maps(offset_px=float("nan")), r"offset_px is nan: Expected a finite number"),
        (maps(sigma=0.0), r"sigma is 0.0: Expected `float` >= 0.1"),
        (maps(radius=0), r"radius is 0: Expected `int` >= 1"),
        (card("simcc", BINS, split=4.0), r"384 and 512 bins, not 4 for every pixel of a picture of 192 x 256\n  -> write split = 2$"),
        (card("simcc", BINS, x="simcc_y", y="simcc_x"), r"'simcc_y' and 'simcc_x' have 512 and 384 bins.*\n  -> x and y are each other's"),
        (card("simcc", BINS, size=(256, 256)), r"384 and 512 bins, not 2 .* 256 x 256\n  -> correct split in \[decoder\]"),
        (card("simcc", BINS, y="simcc_x"), r"x and y are one output, 'simcc_x'"),
        (card("simcc", BINS, split=0), r"split is 0: Expected `float` >= 0.25"),
        (card("simcc", BINS, split=float("nan")), r"split is nan: Expected a finite number"),
        (card("simcc", BINS, sharpness=float("inf")), r"sharpness is inf: Expected a finite number"),
        (card("simcc", BINS, refine="sotf"), r"refine cannot be 'sotf'\n  -> did you mean 'soft'\?"),
        (card("regression", {"t": (-1, 3, 17)}), r"'t' is \[-1, 3, 17\], the decoder regression reads \[N,17,3\]"),
        (card("regression", {"t": (-1, 17, 3)}, order="xyz"), r"order cannot be 'xyz'\n  -> did you mean 'xys'\?"),
        (card("regression", {"t": (-1, 17, 3)}, unit="pxs"), r"unit cannot be 'pxs'\n  -> did you mean 'px'\?"),
        (card("regression", {"t": (-1, 17, 3)}, offset_px=float("inf")), r"offset_px is inf: Expected a finite number"),
        (card("centre", {"t": (-1, 6, 57)}), r"'t' is \[-1, 6, 57\], the decoder centre reads \[N,P,56\] for coco17"),
        (card("centre", {"t": (-1, 6, 56)}, min_score=float("nan")), r"min_score is nan: Expected a finite number"),
        (grid(strides=[]), r"strides is \[\]: Expected `array` of length >= 1"),
        (grid(strides=[0]), r"strides\[0\] is 0: Expected `int` >= 1"),
        (grid(strides=[8, -16]), r"strides\[1\] is -16: Expected `int` >= 1"),
        (grid(strides=[8, 16]), r"reads \[N,3380,5 \+ classes\] with strides \[8, 16\]"),
        (grid(person=-1), r"person is -1: Expected `int` >= 0"),
        (grid(person=80), r"'o' is \[-1, 3549, 85\], the decoder boxes reads .* person 80"),
        (grid(overlap=float("nan")), r"overlap is nan: Expected a finite number"),
        (grid(form="grit"), r"form cannot be 'grit'\n  -> did you mean 'grid'\?"),
        (card("boxes", READY, form="ready", output="dets", labels="label"), r"there is no output 'label'\n  -> did you mean 'labels'\?"),
        (card("boxes", READY, form="ready", output="labels"), r"'labels' is \[-1, -1\], the decoder boxes reads \[N,P,5\]"),
        (card("volume", {"xyz": (-1, 17, 3), "spred": (-1, 17)}), r"there is no output 'spread'\n  -> did you mean 'spred'\?"),
        (card("anchors", {"scores": (-1, 2254, 1), "box": (-1, 2254, 12)}, size=(224, 224)), r"no output 'boxes'\n  -> did you mean 'box'"),
        (card("anchors", {"scores": (-1, 2254, 1), "boxes": (-1, 2254, 12)}), r"a picture of 224 x 224, size is \[192, 256\]"),
        (card("anchors", {"scores": (-1, 896, 1), "boxes": (-1, 2254, 12)}, size=(224, 224)), r"anchors reads \[N,2254,1\]"),
        (paf(heatmaps="heatmap"), r"\[my.net.decoder\]: there is no output 'heatmap'\n  -> did you mean 'heatmaps'\?"),
        (replace(paf(), skeleton="coco17"), r"no parts and limbs are known for the skeleton 'coco17'\n  -> did you mean 'coco18'\?"),
        (replace(maps(), skeleton="coco71"), r"unknown skeleton layout 'coco71'\n  -> did you mean 'coco1"),
        (paf(heatmaps="fields"), r"heatmaps and fields are one output, 'fields'"),
        (paf(heatmaps="fields", fields="heatmaps"), r"'heatmaps' is \[-1, 19, 32, 57\], the decoder paf reads \[N,38 or more,h,w\]"),
        (paf(stride=0), r"stride is 0: Expected `int` >= 1"),
        (paf(stride=16), r"not a picture of 456 x 256 by stride = 16\n  -> write stride = 8"),
        (paf(stride=4), r"not a picture of 456 x 256 by stride = 4\n  -> write stride = 8"),
        (paf(min_peak=-1), r"min_peak is -1: Expected `float` >= 0.0"),
        (paf(min_field=float("nan")), r"min_field is nan: Expected a finite number"),
        (paf(min_share=0), r"min_share is 0: Expected `float` > 0.0"),
        (paf(min_parts=0), r"min_parts is 0: Expected `int` >= 1"),
        (paf(min_score=float("inf")), r"min_score is inf: Expected a finite number"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_its_card(made: Asset, says: str) -> None:
    with pytest.raises(PosepipeError, match=says) as e:
        decoder_options(made)
    assert e.value.where == "my.net", "its file, where it was read from one"


@pytest.mark.parametrize(
    "made",
    [
        maps(-1, 17, 64, 48),
        maps(-1, 17, -1, -1),
        maps(-1, 17, -1, -1, cell_px=4.0),
        maps(-1, -1, -1, -1, layout="nhwc"),
        maps(-1, 17, 63, 47),
        maps(-1, 17, 65, 49),
        maps(-1, 17, 64, 48, cell_px=191 / 47),
        maps(-1, 17, 16, 13, size=(100, 128), cell_px=8.0),
        maps(-1, 17, 2, 1, size=(8, 8)),
        card("simcc", {"simcc_x": (-1, 17, -1), "simcc_y": (-1, 17, 512)}),
        card("simcc", {"simcc_x": (-1, 17, 288), "simcc_y": (-1, 17, 384)}, split=1.5),
        card("regression", {"t": (-1, 1, 17, 3)}),
        card("regression", {"t": (-1, -1, -1, 3)}),
        grid(cells=-1),
        paf({"heatmaps": (-1, 19, -1, -1), "fields": (-1, 38, -1, -1)}),
        paf({"heatmaps": (-1, 18, 33, 58), "fields": (-1, 38, 33, 58)}),
    ],
)
def test_what_a_card_leaves_open_and_a_cell_more_or_less_are_taken(made: Asset) -> None:
    decoder_options(made)


def test_what_the_card_left_open_is_looked_at_in_what_the_network_gives() -> None:
    decode = open_decoder(maps(-1, -1, -1, -1, layout="nhwc"))
    with pytest.raises(PullError, match=r"'maps' is \[1, 17, 64, 48\]: as nhwc, heatmaps of 64 x 17 cells.*\n  -> write layout = \"nchw\""):
        decode({"maps": np.zeros((1, 17, 64, 48), np.float32)})


@pytest.mark.parametrize("made", [maps(-1, 17, -1, -1), card("simcc", {**BINS, "simcc_x": (-1, 17, -1)}), grid(cells=-1)])
def test_a_stub_of_a_network_whose_sizes_are_open_is_refused(made: Asset) -> None:
    with pytest.raises(
        EngineError, match=r"a stub of the network has to know the sizes of its output .*-1.*\n  -> write the sizes into the card"
    ):
        stub_answers(made)


@pytest.mark.parametrize(
    ("cells", "cell_px", "good"),
    [((48, 64), 0.0, True), ((47, 64), 0.0, True), ((64, 17), 0.0, False), ((64, 48), 0.0, False),
     ((48, 64), 4.0, True), ((48, 64), 3.5, False), ((-1, 64), 4.0, True), ((-1, 64), 8.0, False)],
)  # fmt: skip
def test_cells_that_fill_a_picture(cells: tuple[int, int], cell_px: float, good: bool) -> None:
    assert fills(cells, (192, 256), cell_px) is good
