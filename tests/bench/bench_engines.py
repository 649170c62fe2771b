"""What the 2D stage costs: crops, decoding, and BlazePose's networks one after the other with `posepipe bench --engine`.

    python tests/bench/bench_engines.py [--threads 1 2] [--seconds 1.0]

Median wall time and processor time of one call, in ms. Networks that are not here (`posepipe pull NAME`) are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from posepipe.engines.assets import asset
from posepipe.engines.crop import Rois, crop_rgb, image_from_crop
from posepipe.engines.models.blazepose.decode import decode_heatmaps
from posepipe.engines.models.blazepose.detector import decode_detections
from posepipe.engines.models.blazepose.networks import DETECTOR, SIZES, stub_heatmaps
from posepipe.launch.engine_bench import bench
from posepipe.pipeline.packet import Frame


def cost_ms(call: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Median wall time, and mean processor time of the whole process, of one call."""
    for _ in range(3):
        call()
    walls: list[float] = []
    cpu, end = time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < end or len(walls) < 5:
        start = time.perf_counter()
        call()
        walls.append(time.perf_counter() - start)
    return float(np.median(walls)) * 1e3, (time.process_time() - cpu) / len(walls) * 1e3


def picture(form: Any) -> Frame:
    rng = np.random.default_rng(1)
    y = rng.integers(16, 235, (1920, 1088)).astype(np.uint8)
    chroma = rng.integers(16, 240, (2, 960, 544)).astype(np.uint8)
    planes = (y, chroma[0], chroma[1]) if form == "i420" else (y, np.ascontiguousarray(chroma.transpose(1, 2, 0)))
    return Frame("cam", 0, 0, form, 1088, 1920, planes)


def pixels(seconds: float) -> Table:
    table = Table("step", "ms", "CPU ms", title="one 1088x1920 frame, one OpenCV thread")
    cv2.setNumThreads(1)
    for form in ("i420", "nv12"):
        frame = picture(form)
        for side, angle, size in ((300.0, 0.0, 256), (1000.0, 0.1, 256), (1000.0, 0.8, 256), (1920.0, 0.0, 224)):
            region = Rois(np.array([[543.5, 959.5]]), np.array([side]), np.array([angle]))
            matrix, out = image_from_crop(region, size=size)[0], np.empty((size, size, 3), np.uint8)
            wall, cpu = cost_ms(lambda f=frame, m=matrix, o=out: crop_rgb(f, m, o), seconds)  # type: ignore[misc]
            table.add_row(f"{form} crop of {side:.0f} px, angle {angle} rad, to {size}", f"{wall:.3f}", f"{cpu:.3f}")
    logits = np.repeat(stub_heatmaps()[None], 4, axis=0)
    table.add_row("decode 4 x 33 heatmaps", *(f"{v:.3f}" for v in cost_ms(lambda: decode_heatmaps(logits), seconds)))
    rng = np.random.default_rng(2)
    scores, boxes = np.full((2254, 1), -9, np.float32), rng.normal(0, 50, (2254, 12)).astype(np.float32)
    scores[::50] = 1
    table.add_row(
        "decode one detector output, 46 answers", *(f"{v:.3f}" for v in cost_ms(lambda: decode_detections(scores, boxes), seconds))
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.6, help="time for each line")
    given = parser.parse_args()
    out = Console(width=140)
    out.print(pixels(given.seconds))
    for name in (*SIZES, DETECTOR):
        if not asset(name).present():
            out.print(f"{name} is not here: posepipe pull {name}")
            continue
        for threads in given.threads:
            out.print(f"threads {threads}")
            bench(name, only_precisions=(), batches=(1, 4), seconds=given.seconds, threads=threads, out=out)


if __name__ == "__main__":
    main()
