"""People in a picture from the pose detector's raw outputs: anchors, boxes and key points, merging of overlapping answers.

Formulas: MediaPipe's ssd_anchors, tensors_to_detections and non_max_suppression (weighted) calculators with the settings of its
pose_detection graph.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numba
import numpy as np
from numpy.typing import NDArray

from ...assets import Asset
from ...decoders import Decoder, Outputs, People, must_be_finite

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

SIZE_PX = 224
_GRIDS = ((28, 2), (14, 2), (7, 6))
_SCORE = 0.5
_OVERLAP = 0.3


def anchors() -> F32:
    """[2254,2] anchor centres as shares of the input."""
    parts = []
    for n, each in _GRIDS:
        line = (np.arange(n) + 0.5) / n
        x, y = np.meshgrid(line, line)
        parts.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2), each, axis=0))
    return np.concatenate(parts).astype(np.float32)


_ANCHORS = anchors()


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to choose: anchors and thresholds are the network's."""


def decoder(options: Options, card: Asset) -> Decoder:
    """Outputs `scores` [N,2254,1] and `boxes` [N,2254,12] -> one `People` a picture."""

    def decode(outputs: Outputs) -> list[People]:
        found = []
        must_be_finite(card, outputs, outputs["scores"])
        for i, (scores, boxes) in enumerate(zip(outputs["scores"], outputs["boxes"], strict=True)):
            score, points = decode_detections(scores, boxes)
            must_be_finite(card, outputs, points[None], first=i)
            px = points * SIZE_PX - 0.5
            found.append(People(score, px[:, :2].reshape(-1, 4), px[:, 2:]))
        return found

    return decode


def answers(options: Options, card: Asset) -> dict[str, F32]:
    """Raw outputs for one upright person in the middle of the picture, three quarters of its height tall."""
    at = int(np.argmin(np.abs(anchors() - 0.5).sum(axis=1)))
    scores, boxes = np.full((2254, 1), -20.0, np.float32), np.zeros((2254, 12), np.float32)
    hips, head = (0.5, 0.5), (0.5, 0.12)
    numbers = np.array([0.5, 0.25, 0.2, 0.2, *hips, *head, 0.5, 0.3, 0.5, 0.1])
    shift = np.tile(anchors()[at], 6)
    shift[2:4] = 0  # width and height are not counted from the anchor
    scores[at], boxes[at] = 4.0, 224 * (numbers - shift)
    return {"scores": scores, "boxes": boxes}


def decode_detections(scores: F32, boxes: F32) -> tuple[F64, F64]:
    """The people of one picture: scores [2254,1] logits, boxes [2254,12].

    Returns score [P] (best first) and coordinates [P,6,2]: box minimum, box maximum, four key points, as edge coordinates of the
    square input in 0..1.
    """
    logits = np.clip(scores[:, 0], -100, 100)
    likely = np.flatnonzero(logits > np.log(_SCORE / (1 - _SCORE)))
    likely = likely[np.argsort(-logits[likely], kind="stable")]
    score = 1 / (1 + np.exp(-logits[likely].astype(np.float64)))
    raw = boxes[likely].astype(np.float64).reshape(-1, 6, 2) / SIZE_PX
    centre = raw[:, 0] + _ANCHORS[likely]
    points = raw[:, 2:] + _ANCHORS[likely, None]
    coordinates = np.concatenate([(centre - raw[:, 1] / 2)[:, None], (centre + raw[:, 1] / 2)[:, None], points], axis=1)
    kept, merged = np.empty(len(score)), np.empty_like(coordinates)
    n = _merge(score, coordinates, kept, merged)
    return kept[:n], merged[:n]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _merge(score: Any, points: Any, kept: Any, merged: Any) -> int:
    """Weighted suppression: the best box takes the score-weighted mean of all that overlap it, and those are done with."""
    done = np.zeros(len(score), np.bool_)
    n = 0
    for best in range(len(score)):
        if done[best]:
            continue
        total = 0.0
        merged[n] = 0.0
        for i in range(best, len(score)):
            if not done[i] and (i == best or _iou(points[best], points[i]) > _OVERLAP):
                done[i] = True
                total += score[i]
                merged[n] += score[i] * points[i]
        merged[n] /= total
        kept[n] = score[best]
        n += 1
    return n


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _iou(a: Any, b: Any) -> float:
    w = min(a[1, 0], b[1, 0]) - max(a[0, 0], b[0, 0])
    h = min(a[1, 1], b[1, 1]) - max(a[0, 1], b[0, 1])
    if w <= 0 or h <= 0:
        return 0.0
    both = w * h
    either = (a[1, 0] - a[0, 0]) * (a[1, 1] - a[0, 1]) + (b[1, 0] - b[0, 0]) * (b[1, 1] - b[0, 1]) - both
    overlap: float = both / either
    return overlap
