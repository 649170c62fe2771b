"""What TensorRT for RTX builds without a GPU: every network that is here, per precision and GPU, with the time it takes and the plan's size.

    python tests/bench/bench_rtx_builds.py [--for sm75 sm89 sm120] [--precision fp32 fp16] [--only action vibe]

Needs `pip install tensorrt-rtx-cu13`. Networks: those that come with posepipe, those of `posepipe pull` and, where POSEPIPE_MIRROR names the mirror,
its ONNX files. --only: those whose name has one of these words in it.
Nothing is kept: every plan is built anew.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from posepipe.engines.assets import asset, catalogue
from posepipe.engines.card import Packaged
from posepipe.engines.engine import EngineOptions
from posepipe.engines.models.blazepose.networks import DETECTOR, HEATMAPS, PEOPLE, SIZES, onnx_path
from posepipe.engines.tensorrt_build import build_plan, capabilities, module_for
from posepipe.pipeline.errors import EngineError

Shapes = dict[str, tuple[int, ...]]

# What the files leave open beside the batch.
OPEN: dict[str, Shapes] = {
    "human-pose-estimation-0001.fp32.onnx": {"data": (-1, 3, 256, 456)},
    "movenet-multipose.onnx": {"input": (1, 256, 256, 3)},
    "confidence.onnx": {"shapes": (-1, 4, 17, 14), "agreement": (-1, 4, 17, 19), "seen": (-1, 4, 17)},
}


def networks() -> list[tuple[str, Path, Shapes | None]]:
    """(name, file, shapes; None: as the card states them) of every network that is here."""
    views = [*((name, HEATMAPS) for name in SIZES), (DETECTOR, PEOPLE)]
    own = [(name, one.path(one.files[0].name)) for name, one in sorted(catalogue().items()) if isinstance(one.source, Packaged)]
    found: list[tuple[str, Path, Shapes | None]] = [(name, path, OPEN.get(path.name)) for name, path in own]
    found += [(name, onnx_path(asset(name), view), {}) for name, view in views if asset(name).present()]
    mirror = os.environ.get("POSEPIPE_MIRROR")
    files = sorted(Path(mirror).glob("*.onnx")) if mirror else []
    return found + [(f.stem, f, OPEN.get(f.name, {})) for f in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for", dest="targets", nargs="+", help="GPUs, such as sm89 (default: all)")
    parser.add_argument("--precision", nargs="+", default=["fp32", "fp16"])
    parser.add_argument("--only", nargs="+", default=[""])
    options = parser.parse_args()
    rtx = EngineOptions(runtime="tensorrt_rtx")
    targets = options.targets or capabilities(module_for(rtx)[1])
    present = [one for one in networks() if any(word in one[0] for word in options.only)]
    table = Table("network", "precision", *(f"{t} s" for t in targets), "MB", title="plans")
    refused: dict[str, None] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["POSEPIPE_HOME"] = folder
        for name, path, shapes in present:
            # The numbers of a quantised network are in its file.
            for precision in ["fp32"] if "int8" in name else options.precision:
                cells: list[str] = []
                sizes: list[float] = []
                for target in targets:
                    start = time.perf_counter()
                    try:
                        plan = build_plan(
                            path, options=EngineOptions(runtime="tensorrt_rtx", precision=precision), capability=target, shapes=shapes
                        )
                    except EngineError as e:
                        cells.append("refused")
                        refused[f"{name} {precision}: {e.what}"] = None
                    else:
                        cells.append(f"{time.perf_counter() - start:.1f}")
                        sizes.append(len(plan) / 1e6)
                size = f"{min(sizes):.1f}-{max(sizes):.1f}" if sizes else ""
                table.add_row(name, precision, *cells, size)
    console = Console(width=140)
    console.print(table)
    for line in refused:
        console.print(line)


if __name__ == "__main__":
    main()
