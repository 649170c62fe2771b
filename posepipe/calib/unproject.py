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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.errors import EngineError
from posepipe.pipeline.packet import F32, F64

from .rig import Rig
from .unproject_kernel import BLOCK, fill, first_not_finite, pack, packed_cells

_ALONE = 4
"""So many joints that fill no block cost less one by one."""

How = Literal["sum", "conf", "softmax"]
NEAR_M = 1e-3
"""As `project` has it."""


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
        (x, y, z), side = self.centre_m.tolist(), self.side_m
        cos, sin = side * float(np.cos(self.yaw_rad)), side * float(np.sin(self.yaw_rad))
        return np.array([[cos, -sin, 0.0, x], [sin, cos, 0.0, y], [0.0, 0.0, side, z]], np.float64)

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


@dataclass(frozen=True, slots=True)
class Sight:
    """How C views see a cube: what the kernel, and the ONNX graph of `engines.models.triangulation.unproject_onnx`, are told. All float32.

    camera [C,3,4]: from shares of the cube's side to the camera frame; lens [C,5]: k1 k2 p1 p2 k3; fold2 [C]: squared radius on the plane z = 1
    where the lens folds; near [C]: least depth; cells [C,2,3]: from the distorted plane to cells of the map. there [C]: whether there is such a
    view; of one that is not, camera and cells are 0, so that it sees nothing.
    """

    camera: F32
    lens: F32
    fold2: F32
    near: F32
    cells: F32
    there: NDArray[np.bool_]


def sight(rig: Rig, rois: F64, cube: Cube, size: int | tuple[int, int], *, first: float = 0.0) -> Sight:
    """How the cameras of a rig see a cube through the maps of their crops. Arguments as of `cells_from_video`."""
    cells = cells_from_video(np.asarray(rois, np.float64), size, first=first)
    # Straight from the distorted plane z = 1 to cells: u = (x - b) / a.
    ax, bx, ay, by = rig.normal_from_video.T
    linear = cells[:, :, :2] / np.stack([ax, ay], -1)[:, None]
    offset = cells[:, :, 2] - np.einsum("cab,cb->ca", linear, np.stack([bx, by], -1))
    near = np.full(len(rig), NEAR_M)
    return _sight(rig.camera_from_world, rig.distortion, rig.fold_radius**2, near, np.dstack([linear, offset]), cube)


def sight_pinhole(projections: F64, cube: Cube, size: int | tuple[int, int]) -> Sight:
    """How views without distortion see a cube in the published geometry. Arguments as of `unproject_pinhole`."""
    wide, high = (size, size) if isinstance(size, int) else size
    count = len(projections)
    cells = np.zeros((count, 2, 3))
    cells[:, 0, 0], cells[:, 1, 1] = (wide - 1) / wide, (high - 1) / high
    return _sight(projections, np.zeros((count, 5)), np.full(count, np.inf), np.zeros(count), cells, cube)


def _sight(poses: F64, lens: F64, fold2: F64, near: F64, cells: F64, cube: Cube) -> Sight:
    camera = np.asarray(poses, np.float64) @ np.vstack([cube.world_from_share, [0, 0, 0, 1]])
    there = np.isfinite(cells).all(axis=(1, 2)) & np.isfinite(camera).all(axis=(1, 2))
    camera[~there], cells[~there] = 0, 0
    largest = np.finfo(np.float32).max
    arrays: list[F32] = [np.asarray(a, np.float32) for a in (camera, lens, np.minimum(fold2, largest), near, cells)]
    return Sight(arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], there)


