"""Key points from BlazePose's heatmaps: the peak of every joint, refined by the weighted mean around it.

Formula: MediaPipe's refine_landmarks_from_heatmap_calculator (mean of the cells around the peak, weighted by their sigmoids).
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

JOINTS = 33
_CELL_PX = 4.0  # a 64 x 64 map over a 256 x 256 crop
_RADIUS = 3


def decode_heatmaps(logits: F32) -> tuple[F32, F32]:
    """Key points of N crops.

    logits [N,39,64,64]. Returns uv_px [N,33,2] in pixels of the 256 x 256 crop (pixel centres at integers) and conf [N,33], the
    sigmoid of the peak. A map without a finite number gives NaN and 0.
    """
    n = len(logits)
    uv_px, conf = np.empty((n, JOINTS, 2), np.float32), np.empty((n, JOINTS), np.float32)
    _decode(logits, uv_px, conf)
    return uv_px, conf


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _decode(logits: Any, uv_px: Any, conf: Any) -> None:
    _, _, height, width = logits.shape
    column_max = np.empty(width, np.float32)
    for n in range(conf.shape[0]):
        for j in range(conf.shape[1]):
            # Maximum of every column first: that loop runs on whole vectors, and finding the peak then takes one column.
            column_max[:] = -np.inf
            for r in range(height):
                row = logits[n, j, r]
                for c in range(width):
                    column_max[c] = row[c] if row[c] > column_max[c] else column_max[c]
            peak_c = 0
            for c in range(1, width):
                if column_max[c] > column_max[peak_c]:
                    peak_c = c
            peak = column_max[peak_c]
            if not math.isfinite(peak):
                uv_px[n, j, 0] = uv_px[n, j, 1] = np.nan
                conf[n, j] = 0.0
                continue
            peak_r = 0
            while logits[n, j, peak_r, peak_c] != peak:
                peak_r += 1
            total, sum_r, sum_c = 0.0, 0.0, 0.0
            for r in range(max(0, peak_r - _RADIUS), min(height, peak_r + _RADIUS + 1)):
                for c in range(max(0, peak_c - _RADIUS), min(width, peak_c + _RADIUS + 1)):
                    w = _sigmoid(logits[n, j, r, c])
                    if w == w:
                        total += w
                        sum_r += w * r
                        sum_c += w * c
            # The network was trained with cell c at the crop's edge coordinate 4c, which is pixel coordinate 4c - 0.5.
            uv_px[n, j, 0] = sum_c / total * _CELL_PX - 0.5
            uv_px[n, j, 1] = sum_r / total * _CELL_PX - 0.5
            conf[n, j] = _sigmoid(peak)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))
