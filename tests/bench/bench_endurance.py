"""A studio for ten minutes: latency, drops, and whether any process grows. Memory, descriptors and mappings are read from outside.

    python tests/bench/bench_endurance.py [--seconds 600] [--studio examples/algebraic.yaml] [--set nodes.heatmaps.engine=blazepose.lite ...]

Memory is all anonymous memory of a process, whether or not a fork still shares it: private pages alone would grow while nothing is allocated,
whenever a page is written to that was shared with a child, and shares of libraries' pages change when other programs come and go.
Growth is the difference between the means of the last and the second minute. A subscriber is connected all the time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

import psutil
import zmq

from posepipe.launch.desk import ask, studios

STUDIO = Path(__file__).parents[2] / "examples" / "algebraic.yaml"
EVERY_S = 5.0


def weigh(pid: int) -> tuple[float, int, int]:
    """Anonymous memory in MB, open descriptors, shared-memory mappings."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = next(int(line.split()[1]) for line in rollup if line.startswith("Anonymous:")) * 1024 / 1e6
    rings = sum("posepipe-ring" in line for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
    return own, len(list(Path(f"/proc/{pid}/fd").iterdir())), rings


def names(pid: int) -> dict[int, str]:
    """As `posepipe ps` has them. Asked from here: a second Python takes 0.4 s of a processor to start, beside cameras that need it."""
    family = {pid, *(p.pid for p in psutil.Process(pid).children(recursive=True))}
    return {row["pid"]: row["name"] for studio in studios() for row in ask(studio, {"do": "ps"}) if row["pid"] in family}


def minutes(rows: list[tuple[float, float, int, int]]) -> list[float]:
    """Mean memory of every whole minute."""
    last = int(max((r[0] for r in rows), default=0.0) // 60)
    return [fmean([r[1] for r in rows if r[0] // 60 == k]) for k in range(last)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--studio", type=Path, default=STUDIO)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--address", default="tcp://127.0.0.1:5570")
    args = parser.parse_args()
    subscriber = zmq.Context.instance().socket(zmq.SUB)
    subscriber.connect(args.address)
    subscriber.subscribe(b"skeleton/")
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.json"
        options = ["--seconds", str(args.seconds), "--summary", str(summary), "--await-subscribers", "1"]
        options += [text for one in args.overrides for text in ("--set", one)]
        studio = subprocess.Popen([sys.executable, "-m", "posepipe", "run", str(args.studio), *options])
        time.sleep(6)
        workers = names(studio.pid)
        seen: dict[int, list[tuple[float, float, int, int]]] = {pid: [] for pid in workers}
        begin, received, next_s = time.monotonic(), 0, 0.0
        while studio.poll() is None:
            if subscriber.poll(200):
                subscriber.recv_multipart()
                received += 1
            if time.monotonic() - begin >= next_s:
                next_s += EVERY_S
                for pid in list(workers):
                    try:
                        seen[pid].append((time.monotonic() - begin, *weigh(pid)))
                    except (OSError, StopIteration):
                        continue  # it has ended
        figures = json.loads(summary.read_text())
    print(f"received {received} skeleton messages; balance {figures['balance']}")
    print(f"{'worker':16} {'own MB':>8} {'growth MB':>10} {'fds':>8} {'ring maps':>10}  MB minute by minute")
    for pid, name in workers.items():
        rows = [r for r in seen[pid] if r[0] > 60] or seen[pid]
        first, last = rows[: max(len(rows) // 9, 1)], rows[-max(len(rows) // 9, 1) :]
        growth = fmean(r[1] for r in last) - fmean(r[1] for r in first)
        fds, rings = {r[2] for r in rows}, {r[3] for r in rows}
        print(
            f"{name:16} {last[-1][1]:8.1f} {growth:+10.2f} {min(fds)}-{max(fds):<5} {min(rings)}-{max(rings):<8}",
            *(f"{m:.1f}" for m in minutes(seen[pid])),
        )


if __name__ == "__main__":
    main()
