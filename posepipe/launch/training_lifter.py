"""`posepipe train lifter`: people drawn from motion, seen by one random camera, until the lifter knows bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from ..calib.posebank import Track
from ..calib.samples import Sampler, random_rig
from ..calib.single import from_hips, stand
from ..calib.single_samples import TrueViews, Views, mirrored, seen_views
from ..pipeline.errors import EngineError
from ..pipeline.packet import F32, F64
from .drawing import split

_SHAPES = 2
_SEEN = 24_000
_JUDGED = 1_000
_BATCH, _PUBLISHED_BATCH = 256, 64
_PEOPLE = 24
_STATISTICS = 20_000
Run = Callable[[F32], tuple[F32, F32]]


class Judge:
    """Views kept out of training (their recordings, bodies and cameras), and the errors of a lifter on them, in mm, by name.

    `true 2D`: joints exactly where they are, all inside the picture; the mean distance of joints from the hips' middle as a reference. `seen`: through the
    detector's errors and occlusion. `placed`: those in the room, where distance to the camera counts, too; and by what share the
    distance is wrong (median). `within 1 sd`: how many per cent of the joints are within what the network says of itself, which is 20 for a
    normal distribution in three dimensions.
    """

    def __init__(self, tracks: list[Track], *, seed: int, count: int = _JUDGED) -> None:
        rng = np.random.default_rng(seed)
        rigs = [random_rig(rng) for _ in range(60)]
        drawn = TrueViews(tracks, rigs, seed=seed)
        true: list[Views] = []
        while sum(len(v.conf) for v in true) < count:
            views = drawn.draw(8)
            true.append(views.where(np.flatnonzero((views.conf > 0).all(axis=1))))
        self.true = Views.joined(true)
        self.seen = seen_views(Sampler(tracks, seed=seed + 1, rigs=rigs, views={4: 1.0}), count)

    def published(self, run: Run) -> dict[str, float]:
        """The error of a network that takes pixels [N,34] and answers in the camera's frame."""
        xyz, _ = run(self.true.uv_px.reshape(-1, 34).astype(np.float32))
        return {"true 2D": _mm(xyz, camera_frame(self.true))}

    def __call__(self, run: Run) -> dict[str, float]:
        true, seen = self.true.looks(), self.seen.looks()
        scores = {"true 2D": _mm(run(true.inputs)[0], from_hips(true, self.true.truth_m))}
        xyz, spread = run(seen.inputs)
        truth = from_hips(seen, self.seen.truth_m)
        placed, _ = stand(seen, xyz, spread, ray_rad=self.seen.ray_rad)
        away = np.linalg.norm(placed - self.seen.truth_m, axis=2) * 1000
        known = np.isfinite(away[:, 0])
        depth = np.linalg.norm(placed[:, 11:13].mean(axis=1) - seen.centre_m, axis=1)
        real = np.linalg.norm(self.seen.truth_m[:, 11:13].mean(axis=1) - seen.centre_m, axis=1)
        inside = np.linalg.norm(xyz - truth, axis=2) < spread
        return scores | {
            "seen": _mm(xyz, truth),
            "placed": float(away[known].mean()) if known.any() else float("nan"),
            "distance %": float(np.median(np.abs(depth / real - 1)[known]) * 100) if known.any() else float("nan"),
            "within 1 sd %": float(inside.mean() * 100),
        }


def camera_frame(views: Views) -> F32:
    """The truth [N,17,3] from the hips, in the camera's axes, metres: what the published network answers."""
    turned = np.einsum("nij,nkj->nki", views.camera_from_world[:, :, :3], views.truth_m)
    from_hips_m: F32 = (turned - turned[:, 11:13].mean(axis=1, keepdims=True)).astype(np.float32)
    return from_hips_m


