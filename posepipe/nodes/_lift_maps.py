"""Heatmaps as the volumetric step takes them: those that came, without views that hold no number; or painted around key points."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from posepipe.calib.synthetic_noise_stats import GROUP_OF, GROUPS, shipped
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Context
from posepipe.pipeline.packet import F32, F64, ViewPoses, readonly
from posepipe.pipeline.skeleton import COCO17, Skeleton

CELLS = 64
_MARGIN = 0.08
_CERTAIN = np.float32(0.995)


@cache
def _widths() -> F64:
    """Of the peaks of coco17's joints [17], shares of the region's side: those of the network that the training imitates."""
    widths: F64 = np.array([getattr(shipped().joints, group).width for group in GROUPS], np.float64)[GROUP_OF]
    return widths


def coco17_in(layout: Skeleton) -> list[int]:
    """Where coco17's joints are in a layout; GraphError where it lacks one."""
    if lacks := [j for j in COCO17.joints if j not in layout.joints]:
        hint = "use lift.algebraic with weights: peaks, or a 2D network with another skeleton"
        raise GraphError(f"heatmaps are those of coco17's joints, and {layout.name} has no {lacks[0]}", hint=hint)
    return [layout.index(j) for j in COCO17.joints]


def heatmaps(ctx: Context, joints: list[int]) -> Heatmaps:
    """For a node; what is unusual goes to its log."""
    return Heatmaps(joints, lambda what: ctx.log.warning("%s: %s", ctx.name, what))


@dataclass(frozen=True, slots=True)
class Seen:
    """maps [P,C,h,w,17]; rois [P,C,4], NaN where a view has nothing; peaks [P,C,17]: their heights, 0 there."""

    maps: F32
    rois: F32
    peaks: F32


class Heatmaps:
    """The heatmaps of the key points in `joints` (coco17's, in its order). tell: is told what is unusual about them."""

    def __init__(self, joints: list[int], tell: Callable[[str], None]) -> None:
        self._joints, self._say = joints, tell
        self._told: set[str] = set()

    def tell(self, what: str) -> None:
        """Once for every thing that is unusual."""
        if what not in self._told:
            self._told.add(what)
            self._say(what)

    def of(self, v: ViewPoses) -> Seen:
        """Of one instant."""
        conf = np.nan_to_num(v.conf[:, :, self._joints])
        if v.maps is None or v.rois is None:
            self.tell("there are no heatmaps: they are painted around the key points of every view")
            maps, rois = paint(v.uv_px[:, :, self._joints], conf, v.side_px)
            readonly(maps)
        else:
            maps, rois = v.maps, v.rois
            whole = np.asarray(np.isfinite(maps.reshape(*maps.shape[:2], math.prod(maps.shape[2:])).sum(axis=2)))
            if not whole.all():
                self.tell("heatmaps hold NaN or infinite numbers: such a view counts for nothing")
                rois = np.where(whole[..., None], rois, np.float32(np.nan))
                maps = np.where(whole[..., None, None, None], maps, np.float32(0))
                readonly(maps)
        there = np.asarray(np.isfinite(rois).all(axis=2) & (conf > 0).any(axis=2))
        return Seen(maps, np.where(there[..., None], rois, np.float32(np.nan)), np.where(there[..., None], conf, np.float32(0)))


def paint(uv_px: F32, conf: F32, side_px: F32) -> tuple[F32, F32]:
    """Heatmaps [P,C,64,64,17] and their regions [P,C,4] as `ViewPoses` has them, of coco17's key points [P,C,17,2] in squares with sides [P,C].

    A peak is the logistic function of logit(conf) - r^2 / 2, r in widths: what BlazePose gives, and the volumetric networks were trained on.
    """
    people, views, joints = conf.shape
    seen = (conf > 0) & np.isfinite(uv_px).all(axis=3)
    low = np.where(seen[..., None], uv_px, np.inf).min(axis=2, initial=np.inf)
    high = np.where(seen[..., None], uv_px, -np.inf).max(axis=2, initial=-np.inf)
    rois = np.full((people, views, 4), np.nan, np.float32)
    with np.errstate(invalid="ignore"):
        side = np.maximum(side_px, (1 + 2 * _MARGIN) * (high - low).max(axis=2))
        rois[..., :2], rois[..., 2], rois[..., 3] = (low + high) / 2, side, 0
    rois[~seen.any(axis=2)] = np.nan
    maps = np.zeros((people, views, CELLS, CELLS, joints), np.float32)
    cells = np.arange(CELLS, dtype=np.float32)
    for p, c in zip(*np.nonzero(seen.any(axis=2)), strict=True):
        at = (uv_px[p, c] - rois[p, c, :2]) / rois[p, c, 2] * CELLS + CELLS / 2
        at[~seen[p, c]] = -1e4  # nothing of it inside
        away = np.exp(np.minimum((cells[:, None, None] - at) ** 2 / (2 * (_widths()[:, None] * CELLS) ** 2), 30))
        height = np.clip(conf[p, c], 1e-6, _CERTAIN)
        maps[p, c] = 1 / (1 + (1 - height) / height * away[:, None, :, 1] * away[None, :, :, 0])
    return maps, rois
