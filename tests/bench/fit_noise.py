"""Fit the noise of `posepipe.calib.synthetic_noise` to what a network gave on recordings, and plot both.

    python tests/bench/fit_noise.py STUDIO.yaml SYNTHETIC_DIR ... --keep seen.pickle     look at these recordings (slow), keep what was seen
    python tests/bench/fit_noise.py --seen seen.pickle --fit 4 --out noise.toml          move the shipped numbers towards it
    python tests/bench/fit_noise.py --seen seen.pickle --plot noise.png                  compare; prints the table of docs/noise.md

Of a synthetic recording the truth is known. Of others it is not: errors are against the triangulation of the other cameras
(noise_figures.py). What is generated goes the same way (skeletons of the recording as truth, its cameras and crops, heatmaps drawn, decoded,
judged against the other cameras), so that what the judging adds is in both, and parameters are moved until the figures agree (indirect
inference, Gourieroux et al. 1993).
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from noise_figures import Figures, figures, hidden_by_itself, joined, skeletons
from noise_seen import CELLS, Heard, Recording, listen, projected, to_cells

from posepipe.calib.synthetic_noise import Noise, Statistics, statistics
from posepipe.calib.synthetic_noise_stats import GROUPS, SHIPPED

_STEP = 0.7
_FEW = 30
_LONG = 50
_RANGE = {"tail": (0.25, 1.0), "width_tail": (0.0, 0.5), "drop": (0.05, 2.0), "spread": (0.05, 2.0)}


def generated(recording: Recording, stats: Statistics, *, seed: int) -> Recording:
    """The same recording as the noise would have it."""
    rng, xyz_m = np.random.default_rng(seed), skeletons(recording)
    uv_px, behind = projected(recording.rig, xyz_m), hidden_by_itself(recording, xyz_m)
    ways = []
    for way in (recording.plain, recording.covered, recording.shifted):
        uv, maps = to_cells(way.rois, uv_px), np.empty(way.maps.shape, np.float16)
        noise = Noise(rng, len(recording.rig), stats=stats)
        for t in range(len(maps)):
            maps[t] = noise.step(uv[t], behind[t] | way.hidden[t], dt_s=1 / recording.fps, size=CELLS).maps
        ways.append(Heard(way.rois, maps, way.hidden))
    return Recording(recording.rig, recording.fps, *ways)


def of_all(recordings: list[Recording]) -> Figures:
    return joined([figures(one, k) for k, one in enumerate(recordings)])


def drawn(recordings: list[Recording], stats: Statistics, *, repeats: int, seed: int) -> Figures:
    """Figures of what is generated; every repeat is another person."""
    return joined(
        [figures(generated(one, stats, seed=seed + 100 * k + r), k + 10 * r) for k, one in enumerate(recordings) for r in range(repeats)]
    )


def summary(f: Figures, group: str) -> dict[str, float]:
    """What is matched, of one group of joints; swapped joints are left out."""
    seen, unseen = f.of(group, "seen") & ~f.swapped, f.of(group, "behind itself", "covered") & ~f.swapped
    out: dict[str, float] = {"bias": offset_of_views(f, seen)}
    for name, m in (("", seen), ("hidden_", unseen)):
        if m.sum() < _FEW:
            continue
        out |= {
            f"{name}error": float(np.median(f.error[m])),
            f"{name}tail": float(np.quantile(f.error[m], 0.9) / np.median(f.error[m])),
            f"{name}logit": float(np.mean(f.logit[m])),
            f"{name}logit_std": float(np.std(f.logit[m])),
            f"{name}radius": float(np.median(f.radius[m])),
            f"{name}second": float(np.mean(f.second[m] < 3)),
            f"{name}astray": float(np.mean(f.error[m] > 0.08)),
            f"{name}together": float(np.corrcoef(np.log(f.error[m] + 1e-6), f.logit[m])[0, 1]),
        }
    return out


def offset_of_views(f: Figures, chosen: np.ndarray) -> float:
    """Root mean square over joints, views and recordings of the median offset, which does not change during a recording."""
    found = []
    for key in {tuple(k) for k in np.column_stack([f.joint, f.at[:, 0], f.at[:, 2]])[chosen].tolist()}:
        m = chosen & (f.joint == key[0]) & (f.at[:, 0] == key[1]) & (f.at[:, 2] == key[2])
        if m.sum() >= _FEW // 2:
            found.append(np.median(f.offset[m], axis=0))
    return float(np.sqrt(np.mean(np.square(found)))) if found else float("nan")


def moved(stats: Statistics, real: Figures, ours: Figures) -> Statistics:
    """One step of every group's parameters towards the figures."""
    tables = msgspec.to_builtins(stats)
    for group in GROUPS:
        p, a, b = tables["joints"][group], summary(real, group), summary(ours, group)

        def scale(key: str, figure: str, power: float = 1.0, a: Any = a, b: Any = b, p: Any = p) -> None:
            if figure in a and figure in b and a[figure] > 0 and b[figure] > 0:
                p[key] = float(np.clip(p[key] * (a[figure] / b[figure]) ** (_STEP * power), *_RANGE.get(key, (1e-4, 0.9))))

        scale("bias", "bias")
        scale("jitter", "error")
        scale("hidden", "hidden_error")
        scale("tail", "tail", 2.0)
        scale("width", "radius")
        if "hidden_radius" in a:
            p["width_tail"] += (
                _STEP * np.log(a["hidden_radius"] / b["hidden_radius"] * b["radius"] / a["radius"]) / tables["hidden"]["difficulty"]
            )
            p["width_tail"] = float(np.clip(p["width_tail"], *_RANGE["width_tail"]))
            p["lower"] = max(p["lower"] + _STEP * (b["hidden_logit"] - a["hidden_logit"] - b["logit"] + a["logit"]), 0.0)
        p["confidence"] += _STEP * (a["logit"] - b["logit"])
        scale("drop", "logit_std")
        scale("spread", "logit_std")
        p["second"] = float(np.clip(p["second"] * ((a["second"] + 0.002) / (b["second"] + 0.002)) ** _STEP, 1e-4, 0.2))
    return msgspec.convert(tables, Statistics)


