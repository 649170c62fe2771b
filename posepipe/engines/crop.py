"""Rotated crops cut straight from YUV 4:2:0 planes into a network's input, colour-converted and normalised at crop size, in one pass.

Pixel centres are at integer coordinates, in the frame and in the crop: a crop of `n` pixels spans -0.5 .. n - 0.5.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ..pipeline.errors import EngineError
from ..pipeline.packet import Frame
from .crop_kernel import cut

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

# BT.601: black luma and chroma; gain of luma; V in red; U and V in green; U in blue.
VIDEO_RANGE = np.array([16, 128, 255 / 219, 1.402 * 255 / 224, -0.344136 * 255 / 224, -0.714136 * 255 / 224, 1.772 * 255 / 224])
FULL_RANGE = np.array([0, 128, 1.0, 1.402, -0.344136, -0.714136, 1.772])


@dataclass(frozen=True, slots=True)
class Rois:
    """N regions of frames. centre_px [N,2], side_px [N], angle_rad [N]; NaN where there is no region.

    `side_px` is the longer side of the region, whose shape is that of the crop.

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


@dataclass(frozen=True, slots=True)
class Pixels:
    """In what form a crop is written: (colour 0..255 - mean) / std per channel; mean and std are in the order of the channels."""

    bgr: bool = False
    planar: bool = False
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


RGB8 = Pixels()


@functools.cache
def _tables(pixels: Pixels) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The order of the channels [3], and factor and summand [3,2] of each; [0,2] where the colours are taken as they are."""
    order = np.array([2, 1, 0] if pixels.bgr else [0, 1, 2])
    std = np.array(pixels.std)
    scale = np.stack([1 / std, -np.array(pixels.mean) / std], axis=1).astype(np.float32)
    return order, scale[:0] if (scale == [1, 0]).all() else scale


def image_from_crop(rois: Rois, *, size: int | tuple[int, int]) -> F64:
    """[N,2,3] affine maps from pixels of a crop of `size` (one side of a square, or width and height) to pixels of the frame."""
    wide, high = (size, size) if isinstance(size, int) else size
    scale = rois.side_px / max(wide, high)
    cos, sin = scale * np.cos(rois.angle_rad), scale * np.sin(rois.angle_rad)
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    offset = rois.centre_px - (linear * [(wide - 1) / 2, (high - 1) / 2]).sum(axis=-1)
    return np.concatenate([linear, offset[..., None]], axis=-1)


def to_image(maps: F64, points: NDArray[np.floating[Any]]) -> F64:
    """Points [N,J,2] of crops as points of their frames, by `image_from_crop` [N,2,3]."""
    moved: F64 = np.einsum("nab,njb->nja", maps[:, :, :2], points) + maps[:, None, :, 2]
    return moved


def crop_rgb(frame: Frame, frame_from_crop: F64, out: NDArray[Any], pixels: Pixels = RGB8) -> None:
    """Cut one crop into `out` [H,W,3] (H and W even), planar [3,H,W], contiguous, uint8, int32 or float32; outside the frame it is black.

    frame_from_crop [2,3]: as of `image_from_crop`. Colours are BT.601, which the networks do not mind for BT.709 pictures.
    Antialiasing: means of k x k pixels, k the power of two that leaves a step of 0.8 to 1.6 of them, then bilinear; chroma at half size.
    Raises EngineError for a map that is not of finite numbers.
    """
    colours = FULL_RANGE if frame.full_range else VIDEO_RANGE
    y, luma = _flat(frame.planes[0])
    u, chroma = _flat(frame.planes[1])
    v = u if frame.format == "nv12" else _flat(frame.planes[2])[0]
    to_frame = np.ascontiguousarray(frame_from_crop, np.float64)
    if not cut(y, u, v, luma, chroma, to_frame, colours, pixels.planar, *_tables(pixels), out):
        hint = "cut only the regions that are `there`"
        raise EngineError(f"a crop cannot be cut by the map {np.asarray(frame_from_crop).tolist()}", where=frame.camera, hint=hint)


def warm_up(dtype: str = "uint8") -> None:
    """Compile what cuts crops, or load what was compiled before: the first crop then takes no longer than the others."""
    grey = np.full((2, 2), 128, np.uint8)
    crop_rgb(Frame("", 0, 0, "i420", 2, 2, (grey, grey[:1, :1], grey[:1, :1])), np.eye(2, 3), np.empty((2, 2, 3), dtype))


def _flat(plane: U8) -> tuple[U8, tuple[int, int, int, int]]:
    """The bytes of a plane in one line; its height and width, and bytes from row to row and from pixel to pixel."""
    height, width = plane.shape[:2]
    step = 1 if plane.ndim == 2 else plane.shape[2]
    if plane.flags.c_contiguous:  # a tenth of the time of the general way
        flat = plane.reshape(-1)
        flat.flags.writeable = False
        return flat, (height, width, width * step, step)
    if plane.strides[-1] != 1 or plane.strides[1] != step or plane.strides[0] < width * step:
        plane = np.ascontiguousarray(plane)
    stride = plane.strides[0]
    return as_strided(plane, ((height - 1) * stride + width * step,), (1,), writeable=False), (height, width, stride, step)
