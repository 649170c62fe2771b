"""Square, rotated crops cut straight from YUV 4:2:0 planes, colour-converted at crop size.

Pixel centres are at integer coordinates, in the frame and in the crop: a crop of `n` pixels spans -0.5 .. n - 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..pipeline.packet import Frame

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

# The planes are halved (2x2 means) while the crop would still skip more than this many of their pixels at a step.
_KEEP = 1.6


@dataclass(frozen=True, slots=True)
class Rois:
    """N square regions of frames. centre_px [N,2], side_px [N], angle_rad [N]; NaN where there is no region.

    The up direction of a region is (sin angle, -cos angle) in the frame: 0 is upright, positive leans to the right.
    """

    centre_px: F64
    side_px: F64
    angle_rad: F64

    def __len__(self) -> int:
        return len(self.side_px)

    @classmethod
    def none(cls, n: int) -> Rois:
        """N times no region."""
        return cls(np.full((n, 2), np.nan), np.full(n, np.nan), np.full(n, np.nan))

    @property
    def there(self) -> NDArray[np.bool_]:
        """[N] True where there is a region."""
        return np.isfinite(self.side_px) & (self.side_px > 0) & np.isfinite(self.centre_px).all(axis=1) & np.isfinite(self.angle_rad)


def image_from_crop(rois: Rois, *, size: int) -> F64:
    """[N,2,3] affine maps from pixels of a `size` x `size` crop to pixels of the frame."""
    scale = rois.side_px / size
    cos, sin = scale * np.cos(rois.angle_rad), scale * np.sin(rois.angle_rad)
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    offset = rois.centre_px - linear.sum(axis=-1) * ((size - 1) / 2)
    return np.concatenate([linear, offset[..., None]], axis=-1)


def to_image(maps: F64, points: NDArray[np.floating[Any]]) -> F64:
    """Points [N,J,2] of crops as points of their frames, by `image_from_crop` [N,2,3]."""
    moved: F64 = np.einsum("nab,njb->nja", maps[:, :, :2], points) + maps[:, None, :, 2]
    return moved


def crop_rgb(frame: Frame, frame_from_crop: F64, out: U8) -> None:
    """Cut one crop into `out` uint8 [H,W,3] RGB (H and W even); what lies outside the frame is black.

    frame_from_crop [2,3]: as of `image_from_crop`. Colours are BT.601, which the networks do not mind for BT.709 pictures.
    """
    height, width = out.shape[:2]
    black = 0 if frame.full_range else 16
    # A chroma pixel j lies over luma pixels 2j and 2j + 1, in the crop as in the frame.
    chroma_from_chroma = frame_from_crop.copy()
    chroma_from_chroma[:, 2] = (frame_from_crop @ np.array([0.5, 0.5, 1.0]) - 0.5) / 2
    stacked = np.empty((height * 3 // 2, width), np.uint8)
    _sample(frame.planes[0], frame_from_crop, black, stacked[:height])
    for channel, out_chroma in enumerate(stacked[height:].reshape(2, height // 2, width // 2)):
        if frame.format == "nv12":
            _sample(frame.planes[1], chroma_from_chroma, 128, out_chroma, channel=channel)
        else:
            _sample(frame.planes[1 + channel], chroma_from_chroma, 128, out_chroma)
    if frame.full_range:
        # OpenCV's 4:2:0 conversion knows only video range; this costs half a grey level.
        cv2.convertScaleAbs(stacked[:height], dst=stacked[:height], alpha=219 / 255, beta=16)
        cv2.convertScaleAbs(stacked[height:], dst=stacked[height:], alpha=224 / 255, beta=128 * (1 - 224 / 255))
    cv2.cvtColor(stacked, cv2.COLOR_YUV2RGB_I420, dst=out)


def _sample(plane: U8, plane_from_out: F64, border: int, out: U8, *, channel: int | None = None) -> None:
    """Resample the part of a plane (or of one of its channels) that `out` sees, halved first as often as needed against aliasing."""
    height, width = out.shape[:2]
    step = math.sqrt(abs(float(np.linalg.det(plane_from_out[:, :2]))))
    halvings = max(0, math.ceil(math.log2(step / _KEEP)))
    by = 2**halvings
    corners = plane_from_out @ np.array([[-1.0, width, -1.0, width], [-1.0, -1.0, height, height], [1.0, 1.0, 1.0, 1.0]])
    low, high = np.floor(corners.min(axis=1)), np.ceil(corners.max(axis=1)) + 1
    (x0, x1), (y0, y1) = (_span(int(a), int(b), n, by) for a, b, n in zip(low, high, plane.shape[1::-1], strict=True))
    if x1 <= x0 or y1 <= y0:
        out[...] = border
        return
    part = plane[y0:y1, x0:x1]
    if channel is not None:
        part = cv2.extractChannel(part, channel)  # halving two interleaved channels would miss OpenCV's fast path
    for _ in range(halvings):
        part = cv2.resize(part, (part.shape[1] // 2, part.shape[0] // 2), interpolation=cv2.INTER_AREA)
    matrix = plane_from_out / by
    matrix[:, 2] -= (np.array([x0, y0]) + (by - 1) / 2) / by
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(part, matrix, (width, height), dst=out, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=border)


def _span(low: int, high: int, n: int, by: int) -> tuple[int, int]:
    """Pixels low to high of n, in whole groups of `by`: even sizes take OpenCV's fast path, which is ten times faster.

    At the end of the plane that gives up less than one group.
    """
    low = max(low, 0)
    groups = min(-(-(high - low) // by), (n - low) // by)
    return low, low + groups * by
