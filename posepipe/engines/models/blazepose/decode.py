"""Key points from BlazePose's heatmaps: the peak of every joint, refined by the weighted mean around it.

Formula: MediaPipe's refine_landmarks_from_heatmap_calculator (mean of the cells around the peak, weighted by their sigmoids).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...decoders.heatmaps import decode_maps

F32 = NDArray[np.float32]

JOINTS = 33
_CELL_PX = 4.0  # a 64 x 64 map over a 256 x 256 crop


def decode_heatmaps(logits: F32) -> tuple[F32, F32]:
    """Key points of N crops.

    logits [N,39,64,64]. Returns uv_px [N,33,2] in pixels of the 256 x 256 crop (pixel centres at integers) and conf [N,33], the
    sigmoid of the peak. A map without a finite number gives NaN and 0.
    """
    # The network was trained with cell c at the crop's edge coordinate 4c, which is pixel coordinate 4c - 0.5.
    channels = np.arange(JOINTS)
    return decode_maps(logits, channels=channels, refine="centroid", logits=True, cell_px=(_CELL_PX, _CELL_PX), offset_px=-0.5, radius=3)
