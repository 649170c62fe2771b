"""Anchors: BlazePose's person detector, whose own numbers (`models.blazepose.detector`) leave nothing to choose."""

from __future__ import annotations

from ..assets import Asset
from ..models.blazepose.detector import SIZE_PX, Options, anchors, answers, decoder
from . import must_be, output_of, refused, size_of

__all__ = ["Options", "answers", "decoder", "must_fit"]


def must_fit(options: Options, card: Asset) -> None:
    """Refuse a card of another network."""
    if size_of(card) != (SIZE_PX, SIZE_PX):
        what = f"the anchors are those of a picture of {SIZE_PX} x {SIZE_PX}, size is {list(size_of(card))}"
        raise refused(card, what, "correct size in [preprocess], or name another decoder")
    for name, numbers in (("scores", 1), ("boxes", 12)):
        shape, wanted = card.outputs[output_of(card, name)].shape, (len(anchors()), numbers)
        must_be(card, name, shape, f"[N,{wanted[0]},{wanted[1]}]", shape[1:] == wanted)
