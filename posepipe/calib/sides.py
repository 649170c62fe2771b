"""Left or right: a view that takes a person's front for the back names joints by the other side, and is set right here.

Such a view disagrees with the others at all joints at once. Outvoting it joint by joint loses the view, and with few cameras the
vote may go to the wrong side at single joints; whole views are exchanged instead, when that makes the views agree. Single pairs
that a view has the wrong way round (crossed legs, the arms of a turning person) are exchanged after that.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, F64, I64
from posepipe.pipeline.skeleton import Skeleton

from .rig import Rig
from .triangulate import Triangulated, triangulate

_SUSPECT = 0.25
"""A view is looked at when this share of its joints that lie apart from their other side by more than the inlier threshold is outvoted."""
_FEWEST = 4
_MOST = 4
_HANDED = 0.3
_BETTER = 1.05
"""Exchanging must improve the agreement by this factor; below it the views stay as they are."""

Bools = NDArray[np.bool_]
Seen = TypeVar("Seen", F32, F64)


def mirror_of(skeleton: Skeleton) -> I64:
    """For every joint [J] the one of the other side, by name; itself for joints in the middle."""
    other = {"left": "right", "right": "left"}
    names = ["_".join(other.get(part, part) for part in name.split("_")) for name in skeleton.joints]
    return np.array([skeleton.index(name) for name in names], np.int64)


@dataclass(frozen=True, slots=True)
class Facing:
    """Joints that tell front from back and left from right: front - back [4] points forward; left, right [2] are shoulder and hip."""

    front: I64
    back: I64
    left: I64
    right: I64

    def handed(self, xyz_m: F64) -> float:
        """Of a skeleton [J,3]: near 1 when left is left of forward, near -1 when sides are exchanged, 0 when nothing tells.

        Up is from the hips to the shoulders, so that it holds in any posture.
        """
        left, right = xyz_m[self.left], xyz_m[self.right]
        shoulders, hips = (left + right) / 2
        up, to_left = shoulders - hips, (left - right).sum(axis=0)
        ahead = xyz_m[self.front] - xyz_m[self.back]
        forward = ahead[np.isfinite(ahead).all(axis=1)].sum(axis=0)
        (ux, uy, uz), (fx, fy, fz), (lx, ly, lz) = up.tolist(), forward.tolist(), to_left.tolist()
        size = math.hypot(ux, uy, uz) * math.hypot(fx, fy, fz) * math.hypot(lx, ly, lz)
        left_of_forward = (uy * fz - uz * fy) * lx + (uz * fx - ux * fz) * ly + (ux * fy - uy * fx) * lz
        return left_of_forward / size if size > 0 else 0.0


def facing_of(skeleton: Skeleton) -> Facing:
    """From joint names: the nose is before the ears, toes before heels; shoulders and hips tell left from right."""
    ahead = [("nose", "left_ear"), ("nose", "right_ear"), ("left_foot_index", "left_heel"), ("right_foot_index", "right_heel")]
    ahead = [(a, b) for a, b in ahead if a in skeleton.joints and b in skeleton.joints]
    front, back = ([skeleton.index(pair[k]) for pair in ahead] for k in (0, 1))
    left, right = ([skeleton.index(f"{side}_{part}") for part in ("shoulder", "hip")] for side in ("left", "right"))
    return Facing(*(np.array(joints, np.int64) for joints in (front, back, left, right)))


def triangulate_sides(
    rig: Rig,
    rays: F64,
    conf: F64 | F32,
    *,
    mirror: I64,
    facing: Facing | None = None,
    inlier_px: float | F64,
    sigma_px: float | F64,
    min_views: int = 2,
) -> tuple[Triangulated, Bools]:
    """`triangulate`, and the joints [P,C,J] whose left and right were exchanged in a view for it.

    mirror [J]: as of `mirror_of`. facing: as of `facing_of`. When exchanging some
    views agrees as well as exchanging the others, the person's left decides, being left of forward; else the fewer are exchanged. `used` and `residual_px` belong to the joints as they were used.
    """
    conf = np.asarray(conf, np.float64)
    people, cameras, joints = conf.shape
    limits = np.ascontiguousarray(np.broadcast_to(np.asarray(inlier_px, np.float64), (people, cameras)))
    noise = np.ascontiguousarray(np.broadcast_to(np.asarray(sigma_px, np.float64), (people, cameras)))
    points = triangulate(rig, rays, conf, inlier_px=limits, sigma_px=noise, min_views=min_views)
    exchanged = np.zeros((people, cameras, joints), np.bool_)
    apart = (conf > 0) & (_apart_px(rig, rays, mirror) > limits[..., None])
    lost = apart & ~points.used
    if not lost.any():
        return points, exchanged
    outvoted = np.count_nonzero(lost, axis=2) / np.maximum(np.count_nonzero(apart, axis=2), _FEWEST)
    for p in np.flatnonzero((outvoted >= _SUSPECT).any(axis=1)).tolist():
        variants = _variants(outvoted[p])
        turned = np.broadcast_to(variants[:, :, None], (*variants.shape, joints))
        one_rays, one_conf = other_side(rays[p][None], turned, mirror), other_side(conf[p][None], turned, mirror)
        several = {"inlier_px": np.repeat(limits[p : p + 1], len(variants), 0), "sigma_px": np.repeat(noise[p : p + 1], len(variants), 0)}
        tried = triangulate(rig, one_rays, one_conf, min_views=min_views, **several)
        best = _best(tried, one_conf, several["inlier_px"], variants)
        if best:
            # Exchanging all the other views instead agrees just as well: the same skeleton with its sides exchanged.
            others = facing is not None and facing.handed(tried.xyz_m[best]) <= -_HANDED
            exchanged[p, (variants[best] ^ others) & (conf[p] > 0).any(axis=1)] = mirror != np.arange(joints)
            at = mirror if others else np.arange(joints)
            points.xyz_m[p], points.conf[p], points.sigma_m[p] = tried.xyz_m[best, at], tried.conf[best, at], tried.sigma_m[best, at]
            points.residual_px[p], points.used[p] = tried.residual_px[best][:, at], tried.used[best][:, at]
    single = _swapped_pairs(rig, other_side(rays, exchanged, mirror), other_side(conf, exchanged, mirror), points, mirror, limits)
    if single.any():
        exchanged ^= single
        points = exchanged_points(rig, rays, conf, exchanged, mirror=mirror, inlier_px=limits, sigma_px=noise, min_views=min_views)
    return points, exchanged


def exchanged_points(
    rig: Rig, rays: F64, conf: F64, exchanged: Bools, *, mirror: I64, inlier_px: F64, sigma_px: F64, min_views: int = 2
) -> Triangulated:
    """`triangulate` with left and right of these joints [K,C,J] exchanged in a view: K ways to see what is given, of one person or of K."""
    rays, conf = other_side(rays, exchanged, mirror), other_side(conf, exchanged, mirror)
    return triangulate(rig, rays, conf, inlier_px=inlier_px, sigma_px=sigma_px, min_views=min_views)


def other_side(seen: Seen, exchanged: Bools, mirror: I64) -> Seen:
    """What views show of joints [P,C,J,...], with that of exchanged joints [P or K,C,J] from the other side."""
    which = exchanged.reshape(*exchanged.shape, *(1,) * (seen.ndim - 3))
    return np.where(which, np.take(seen, mirror, axis=2), seen)


def exchange_maps(maps: F32, exchanged: Bools, mirror: I64) -> F32:
    """Heatmaps [C,h,w,J] with the channels of exchanged joints [C,J] from the other side; the same array where there is none."""
    views = np.flatnonzero(exchanged.any(axis=1))
    if not len(views):
        return maps
    out = maps.copy()
    for c in views:
        out[c] = maps[c][..., np.where(exchanged[c], mirror, np.arange(len(mirror)))]
    return out


def _apart_px(rig: Rig, rays: F64, mirror: I64) -> F64:
    """How far a joint and the one on the other side are from each other in a view [P,C,J]; 0 where one of them is not seen."""
    apart: F64 = np.nan_to_num(np.linalg.norm((rays - rays[:, :, mirror]) * rig.focal_px[:, None], axis=-1))
    return apart


def _swapped_pairs(rig: Rig, rays: F64, conf: F64, points: Triangulated, mirror: I64, limits: F64) -> Bools:
    """Pairs of joints that one view names the wrong way round [P,C,J]: both outvoted as they are, both within the limit exchanged."""
    pose = rig.camera_from_world
    at = np.einsum("cik,pjk->pcji", pose[:, :, :3], points.xyz_m) + pose[:, None, :, 3]
    with np.errstate(invalid="ignore", divide="ignore"):
        other = rays[:, :, mirror] - at[..., :2] / at[..., 2:]
    fits = np.linalg.norm(other * rig.focal_px[:, None], axis=-1) < limits[..., None]
    wrong = (conf > 0) & ~points.used & fits & (points.conf > 0)[:, None] & (mirror != np.arange(len(mirror)))
    return np.asarray(wrong & wrong[:, :, mirror])


def _variants(outvoted: F64) -> Bools:
    """Which views to exchange [K,C]: none, then every choice of at most half of the views among the suspects."""
    worst = [c for c in np.argsort(-outvoted, kind="stable").tolist() if outvoted[c] >= _SUSPECT][:_MOST]
    half = len(outvoted) // 2
    choices = [c for n in range(half + 1) for c in itertools.combinations(worst, n)]
    variants = np.zeros((len(choices), len(outvoted)), np.bool_)
    for row, choice in enumerate(choices):
        variants[row, list(choice)] = True
    return variants


def _best(tried: Triangulated, conf: F64, limit: F64, variants: Bools) -> int:
    """The variant whose views agree most; 0 (none exchanged) unless another is clearly better."""
    near = np.where(tried.used, 2 - (tried.residual_px / limit[:, :, None]) ** 2, 0)
    score = (np.sqrt(conf) * near).sum(axis=(1, 2))
    if score[0] * _BETTER >= score.max():
        return 0
    level = np.flatnonzero(score * _BETTER >= score.max())
    fewest = variants[level].sum(axis=1)
    level = level[fewest == fewest.min()]
    return int(level[np.argmax(score[level])])
