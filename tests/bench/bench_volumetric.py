"""What lift.volumetric takes for one instant, and which part of it, beside lift.algebraic in the same run.

    python tests/bench/bench_volumetric.py [--engine triangulation.slim] [--people 1] [--rounds 100] [--runtime auto] [--precision auto]

One thread for everything but the network, four views of standing people with 64 x 64 heatmaps as a BlazePose network hands them on. The parts are
measured inside the node; `rest` is the node's own. Medians; ratios mean something on a shared machine, milliseconds only on a quiet one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from posepipe.engines.decoders.heatmaps import probabilities
from posepipe.nodes import _lift_cubes
from posepipe.nodes.lift_algebraic import LiftAlgebraic
from posepipe.nodes.lift_volumetric import LiftVolumetric
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "unit" / "nodes")]
from lift_kit import views_of  # noqa: E402
from node_kit import Studio, caps, packet  # noqa: E402
from people import ring, standing  # noqa: E402

spent: dict[str, float] = {}


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its time added to `spent`."""

    def call(*given: Any, **more: Any) -> Any:
        start = time.perf_counter()
        result = function(*given, **more)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
        return result

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="triangulation.slim")
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    rig = ring()
    context = Studio(rig.names).context(
        rig=rig, caps=caps("views", skeleton="blazepose33", maps=True), engines={"runtime": args.runtime, "precision": args.precision}
    )
    deep, flat = LiftVolumetric(LiftVolumetric.Settings(engine=args.engine)), LiftAlgebraic(LiftAlgebraic.Settings())
    deep.open(context)
    flat.open(context)
    lifter = deep._lifter
    lifter._algebraic.points = timed("triangulation", lifter._algebraic.points)
    lifter._maps.of = timed("heatmaps looked at", lifter._maps.of)
    _lift_cubes.fill = timed("unprojection", _lift_cubes.fill)
    _lift_cubes.fine_step = timed("fine step", _lift_cubes.fine_step)
    network = lifter._network
    lifter._cubes._network = Timed(network)
    one = packet(views_of(rig, [standing(0.9 * k) for k in range(args.people)]))
    logits = np.random.default_rng(0).normal(-6, 3, (4 * args.people, 39, 64, 64)).astype(np.float32)
    channels = np.array([BLAZEPOSE33.index(j) for j in COCO17.joints])
    rounds: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        spent.clear()
        timed("whole node", deep.step)(one)
        spent["rest"] = spent["whole node"] - sum(v for k, v in spent.items() if k != "whole node")
        timed("lift.algebraic", flat.step)(one)
        timed("heatmaps handed on by heatmap.topdown", lambda: probabilities(logits, channels=channels, logits=True))()
        for name, seconds in spent.items():
            rounds.setdefault(name, []).append(seconds * 1e3)
    whole = float(np.median(rounds["whole node"]))
    table = Table(title=f"{deep.runs_on}, {args.people} people, {network.cells}^3", box=None)
    for column in ("part", "ms", "share of the node"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for name, ms in rounds.items():
        median = float(np.median(ms))
        table.add_row(name, f"{median:.2f}", f"{median / whole:.0%}")
    Console().print(table)
    deep.close()


class Timed:
    """A network whose calls are measured."""

    def __init__(self, network: Any) -> None:
        self.cells, self.volumes, self.engine, self.close = network.cells, network.volumes, network.engine, network.close
        self._call = timed("network", network)

    def __call__(self, volumes: Any) -> Any:
        return self._call(volumes)


if __name__ == "__main__":
    main()
