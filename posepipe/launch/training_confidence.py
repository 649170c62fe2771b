"""`posepipe train confidence`: weights for triangulation, learned from people drawn from motion and seen by random cameras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..calib.posebank import Track
from ..calib.samples import INLIER, SIGMA, Observed, Sampler, key_points, random_rig
from ..calib.sides import facing_of, mirror_of
from ..calib.triangulate import Triangulated
from ..calib.weighted import First, first_look, triangulate_weighted
from ..engines.confidence import AGREEMENTS, SHAPES, Confidence, describe
from ..pipeline.packet import F64
from ..pipeline.skeleton import COCO17
from .drawing import split
from .training import can_train

MOST_VIEWS = 8
_CM = 100.0
_SHAPES = 3
_MIRROR, _FACING = mirror_of(COCO17), facing_of(COCO17)
_VIEWS = {2: 0.15, 3: 0.3, 4: 0.35, 5: 0.08, 6: 0.05, 8: 0.07}


def sampler(tracks: Sequence[Track], *, seed: int, views: dict[int, float] | None = None, rigs: int = 400) -> Sampler:
    """People seen by 2 to 8 cameras of as many random rigs; deterministic by `seed`."""
    rng = np.random.default_rng(seed)
    views = views or _VIEWS
    return Sampler(tracks, seed=seed, rigs=[random_rig(rng, max(4, int(rng.choice(list(views))))) for _ in range(rigs)], views=views)


def look(seen: Observed) -> tuple[First, F64]:
    """The first triangulation of an observation, and [1,C] the sides of its crops."""
    rays, conf, side_px = key_points(seen)
    return first_look(seen.rig, rays, conf, side_px, mirror=_MIRROR, facing=_FACING, inlier=INLIER, sigma=SIGMA), side_px


def weighted(seen: Observed, network: Confidence) -> Triangulated:
    """Robust triangulation with learned weights, as a node does it."""
    rays, conf, side_px = key_points(seen)
    return triangulate_weighted(
        seen.rig,
        rays,
        conf,
        side_px,
        lambda *first: network(seen.maps[None], *first),
        mirror=_MIRROR,
        facing=_FACING,
        inlier=INLIER,
        sigma=SIGMA,
    )


def examples(drawn: Sampler, count: int, *, tell: Callable[[str], None] = lambda line: None) -> Any:
    """`count` observations as `engines.models.triangulation.confidence.Examples`."""
    from ..engines.models.triangulation.confidence import Examples

    v, j = MOST_VIEWS, len(COCO17.joints)
    made = Examples(
        *(
            np.zeros((count, *shape), np.float32)
            for shape in ((v, j, SHAPES), (v, j, AGREEMENTS), (v, j), (v, j, 6), (v, j, 3), (v, j), (j, 3))
        )
    )
    for k in range(count):
        seen = drawn.draw()
        first, side_px = look(seen)
        there = np.flatnonzero(np.isfinite(seen.rois[:, 2]))[:v]
        order = first.order[0, there]
        made.shapes[k, : len(there)] = np.take_along_axis(describe(seen.maps[None, there])[0], order[..., None], axis=1)
        made.agreement[k, : len(there)] = first.agreement[0, there]
        made.seen[k, : len(there)] = first.conf[0, there] > 0
        near_m = first.points.xyz_m[0]
        known = np.isfinite(near_m).all(axis=1)
        lines = _lines(seen, first, side_px[0], np.where(known[:, None], near_m, seen.truth_m), first.axes[0])
        for array, rows in zip((made.normal, made.onto, made.rest), lines, strict=True):
            array[k, : len(there)] = rows[there]
        made.truth[k] = np.where(known[:, None], (seen.truth_m - near_m) @ first.axes[0].T * _CM, np.nan)
        if (k + 1) % 10000 == 0:
            tell(f"{k + 1} of {count} examples")
    return made


def _lines(seen: Observed, first: First, side_px: F64, near_m: F64, axes: F64) -> tuple[F64, F64, F64]:
    """What `Examples` says of the lines of sight, around near_m [17,3], along axes [3,3], of all cameras; zeros where a joint is not seen."""
    pose = seen.rig.camera_from_world
    rays = np.nan_to_num(first.rays[0])
    ahead = np.concatenate([rays, np.ones((*rays.shape[:2], 1))], axis=-1)
    direction = np.einsum("cki,cjk->cji", pose[:, :, :3], ahead) @ axes.T
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    centre = (np.array([c.centre_m for c in seen.rig.cameras])[:, None] - near_m) @ axes.T
    focal = seen.rig.focal_px.mean(axis=1)[:, None]
    away = np.linalg.norm(centre, axis=-1)
    # Along the ray a pixel is worth distance / focal; obliquely less, which makes a difference of a few per cent here.
    sharp = np.where(first.conf[0] > 0, focal / (away * SIGMA * side_px[:, None] * _CM), 0) ** 2
    a = sharp[..., None, None] * (np.eye(3) - direction[..., :, None] * direction[..., None, :])
    onto = np.einsum("cjab,cjb->cja", a, centre * _CM)
    upper = a[..., [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    return upper, onto, np.einsum("cja,cja->cj", onto, centre * _CM)


def from_motion(motion: Path, out: Path, *, examples: int, seed: int) -> None:
    """Train on motion, every fifth recording kept out (the same ones that the volumetric network is judged on), and write `confidence.onnx`."""
    can_train(examples=examples)
    console = Console()
    trained, kept_out = split(motion, shapes=_SHAPES, seed=seed)
    console.print(f"{len(trained)} tracks to train on, {len(kept_out)} kept out of it")
    console.print(f"written {confidence(trained, kept_out, out, count=examples, seed=seed, tell=console.print)}")


def confidence(
    tracks: Sequence[Track], kept_out: Sequence[Track], out: Path, *, count: int, seed: int, tell: Callable[[str], None]
) -> Path:
    """Draw `count` examples of the tracks and train `confidence.onnx` on them."""
    from ..engines.models.triangulation.confidence import Plan, train

    judged = examples(sampler(kept_out, seed=seed + 1, rigs=100), max(count // 20, 100))
    drawn = examples(sampler(tracks, seed=seed), count, tell=tell)
    return train(drawn, out, Plan(seed=seed), kept_out=judged, tell=tell)
