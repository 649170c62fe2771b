"""The bank of smoothers against the truth: error and acceleration error of each, tuned on training recordings, judged on those kept out.

    python tests/bench/bench_smoothers.py --motion DIR [--sequences 60] [--seconds 4] [--seed 70] [--engine vibe.smooth] [--json FILE]

People of the motion recordings walk before random cameras (four of them half of the time, else two or three), a detector's errors that last
(`watched`) are put on their key points, and triangulation makes skeletons of them at 30 instants a second. Every classical smoother is tuned over a
grid on the training recordings twice, for the least position error (mm), and for the least sum of that and the acceleration error (mm per frame^2; "steadier"), and judged on
every fifth recording with bodies and cameras of its own. Joints that triangulation does not find count for nobody. Gaps: 0.3 s in 20 % of the joints are taken away; the
error inside them, against holding the last position that One-Euro gave. Limbs: how much the lengths of a person's eight limbs vary (standard
deviation / mean, after the first second; median). Step cost: four people of 17 joints through the whole node, one thread, beside One-Euro in the same run.

smooth.vibe is given the skeletons as triangulation made them, the others with their limbs held. Its ratios are to the classical one with the least
position error, and to that with the least sum of both errors, among those that answer at once, or, with look-ahead, among those that answer later (the offline one left out).
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posepipe.calib.limbs import limbs_of
from posepipe.calib.track_samples import watched
from posepipe.engines.smoother import smoother_file
from posepipe.launch.drawing import split
from posepipe.nodes._smooth import Crowd, SmootherSettings
from posepipe.nodes.smooth_butterworth import SmoothButterworth
from posepipe.nodes.smooth_kalman import SmoothKalman
from posepipe.nodes.smooth_one_euro import SmoothOneEuro
from posepipe.nodes.smooth_savgol import SmoothSavgol
from posepipe.nodes.smooth_vibe import SmoothVibe
from posepipe.pipeline.errors import EngineError, PullError
from posepipe.pipeline.node import Caps, Context, Node
from posepipe.pipeline.packet import Packet, Poses, Sync
from posepipe.pipeline.skeleton import COCO17

FPS = 30.0
LIMBS = limbs_of(COCO17)
LIVE = {
    "one_euro": (SmoothOneEuro, {"min_cutoff": (0.5, 1.0, 2.0, 3.0, 4.0), "beta": (2.0, 4.0, 8.0, 16.0, 32.0), "speed_cutoff": (0.4, 0.75, 1.5, 3.0)}),
    "kalman velocity": (SmoothKalman, {"model": ("velocity",), "process": (1.0, 1.5, 2.0, 3.0, 4.0), "noise": (0.5, 0.7, 1.0, 1.5, 2.0), "doubt": (0.5, 0.7, 1.0, 1.5, 100.0)}),
    "kalman acceleration": (SmoothKalman, {"model": ("acceleration",), "process": (5.0, 10.0, 20.0, 40.0), "noise": (1.0, 2.0, 4.0), "doubt": (0.5, 0.7, 1.0, 1.5, 100.0)}),
    "savgol, no delay": (SmoothSavgol, {"delay_ms": (0.0,), "window_ms": (100.0, 135.0, 170.0, 200.0, 240.0, 340.0), "order": (0, 1, 2)}),
}  # fmt: skip
LATER = {
    "savgol, 67 ms": (SmoothSavgol, {"delay_ms": (67.0,), "window_ms": (135.0, 200.0, 270.0, 340.0, 400.0), "order": (1, 2, 3)}),
    "savgol, 133 ms": (SmoothSavgol, {"delay_ms": (133.0,), "window_ms": (267.0, 340.0, 400.0, 470.0), "order": (1, 2, 3)}),
    "butterworth": (SmoothButterworth, {"cutoff_hz": (2.0, 2.5, 3.0, 3.5, 4.0, 6.0), "order": (2, 4)}),
}  # fmt: skip
SHIPPED: dict[str, tuple[type[Node], dict[str, Any]]] = {
    "one_euro": (SmoothOneEuro, {}),
    "kalman velocity": (SmoothKalman, {}),
    "kalman acceleration": (SmoothKalman, {"model": "acceleration"}),
    "savgol": (SmoothSavgol, {}),
    "butterworth": (SmoothButterworth, {}),
}


@dataclass(frozen=True)
class Seen:
    """S sequences of T instants. truth_m and xyz_m [T,S,17,3], sigma_m and conf [T,S,17]."""

    truth_m: np.ndarray
    xyz_m: np.ndarray
    sigma_m: np.ndarray
    conf: np.ndarray


def sequence(rng: np.random.Generator, track_m: np.ndarray) -> tuple[np.ndarray, ...]:
    """One person before one rig: truth [T,17,3], triangulated, sigma and conf."""
    hips = track_m[0, [11, 12]].mean(axis=0)
    turn = rng.uniform(0, 2 * np.pi)
    c, s = np.cos(turn), np.sin(turn)
    truth = (track_m - [*hips[:2], 0]) @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    truth[..., :2] += rng.uniform(-1, 1, 2)
    seen = watched(rng, truth, FPS)
    return truth, *(x.astype(np.float64) for x in (seen.xyz_m, seen.sigma_m, seen.conf))


def drawn(tracks: list[Any], count: int, seconds: float, seed: int) -> Seen:
    rng, frames = np.random.default_rng(seed), round(seconds * FPS)
    tracks = [t for t in tracks if len(t.coco17_m) >= frames]
    made = []
    for _ in range(count):
        track = tracks[rng.integers(len(tracks))]
        begin = rng.integers(len(track.coco17_m) - frames + 1)
        made.append(sequence(rng, np.asarray(track.coco17_m[begin : begin + frames], np.float64)))
    return Seen(*(np.stack(column, axis=1) for column in zip(*made, strict=True)))


def context() -> Context:
    return Context(
        studio="bench", name="smooth", key="smooth", cameras=(), caps={"poses": Caps(skeleton="coco17")}, graph_sha256="", offline=True,
        loop=False, rig=None, engines={"threads": 1}, resolve=Path, now_ns=time.time_ns, stopping=threading.Event(),
        drop=lambda body, reason: None, warn=print,
    )  # fmt: skip


def packets(seen: Seen) -> Iterator[Packet[Poses]]:
    for t in range(len(seen.xyz_m)):
        people = seen.xyz_m.shape[1]
        fields = (seen.xyz_m[t], seen.conf[t], seen.sigma_m[t])
        xyz_m, conf, sigma_m = (x.astype(np.float32) for x in fields)
        views = np.full((people, 17), 4, np.uint8)
        body = Poses(
            (), "coco17", Sync(0, (), ()), "algebraic", np.arange(people), xyz_m, conf, sigma_m, np.ones(people, np.float32), views
        )
        yield Packet(t, round(t / FPS * 1e9) + 10**18, "pose3d", body, (), ())


def steadied(seen: Seen) -> Seen:
    """With the limbs held as every smoother does it first: once, instead of in every run."""
    crowd = Crowd("coco17", SmootherSettings())
    xyz_m = np.stack([crowd.take(packet.body, packet.t_capture_ns).xyz_m for packet in packets(seen)])
    return Seen(seen.truth_m, xyz_m, seen.sigma_m, seen.conf)


def smoothed(cls: type[Node], options: dict[str, Any], seen: Seen) -> np.ndarray:
    """[T,S,17,3]. Classical ones are given sequences whose limbs are held already."""
    node: Any = cls(cls.Settings(**options, **({} if cls is SmoothVibe else {"limbs": False})))
    node.open(context())
    out = []
    for packet in packets(seen):
        left = node.step(packet)
        out += [p.body.xyz_m for p in left] if isinstance(left, list) else [left.xyz_m]
    return np.stack(out + [p.body.xyz_m for p in node.on_end("pose3d")]).astype(np.float64)


def figures(xyz_m: np.ndarray, seen: Seen) -> dict[str, float]:
    """Mean position error (mm) and mean acceleration error (mm per frame^2) of joints that triangulation found; variation of limbs (share)."""
    found = np.isfinite(seen.xyz_m).all(axis=-1)
    error = np.linalg.norm(xyz_m - seen.truth_m, axis=-1) * 1e3
    bend = np.linalg.norm(np.diff(xyz_m, 2, axis=0) - np.diff(seen.truth_m, 2, axis=0), axis=-1) * 1e3
    three = found[:-2] & found[1:-1] & found[2:]
    lengths = np.linalg.norm(xyz_m[round(FPS) :, :, LIMBS[:, 0]] - xyz_m[round(FPS) :, :, LIMBS[:, 1]], axis=-1)
    known = np.isfinite(lengths).sum(axis=0) > FPS / 2
    lengths = lengths[:, known]
    return {
        "error_mm": float(error[found].mean()),
        "acceleration_mm": float(bend[three].mean()),
        "limbs": float(np.median(np.nanstd(lengths, axis=0) / np.nanmean(lengths, axis=0))),
    }


def tuned(cls: type[Node], grid: dict[str, tuple[Any, ...]], seen: Seen) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the grid with the least position error, and those with the least sum of both errors."""
    ways = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    scores = [figures(smoothed(cls, options, seen), seen) for options in ways]
    return ways[int(np.argmin([f["error_mm"] for f in scores]))], ways[int(np.argmin([both(f) for f in scores]))]


