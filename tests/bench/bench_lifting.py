"""How far skeletons are from the truth: triangulation, triangulation with learned weights, and the volumetric network, from the same 2D input.

    python tests/bench/bench_lifting.py --motion DIR [--engine triangulation.slim] [--count 600] [--seed 50] [--json FILE]
    python tests/bench/bench_lifting.py --recording examples/studio.yaml

Rows: triangulated with the heights of the peaks, with learned weights; the volumetric network's answer alone, after its fine step, and after a
fine step with learned weights (`both`: lift.volumetric with `weights: triangulation.confidence`). With --motion: people of recordings that were kept out of training (every fifth, in the order of their names), bodies and cameras of their own,
seen through the noise of a real detector, with occluders. Joints that triangulation does not find count for nobody; how many they are is
said. With --recording: the four real cameras of a studio file; every pair of them against the triangulation of all four, body joints.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from posepipe.calib.cube import cube_around
from posepipe.calib.samples import INLIER, SIGMA, Observed, Sampler, algebraic, key_points, random_rig, refined, volume_of
from posepipe.calib.sides import facing_of, mirror_of
from posepipe.calib.triangulate import Triangulated
from posepipe.engines.engine import EngineOptions
from posepipe.engines.volume import VolumeNetwork
from posepipe.launch.drawing import SIDE_M, split
from posepipe.nodes._lift_weights import LearnedWeights
from posepipe.pipeline.skeleton import COCO17

_LOOK: dict[str, Any] = {"mirror": mirror_of(COCO17), "facing": facing_of(COCO17), "inlier": INLIER, "sigma": SIGMA}


def learned(seen: Observed, weigh: LearnedWeights) -> tuple[Triangulated, np.ndarray, np.ndarray]:
    """As lift.algebraic does it with `weights: triangulation.confidence`: points, exchanged sides, and weights for the fine step."""
    rays, conf, side_px = key_points(seen)
    return weigh.triangulate(seen.rig, rays, conf, side_px, seen.maps[None], **_LOOK)


def volumetric(
    seen: Observed, network: VolumeNetwork, looked: tuple[Triangulated, np.ndarray, np.ndarray | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As lift.volumetric does it, after triangulation: joints [17,3] of the network alone, refined, and their standard deviations."""
    points, exchanged, weights = looked
    cube = cube_around(points.xyz_m[0], side_m=SIDE_M)
    if cube is None:
        return np.full((17, 3), np.nan), np.full((17, 3), np.nan), np.full(17, np.nan)
    found = network(volume_of(seen, cube, exchanged[0], n=network.cells)[None])
    fine = refined(seen, cube, exchanged[0], found.xyz[0], found.spread[0], weights=weights)
    return cube.world(found.xyz[0]), fine.xyz_m[0], fine.sigma_m[0]


