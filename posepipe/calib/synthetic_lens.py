"""A real lens from a renderer that only knows pinholes: pictures are drawn flat and wide, and each video pixel looks up its own ray.

The look-up table comes from `undistort`, the same Newton iteration that key points go through, so pictures bend exactly as the rig says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.errors import RigError
from posepipe.pipeline.packet import F32, F64

from .project import undistort
from .rig import Camera, Rig

_WIDEST = 3.0
"""Tangent of the half angle (72 degrees) beyond which a flat picture is a waste of memory, and no studio lens."""
_MARGIN = 2
_LARGEST_PX = 16384
"""What every OpenGL of this century can draw into."""


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """A pinhole picture: column = focal_px * x + centre_px[0], row = focal_px * y + centre_px[1] for a ray (x, y, 1); pixel centres are
    at integers."""

    width: int
    height: int
    focal_px: float
    centre_px: tuple[float, float]

    def pixels(self, rays: F64) -> F64:
        """Columns and rows [...,2] of rays [...,2] = (x / z, y / z)."""
        return np.asarray(rays * self.focal_px + np.array(self.centre_px))


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """How a camera's video is looked up in its flat picture: table [h,w,2] (column, row in the flat picture), float32."""

    flat: Flat
    table: F32

    def picture(self, flat: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The video's picture [h,w,3] of a flat colour picture, between pixels bilinear."""
        return np.asarray(cv2.remap(flat, self.table, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8)

    def nearest(self, flat: NDArray[Any]) -> NDArray[Any]:
        """The same for maps whose values must not be mixed: parts, u v, depth."""
        return np.asarray(cv2.remap(flat, self.table, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT))


def lens_of(camera: Camera, *, oversample: float = 1.5) -> Lens:
    """The lens of a camera's video, `oversample` flat pixels to a video pixel at the middle.

    RigError when the lens model folds inside the picture or sees wider than 72 degrees off its axis, or the picture is too large.
    """
    u, v = np.meshgrid(np.arange(camera.width_px, dtype=np.float64), np.arange(camera.height_px, dtype=np.float64))
    rays = undistort(Rig((camera,), units_stated=True), np.stack([u, v], axis=-1).reshape(1, 1, -1, 2))[0, 0]
    if not np.isfinite(rays).all() or np.abs(rays).max() > _WIDEST:
        raise RigError(
            f"camera {camera.name!r}: its lens model does not reach every pixel of its {camera.width_px}x{camera.height_px} picture",
            hint="the distortion folds inside the picture, or sees wider than 72 degrees off its axis; such a picture cannot be drawn",
        )
    focal = oversample * math.sqrt(float(camera.matrix[0, 0] * camera.matrix[1, 1]))
    low, high = rays.min(axis=0), rays.max(axis=0)
    width, height = (math.ceil(focal * float(extent)) + 2 * _MARGIN + 1 for extent in high - low)
    if max(width, height) > _LARGEST_PX:
        raise RigError(
            f"camera {camera.name!r}: its {camera.width_px}x{camera.height_px} picture is too large to be drawn ({width}x{height} before the lens)",
            hint=f"{_LARGEST_PX} pixels a side can be drawn; use a rig for smaller pictures",
        )
    flat = Flat(width, height, focal, (_MARGIN - focal * float(low[0]), _MARGIN - focal * float(low[1])))
    table = flat.pixels(rays).astype(np.float32).reshape(camera.height_px, camera.width_px, 2)
    return Lens(flat, table)