def both(row: dict[str, Any]) -> float:
    return float(row["error_mm"] + row["acceleration_mm"])


def with_gaps(seen: Seen, seed: int) -> tuple[Seen, np.ndarray]:
    """A fifth of the joints unseen for 0.3 s, beginning after the first second; where [T,S,17] that is."""
    rng, length = np.random.default_rng(seed), round(0.3 * FPS)
    gone = np.zeros(seen.conf.shape, np.bool_)
    for s, j in np.argwhere(rng.random(gone.shape[1:]) < 0.2):
        begin = rng.integers(round(FPS), len(gone) - length - 1)
        gone[begin : begin + length, s, j] = True
    xyz_m, conf = np.where(gone[..., None], np.nan, seen.xyz_m), np.where(gone, 0, seen.conf)
    return Seen(seen.truth_m, xyz_m, seen.sigma_m, conf), gone & np.isfinite(seen.xyz_m).all(axis=-1)


def held(xyz_m: np.ndarray) -> np.ndarray:
    """What is not given is where it was last."""
    out = xyz_m.copy()
    for t in range(1, len(out)):
        out[t] = np.where(np.isfinite(out[t]), out[t], out[t - 1])
    return out


def cost_us(cls: type[Node], options: dict[str, Any], seen: Seen) -> float:
    """Fastest of seven passes, microseconds of this thread's processor time an instant of four people."""
    four = Seen(*(getattr(seen, name)[:, :4] for name in ("truth_m", "xyz_m", "sigma_m", "conf")))
    came, best = list(packets(four)), np.inf
    for _ in range(7):
        node: Any = cls(cls.Settings(**options))
        node.open(context())
        begin = time.thread_time()
        for packet in came:
            node.step(packet)
        node.on_end("pose3d")
        best = min(best, (time.thread_time() - begin) / len(came) * 1e6)
    return best


