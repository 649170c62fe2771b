"""Boxes: person detectors that answer with boxes; raw grids (YOLOX, Ge et al. 2021) or boxes that the network has sorted out (RTMDet).

A box says where a body ends, not how it stands: hips and shoulders are put where a standing person has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import numba
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ..assets import Asset
from . import Decoder, Outputs, People, must_be, must_be_finite, output_of, size_of, sizes_of

F64 = NDArray[np.float64]
# Heights of a standing body from its crown, as shares of stature: middle of the hip joints, middle of the shoulder joints.
_HIPS, _SHOULDERS = 0.48, 0.18


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """form `grid`: output [N,cells,5 + classes] with centre, logarithm of the size (both in cells of the strides), objectness and class
    scores (probabilities); `ready`: output [N,P,5] left, top, right, bottom, score and labels [N,P]. person: number of the class.
    overlap: intersection over union above which the lower of two boxes is left out.
    """

    form: Literal["grid", "ready"] = "grid"
    output: str = ""
    labels: str = "labels"
    strides: Annotated[tuple[Annotated[int, Meta(ge=1, le=1024)], ...], Meta(min_length=1)] = (8, 16, 32)
    person: Annotated[int, Meta(ge=0, le=100_000)] = 0
    min_score: Annotated[float, Meta(gt=0, lt=1)] = 0.3
    overlap: Annotated[float, Meta(gt=0, lt=1)] = 0.45


def must_fit(options: Options, card: Asset) -> None:
    """Refuse outputs that are not the cells of the strides, or not boxes and their labels."""
    name, labels = _outputs(options, card)
    _must_be_boxes(options, card, {n: t.shape for n, t in card.outputs.items()}, name, labels)


def _outputs(options: Options, card: Asset) -> tuple[str, str]:
    return output_of(card, options.output), output_of(card, options.labels) if options.form == "ready" else ""


def _must_be_boxes(options: Options, card: Asset, shapes: Mapping[str, Sequence[int]], name: str, labels: str) -> None:
    shape, (wide, high) = shapes[name], size_of(card)
    if options.form == "ready":
        named = shapes[labels]
        good = len(shape) == 3 and shape[2] in (-1, 5) and len(named) == 2 and all(map(_agree, shape[:2], named))
        must_be(card, name, shape, f"[N,P,5], and {labels!r} [N,P]", good)
        return
    cells = sum((wide // s) * (high // s) for s in options.strides)
    good = len(shape) == 3 and shape[1] in (-1, cells) and not 0 <= shape[2] <= 5 + options.person
    must_be(card, name, shape, f"[N,{cells},5 + classes] with strides {list(options.strides)}, person {options.person}", good)


def _agree(a: int, b: int) -> bool:
    return a == b or min(a, b) < 0


def decoder(options: Options, card: Asset) -> Decoder:
    """Boxes -> one `People` a picture."""
    name, labels = _outputs(options, card)
    cells, stride = grid(size_of(card), options.strides)

    def decode(outputs: Outputs) -> list[People]:
        rows = outputs[name]
        _must_be_boxes(options, card, {n: a.shape for n, a in outputs.items()}, name, labels)
        if options.form == "grid":
            scores = rows[:, :, 4] * rows[:, :, 5 + options.person]
        else:
            scores = np.where(outputs[labels] == options.person, rows[:, :, 4], 0)
        must_be_finite(card, {name: rows}, scores)
        found = []
        for i, (one, score) in enumerate(zip(rows, scores, strict=True)):
            likely = np.flatnonzero(score >= options.min_score)
            likely = likely[np.argsort(-score[likely], kind="stable")]
            box = one[likely, :4].astype(np.float64)
            if options.form == "grid":
                middle, half = (box[:, :2] + cells[likely]) * stride[likely, None], np.exp(box[:, 2:]) * stride[likely, None] / 2
                box = np.concatenate([middle - half, middle + half], axis=1)
            must_be_finite(card, {name: rows}, box[None], first=i)
            kept = keep(box, options.overlap)
            found.append(_people(score[likely][kept].astype(np.float64), box[kept] - 0.5))
        return found

    return decode


def grid(size: tuple[int, int], strides: tuple[int, ...]) -> tuple[F64, F64]:
    """Cells [n,2] (column, row) of all strides in their order, row by row, and the stride of each [n]."""
    cells = [np.stack(np.meshgrid(np.arange(size[0] // s), np.arange(size[1] // s)), -1).reshape(-1, 2) for s in strides]
    return np.concatenate(cells).astype(np.float64), np.repeat(np.array(strides, np.float64), [len(c) for c in cells])


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def keep(box: Any, overlap: float) -> Any:
    """Which boxes [n,4], the best first, are not covered by a better one: bool [n]."""
    kept = np.ones(len(box), np.bool_)
    for i in range(len(box)):
        if not kept[i]:
            continue
        for j in range(i + 1, len(box)):
            w = min(box[i, 2], box[j, 2]) - max(box[i, 0], box[j, 0])
            h = min(box[i, 3], box[j, 3]) - max(box[i, 1], box[j, 1])
            if kept[j] and w > 0 and h > 0:
                a = (box[i, 2] - box[i, 0]) * (box[i, 3] - box[i, 1])
                b = (box[j, 2] - box[j, 0]) * (box[j, 3] - box[j, 1])
                kept[j] = w * h <= overlap * (a + b - w * h)
    return kept


def _people(score: F64, box_px: F64) -> People:
    x = (box_px[:, 0] + box_px[:, 2]) / 2
    top, height = box_px[:, 1], box_px[:, 3] - box_px[:, 1]
    hips, shoulders = (np.stack([x, top + share * height], -1) for share in (_HIPS, _SHOULDERS))
    rim = np.stack([x, top + (_HIPS - (1 - _HIPS)) * height], -1)
    return People(score, box_px, np.stack([hips, rim, shoulders, rim], axis=1))


def answers(options: Options, card: Asset) -> dict[str, NDArray[Any]]:
    """One item: one upright person in the middle of the picture."""
    name = output_of(card, options.output)
    wide, high = size_of(card)
    box = np.array([0.3 * wide, 0.1 * high, 0.7 * wide, 0.92 * high])
    if options.form == "ready":
        rows = np.zeros((max(card.outputs[name].shape[1], 1), 5), np.float32)
        rows[0] = (*box, 0.9)
        return {name: rows, options.labels: np.full(len(rows), options.person, card.outputs[options.labels].dtype)}
    cells, stride = grid((wide, high), options.strides)
    rows = np.zeros(sizes_of(card, name), np.float32)
    at = int(np.argmin(np.abs(cells * stride[:, None] - (box[:2] + box[2:]) / 2).sum(axis=1)))
    rows[at, :4] = (*((box[:2] + box[2:]) / 2 / stride[at] - cells[at]), *np.log((box[2:] - box[:2]) / stride[at]))
    rows[at, 4], rows[at, 5 + options.person] = 0.95, 0.95
    return {name: rows}
