"""What decoding part affinity fields costs: five people, COCO-18, 46 x 62 cells.

    python tests/bench/bench_paf.py [--people 5] [--json FILE]

Ours (compiled, on the network's own cells) beside the same rules in numpy and plain Python, on the same cells, and beside the latter on maps
enlarged eight times by OpenCV, as it is usually done. Every time is the best of many; the error is the distance from what was painted,
in pixels of the network's input.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posepipe.engines.decoders.paf import Options, PafDecoder
from posepipe.engines.models.openpose.layout import COCO18
from posepipe.engines.models.openpose.paint import STRIDE, paint, upright
from posepipe.pipeline.skeleton import skeleton

ROWS, COLUMNS = 46, 62


def crowd(count: int) -> np.ndarray:
    one = upright(skeleton("coco18").joints, rows=ROWS, columns=COLUMNS)[0]
    middle = (COLUMNS - 1) / 2
    chance = np.random.default_rng(1)
    step = COLUMNS / (count + 0.5)
    return np.array([one * 0.9 + [(k + 0.75) * step - 0.9 * middle, 2 + chance.uniform(-1, 1)] for k in range(count)])


def plain(heat: np.ndarray, fields: np.ndarray, *, cell: float) -> list[np.ndarray]:
    """The published rules without a compiler. cell: pixels of the input per cell of these maps. People [J,3] in cells."""
    peaks: list[np.ndarray] = []
    for part in heat[: COCO18.count]:
        inner = part[1:-1, 1:-1]
        high = inner > 0.05
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if dx or dy:  # of equal neighbours the last is the peak
                    other = part[1 + dy : part.shape[0] - 1 + dy, 1 + dx : part.shape[1] - 1 + dx]
                    high &= inner > other if (dy, dx) > (0, 0) else inner >= other
        y, x = np.nonzero(high)
        found = []
        for py, px in zip(y + 1, x + 1, strict=True):
            around = np.s_[max(py - 3, 0) : py + 4, max(px - 3, 0) : px + 4]
            weight = np.maximum(part[around], 0)
            rows, columns = np.mgrid[around]
            found.append(((columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum(), part[py, px]))
        peaks.append(np.array(found).reshape(-1, 3))
    pairs = []
    for limb, (a, b) in enumerate(COCO18.limbs):
        field = fields[COCO18.fields[limb] : COCO18.fields[limb] + 2]
        for i, p in enumerate(peaks[a]):
            for k, q in enumerate(peaks[b]):
                along = q[:2] - p[:2]
                length = np.linalg.norm(along)
                if length < 1e-6:
                    continue
                samples = int(np.clip(np.rint(np.sqrt(5 * cell * np.abs(along).max())), 5, 25))
                at = np.rint(p[:2] + np.arange(samples)[:, None] * along / samples).astype(int)
                at = np.clip(at, 0, [heat.shape[2] - 1, heat.shape[1] - 1])
                dots = field[:, at[:, 1], at[:, 0]].T @ (along / length)
                if (dots > 0.05).mean() > 0.8:
                    score = dots[dots > 0.05].mean()
                    pairs.append((score + 0.1 * (p[2] + q[2]), score, a, i, b, k))
    people: list[dict[int, int]] = []
    owner: dict[tuple[int, int], dict[int, int]] = {}
    for _, _, a, i, b, k in sorted(pairs, reverse=True):
        one, other = owner.get((a, i)), owner.get((b, k))
        if one is None and other is None:
            people.append({a: i, b: k})
            owner[a, i] = owner[b, k] = people[-1]
        elif one is None or other is None:
            person, joint, peak = (other, a, i) if one is None else (one, b, k)
            if person is not None and joint not in person:
                person[joint] = peak
                owner[joint, peak] = person
        elif one is not other and not one.keys() & other.keys():
            one.update(other)
            owner.update(dict.fromkeys(other.items(), one))
            people = [p for p in people if p is not other]
    rows = []
    for person in people:
        if len(person) >= 3:
            row = np.full((COCO18.count, 3), np.nan)
            for j, n in person.items():
                row[j] = peaks[j][n]
            rows.append(row)
    return rows


def best_us(run: Callable[[], Any], *, least_s: float) -> float:
    best, until = np.inf, time.perf_counter() + least_s
    while time.perf_counter() < until:
        began = time.perf_counter_ns()
        run()
        best = min(best, time.perf_counter_ns() - began)
    return best / 1e3


def error_px(found: Any, people: np.ndarray, *, cell: float) -> float:
    """Median distance of parts from the nearest painted one, in pixels of the input."""
    truth = (people + 0.5) * STRIDE - 0.5
    off = []
    for one in found:
        points = (one[:, :2] + 0.5) * cell - 0.5
        off.append(np.linalg.norm(truth - points, axis=2).min(axis=0))
    return float(np.nanmedian(off))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    people = crowd(args.people)
    heat, fields = paint(COCO18, people, rows=ROWS, columns=COLUMNS)
    large = [
        np.ascontiguousarray(cv2.resize(m.transpose(1, 2, 0), None, fx=STRIDE, fy=STRIDE, interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1))
        for m in (heat, fields)
    ]
    decoder = PafDecoder(COCO18, Options())
    figures: dict[str, Any] = {}
    ways: dict[str, tuple[Callable[[], Any], float, float]] = {
        "ours": (lambda: decoder.decode(heat, fields).points, STRIDE, 2),
        "numpy, same cells": (lambda: plain(heat, fields, cell=STRIDE), STRIDE, 3),
        "numpy, maps x 8": (lambda: plain(*large, cell=1), 1, 6),
    }
    for name, (run, cell, least_s) in ways.items():
        found = run()
        us = best_us(run, least_s=least_s)
        figures[name] = {"us": us, "people": len(found), "error_px": error_px(found, people, cell=cell)}
    ours = figures["ours"]["us"]
    for name, figure in figures.items():
        ratio = figure["us"] / ours
        print(f"{name:20s}{figure['us']:12.1f} us {ratio:8.1f} x   {figure['people']} people, median error {figure['error_px']:.2f} px")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