@dataclass
class Bench:
    """What every smoother is judged by. rival: One-Euro's last positions inside gaps; one_us: its step."""

    judge: Seen
    holes: Seen
    gone: np.ndarray
    rival: np.ndarray | None = None
    one_us: float = 0.0

    def row(self, name: str, cls: type[Node], options: dict[str, Any], bridge: dict[str, Any]) -> dict[str, Any]:
        """Judge one, and print it."""
        row: dict[str, Any] = {"options": options, **figures(smoothed(cls, options, self.judge), self.judge)}
        gaps = smoothed(cls, options | bridge, self.holes)
        if self.rival is None:
            self.rival = gaps = held(gaps)
        given = self.gone & np.isfinite(gaps).all(axis=-1)
        inside = {"gap_mm": gaps, "gap_held_mm": self.rival}
        off = {key: np.linalg.norm(xyz_m - self.holes.truth_m, axis=-1)[given] * 1e3 for key, xyz_m in inside.items()}
        row |= {key: float(mm.mean()) if given.any() else None for key, mm in off.items()}
        row["gap_given"] = float(given.sum() / self.gone.sum())
        us = cost_us(cls, options, self.judge)
        self.one_us = self.one_us or us
        row |= {"step_us": us, "step_of_one_euro": us / self.one_us}
        bridged = f"{row['gap_mm']:.1f} ({row['gap_given']:.0%}, held {row['gap_held_mm']:.1f})" if given.any() else "-"
        print(f"{said(name, row)} {bridged:>30s} {us:9.0f} ({us / self.one_us:.1f}x)  {options}", flush=True)
        return row


