"""How the outputs of a family of networks become key points or people: one module per family, named by a card's `[x.decoder] kind`.

A module has `Options` (a struct: what the table may hold besides `kind`), `must_fit(options, card)`, which refuses a table that does not
fit the outputs, the picture or the skeleton of its card, `decoder(options, card)`, which gives the function that reads the outputs, and
`answers(options, card)`, outputs (one item) that show a person who stands upright in the picture: what a stub of the network gives.
Coordinates are pixels of the network's input, pixel centres at integers.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...pipeline.errors import EngineError, PosepipeError, PullError, did_you_mean
from ..assets import Asset
from ..card import convert

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Joints:
    """Key points of the one person in every item. uv_px [N,J,2]; conf [N,J] 0..1. NaN in them means that the network gave NaN.

    maps [N,h,w,17]: the probability of coco17's joints in every cell, where the decoder was opened for them.
    """

    uv_px: F32
    conf: F32
    maps: F32 | None = None


@dataclass(frozen=True, slots=True)
class MapLayout:
    """Cell (c, r) of a map of `size` (width, height) is at pixel offset_px + cell_px * (c, r) of the network's input."""

    size: tuple[int, int]
    cell_px: float
    offset_px: float


@dataclass(frozen=True, slots=True)
class People:
    """The people in one picture, best first. score [P] 0..1; box_px [P,4] left, top, right, bottom; points_px [P,4,2] as
    `regions.Detection` has them."""

    score: F64
    box_px: F64
    points_px: F64


Decoder = Callable[[Outputs], Any]


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of decoder. gives: `joints`: `Joints` of one person; `people`: a list of `People`; `parts`: for a node of its own;
    `volume`: joints in a cube, for `engines.volume`. maps: it can hand out heatmaps beside joints."""

    module: str
    gives: Literal["joints", "people", "parts", "volume"]
    maps: bool = False


FAMILIES: dict[str, Family] = {
    "heatmaps": Family("posepipe.engines.decoders.heatmaps", "joints", maps=True),
    "simcc": Family("posepipe.engines.decoders.simcc", "joints"),
    "regression": Family("posepipe.engines.decoders.regression", "joints"),
    "centre": Family("posepipe.engines.decoders.centre", "people"),
    "boxes": Family("posepipe.engines.decoders.boxes", "people"),
    "anchors": Family("posepipe.engines.decoders.anchors", "people"),
    "paf": Family("posepipe.engines.decoders.paf", "parts"),
    "volume": Family("posepipe.engines.decoders.volume", "volume"),
}


def family(card: Asset) -> Family:
    """What a network gives, by the decoder of its card. PullError for a card without one, or with one that there is not."""
    kind = card.decoder.get("kind", "")
    if kind not in FAMILIES:
        raise refused(
            card, f"there is no decoder {kind!r}" if kind else "the card has no decoder: `kind` names it", did_you_mean(str(kind), FAMILIES)
        )
    return FAMILIES[kind]


def open_decoder(card: Asset) -> Decoder:
    """The function that reads the outputs of a network. PullError for a table that is not one."""
    module, options = decoder_options(card)
    decoder: Decoder = module.decoder(options, card)
    return decoder


def open_maps_decoder(card: Asset) -> tuple[Decoder, MapLayout]:
    """The same for a network with heatmaps, which gives `Joints` with `maps`; and where their cells lie. PullError as `open_decoder`."""
    module, options = decoder_options(card)
    decoder: Decoder
    decoder, layout = module.maps_decoder(options, card)
    return decoder, layout


def stub_answers(card: Asset) -> dict[str, NDArray[Any]]:
    """What a stub of the network gives: outputs (one item) that show one upright person."""
    module, options = decoder_options(card)
    answers: dict[str, NDArray[Any]] = module.answers(options, card)
    return answers


def decoder_options(card: Asset) -> tuple[Any, Any]:
    """The module of a network's family, and the table `[x.decoder]` as its options. PullError for a table that is not one, EngineError for
    one that does not fit the outputs that the card names."""
    module = importlib.import_module(family(card).module)
    table = {key: value for key, value in card.decoder.items() if key != "kind"}
    options = convert(table, module.Options, f"{card.name}.decoder", where=file_of(card))
    try:
        module.must_fit(options, card)
    except PosepipeError as e:
        e.where = e.where or file_of(card)
        raise
    return module, options


def file_of(card: Asset) -> str:
    """The card's file; its name where the card was not read from one."""
    return getattr(card.decoder, "where", card.name)


def refused(card: Asset, what: str, hint: str) -> PullError:
    """The error for a table `[x.decoder]` that cannot be: it names the card's file and the table."""
    return PullError(f"[{card.name}.decoder]: {what}", where=file_of(card), hint=hint)


