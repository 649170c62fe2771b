"""Regression: a table with the coordinates and the confidence of every joint, as MoveNet's single-person networks end in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...pipeline.skeleton import skeleton
from ..assets import Asset
from . import Decoder, Joints, Outputs, figure, must_be, must_be_finite, output_of, size_of, sizes_of

F32 = NDArray[np.float32]
_ORDER = {"xys": [0, 1, 2], "yxs": [1, 0, 2]}


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """output [N,J,3] or [N,1,J,3]. order: of the three numbers. unit: `share` of the picture's width and height (edge to edge), or `px`.
    offset_px: added to pixel coordinates; -0.5 where the edge of the picture is 0 (`share` has that already)."""

    output: str = ""
    order: Literal["xys", "yxs"] = "yxs"
    unit: Literal["share", "px"] = "share"
    values: Literal["logits", "probabilities"] = "probabilities"
    offset_px: Annotated[float, Meta(ge=-256, le=256)] = 0.0


def must_fit(options: Options, card: Asset) -> None:
    """Refuse an output that is not a table of the skeleton's joints."""
    name = output_of(card, options.output)
    _must_be_table(card, name, card.outputs[name].shape)
    size_of(card)


def _must_be_table(card: Asset, name: str, shape: Sequence[int]) -> None:
    joints = len(skeleton(card.skeleton).joints)
    good = len(shape) == 3 or (len(shape) == 4 and shape[1] in (-1, 1))
    must_be(card, name, shape, f"[N,{joints},3] for {card.skeleton}", good and shape[-2] in (-1, joints) and shape[-1] in (-1, 3))


def decoder(options: Options, card: Asset) -> Decoder:
    """A table -> `Joints`."""
    name, joints = output_of(card, options.output), len(skeleton(card.skeleton).joints)
    size, order = np.array(size_of(card), np.float32), _ORDER[options.order]

    def decode(outputs: Outputs) -> Joints:
        _must_be_table(card, name, outputs[name].shape)
        table = outputs[name].reshape(len(outputs[name]), joints, 3)[..., order]
        uv_px = table[..., :2].astype(np.float32)
        if options.unit == "share":
            uv_px = uv_px * size - np.float32(0.5)
        conf: F32 = table[..., 2].astype(np.float32)
        conf = np.clip(conf, 0, 1) if options.values == "probabilities" else (1 / (1 + np.exp(-conf))).astype(np.float32)
        must_be_finite(card, {name: outputs[name]}, uv_px, conf)
        return Joints(uv_px + np.float32(options.offset_px), conf)

    return decode


def answers(options: Options, card: Asset) -> dict[str, NDArray[Any]]:
    """One item of the table: an upright person."""
    name, size = output_of(card, options.output), size_of(card)
    at = figure(skeleton(card.skeleton).joints)
    values = 0.98 if options.values == "probabilities" else 4.0
    table = np.column_stack([at if options.unit == "share" else at * size, np.full(len(at), values)])
    order = _ORDER[options.order]
    return {name: table[:, order].astype(np.float32).reshape(sizes_of(card, name))}