def said(name: str, row: dict[str, Any]) -> str:
    return f"{name:30s} {row['error_mm']:8.1f} {row['acceleration_mm']:12.1f} {row['limbs']:8.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--motion", type=Path, required=True)
    parser.add_argument("--sequences", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=70)
    parser.add_argument("--engine", default="vibe.smooth", help="network of smooth.vibe: vibe.smooth, or the path of a card")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    training, kept_away = split(args.motion, shapes=1, seed=args.seed)
    tune, raw = drawn(training, args.sequences, args.seconds, args.seed), drawn(kept_away, args.sequences, args.seconds, args.seed + 1)
    raw_holes, gone = with_gaps(raw, args.seed + 2)
    tune, judge, holes = (steadied(seen) for seen in (tune, raw, raw_holes))
    found = np.isfinite(judge.xyz_m).all(axis=-1).mean()
    print(
        f"{args.sequences} sequences of {args.seconds:g} s each for tuning and for judging; triangulation finds {found:.1%} of the joints"
    )
    print(f"{'':30s} error mm  acceleration mm/frame^2  limbs  in gaps mm (given, held there)  us a step  tuned to")
    out: dict[str, Any] = {"raw": figures(raw.xyz_m, raw), "limbs held": figures(judge.xyz_m, judge)}
    for name, row in out.items():
        print(said(name, row))
    bench = Bench(judge, holes, gone)
    for name, (cls, grid) in {**LIVE, **LATER}.items():
        bridge = {} if cls is SmoothOneEuro else {"bridge_ms": 340.0, "forget_ms": 500.0}
        for label, options in zip((name, f"{name}, steadier"), tuned(cls, grid, tune), strict=True):
            out[label] = bench.row(label, cls, options, bridge)
    print("as shipped")
    for name, (cls, options) in SHIPPED.items():
        out[f"{name}, as shipped"] = row = figures(smoothed(cls, options, judge), judge)
        print(said(name, row))
    try:
        smoother_file(args.engine)
    except (EngineError, PullError) as e:
        print(f"smooth.vibe is left out: {e}")
    else:
        learned = Bench(raw, raw_holes, gone, bench.rival, bench.one_us)
        later = {n: LATER[n] for n in LATER if n != "butterworth"}
        for ahead, follow, group in ((0, False, LIVE), (0, True, LIVE), (4, False, later), (4, True, later)):
            rivals = [*group, *(f"{n}, steadier" for n in group)]
            name = f"smooth.vibe, {ahead} ahead{', follow' if follow else ''}"
            options = {"engine": args.engine, "lookahead": ahead, "follow": follow}
            out[name] = row = learned.row(name, SmoothVibe, options, {"fill_ms": 340.0})
            row["gap_ratio"] = row["gap_mm"] / row["gap_held_mm"]
            print(f"  in gaps {row['gap_ratio']:.2f} of what holds the last position")
            for what, best in (
                ("nearest", min(rivals, key=lambda n: out[n]["error_mm"])),
                ("both", min(rivals, key=lambda n: both(out[n]))),
            ):
                ratios = {key: row[key] / out[best][key] for key in ("error_mm", "acceleration_mm", "limbs")}
                row[what] = {"of": best, "ratios": ratios}
                print(f"  of {best}: " + ", ".join(f"{key} {ratio:.2f}" for key, ratio in ratios.items()))
    if args.json:
        args.json.write_text(json.dumps(out, indent=2) + "\n")


if __name__ == "__main__":
    main()
