"""`posepipe train posture`: what the whole body says of every joint, learned from people drawn from motion who go the way of `lift.volumetric`."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..calib.cube import cube_around
from ..calib.posebank import Track
from ..calib.samples import INLIER, SIGMA, Observed, Sampler, algebraic, key_points, random_rig, refined, volume_of
from ..calib.sides import Bools, facing_of, mirror_of
from ..calib.triangulate import Triangulated
from ..calib.unproject import Cube
from ..engines.engine import EngineOptions
from ..engines.posture import Placed, describe
from ..engines.volume import VolumeNetwork
from ..nodes._lift_cubes import in_cubes
from ..nodes._lift_weights import LearnedWeights
from ..pipeline.packet import F32, F64
from ..pipeline.skeleton import COCO17
from .drawing import SIDE_M, hard, split
from .training import can_train

_SHAPES = 6
_RIGS = 400
_TOGETHER = 50
_FAR = 0.6
"""People who lie further from the middle of the cube than this share of it, in some axis, were taken for somebody else."""
_MIRROR, _FACING = mirror_of(COCO17), facing_of(COCO17)
_HARD, _ASTRAY, _LEARNED = 0.5, 0.6, 0.7
_VIEWS = {4: 0.35, 3: 0.15, 2: 0.5}
_ASTRAY_RAD = 0.007
"""More than for the volume's network: what a wrong calibration does to two views the whole body shows best."""


@dataclass(frozen=True, slots=True)
class Way:
    """One person on the way of `lift.volumetric`. points, exchanged [C,17], weights: triangulation, as of `looked`. cube, and in it told: what the posture
    is told (arguments of `engines.posture.describe`). fine: the fine step."""

    points: Triangulated
    exchanged: Bools
    weights: F64 | None
    cube: Cube
    told: tuple[Placed, Placed, Placed, F32]
    fine: Triangulated


def way(seen: Observed, network: VolumeNetwork, weigh: LearnedWeights | None) -> Way | None:
    """Triangulation, the cube, the network and the fine step, as the node goes them; None where there is no place for a cube."""
    points, exchanged, weights = looked(seen, weigh)
    cube = cube_around(points.xyz_m[0], side_m=SIDE_M)
    if cube is None:
        return None
    found = network(volume_of(seen, cube, exchanged[0], n=network.cells)[None])
    fine = refined(seen, cube, exchanged[0], found.xyz[0], found.spread[0], weights=weights)
    told = (
        Placed(found.xyz.copy(), found.spread.copy(), np.zeros((1, 17))),
        in_cubes(fine.xyz_m, fine.sigma_m, fine.used, [cube]),
        in_cubes(points.xyz_m, points.sigma_m, points.used, [cube]),
        key_points(seen)[1],
    )
    return Way(points, exchanged[0], weights, cube, told, fine)


def looked(seen: Observed, weigh: LearnedWeights | None) -> tuple[Triangulated, Bools, F64 | None]:
    """Triangulated with the heights of the peaks, or with learned weights; the joints [1,C,17] whose sides were exchanged; and the weights [1,C,17]."""
    if weigh is None:
        return (*algebraic(seen), None)
    rays, conf, side_px = key_points(seen)
    return weigh.triangulate(seen.rig, rays, conf, side_px, seen.maps[None], mirror=_MIRROR, facing=_FACING, inlier=INLIER, sigma=SIGMA)


def examples(
    tracks: Sequence[Track], network: VolumeNetwork, *, count: int, seed: int, hardly: bool = True, views: dict[int, float] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Any:  # fmt: skip
    """`count` people as `engines.models.triangulation.posture.Examples`. hardly: half of them in what is harder than the measured noise, and three of five
    before cameras that look elsewhere than their calibration says; without it as they are judged. views: how many of the cameras see how large a share."""
    from ..engines.models.triangulation.posture import Examples

    rng = np.random.default_rng(seed)
    rigs, weigh = [random_rig(rng) for _ in range(_RIGS)], LearnedWeights(EngineOptions(threads=1), COCO17)
    found: list[tuple[F32, F32, F32]] = []
    while len(found) < count:
        statistics = hard() if hardly and rng.random() < _HARD else None
        astray_rad = abs(rng.normal(0, _ASTRAY_RAD)) if hardly and rng.random() < _ASTRAY else 0.0
        drawn = Sampler(
            tracks, seed=int(rng.integers(1 << 31)), rigs=rigs, views=views or _VIEWS, statistics=statistics, miscalibrated_rad=astray_rad
        )
        for _ in range(_TOGETHER):
            seen = drawn.draw()
            one = way(seen, network, weigh if not hardly or rng.random() < _LEARNED else None)
            if one is None or np.abs(truth := one.cube.shares(seen.truth_m)).max() > _FAR:
                continue
            joints, base = describe(*one.told)
            found.append((joints[0], base[0], truth.astype(np.float32)))
            if len(found) % 10_000 == 0:
                tell(f"{len(found)} of {count} people")
    weigh.close()
    return Examples(*(np.stack(a) for a in zip(*found[:count], strict=True)))


def from_motion(motion: Path, out: Path, *, examples: int, seed: int, engine: str, workers: int) -> None:
    """Train on motion, every fifth recording kept out (the same ones that the volumetric network is judged on), and write `posture.onnx`."""
    can_train(examples=examples, workers=workers)
    console = Console()
    trained, kept_out = split(motion, shapes=_SHAPES, seed=seed)
    console.print(f"{len(trained)} tracks to train on, {len(kept_out)} kept out of it")
    path = posture(trained, kept_out, out, count=examples, seed=seed, engine=engine, workers=workers, tell=console.print)
    console.print(f"written {path}")


def posture(
    tracks: Sequence[Track], kept_out: Sequence[Track], out: Path, *, count: int, seed: int, engine: str, workers: int,
    tell: Callable[[str], None],
) -> Path:  # fmt: skip
    """Draw `count` examples of the tracks, in as many processes as there are workers, and train `posture.onnx` on them."""
    from ..engines.models.triangulation.posture import Examples, Net, Plan, off_mm, train

    judged = {n: _drawn(kept_out, engine, max(count // 100, 20), seed + n, hardly=False, views={n: 1.0}) for n in (4, 3, 2)}
    if workers == 1:
        parts = [_drawn(tracks, engine, count, seed, tell=tell)]
    else:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            drawing = [pool.submit(_drawn, tracks, engine, -(-count // workers), 1000 * seed + k) for k in range(workers)]
            parts = [one.result() for one in drawing]
    every = [e for part in parts for e in (part, part.mirrored(_MIRROR))]
    drawn = Examples(*(np.concatenate([getattr(e, n) for e in every]) for n in Examples.__slots__))
    tell(f"{len(drawn) // 2} people, each of them twice, the second time with left and right exchanged")

    def judge(net: Net) -> str:
        return ", ".join(f"{n} views {off_mm(net, e, side_m=SIDE_M):.1f} mm" for n, e in judged.items())

    return train(drawn, out, Plan(seed=seed), judge=judge, tell=tell)


def _drawn(tracks: Sequence[Track], engine: str, count: int, seed: int, **how: Any) -> Any:
    network = VolumeNetwork(engine, EngineOptions(threads=1))
    try:
        return examples(tracks, network, count=count, seed=seed, **how)
    finally:
        network.close()
