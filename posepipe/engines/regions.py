"""Where to cut: the region around a whole person, from a detection or from joints that are known already.

For `crop` networks both aim at what BlazePose and MoveNet were trained on: a square centred on the hips, its half side a little more than
the radius of the circle around the whole body, turned so that hips to shoulders is up (MediaPipe's pose_detection_to_roi and
pose_landmarks_to_roi). For `affine` networks it is the upright box around the body, widened to the shape of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..pipeline.skeleton import Skeleton
from .card import Preprocess
from .crop import Rois

F64 = NDArray[np.float64]

_WIDER_DETECTED = 1.25  # MediaPipe's
# The joints end at the nose, the body at the crown: about this share of the way from hips to nose further up.
_CROWN = 0.2
# Where a layout ends at the ankles, the sole is about this share of the way from hips to ankle further on.
_SOLE = 0.09
# A body seen from the front is never smaller than this many trunks around the hips, whatever is hidden.
_TRUNKS = 1.6


@dataclass(frozen=True, slots=True)
class Detection:
    """One person in one frame, frame pixels (pixel centres at integers).

    box_px [4]: left, top, right, bottom of what the network was trained on (BlazePose: head and shoulders; others: the body).
    points_px [4,2]: middle of the hips, a point of the circle around the whole body (above the hips for one who stands upright), middle
    of the shoulders, a point of the circle around the upper body.
    """

    score: float
    box_px: F64
    points_px: F64


class Regions:
    """The regions that a network wants, for one joint layout."""

    def __init__(self, skeleton: Skeleton, preprocess: Preprocess) -> None:
        self._square = preprocess.fit == "crop"
        self._padding, (wide, high) = preprocess.padding, preprocess.size
        self._across = max(wide, high) / wide, max(wide, high) / high
        self._hips, self._shoulders, self._ankles = (
            [skeleton.index(f"{side}_{part}") for side in ("left", "right")] for part in ("hip", "shoulder", "ankle")
        )
        self._nose = skeleton.index("nose")
        self._feet = any("heel" in name for name in skeleton.joints)

    def of_detections(self, detections: Sequence[Detection]) -> Rois:
        """The regions [P] of detected people."""
        points = np.array([d.points_px for d in detections], np.float64).reshape(-1, 4, 2)
        up_px = points[:, 1] - points[:, 0]
        side_px = 2 * _WIDER_DETECTED * np.linalg.norm(up_px, axis=1)
        return Rois(points[:, 0], side_px, _angle(up_px) if self._square else np.zeros(len(points)))

    def of_joints(self, uv_px: NDArray[np.floating[Any]], conf: NDArray[np.floating[Any]]) -> Rois:
        """The regions [N] of bodies with known joints: uv_px [N,J,2] frame pixels, conf [N,J] (0 or NaN: not known).

        The region holds every known joint, also feet and hands. No region where neither the hips nor the shoulders are known.
        """
        known = (conf > 0) & np.isfinite(uv_px).all(axis=2)
        points = np.where(known[..., None], uv_px, np.nan).astype(np.float64)
        hips, shoulders = _middle(points[:, self._hips]), _middle(points[:, self._shoulders])
        up_px = np.nan_to_num(shoulders - hips)
        centre = np.where(np.isnan(hips), shoulders, hips)
        ends = [points, (points[:, self._nose] + _CROWN * (points[:, self._nose] - centre))[:, None]]
        if not self._feet:
            ankles = points[:, self._ankles]
            ends.append(ankles + _SOLE * (ankles - centre[:, None]))
        body = np.concatenate(ends, axis=1)
        there = np.isfinite(centre).all(axis=1)
        if self._square:
            reach = np.linalg.norm(body - centre[:, None], axis=2)
            radius = np.maximum(np.nan_to_num(reach).max(axis=1), _TRUNKS * np.linalg.norm(up_px, axis=1))
            return Rois(centre, np.where(there & (radius > 0), 2 * self._padding * radius, np.nan), _angle(up_px))
        seen = np.isfinite(body).all(axis=2, keepdims=True)
        low, high = np.where(seen, body, np.inf).min(axis=1), np.where(seen, body, -np.inf).max(axis=1)
        with np.errstate(invalid="ignore"):
            side_px = self._padding * ((high - low) * self._across).max(axis=1)
            return Rois((low + high) / 2, np.where(there & (side_px > 0), side_px, np.nan), np.zeros(len(side_px)))


def _middle(pair: F64) -> F64:
    """[N,2] mean of two joints [N,2,2], or the one that is known, or NaN."""
    known = np.isfinite(pair).all(axis=2, keepdims=True)
    with np.errstate(invalid="ignore"):
        middle: F64 = np.where(known, pair, 0).sum(axis=1) / known.sum(axis=1)
    return middle


def _angle(up_px: F64) -> F64:
    angle: F64 = np.arctan2(up_px[:, 0], -up_px[:, 1])
    return np.where((up_px == 0).all(axis=1), 0.0, angle)
