"""How far skeletons are from the truth: triangulation, triangulation with learned weights, and the volumetric network, from the same 2D input.

    python tests/bench/bench_lifting.py --motion DIR [--engine triangulation.slim] [--count 600] [--seed 50] [--json FILE]
    python tests/bench/bench_lifting.py --recording examples/algebraic.yaml

Rows: triangulated with the heights of the peaks, with learned weights; the volumetric network's answer alone, after its fine step, and after what the
whole body says (`posture`: lift.volumetric as it is), the last two with learned weights too (`weights: triangulation.confidence`). With --motion: people of recordings that were kept out of training (every fifth, in the order of their names), bodies and cameras of their own,
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

from posepipe.calib.samples import INLIER, SIGMA, Observed, Sampler, algebraic, key_points, random_rig
from posepipe.engines.engine import EngineOptions
from posepipe.engines.posture import Posture
from posepipe.engines.volume import VolumeNetwork
from posepipe.launch.drawing import split
from posepipe.launch.training_posture import way
from posepipe.nodes._lift_cubes import Candidate, Cubes, Shown
from posepipe.nodes._lift_weights import LearnedWeights
from posepipe.pipeline.packet import F64
from posepipe.pipeline.skeleton import COCO17

Points = F64


class Lift:
    """lift.volumetric of one person, step by step, with the heights of the peaks or with learned weights."""

    def __init__(self, engine: str, runtime: str, posture: Path | None) -> None:
        options = EngineOptions(runtime=runtime)
        self._network, self._weigh, self._posture = (
            VolumeNetwork(engine, options),
            LearnedWeights(EngineOptions(), COCO17),
            Posture(EngineOptions(), path=posture),
        )

    def __call__(self, seen: Observed, *, learned: bool) -> tuple[Points, Points, Points, Points, np.ndarray]:
        """Joints [17,3] triangulated, of the network alone, after the fine step and after posture and fine step, and standard deviations [17] of the last."""
        weigh = self._weigh if learned else None
        one = way(seen, self._network, weigh)
        if one is None:
            nowhere = np.full((17, 3), np.nan)
            return nowhere, nowhere, nowhere, nowhere, nowhere[:, 0]
        _, conf, side_px = key_points(seen)
        shown = Shown(
            seen.uv_px[None],
            conf,
            seen.maps[None],
            seen.rois[None],
            seen.conf[None],
            INLIER * side_px,
            SIGMA * side_px,
            weights=one.weights,
        )
        p = one.points
        candidate = Candidate(0, one.exchanged, p.xyz_m[0], p.sigma_m[0], p.used[0], one.cube)
        (found,) = Cubes(seen.rig, self._network, self._posture).lifted(shown, [candidate])
        return p.xyz_m[0], one.cube.world(one.told[0].xyz[0]), one.fine.xyz_m[0], found.points.xyz_m[0], found.points.sigma_m[0]


def synthetic(args: argparse.Namespace) -> dict[str, Any]:
    _, kept_out = split(args.motion, shapes=6, seed=args.seed)
    rng = np.random.default_rng(args.seed)
    rigs = [random_rig(rng) for _ in range(100)]
    lift = Lift(args.engine, args.runtime, args.posture)
    out: dict[str, Any] = {}
    for views in (4, 3, 2):
        sampler = Sampler(kept_out, seed=args.seed + views, rigs=rigs, views={views: 1.0})
        names = ("triangulated", "learned weights", "network alone", "fine step", "fine + weights", "posture", "posture + weights")
        errors: dict[str, list[np.ndarray]] = {name: [] for name in names}
        sure: list[np.ndarray] = []
        for _ in range(args.count):
            seen = sampler.draw()
            plain, alone, fine, posed, sigma_m = lift(seen, learned=False)
            told, _, fine_told, posed_told, _ = lift(seen, learned=True)
            for name, xyz_m in zip(names, (plain, told, alone, fine, fine_told, posed, posed_told), strict=True):
                errors[name].append(np.linalg.norm(xyz_m - seen.truth_m, axis=1) * 1000)
            sure.append(errors["posture"][-1] / 1000 / sigma_m)
        every = {name: np.stack(e) for name, e in errors.items()}
        both = np.isfinite(every["triangulated"]) & np.isfinite(every["posture"])
        print(f"\n{views} views, {args.count} people; triangulation finds {np.isfinite(every['triangulated']).mean():.1%} of the joints")
        rival = every["triangulated"][both]
        out[str(views)] = {}
        for name, e in every.items():
            mean, p95 = float(e[both].mean()), float(np.percentile(e[both], 95))
            less = f"{1 - mean / rival.mean():+.0%} {1 - p95 / np.percentile(rival, 95):+.0%}" if name != "triangulated" else ""
            print(f"{name:18s} mean {mean:6.1f}  median {np.median(e[both]):6.1f}  p95 {p95:6.1f} mm   lower by {less}")
            out[str(views)][name] = {"mean_mm": mean, "p95_mm": p95, "per_joint_mm": np.nanmean(e, axis=0).round(1).tolist()}
        lost = ~np.isfinite(every["triangulated"]) & np.isfinite(every["posture"])
        if lost.any():
            print(f"joints that triangulation does not find {every['posture'][lost].mean():.0f} mm")
        square = float(np.nanmean(np.minimum(np.stack(sure) ** 2, 100)) / 3)
        print(f"mean of (error / sigma)^2 / 3, at most 33: {square:.2f}")
    return out


def recorded(args: argparse.Namespace) -> dict[str, Any]:
    """Every pair of the four real cameras."""
    from accuracy import views_of_studio

    rig, every = views_of_studio(args.recording)
    lift = Lift(args.engine, args.runtime, args.posture)
    layout_body = np.array(COCO17.body)
    theirs: list[np.ndarray] = []
    ours: list[np.ndarray] = []
    whole: list[float] = []
    names: list[str] = []
    for seen in every:
        full = Observed(rig, np.full((17, 3), np.nan), *seen, np.zeros((len(rig), 17), np.bool_), "")
        reference_m = algebraic(full)[0].xyz_m[0]
        whole.append(float(np.nanmean(np.linalg.norm(lift(full, learned=False)[3] - reference_m, axis=1)[layout_body])) * 1000)
        for pair in itertools.combinations(range(len(rig)), 2):
            off = [c for c in range(len(rig)) if c not in pair]
            rois, conf = full.rois.copy(), full.conf.copy()
            rois[off], conf[off] = np.nan, 0
            two = Observed(rig, full.truth_m, rois, full.maps, full.uv_px, conf, full.hidden, "")
            first, _, _, posed, _ = lift(two, learned=False)
            theirs.append(np.linalg.norm(first - reference_m, axis=1)[layout_body] * 1000)
            ours.append(np.linalg.norm(posed - reference_m, axis=1)[layout_body] * 1000)
            names.append("+".join(rig.names[c] for c in pair))
    print(f"all cameras: {np.mean(whole):.1f} mm from their triangulation")
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
    parser.add_argument("--posture", type=Path, help="another posture.onnx than the one that ships")
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
