"""Heatmaps of calibrated views into a cube of voxels: the input of a volumetric network.

Every voxel is projected into every view through the full lens model, the maps are sampled there bilinearly, and the views are joined (Iskakov et
al. 2019, section 3.3). A view counts 0 where a voxel lies behind its camera, beyond its lens's fold or outside of its crop; towards the edge of a
map values fade to 0 within one cell, as ONNX's GridSample does it with zero padding.

Cells: cell c of a map has cell coordinate c. Coordinates run along the crop's own x and y, so a crop of w cells spans -first .. w - first.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.errors import EngineError
from posepipe.pipeline.packet import F32, F64

from .project import _NEAR_M
from .rig import Rig
from .unproject_kernel import fill, first_not_finite

How = Literal["sum", "conf", "softmax"]


@dataclass(frozen=True, slots=True)
class Cube:
    """A cube on its way up: centre_m [3] in the world, side_m, and yaw_rad, by which its x axis is turned from the world's about z.

    Of n voxels along a side the outermost lie on the corners: voxel k is at share k / (n - 1) - 0.5 of the side. Units are the rig's.
    """

    centre_m: F64
    side_m: float
    yaw_rad: float = 0.0

    @property
    def world_from_share(self) -> F64:
        """[3,4]: from shares of the side (-0.5..0.5, cube axes) to the world."""
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        axes = self.side_m * np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        return np.column_stack([axes, np.asarray(self.centre_m, np.float64)])

    def world(self, shares: F64 | F32) -> F64:
        """World points [...,3] of shares of the side."""
        to_world = self.world_from_share
        return np.asarray(shares @ to_world[:, :3].T + to_world[:, 3], np.float64)

    def shares(self, xyz_m: F64 | F32) -> F64:
        """Shares of the side [...,3] of world points."""
        to_world = self.world_from_share
        return np.asarray((xyz_m - to_world[:, 3]) @ to_world[:, :3] / self.side_m**2, np.float64)

    def voxels_m(self, n: int) -> F64:
        """World points [n,n,n,3] of the voxels."""
        share = np.arange(n) / (n - 1) - 0.5
        return self.world(np.stack(np.meshgrid(share, share, share, indexing="ij"), axis=-1))


def cells_from_video(rois: F64, size: int | tuple[int, int], *, first: float = 0.0) -> F64:
    """[C,2,3] affine maps from pixels of the videos to cells of the maps of their crops; NaN where there is no crop.

    rois [C,4]: centre x, centre y, side (the longer one) in pixels, angle (as of `engines.crop.Rois`). size: of the maps, one side of a square, or
    width and height. first: cells from the crop's edge to cell 0, which a network's card gives as (offset_px + 0.5) / cell_px; 0 is BlazePose,
    whose cell c lies at c / width of the crop, 0.5 a map whose cells are areas.
    """
    wide, high = (size, size) if isinstance(size, int) else size
    centre_px, side_px, angle = rois[:, :2], rois[:, 2], rois[:, 3]
    scale = np.where(side_px > 0, max(wide, high) / np.where(side_px > 0, side_px, 1), np.nan)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)
    offset = np.array([wide / 2 - first, high / 2 - first]) - np.einsum("cab,cb->ca", linear, centre_px)
    return np.concatenate([linear, offset[..., None]], axis=-1)


def unproject(
    rig: Rig,
    maps: F32,
    rois: F64,
    cube: Cube,
    *,
    n: int = 32,
    how: How = "sum",
    conf: F32 | F64 | None = None,
    first: float = 0.0,
    threads: int = 1,
    out: F32 | None = None,
) -> F32:
    """The volume [n,n,n,J], indices along the cube's x, y, z.

    maps [C,h,w,J] float32, channel last, C as in the rig; rois [C,4]: their crops, as for `cells_from_video` (and `first`), NaN where a view has
    none: such a view does not exist, whatever its map holds. how: `sum` of the views; `conf`: mean of the views weighted with conf [C,J] >= 0
    (0 or NaN: the view does not count for that joint; a joint without a view is 0 everywhere); `softmax`: mean weighted with the softmax over
    the views of their values, a view that does not see a voxel counting as the value 0 (the released weights of Iskakov et al.).
    threads: the cube is cut into so many slabs. out: is filled and returned if given.

    Raises EngineError for a map with a crop that holds a number that is not finite (a heatmap network that is broken at its precision).
    """
    cells = cells_from_video(np.asarray(rois, np.float64), (maps.shape[2], maps.shape[1]), first=first)
    if not len(rig) == len(maps) == len(cells):
        raise ValueError(f"{len(rig)} cameras, maps of {len(maps)} and crops of {len(cells)}")
    # Straight from the distorted plane z = 1 to cells: u = (x - b) / a.
    ax, bx, ay, by = rig.normal_from_video.T
    from_normal = cells[:, :, :2] / np.stack([ax, ay], -1)[:, None]
    offset = cells[:, :, 2] - np.einsum("cab,cb->ca", from_normal, np.stack([bx, by], -1))
    there = np.isfinite(cells).all(axis=(1, 2))
    lenses = (rig.distortion, rig.fold_radius**2, np.full(len(rig), _NEAR_M))
    views = np.flatnonzero(there)
    _refuse_nan(maps, views, rig.names)
    return _volume(
        maps, views, rig.camera_from_world, lenses, np.dstack([from_normal, offset]), cube,
        n=n, how=how, conf=conf, mean=True, threads=threads, out=out,
    )  # fmt: skip


def unproject_pinhole(
    projections: F64,
    maps: F32,
    cube: Cube,
    *,
    n: int = 64,
    how: How = "softmax",
    conf: F32 | F64 | None = None,
    threads: int = 1,
    out: F32 | None = None,
) -> F32:
    """The volume [n,n,n,J] as the published weights of Iskakov et al. (2019) know it: cameras without distortion.

    projections [V,3,4]: from the cube's world to pixels of each view's maps (the intrinsics cropped and resized with the picture), NaN where
    there is no view. As published, a point at pixel p of a map of w is read at p (w - 1) / w (their normalisation by the size, under
    align_corners), a point that is not in front counts 0, and `conf` [V,J] is a factor, not a weight. Otherwise as `unproject`; where the published
    code divides x by the height and y by the width of the map, this does not: the same for the square maps of those weights.
    """
    views = np.flatnonzero(np.isfinite(projections).all(axis=(1, 2)))
    _, high, wide, _ = maps.shape
    cells = np.zeros((len(maps), 2, 3))
    cells[:, 0, 0], cells[:, 1, 1] = (wide - 1) / wide, (high - 1) / high
    lenses = (np.zeros((len(maps), 5)), np.full(len(maps), np.inf), np.zeros(len(maps)))
    _refuse_nan(maps, views, tuple(f"view {i}" for i in range(len(maps))))
    return _volume(maps, views, projections, lenses, cells, cube, n=n, how=how, conf=conf, mean=False, threads=threads, out=out)


def _refuse_nan(maps: F32, views: NDArray[np.int64], names: tuple[str, ...]) -> None:
    at = first_not_finite(np.ascontiguousarray(maps).reshape(len(maps), -1), views)
    if at >= 0:
        hint = "run the heatmap network at another precision (engines: {precision: fp32}); `posepipe verify` compares them"
        raise EngineError("heatmaps hold numbers that are not finite", where=names[at], hint=hint)


def _volume(
    maps: F32,
    views: NDArray[np.int64],
    poses: F64,
    lenses: tuple[F64, F64, F64],
    cells: F64,
    cube: Cube,
    *,
    n: int,
    how: How,
    conf: F32 | F64 | None,
    mean: bool,
    threads: int,
    out: F32 | None,
) -> F32:
    count, high, wide, joints = maps.shape
    if n < 2:
        raise ValueError(f"a cube of {n} voxels a side: at least 2")
    volume = np.empty((n, n, n, joints), np.float32) if out is None else out
    if volume.shape != (n, n, n, joints) or volume.dtype != np.float32 or not volume.flags.c_contiguous:
        raise ValueError(f"out must be a contiguous float32 array [{n},{n},{n},{joints}]")
    if not len(views):
        volume[:] = 0
        return volume
    share = np.ones((count, joints))
    if how == "conf":
        if conf is None or np.shape(conf) != (count, joints):
            raise ValueError(f"how='conf' needs conf [{count},{joints}]")
        share = np.nan_to_num(np.asarray(conf, np.float64), nan=0.0)
        if mean:
            total = share[views].sum(axis=0)
            share = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
    cube_in_world = np.vstack([cube.world_from_share, [0, 0, 0, 1]])
    camera = np.asarray(poses, np.float64)[views] @ cube_in_world
    arrays: list[Any] = [
        np.ascontiguousarray(maps, np.float32).reshape(count, -1), views, np.tile(share[views], n), how == "softmax", camera,
        *(a[views] for a in lenses), cells[views],
    ]  # fmt: skip
    arrays = [np.ascontiguousarray(a, np.float32) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a for a in arrays]

    flat = volume.reshape(n, n, n * joints)
    work: Callable[..., None] = fill
    _in_slabs(functools.partial(work, *arrays, joints, wide, high, out=flat), n, min(threads, n))
    return volume


def _in_slabs(slab: Callable[..., None], n: int, threads: int) -> None:
    bounds = [n * i // threads for i in range(threads + 1)]
    others = [threading.Thread(target=slab, kwargs={"first": a, "last": b}) for a, b in itertools.pairwise(bounds[1:])]
    for thread in others:
        thread.start()
    slab(first=bounds[0], last=bounds[1])
    for thread in others:
        thread.join()
