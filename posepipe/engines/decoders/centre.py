"""Centre maps: several people at once, each found by its centre, as a row of joints, box and score. MoveNet multipose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...pipeline.skeleton import skeleton
from ..assets import Asset
from . import Decoder, Outputs, People, figure, must_be, must_be_finite, output_of, size_of, sizes_of


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """output [N,P,3 J + 5]: y, x, score of every joint, then top, left, bottom, right, score; shares of the picture."""

    output: str = ""
    min_score: Annotated[float, Meta(ge=0, lt=1)] = 0.2


def must_fit(options: Options, card: Asset) -> None:
    """Refuse an output that is not a table of people with the skeleton's joints."""
    name = output_of(card, options.output)
    _must_be_people(card, name, card.outputs[name].shape)
    size_of(card)


def _must_be_people(card: Asset, name: str, shape: Sequence[int]) -> None:
    numbers = 3 * len(skeleton(card.skeleton).joints) + 5
    must_be(card, name, shape, f"[N,P,{numbers}] for {card.skeleton}", len(shape) == 3 and shape[2] in (-1, numbers))


def decoder(options: Options, card: Asset) -> Decoder:
    """A table of people -> one `People` a picture."""
    name, layout = output_of(card, options.output), skeleton(card.skeleton)
    size, joints = np.array(size_of(card), np.float64), len(layout.joints)
    hips, shoulders = ([layout.index(f"{side}_{part}") for side in ("left", "right")] for part in ("hip", "shoulder"))

    def decode(outputs: Outputs) -> list[People]:
        table = outputs[name].astype(np.float64)
        _must_be_people(card, name, table.shape)
        must_be_finite(card, {name: outputs[name]}, table)
        found = []
        for people in table:
            people = people[people[:, -1] >= options.min_score]
            people = people[np.argsort(-people[:, -1], kind="stable")]
            joints_px = people[:, : 3 * joints].reshape(-1, joints, 3)[..., [1, 0]] * size - 0.5
            box_px = people[:, [-4, -5, -2, -3]] * np.tile(size, 2) - 0.5
            middle, chest = joints_px[:, hips].mean(axis=1), joints_px[:, shoulders].mean(axis=1)
            # The circle around the body goes through the crown and the feet, whichever the box has further from the hips.
            radius = np.maximum(middle[:, 1] - box_px[:, 1], box_px[:, 3] - middle[:, 1])
            up = chest - middle
            length = np.linalg.norm(up, axis=1, keepdims=True)
            up = np.where(length > 0, up / np.maximum(length, 1e-9), [0.0, -1.0])
            rim = middle + up * np.maximum(radius, 1.0)[:, None]
            found.append(People(people[:, -1], box_px, np.stack([middle, rim, chest, rim], axis=1)))
        return found

    return decode


def answers(options: Options, card: Asset) -> dict[str, NDArray[Any]]:
    """One item: one upright person, and rows of nobody."""
    name = output_of(card, options.output)
    at = figure(skeleton(card.skeleton).joints)
    table = np.zeros(sizes_of(card, name), np.float32)
    table[0, :-5] = np.column_stack([at[:, 1], at[:, 0], np.full(len(at), 0.9)]).ravel()
    table[0, -5:] = (0.1, 0.3, 0.92, 0.7, 0.9)
    return {name: table}