def shares(there: NDArray[np.bool_], joints: int, how: How, conf: F32 | F64 | None, *, mean: bool = True) -> F32:
    """[C,J]: by what the values of every view are multiplied before they are added (`softmax`: 1 for the views that there are). ValueError."""
    share = np.ones((len(there), joints))
    if how == "conf":
        if conf is None or np.shape(conf) != share.shape:
            raise ValueError(f"how='conf' needs conf [{len(there)},{joints}]")
        share = np.nan_to_num(np.asarray(conf, np.float64), nan=0.0)
    share[~there] = 0
    if how == "conf" and mean:
        total = share.sum(axis=0)
        share = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
    return share.astype(np.float32)


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
    if not len(rig) == len(maps) == len(rois):
        raise ValueError(f"{len(rig)} cameras, maps of {len(maps)} and crops of {len(rois)}")
    seen = sight(rig, rois, cube, (maps.shape[2], maps.shape[1]), first=first)
    share = shares(seen.there, maps.shape[3], how, conf)
    return _volume(maps, seen, share, rig.names, n=n, softmax=how == "softmax", threads=threads, out=out)


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
    seen = sight_pinhole(projections, cube, (maps.shape[2], maps.shape[1]))
    share = shares(seen.there, maps.shape[3], how, conf, mean=False)
    names = tuple(f"view {i}" for i in range(len(maps)))
    return _volume(maps, seen, share, names, n=n, softmax=how == "softmax", threads=threads, out=out)


def _volume(maps: F32, seen: Sight, share: F32, names: Sequence[str], *, n: int, softmax: bool, threads: int, out: F32 | None) -> F32:
    count, high, wide, joints = maps.shape
    if n < 2:
        raise ValueError(f"a cube of {n} voxels a side: at least 2")
    volume = np.empty((n, n, n, joints), np.float32) if out is None else out
    if volume.shape != (n, n, n, joints) or volume.dtype != np.float32 or not (volume.flags.c_contiguous and volume.flags.writeable):
        raise ValueError(f"out must be a contiguous float32 array [{n},{n},{n},{joints}] that may be written")
    views = np.flatnonzero(seen.there)
    if not len(views):
        volume[:] = 0
        return volume
    flat = np.ascontiguousarray(maps, np.float32).reshape(count, -1)
    if (bad := first_not_finite(flat, views)) >= 0:
        hint = "run the heatmap network at another precision (engines: {precision: fp32}); `posepipe verify` compares them"
        raise EngineError("heatmaps hold numbers that are not finite", where=names[bad], hint=hint)
    whole, rest = divmod(joints, BLOCK)
    if whole and rest > _ALONE:
        whole, rest = whole + 1, 0  # the last block begins before the one before it ends
    cells = packed_cells(wide, high)
    blocks, quads = _MEMORY.rows((whole, len(views) * cells * BLOCK), (rest, len(views) * cells * 4))
    _in_slabs(
        functools.partial(pack, flat, views, share[views], joints, wide, high, blocks=blocks, quads=quads),
        len(views),
        min(threads, len(views)),
    )
    lens = (seen.camera[views], seen.lens[views], seen.fold2[views], seen.near[views], seen.cells[views])
    rows = volume.reshape(n, n, n * joints)
    _in_slabs(functools.partial(fill, blocks, quads, softmax, *lens, joints, wide, high, out=rows), n, min(threads, n))
    return volume


class _Memory(threading.local):
    """Kept from call to call: new memory costs as much as writing it twice."""

    floats: F32 = np.empty(0, np.float32)

    def rows(self, *shapes: tuple[int, int]) -> list[F32]:
        """Arrays of these shapes whose rows, longer as need be, begin with a cache line."""
        wide = [(rows, -(-floats // BLOCK) * BLOCK) for rows, floats in shapes]
        wanted = sum(a * b for a, b in wide) + BLOCK
        if self.floats.size < wanted:
            self.floats = np.empty(wanted, np.float32)
        at, found = -self.floats.ctypes.data // self.floats.itemsize % BLOCK, []
        for shape in wide:
            found.append(self.floats[at : at + shape[0] * shape[1]].reshape(shape))
            at += shape[0] * shape[1]
        return found


_MEMORY = _Memory()


def _in_slabs(slab: Callable[..., None], n: int, threads: int) -> None:
    bounds = [n * i // threads for i in range(threads + 1)]
    others = [threading.Thread(target=slab, kwargs={"first": a, "last": b}) for a, b in itertools.pairwise(bounds[1:])]
    for thread in others:
        thread.start()
    slab(first=bounds[0], last=bounds[1])
    for thread in others:
        thread.join()