def rounded(stats: Statistics) -> Statistics:
    def one(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: one(v) for k, v in value.items()}
        return float(f"{value:.3g}") if isinstance(value, float) else value

    return msgspec.convert(one(msgspec.to_builtins(stats)), Statistics)


def render(stats: Statistics, head: str) -> str:
    """As TOML."""
    tables = msgspec.to_builtins(stats)
    lines = [
        head,
        "",
        f"network = {msgspec.json.encode(tables.pop('network')).decode()}",
        f"fitted = {msgspec.json.encode(tables.pop('fitted')).decode()}",
    ]
    flat = {f"joints.{g}": v for g, v in tables.pop("joints").items()} | tables
    for name, values in flat.items():
        lines += ["", f"[{name}]", *(f"{k} = {v!r}" for k, v in values.items())]
    return "\n".join(lines) + "\n"


def show(real: Figures, ours: Figures) -> None:
    print(
        f"{'':10s}{'':>8s}  "
        + "  ".join(f"{k:>13s}" for k in ("error % med", "p90", "p99", "logit mean", "std", "radius", "second <3", "> 8 %", "corr"))
    )
    for group in GROUPS:
        for label, kinds in (("seen", ("seen",)), ("hidden", ("behind itself", "covered")), ("outside", ("outside",))):
            pair = [(f, f.of(group, *kinds) & ~f.swapped) for f in (real, ours)]
            if min(m.sum() for _, m in pair) < _FEW:
                continue
            rows = [
                (
                    *(np.quantile(f.error[m], [0.5, 0.9, 0.99]) * 100), f.logit[m].mean(), f.logit[m].std(), np.median(f.radius[m]),
                    (f.second[m] < 3).mean() * 100, (f.error[m] > 0.08).mean() * 100, np.corrcoef(np.log(f.error[m] + 1e-6), f.logit[m])[0, 1],
                )
                for f, m in pair
            ]  # fmt: skip
            print(f"{group:10s}{label:>8s}  " + "  ".join(f"{a:6.2f} {b:6.2f}" for a, b in zip(*rows, strict=True)))
        print(f"{'':10s}{'offset %':>8s}  " + " ".join(f"{100 * summary(f, group)['bias']:6.2f}" for f in (real, ours)))
    for f in (real, ours):
        m = f.of(None, "seen")
        print(
            f"swapped {f.swapped[m].mean():.3f}",
            "correlation after",
            {k: round(v, 2) for k, v in lasting(f).items()},
            "swaps last",
            {k: round(v, 2) for k, v in lasting(f, swaps=True).items()},
        )


def lasting(f: Figures, *, swaps: bool = False) -> dict[int, float]:
    """Correlation of the error (less its median), or of the swaps, after so many instants, in recordings that are long enough."""
    last = np.zeros(int(f.at[:, 0].max()) + 1, np.int64)
    np.maximum.at(last, f.at[:, 0], f.at[:, 1])
    m = f.of(None, "seen") & (f.joint > 4) & (last[f.at[:, 0]] >= _LONG)
    if not m.any():
        return {}
    key = ((f.at[:, 0] * 17 + f.joint) * 16 + f.at[:, 2])[m]
    count = int(f.at[:, 1].max()) + 1
    names, row = np.unique(key, return_inverse=True)
    series = np.full((len(names), count), np.nan)
    if swaps:
        series[row, f.at[m, 1]] = f.swapped[m]
        series -= np.nanmean(series)
    else:
        series[row, f.at[m, 1]] = np.where(f.swapped[m] | (f.error[m] > 0.08), np.nan, f.offset[m, 0])
        series -= np.nanmedian(series, axis=1, keepdims=True)
    return {k: float(np.nanmean(series[:, k:] * series[:, :-k]) / np.nanmean(series**2)) for k in (1, 3, 6, 12, 24)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studios", nargs="*", type=Path)
    parser.add_argument("--keep", type=Path, help="where to keep what was seen in the studios")
    parser.add_argument("--seen", type=Path, nargs="*", default=[], help="what was kept")
    parser.add_argument("--fit", type=int, default=0, metavar="STEPS")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--start", type=Path, default=SHIPPED)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    if args.seen:
        recordings: list[Recording] = [one for path in args.seen for one in pickle.loads(path.read_bytes())]
    else:
        recordings = [listen(studio) for studio in args.studios]
        if args.keep:
            args.keep.write_bytes(pickle.dumps(recordings, protocol=5))
    real, stats = of_all(recordings), statistics(args.start)
    for step in range(args.fit):
        stats = moved(stats, real, drawn(recordings, stats, repeats=args.repeats, seed=1000 * step))
    if args.fit:
        instants = ", ".join(f"{len(one.plain.rois)} of {len(one.rig)} cameras" for one in recordings)
        stats = msgspec.structs.replace(rounded(stats), fitted=f"instants of recordings: {instants}; by tests/bench/fit_noise.py")
        args.out.write_text(render(stats, SHIPPED.read_text().splitlines()[0]))
    ours = drawn(recordings, stats, repeats=max(args.repeats, 2), seed=77)
    show(real, ours)
    if args.plot:  # matplotlib is needed for this only
        from noise_plot import plot

        plot(real, ours, args.plot)


if __name__ == "__main__":
    main()
