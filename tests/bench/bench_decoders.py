"""Key points out of the outputs of four pictures: posepipe's decoders beside plain numpy, in turns, in one process.

    python tests/bench/bench_decoders.py [--rounds 200]

Outputs are those of the stubs (one upright person in each picture). numpy: argmax over the flattened maps and a quarter cell towards the
higher neighbour, joint by joint as published code does it; argmax of both distributions; the same boxes, suppressed in a Python loop.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from posepipe.engines.assets import Asset, catalogue
from posepipe.engines.card import TensorCard
from posepipe.engines.decoders import open_decoder, stub_answers

PICTURES = 4


def heatmaps(refine: str) -> Asset:
    """A network with SimpleBaseline's maps."""
    maps = {"maps": TensorCard((-1, 17, 64, 48), "float32")}
    return replace(catalogue()["rtmpose.m"], outputs=maps, decoder={"kind": "heatmaps", "refine": refine})


def numpy_maps(outputs: dict[str, Any]) -> Any:
    """Argmax and a quarter cell."""
    maps = outputs["maps"]
    n, joints, high, wide = maps.shape
    found = np.empty((n, joints, 3))
    for i in range(n):
        for j in range(joints):
            one = maps[i, j]
            r, c = np.unravel_index(int(one.argmax()), (high, wide))
            x, y = float(c), float(r)
            if 0 < c < wide - 1 and 0 < r < high - 1:
                x += 0.25 * np.sign(one[r, c + 1] - one[r, c - 1])
                y += 0.25 * np.sign(one[r + 1, c] - one[r - 1, c])
            found[i, j] = 4 * x, 4 * y, one[r, c]
    return found


def numpy_simcc(outputs: dict[str, Any]) -> Any:
    """Argmax of both distributions."""
    x, y = outputs["simcc_x"], outputs["simcc_y"]
    return x.argmax(axis=2) / 2, y.argmax(axis=2) / 2, np.minimum(x.max(axis=2), y.max(axis=2))


def numpy_grid(outputs: dict[str, Any]) -> Any:
    """All boxes of the grid, then those of people."""
    rows = outputs["output"].astype(np.float64)
    found = []
    for one in rows:
        score = one[:, 4:5] * one[:, 5:]
        size = np.exp(one[:, 2:4])
        likely = score[:, 0] > 0.3
        boxes, kept = np.concatenate([one[:, :2] - size / 2, one[:, :2] + size / 2], axis=1)[likely], []
        for box in boxes[np.argsort(-score[likely, 0])]:
            if all(box[0] > k[2] or box[2] < k[0] or box[1] > k[3] or box[3] < k[1] for k in kept):
                kept.append(box)
        found.append(kept)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    known = catalogue()
    rows: list[tuple[str, Asset, Callable[[Any], Any] | None]] = [
        *((f"heatmaps 64 x 48 x 17, {refine}", heatmaps(refine), numpy_maps) for refine in ("quarter", "centroid", "dark")),
        ("heatmaps 64 x 64 x 33 (blazepose.full)", known["blazepose.full"], None),
        ("simcc 384 + 512 x 17 (rtmpose.m)", known["rtmpose.m"], numpy_simcc),
        ("table (movenet.thunder)", known["movenet.thunder"], None),
        ("grid of 3549 boxes (yolox.nano)", known["yolox.nano"], numpy_grid),
        ("anchors (blazepose.detector)", known["blazepose.detector"], None),
    ]
    table = Table("four pictures", "posepipe, us: best", "median", "plain numpy, us: best", "posepipe / numpy")
    for name, card, plain in rows:
        decode = open_decoder(card)
        outputs = {n: np.ascontiguousarray(np.stack([a] * PICTURES)) for n, a in stub_answers(card).items()}
        decode(outputs)
        ours, theirs = [], []
        for _ in range(rounds):
            at = time.perf_counter()
            decode(outputs)
            ours.append((time.perf_counter() - at) * 1e6)
            if plain is not None:
                at = time.perf_counter()
                plain(outputs)
                theirs.append((time.perf_counter() - at) * 1e6)
        beside = (f"{min(theirs):.0f}", f"{min(ours) / min(theirs):.2f}") if theirs else ("", "")
        table.add_row(name, f"{min(ours):.0f}", f"{np.median(ours):.0f}", *beside)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
