"""What TensorRT for RTX builds without a GPU: every shipped network, per precision and GPU, with the time it takes and the plan's size.

    python tests/bench/bench_rtx_builds.py [--for sm75 sm89 sm120] [--precision fp32 fp16] [--only action vibe]

Needs `pip install tensorrt-rtx-cu13`. Networks: those that have a card, from where they were pulled to, or from the mirror that POSEPIPE_MIRROR
names; of those whose weights were not run here, one of the same signature is generated. --only: those whose name has one of these words in it.
Nothing is kept: every plan is built anew. Every plan is held against its card.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "unit" / "engines")]

from plan_kit import OPEN, file_of, must_be_its_card, shipped  # noqa: E402

from posepipe.engines.assets import asset, home  # noqa: E402
from posepipe.engines.engine import EngineOptions  # noqa: E402
from posepipe.engines.tensorrt_build import build_plan, capabilities, describe, module_for  # noqa: E402
from posepipe.pipeline.errors import EngineError  # noqa: E402


def networks(words: list[str], real: Path) -> dict[str, Path]:
    """The files of the shipped networks whose name has one of the words in it; says which are not here."""
    found: dict[str, Path] = {}
    for name in shipped():
        if any(word in name for word in words):
            try:
                found[name] = file_of(name, real)
            except FileNotFoundError as e:
                print(f"left out: {e}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for", dest="targets", nargs="+", help="GPUs, such as sm89 (default: all)")
    parser.add_argument("--precision", nargs="+", default=["fp32", "fp16"])
    parser.add_argument("--only", nargs="+", default=[""])
    options = parser.parse_args()
    rtx = EngineOptions(runtime="tensorrt_rtx")
    targets = options.targets or capabilities(module_for(rtx)[1])
    table = Table("network", "precision", *(f"{t} s" for t in targets), "MB", title="plans")
    refused: dict[str, None] = {}
    real = home()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["POSEPIPE_HOME"] = folder
        for name, path in networks(options.only, real).items():
            for precision in options.precision:
                wanted, shapes = EngineOptions(runtime="tensorrt_rtx", precision=precision), OPEN.get(name)
                must_be_its_card(describe(path, options=wanted, shapes=shapes), name, most=wanted.max_batch)
                cells: list[str] = []
                sizes: list[float] = []
                for target in targets:
                    start = time.perf_counter()
                    try:
                        plan = build_plan(path, options=wanted, capability=target, shapes=shapes)
                    except EngineError as e:
                        cells.append("refused")
                        refused[f"{name} {precision}: {e.what}"] = None
                    else:
                        cells.append(f"{time.perf_counter() - start:.1f}")
                        sizes.append(len(plan) / 1e6)
                size = f"{min(sizes):.1f}-{max(sizes):.1f}" if sizes else ""
                table.add_row(f"{name}{' (generated)' if asset(name).not_run else ''}", precision, *cells, size)
    console = Console(width=140)
    console.print(table)
    for line in refused:
        console.print(line)


if __name__ == "__main__":
    main()
