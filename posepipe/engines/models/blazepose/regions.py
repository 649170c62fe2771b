"""Where to cut: the square around a whole person, from a detection or from joints that are known already.

Both aim at what the network was trained on: a square centred on the hips, its half side a little more than the radius of the circle
around the whole body, turned so that hips to shoulders is up (MediaPipe's pose_detection_to_roi and pose_landmarks_to_roi).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....pipeline.skeleton import BLAZEPOSE33
from ...crop import Rois
from .detector import Detection

F64 = NDArray[np.float64]

_WIDER_DETECTED = 1.25  # MediaPipe's
# Joints are known better than a detection. On real recordings 1.05 to 1.15 gave the steadiest key points (a tenth less jitter than
# 1.25, from crops that show the body larger); the widest of these leaves most room for a person that moves.
_WIDER_KNOWN = 1.15

_HIPS, _SHOULDERS = (list(map(BLAZEPOSE33.index, (f"left_{part}", f"right_{part}"))) for part in ("hip", "shoulder"))
_NOSE = BLAZEPOSE33.index("nose")
# The joints end at the nose, the body at the crown: about this share of the way from hips to nose further up.
_CROWN = 0.2
# A body seen from the front is never smaller than this many trunks around the hips, whatever is hidden.
_TRUNKS = 1.6


def rois_from_detections(detections: Sequence[Detection]) -> Rois:
    """The regions [P] of detected people."""
    points = np.array([d.points_px for d in detections], np.float64).reshape(-1, 4, 2)
    up_px = points[:, 1] - points[:, 0]
    return Rois(points[:, 0], 2 * _WIDER_DETECTED * np.linalg.norm(up_px, axis=1), _angle(up_px))


def rois_from_joints(uv_px: NDArray[np.floating[Any]], conf: NDArray[np.floating[Any]]) -> Rois:
    """The regions [N] of bodies with known joints: uv_px [N,33,2] frame pixels, conf [N,33] (0 or NaN: not known).

    The region holds every known joint, also feet and hands. No region where neither the hips nor the shoulders are known.
    """
    known = (conf > 0) & np.isfinite(uv_px).all(axis=2)
    points = np.where(known[..., None], uv_px, np.nan).astype(np.float64)
    hips, shoulders = _middle(points[:, _HIPS]), _middle(points[:, _SHOULDERS])
    up_px = np.nan_to_num(shoulders - hips)
    centre = np.where(np.isnan(hips), shoulders, hips)
    crown = points[:, _NOSE] + _CROWN * (points[:, _NOSE] - centre)
    reach = np.linalg.norm(np.concatenate([points, crown[:, None]], axis=1) - centre[:, None], axis=2)
    radius = np.maximum(np.nan_to_num(reach).max(axis=1), _TRUNKS * np.linalg.norm(up_px, axis=1))
    there = np.isfinite(centre).all(axis=1) & (radius > 0)
    return Rois(centre, np.where(there, 2 * _WIDER_KNOWN * radius, np.nan), _angle(up_px))


def _middle(pair: F64) -> F64:
    """[N,2] mean of two joints [N,2,2], or the one that is known, or NaN."""
    known = np.isfinite(pair).all(axis=2, keepdims=True)
    with np.errstate(invalid="ignore"):
        middle: F64 = np.where(known, pair, 0).sum(axis=1) / known.sum(axis=1)
    return middle


def _angle(up_px: F64) -> F64:
    angle: F64 = np.arctan2(up_px[:, 0], -up_px[:, 1])
    return np.where((up_px == 0).all(axis=1), 0.0, angle)