def synthetic(args: argparse.Namespace) -> dict[str, Any]:
    _, kept_out = split(args.motion, shapes=6, seed=args.seed)
    rng = np.random.default_rng(args.seed)
    rigs = [random_rig(rng) for _ in range(100)]
    network, weigh = VolumeNetwork(args.engine, EngineOptions(runtime=args.runtime)), LearnedWeights(EngineOptions(), COCO17)
    out: dict[str, Any] = {}
    for views in (4, 3, 2):
        sampler = Sampler(kept_out, seed=args.seed + views, rigs=rigs, views={views: 1.0})
        errors: dict[str, list[np.ndarray]] = {"triangulated": [], "learned weights": [], "network alone": [], "volumetric": [], "both": []}
        sure: list[np.ndarray] = []
        for _ in range(args.count):
            seen = sampler.draw()
            plain, told = algebraic(seen), learned(seen, weigh)
            alone, fine_m, sigma_m = volumetric(seen, network, (*plain, None))
            both_m = volumetric(seen, network, told)[1]
            ways = zip(errors, (plain[0].xyz_m[0], told[0].xyz_m[0], alone, fine_m, both_m), strict=True)
            for name, xyz_m in ways:
                errors[name].append(np.linalg.norm(xyz_m - seen.truth_m, axis=1) * 1000)
            sure.append(errors["volumetric"][-1] / 1000 / sigma_m)
        every = {name: np.stack(e) for name, e in errors.items()}
        both = np.isfinite(every["triangulated"]) & np.isfinite(every["volumetric"])
        print(f"\n{views} views, {args.count} people; triangulation finds {np.isfinite(every['triangulated']).mean():.1%} of the joints")
        rival = every["triangulated"][both]
        out[str(views)] = {}
        for name, e in every.items():
            mean, p95 = float(e[both].mean()), float(np.percentile(e[both], 95))
            less = f"{1 - mean / rival.mean():+.0%} {1 - p95 / np.percentile(rival, 95):+.0%}" if name != "triangulated" else ""
            print(f"{name:16s} mean {mean:6.1f}  median {np.median(e[both]):6.1f}  p95 {p95:6.1f} mm   lower by {less}")
            out[str(views)][name] = {"mean_mm": mean, "p95_mm": p95, "per_joint_mm": np.nanmean(e, axis=0).round(1).tolist()}
        lost = ~np.isfinite(every["triangulated"]) & np.isfinite(every["volumetric"])
        if lost.any():
            print(f"joints that triangulation does not find: volumetric {every['volumetric'][lost].mean():.0f} mm")
        square = float(np.nanmean(np.minimum(np.stack(sure) ** 2, 100)) / 3)
        print(f"mean of (error / sigma)^2 / 3, at most 33: {square:.2f}")
    return out


def recorded(args: argparse.Namespace) -> dict[str, Any]:
    """Every pair of the four real cameras."""
    from accuracy import views_of_studio

    rig, every = views_of_studio(args.recording)
    network = VolumeNetwork(args.engine, EngineOptions(runtime=args.runtime))
    layout_body = np.array(COCO17.body)
    theirs: list[np.ndarray] = []
    ours: list[np.ndarray] = []
    names: list[str] = []
    for seen in every:
        full = Observed(rig, np.full((17, 3), np.nan), *seen, np.zeros((len(rig), 17), np.bool_), "")
        reference_m = algebraic(full)[0].xyz_m[0]
        for pair in itertools.combinations(range(len(rig)), 2):
            off = [c for c in range(len(rig)) if c not in pair]
            rois, conf = full.rois.copy(), full.conf.copy()
            rois[off], conf[off] = np.nan, 0
            two = Observed(rig, full.truth_m, rois, full.maps, full.uv_px, conf, full.hidden, "")
            theirs.append(np.linalg.norm(algebraic(two)[0].xyz_m[0] - reference_m, axis=1)[layout_body] * 1000)
            ours.append(np.linalg.norm(volumetric(two, network, (*algebraic(two), None))[1] - reference_m, axis=1)[layout_body] * 1000)
            names.append("+".join(rig.names[c] for c in pair))
    a, b = np.stack(theirs), np.stack(ours)
    both = np.isfinite(a) & np.isfinite(b)
    out: dict[str, Any] = {}
    for name in [*dict.fromkeys(names), "all"]:
        at = both & (np.array([n == name for n in names]) | (name == "all"))[:, None]
        out[name] = {"triangulated_mm": float(a[at].mean()), "volumetric_mm": float(b[at].mean())}
        print(
            f"{name:14s} triangulated mean {a[at].mean():6.1f} median {np.median(a[at]):5.1f} p95 {np.percentile(a[at], 95):6.1f} mm,",
            end=" ",
        )
        print(
            f"volumetric {b[at].mean():6.1f} {np.median(b[at]):5.1f} {np.percentile(b[at], 95):6.1f}: mean lower by {1 - b[at].mean() / a[at].mean():+.0%}"
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--motion", type=Path)
    parser.add_argument("--recording", type=Path)
    parser.add_argument("--engine", default="triangulation.slim")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=50)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if (args.motion is None) == (args.recording is None):
        parser.error("give --motion or --recording")
    figures = synthetic(args) if args.motion else recorded(args)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
