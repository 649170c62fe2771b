"""Heatmaps into the cube: the kernel beside the implementation of the paper's authors, in the same run, and how far they differ.

    python tests/bench/bench_unproject.py [--reference DIR] [--threads 1 2] [--repeats 5]

DIR: a checkout of github.com/karfly/learnable-triangulation-pytorch (MIT), whose `mvn.utils.op.unproject_heatmaps` is run as it is; it needs torch.
Without it only the kernel's own times are shown. Both use as many threads. Times are processor time of all threads, which other work on the
machine lengthens less than the time on the clock; the ratio of that is shown, too.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from posepipe.calib import Camera, Rig, project
from posepipe.calib.unproject import Cube, unproject, unproject_pinhole

CUBE = Cube(np.array([0.1, -0.1, 1.0]), 2.5)
LENS = np.array([-0.047, 0.137, 0.0006, 0.0003, 0.0])
MATRIX = np.array([[1680.0, 0, 540], [0, 1680, 960], [0, 0, 1]])


def ring(count: int) -> Rig:
    """Cameras around a 4 m circle that look at its middle."""
    cameras = []
    for k in range(count):
        angle = 0.3 + 2 * np.pi * k / count
        centre = np.array([4 * np.cos(angle), 4 * np.sin(angle), 2.0])
        forward = np.array([0, 0, 1.0]) - centre
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        cameras.append(Camera(f"cam{k}", 1088, 1920, MATRIX, LENS, np.column_stack([rotation, -rotation @ centre])))
    return Rig(tuple(cameras))


def in_turns(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, float]]:
    """Least processor time and least time on the clock, ms, of some runs of each, one after the other, so that what else the machine does hits
    all (the first, which may compile, does not count)."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            used, start = time.process_time(), time.perf_counter()
            run()
            if turn:
                times[name].append((time.process_time() - used, time.perf_counter() - start))
    return {name: (min(u for u, _ in t) * 1e3, min(c for _, c in t) * 1e3) for name, t in times.items()}


def published(rig: Rig, maps: np.ndarray, n: int, threads: int) -> tuple[np.ndarray, Callable[[str], np.ndarray]]:
    """The projections [V,3,4] to the maps (a crop of 1100 pixels), and the reference as a function of the aggregation."""
    import torch
    from mvn.utils.op import unproject_heatmaps

    torch.set_num_threads(threads)
    middle = project(rig, CUBE.centre_m[None]).uv_px[:, 0]
    scale = maps.shape[1] / 1100
    crops = [np.array([[scale, 0, scale * (550 - u)], [0, scale, scale * (550 - v)], [0, 0, 1]]) for u, v in middle]
    projections = np.stack([crop @ MATRIX @ c.camera_from_world for crop, c in zip(crops, rig.cameras, strict=True)])
    given = torch.from_numpy(maps.transpose(0, 3, 1, 2).copy())[None]
    matrices = torch.from_numpy(projections).float()[None]
    points = torch.from_numpy(CUBE.voxels_m(n)).float()[None]

    def run(how: str) -> np.ndarray:
        with torch.inference_mode():
            return unproject_heatmaps(given, matrices, points, volume_aggregation_method=how)[0].numpy()

    return projections, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="checkout of learnable-triangulation-pytorch")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rig, rng = ring(4), np.random.default_rng(0)
    heads = (
        "maps",
        "cube",
        "joined by",
        "threads",
        "kernel ms",
        "paper's ms",
        "reference ms",
        "ratio",
        "by the clock",
        "largest difference",
    )
    table = Table(*heads, title="4 views, processor time; the paper's geometry beside the reference")
    if options.reference:
        sys.path.insert(0, str(options.reference))
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # torch's threads would go on spinning beside the kernel, which has no part in it
    for size, n, joints in ((64, 32, 17), (96, 64, 17), (96, 64, 32)):
        maps = rng.random((4, size, size, joints)).astype(np.float32)
        middle = project(rig, CUBE.centre_m[None]).uv_px[:, 0]
        rois = np.column_stack([middle, np.full(4, 1100.0), np.zeros(4)])
        out = np.empty((n, n, n, joints), np.float32)
        for threads in options.threads:
            for how in ("sum", "softmax"):
                runs: dict[str, Callable[[], Any]] = {
                    "kernel": lambda: unproject(rig, maps, rois, CUBE, n=n, how=how, threads=threads, out=out)  # noqa: B023
                }
                differs = "-"
                if options.reference:
                    projections, reference = published(rig, maps, n, threads)
                    runs["paper"] = lambda: unproject_pinhole(projections, maps, CUBE, n=n, how=how, threads=threads, out=out)  # noqa: B023
                    runs["reference"] = lambda: reference(how)  # noqa: B023
                    differs = f"{np.abs(runs['paper']() - runs['reference']().transpose(1, 2, 3, 0)).max():.1e}"
                ms = in_turns(runs, options.repeats)
                ratios = [f"{ms['reference'][k] / ms['paper'][k]:.1f}" if options.reference else "-" for k in (0, 1)]
                cells = [f"{ms[k][0]:.1f}" if k in ms else "-" for k in ("kernel", "paper", "reference")]
                table.add_row(f"{size} x {size} x {joints}", f"{n}^3", how, str(threads), *cells, *ratios, differs)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
