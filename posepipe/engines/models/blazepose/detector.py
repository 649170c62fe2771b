"""People in a picture from the pose detector's raw outputs: anchors, boxes and key points, merging of overlapping answers.

Formulas: MediaPipe's ssd_anchors, tensors_to_detections and non_max_suppression (weighted) calculators with the settings of its
pose_detection graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

SIZE_PX = 224
_GRIDS = ((28, 2), (14, 2), (7, 6))
_SCORE = 0.5
_OVERLAP = 0.3


@dataclass(frozen=True, slots=True)
class Detection:
    """One person in one frame, frame pixels (pixel centres at integers).

    box_px [4]: left, top, right, bottom of the head and shoulders, as the network was trained. points_px [4,2]: middle of the hips, a
    point of the circle around the whole body (above the hips for one who stands upright), middle of the shoulders, a point of the
    circle around the upper body.
    """

    score: float
    box_px: F64
    points_px: F64


def anchors() -> F32:
    """[2254,2] anchor centres as shares of the input."""
    parts = []
    for n, each in _GRIDS:
        line = (np.arange(n) + 0.5) / n
        x, y = np.meshgrid(line, line)
        parts.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2), each, axis=0))
    return np.concatenate(parts).astype(np.float32)


_ANCHORS = anchors()


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
