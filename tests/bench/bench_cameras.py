"""How many 1080p cameras at 30 fps this machine carries with one engine, and what ends it.

    python tests/bench/bench_cameras.py [--engine blazepose.lite] [--cameras 2 4 6 8 10] [--seconds 20] [--plot FILE.png]

The four recordings of the demo, each played by several cameras. Prints published instants, latency, drops and what each process took.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from posepipe.calib import Rig, save_rig
from posepipe.launch import studio

STUDIO = Path(__file__).parents[2] / "examples" / "algebraic.yaml"


def build(folder: Path, count: int, engine: str) -> Path:
    """A studio of `count` cameras in a folder."""
    whole = studio.complete(studio.load(STUDIO))
    assert whole.rig is not None
    names = [f"cam{i:02d}" for i in range(count)]
    sources = whole.plan.sources
    cameras = tuple(replace(whole.rig.cameras[i % len(sources)], name=name) for i, name in enumerate(names))
    save_rig(Rig(cameras), folder / "studio.rig.toml")
    graph = yaml.safe_load(STUDIO.read_text())
    graph["rig"] = "studio.rig.toml"
    graph["nodes"]["capture"]["each"] = {name: sources[i % len(sources)].settings.uri for i, name in enumerate(names)}
    graph["nodes"]["heatmaps"]["engine"] = engine
    graph["nodes"]["publish"]["bind"] = "tcp://127.0.0.1:5579"
    path = folder / "studio.yaml"
    path.write_text(yaml.safe_dump(graph, sort_keys=False))
    return path


def measure(count: int, engine: str, seconds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        line = [sys.executable, "-m", "posepipe", "bench", str(build(folder, count, engine)), "--seconds", str(seconds), "--json", "b.json"]
        subprocess.run(line, cwd=folder, capture_output=True, text=True)
        figures: dict[str, Any] = json.loads((folder / "b.json").read_text())
    lost = sum(d["count"] for d in figures["dropped"])
    return {
        "cameras": count,
        "instants_hz": figures["instants"] / figures["seconds"],
        "p50_ms": figures["end_to_end_ms"]["p50"],
        "p95_ms": figures["end_to_end_ms"]["p95"],
        "dropped": lost / max(figures["captured"], 1),
        "cores": figures["cpu_percent"] / 100,
        "heatmaps_p50_ms": figures["nodes"]["heatmaps"]["p50_ms"],
        "most": figures["dropped"][0] if figures["dropped"] else None,
    }


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """p95, share of frames dropped and cores over the number of cameras, three small charts above each other."""
    width, height, left, pad = 760, 190, 90, 34
    image = np.full((3 * height, width, 3), 255, np.uint8)
    counts = [r["cameras"] for r in rows]
    font = cv2.FONT_HERSHEY_SIMPLEX
    for at, (title, key, scale) in enumerate(
        (("end to end p95, ms", "p95_ms", 1), ("frames dropped, %", "dropped", 100), ("cores", "cores", 1))
    ):
        values = [r[key] * scale for r in rows]
        top, bottom = at * height + pad, (at + 1) * height - pad
        most = max(values) or 1.0
        xs = [left + round((c - counts[0]) / max(counts[-1] - counts[0], 1) * (width - left - 40)) for c in counts]
        ys = [bottom - round(v / most * (bottom - top)) for v in values]
        cv2.putText(image, title, (left, top - 12), font, 0.5, (60, 60, 60), 1, cv2.LINE_AA)
        cv2.line(image, (left, bottom), (width - 30, bottom), (190, 190, 190), 1)
        cv2.polylines(image, [np.array(list(zip(xs, ys, strict=True)), np.int32)], False, (180, 90, 20), 2, cv2.LINE_AA)
        for x, y, c, v in zip(xs, ys, counts, values, strict=True):
            cv2.circle(image, (x, y), 3, (180, 90, 20), -1, cv2.LINE_AA)
            cv2.putText(image, f"{v:.1f}", (x - 14, y - 8), font, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
            cv2.putText(image, str(c), (x - 5, bottom + 16), font, 0.42, (60, 60, 60), 1, cv2.LINE_AA)
    cv2.imwrite(str(file), image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="blazepose.lite")
    parser.add_argument("--cameras", type=int, nargs="*", default=[2, 4, 6, 8, 10])
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    print(f"{'cameras':>7} {'instants/s':>11} {'p50':>7} {'p95 ms':>8} {'dropped':>8} {'cores':>6} {'heatmaps p50':>13}  most lost")
    rows = []
    for count in args.cameras:
        r = measure(count, args.engine, args.seconds)
        rows.append(r)
        most = f"{r['most']['node']}: {r['most']['reason']}" if r["most"] else "-"
        print(
            f"{count:7d} {r['instants_hz']:11.1f} {r['p50_ms']:7.1f} {r['p95_ms']:8.1f} {r['dropped']:8.1%} {r['cores']:6.2f} "
            f"{r['heatmaps_p50_ms']:13.1f}  {most}",
            flush=True,
        )
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