def output_of(card: Asset, named: str) -> str:
    """The output that an option names; the only one where it is empty. PullError."""
    if not named and len(card.outputs) == 1:
        return next(iter(card.outputs))
    if named in card.outputs:
        return named
    what = f"there is no output {named!r}" if named else f"which of the {len(card.outputs)} outputs is it?"
    raise refused(card, what, did_you_mean(named, card.outputs))


def size_of(card: Asset) -> tuple[int, int]:
    """Width and height of the network's input. PullError for a card that does not say."""
    if card.preprocess is None:
        raise PullError("the card has no table [preprocess]", where=file_of(card), hint="docs/models.md shows a complete card")
    return card.preprocess.size


def sizes_of(card: Asset, output: str) -> tuple[int, ...]:
    """The sizes of one item of an output, for a stub of the network. EngineError for a card that leaves some of them open."""
    shape = card.outputs[output].shape
    if min(shape[1:]) < 0:
        what = f"a stub of the network has to know the sizes of its output {output!r}, the card says {list(shape)}"
        raise EngineError(what, where=file_of(card), hint="write the sizes into the card")
    return shape[1:]


def must_be(card: Asset, output: str, shape: Sequence[int], wanted: str, good: bool) -> None:
    """EngineError where the shape of an output, in the card or of what the network gave, is not one that the decoder reads."""
    if not good:
        what = f"the output {output!r} is {list(shape)}, the decoder {card.decoder['kind']} reads {wanted}"
        raise EngineError(what, where=file_of(card), hint="correct skeleton, size or [decoder] in the card")


def fills(cells: tuple[int, int], size: tuple[int, int], cell_px: float = 0.0) -> bool:
    """Whether so many cells (width, height; -1: any number) cover a picture to within one cell each way; cell_px 0: with any side."""
    if cell_px:  # a pixel more, since corner cells may lie on corner pixels
        return all(n < 0 or abs(n * cell_px - pixels) < cell_px + 1 for n, pixels in zip(cells, size, strict=True))
    (columns, rows), (wide, high) = cells, size
    return min(cells) < 0 or (wide * (rows - 1) < high * (columns + 1) and high * (columns - 1) < wide * (rows + 1))


def must_be_finite(card: Asset, outputs: Outputs, *decoded: NDArray[Any], first: int = 0) -> None:
    """EngineError, naming the network and the outputs, where decoded numbers [N,...] (of the items from `first` on) are NaN or infinite."""
    if all(np.isfinite(d).all() for d in decoded):
        return
    bad = [name for name, array in outputs.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    items = sorted({first + int(i) for d in decoded for i in np.flatnonzero(~np.isfinite(d).reshape(len(d), -1).all(axis=1))})
    which = f"items {items[:8]}{f' and {len(items) - 8} more' if len(items) > 8 else ''} of its batch"
    hint = "where its precision is not fp32 already, try engines: {precision: fp32}: another may be too coarse for this network; else look at its card's mean and std"
    raise EngineError(
        f"the network gave NaN or infinite numbers in {', '.join(bad) or 'what was decoded'}, {which}", where=card.name, hint=hint
    )


# A person who stands upright: shares of the picture's width and height. Left joints are on the right of the picture.
FIGURE = {
    "nose": (0.50, 0.16), "eye": (0.52, 0.14), "ear": (0.54, 0.15), "mouth": (0.515, 0.18), "shoulder": (0.58, 0.25), "elbow": (0.63, 0.36),
    "wrist": (0.65, 0.47), "hip": (0.55, 0.50), "knee": (0.56, 0.68), "ankle": (0.56, 0.85), "neck": (0.50, 0.25), "heel": (0.56, 0.88),
    "foot": (0.58, 0.89), "pinky": (0.66, 0.50), "index": (0.65, 0.51), "thumb": (0.64, 0.49), "inner": (0.51, 0.14), "outer": (0.53, 0.14),
}  # fmt: skip


def figure(joints: tuple[str, ...]) -> F64:
    """[J,2] the upright person's joints by their names, as shares of the picture."""
    at = np.full((len(joints), 2), 0.5)
    for j, name in enumerate(joints):
        words = name.split("_")
        part = next((FIGURE[w] for w in ("inner", "outer", *words) if w in words and w in FIGURE), (0.5, 0.5))
        at[j] = (1 - part[0], part[1]) if "right" in words else part
    return at


__all__ = [
    "FAMILIES",
    "Decoder",
    "Family",
    "Joints",
    "MapLayout",
    "Outputs",
    "People",
    "decoder_options",
    "family",
    "figure",
    "file_of",
    "fills",
    "must_be",
    "must_be_finite",
    "open_decoder",
    "open_maps_decoder",
    "output_of",
    "refused",
    "size_of",
    "sizes_of",
    "stub_answers",
]
