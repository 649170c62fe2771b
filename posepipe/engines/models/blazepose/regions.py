"""The regions that BlazePose wants; `posepipe.engines.regions` has them for every network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....pipeline.skeleton import BLAZEPOSE33
from ...card import Preprocess
from ...crop import Rois
from ...regions import Detection, Regions

# On real recordings a padding of 1.05 to 1.15 around known joints gave the steadiest key points (a tenth less jitter than MediaPipe's
# 1.25, from crops that show the body larger); the widest of these leaves most room for a person that moves.
_REGIONS = Regions(BLAZEPOSE33, Preprocess(size=(256, 256), fit="crop", padding=1.15))


def rois_from_detections(detections: Sequence[Detection]) -> Rois:
    """The regions [P] of detected people."""
    return _REGIONS.of_detections(detections)


def rois_from_joints(uv_px: NDArray[np.floating[Any]], conf: NDArray[np.floating[Any]]) -> Rois:
    """The regions [N] of bodies with known joints: uv_px [N,33,2] frame pixels, conf [N,33] (0 or NaN: not known)."""
    return _REGIONS.of_joints(uv_px, conf)