def live_batches(tracks: list[Track], seen: Views, *, seed: int) -> Iterator[tuple[F32, F32]]:
    """Half true views, a third of which lack joints by chance, half views through a detector's errors, half of these in a mirror."""
    rng = np.random.default_rng(seed)
    drawn = TrueViews(tracks, [random_rig(rng) for _ in range(500)], seed=seed)
    looked = seen.looks()
    inputs, targets = looked.inputs, from_hips(looked, seen.truth_m)
    half = _BATCH // 2
    while True:
        true = Views.joined([drawn.draw(_PEOPLE) for _ in range(2)])
        chosen = rng.choice(len(true.conf), half, replace=len(true.conf) < half)
        true = true.where(chosen)
        lost = rng.random(true.conf.shape) < rng.uniform(0, 0.5, (half, 1)) * (rng.random((half, 1)) < 1 / 3)
        true.conf[lost & (np.cumsum(lost, axis=1) <= 8)] = 0
        look = true.looks()
        rows = rng.integers(len(inputs), size=half)
        view, target = inputs[rows], targets[rows]
        turned = rng.random(half) < 0.5
        view[turned], target[turned] = mirrored(view[turned], target[turned])
        yield np.concatenate([look.inputs, view]), np.concatenate([from_hips(look, true.truth_m), target])


def published_batches(tracks: list[Track], *, seed: int) -> Iterator[Views]:
    """Views of 64 people at a time with all joints inside the picture: what the published recipe can be trained on."""
    rng = np.random.default_rng(seed)
    drawn = TrueViews(tracks, [random_rig(rng) for _ in range(500)], seed=seed)
    kept: list[Views] = []
    while True:
        while sum(len(v.conf) for v in kept) < 40 * _PUBLISHED_BATCH:
            views = drawn.draw(_PEOPLE)
            kept.append(views.where(np.flatnonzero((views.conf > 0).all(axis=1))))
        mixed = Views.joined(kept)
        order, kept = rng.permutation(len(mixed.conf)), []
        for first in range(0, len(order) - _PUBLISHED_BATCH + 1, _PUBLISHED_BATCH):
            yield mixed.where(order[first : first + _PUBLISHED_BATCH])


def lifter(
    motion: Path, out: Path, *, recipe: str, width: int, steps: int, minutes: float | None, threads: int, seed: int, fresh: bool
) -> None:
    """Train a lifter on motion (docs/lifter.md) and write checkpoint, curves and, of the live form, lifter.onnx to `out`."""
    try:
        from ..engines.models.checkpoint import steps_done
        from ..engines.models.lifter.train import Batch, Plan, train
    except ImportError as e:
        raise EngineError("training needs torch, which is not installed", hint="pip install 'posepipe[train]'") from e
    console = Console()
    trained, kept_out = split(motion, shapes=_SHAPES, seed=seed)
    console.print(f"{len(trained)} tracks to train on, {len(kept_out)} kept out of it")
    judge = Judge(kept_out, seed=seed + 1)
    done = 0 if fresh else steps_done(out)
    seconds = 60 * minutes if minutes else float("inf")
    if recipe == "published":
        drawn = published_batches(trained, seed=seed + 7 * done)
        stats = Views.joined([next(drawn) for _ in range(_STATISTICS // _PUBLISHED_BATCH)])
        (mean2, std2), (mean3, std3) = _normal(stats.uv_px), _normal(camera_frame(stats).astype(np.float64))
        plan = Plan(steps, "published", 1024, learning_rate=1e-3, mean=mean3, std=std3)

        def normalised(run: Run) -> Run:
            return lambda uv: run((uv - mean2.reshape(-1)) / std2.reshape(-1))

        feed = (Batch(((v.uv_px - mean2) / std2).reshape(-1, 34).astype(np.float32), (camera_frame(v) - mean3) / std3) for v in drawn)
        path = train(
            feed, lambda run: judge.published(normalised(run)), out, plan, resume=not fresh, tell=console.print, seconds=seconds, threads=threads
        )  # fmt: skip
    else:
        rng = np.random.default_rng(seed)
        sampler = Sampler(trained, seed=seed + 5, rigs=[random_rig(rng) for _ in range(400)], views={4: 1.0})
        seen = seen_views(sampler, _SEEN, tell=console.print)
        live = (Batch(*one) for one in live_batches(trained, seen, seed=seed + 7 * done))
        plan = Plan(steps, "live", width)
        path = train(live, judge, out, plan, resume=not fresh, tell=console.print, seconds=seconds, threads=threads)
    console.print(f"written {path}")


def _normal(values: F64) -> tuple[F32, F32]:
    return values.mean(axis=0).astype(np.float32), np.maximum(values.std(axis=0), 1e-6).astype(np.float32)


def _mm(xyz: F32, truth: F32) -> float:
    return float(np.linalg.norm(xyz - truth, axis=2).mean() * 1000)
