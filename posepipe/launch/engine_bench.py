"""`posepipe bench --engine`: what a network costs with every runtime, precision and batch, beside the bare runtime in the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
from rich.console import Console
from rich.table import Table

from posepipe import __version__
from posepipe.engines.assets import catalogue, find
from posepipe.engines.engine import Precision
from posepipe.engines.network import onnx_of
from posepipe.engines.protobuf import must_be_onnx
from posepipe.engines.runtimes import runtimes
from posepipe.pipeline.errors import EngineError, did_you_mean

from .engine_row import Task
from .machine import Machine

SECONDS = 2.0


def bench(
    name: str,
    *,
    only_runtimes: Sequence[str] = (),
    only_precisions: Sequence[str] = ("auto",),
    batches: Sequence[int] = (1, 4, 8),
    seconds: float = SECONDS,
    threads: int = 0,
    file: Path | None = None,
    out: Console | None = None,
) -> int:
    """Measure a network (a card's name or path, or an ONNX file) and print a table; the exit code.

    only_runtimes, only_precisions: empty for all. Each line is measured in a process of its own for `seconds`. What was named and cannot be
    run raises EngineError, before anything is measured where that can be known; of the others the table says why.
    """
    path, shapes = _network(name)
    _refuse_unknown("runtime", only_runtimes, [r.name for r in runtimes() if r.name != "stub"])
    _refuse_unknown("precision", only_precisions, ("auto", *get_args(Precision)))
    usable = {r.name: r for r in runtimes() if r.name != "stub"}
    for chosen in only_runtimes:
        if not usable[chosen].usable:  # type: ignore[index]
            raise EngineError(f"the runtime {chosen} cannot be used here: {usable[chosen].why}", hint="`posepipe doctor` lists what can")  # type: ignore[index]
    if file is not None and not os.access(file.parent, os.W_OK):
        raise EngineError("there is no such folder, or it cannot be written", where=str(file.parent), hint="name another file for --json")
    console, machine = out or Console(), Machine()
    rows: list[dict[str, Any]] = []
    absent: dict[tuple[str, str], list[str]] = {}
    for runtime in only_runtimes or list(usable):
        if not usable[runtime].usable:  # type: ignore[index]
            absent[runtime, usable[runtime].why] = []  # type: ignore[index]
            continue
        for precision in only_precisions or get_args(Precision):
            for batch in batches:
                with console.status(f"{runtime} {precision}, batch {batch}"):
                    row = _measured(Task(str(path), runtime, precision, batch, threads, seconds, shapes))
                if "error" in row:
                    if len(only_runtimes) == 1 and len(only_precisions) == 1:
                        raise EngineError(row["error"], where=name, hint=row["hint"])
                    absent.setdefault((f"{runtime} {precision}", row["error"]), []).append(str(batch))
                else:
                    rows.append(row)
    machine.stop()
    console.print(table(name, rows))
    for (what, why), sizes in absent.items():
        console.print(f"{what}{', batch ' + ', '.join(sizes) if 0 < len(sizes) < len(batches) else ''}: {why}", highlight=False)
    if file is not None:
        known = {r: usable[r].version for r in dict.fromkeys(row["runtime"] for row in rows)}
        figures = {"engine": name, "posepipe": __version__, "threads": threads, "runtimes": known, "machine": machine.facts(), "runs": rows}
        file.write_text(json.dumps(figures, indent=2) + "\n")
    if not rows:
        raise EngineError("nothing could be measured", where=name, hint="the lines above say why")
    return 0


def _network(name: str) -> tuple[Path, dict[str, tuple[int, ...]]]:
    """The ONNX file of a network (a card's name or path, or the file itself), and the shapes of its inputs as far as its card says."""
    if name.endswith(".onnx"):
        if not Path(name).is_file():
            raise EngineError("there is no such network file", where=name, hint="give a card's name (`posepipe pull` lists them) or a file")
        must_be_onnx(Path(name))
        return Path(name), {}
    networks = [n for n, one in catalogue().items() if one.kind == "model"]
    if name not in networks and not name.endswith(".toml"):
        raise EngineError(f"there is no network {name!r}", hint=did_you_mean(name, networks))
    card = find(name)
    path = onnx_of(card)
    must_be_onnx(path)
    return path, card.input_shapes


def _refuse_unknown(kind: str, given: Sequence[str], known: Sequence[str]) -> None:
    for one in given:
        if one not in known:
            raise EngineError(f"there is no {kind} {one!r}", hint=did_you_mean(one, [*known, "all"]))


def _measured(task: Task) -> dict[str, Any]:
    command = [sys.executable, "-m", "posepipe.launch.engine_row", msgspec.json.encode(task).decode()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return {"error": f"the process ended with {done.returncode}: {last}", "hint": "`posepipe doctor` looks at the runtimes"}
    return row


def table(name: str, rows: Sequence[dict[str, Any]]) -> Table:
    """The lines as a table. bare ms: the best way of the bare runtime; over: what posepipe's interface adds to it."""
    found = Table(title=name, box=None, header_style="bold")
    for column in ("runtime", "precision"):
        found.add_column(column, no_wrap=True)
    for column in ("batch", "ms", "CPU ms", "items/s", "MB", "bare ms", "over"):
        found.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        plain = "-" if not row["plain_ms"] else f"{min(row['plain_ms'].values()):.2f}"
        over = "-" if row["overhead"] is None else f"{row['overhead']:+.1%}"
        figures = f"{row['ms']:.2f}", f"{row['cpu_ms']:.2f}", f"{row['fps']:.0f}", f"{row['peak_mb']:.0f}"
        found.add_row(row["runtime"], row["precision"], str(row["batch"]), *figures, plain, over)
    return found
