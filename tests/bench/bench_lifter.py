"""What lift.baseline takes for one instant, beside the bare runtime and lift.algebraic in the same run.

    python tests/bench/bench_lifter.py [--engine lifter.baseline] [--people 4] [--rounds 300]

One thread, four views of standing people. Medians of processor time and of the clock; ratios mean something on a shared machine, milliseconds only on a
quiet one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from posepipe.engines.lifter import lifter_file
from posepipe.nodes.lift_algebraic import LiftAlgebraic
from posepipe.nodes.lift_baseline import LiftBaseline

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "unit" / "nodes")]
from lift_kit import views_of  # noqa: E402
from node_kit import Studio, caps, packet  # noqa: E402
from people import ring, standing  # noqa: E402


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--engine", default="lifter.baseline")
    options.add_argument("--people", type=int, default=4)
    options.add_argument("--rounds", type=int, default=300)
    args = options.parse_args()
    rig = ring()
    views = packet(views_of(rig, [standing(0.4 * k - 0.6, 0.3 * k) for k in range(args.people)], ids=tuple(range(args.people))))
    context = Studio(rig.names).context(rig=rig, caps=caps("views", skeleton="blazepose33"), engines={"threads": 1})
    baseline, algebraic = LiftBaseline(LiftBaseline.Settings(engine=args.engine)), LiftAlgebraic(LiftAlgebraic.Settings())
    for node in (baseline, algebraic):
        node.open(context)
    one = onnxruntime.SessionOptions()
    one.intra_op_num_threads = 1
    (path,) = lifter_file(args.engine).values()
    session = onnxruntime.InferenceSession(str(path), one, providers=["CPUExecutionProvider"])
    inputs = np.zeros((args.people, 54), np.float32)
    timed: dict[str, Callable[[], object]] = {
        "lift.baseline": lambda: baseline.step(views),
        "bare ONNX Runtime": lambda: session.run(None, {"view": inputs}),
        "lift.algebraic": lambda: algebraic.step(views),
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    for _ in range(args.rounds):
        for name, call in timed.items():
            wall, cpu = time.perf_counter(), time.thread_time()
            call()
            spent[name].append((time.perf_counter() - wall, time.thread_time() - cpu))
    print(f"{args.people} people, four views, {baseline.runs_on}")
    for name, times in spent.items():
        wall, cpu = (statistics.median(t[k] for t in times) * 1e3 for k in (0, 1))
        print(f"{name:20} {wall:6.3f} ms, {cpu:6.3f} ms of processor time")
    for node in (baseline, algebraic):
        node.close()


if __name__ == "__main__":
    main()
