"""`posepipe engines verify` and `posepipe engines quantize`: does a faster number type still see the same key points?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from posepipe.engines import quantize as integers
from posepipe.engines import verify as room
from posepipe.engines.runtimes import runtimes
from posepipe.engines.verify import PRECISIONS, RECORDING, ROUNDED, SEEN, Finding
from posepipe.pipeline.errors import EngineError, did_you_mean

EXCEEDED = 1


def verify(
    name: str,
    *,
    recording: str = RECORDING,
    only_runtimes: Sequence[str] = (),
    only_precisions: Sequence[str] = (),
    out: Console | None = None,
) -> int:
    """Print what every runtime and precision does to the key points; 1 when one of them moves them further than the card allows."""
    _refuse_unknown("runtime", only_runtimes, [*(r.name for r in runtimes() if r.name != "stub"), ROUNDED])
    _refuse_unknown("precision", only_precisions, PRECISIONS)
    console = out or Console()
    with console.status("") as status:
        found = room.verify(
            name, recording=recording, only_runtimes=only_runtimes, only_precisions=only_precisions, say=_updating(status.update)
        )
    console.print(_table(name, found))
    network = room.Subject(name)
    console.print(
        f"Against ONNX Runtime fp32 on {recording}, key points with confidence above {SEEN:g}, pixels of the network's picture. "
        f"Allowed: {network.limit_median_px:g} median, {network.limit_p95_px:g} p95.",
        highlight=False,
    )
    for one in found:
        if one.cannot:
            console.print(f"{one.runtime} {one.precision}: {one.cannot}", highlight=False)
    exceeded = [f"{f.runtime} {f.precision}" for f in found if f.verdict is not None and not f.verdict.within and f.runtime != ROUNDED]
    if exceeded:
        console.print(f"Exceeded: {', '.join(exceeded)}. A studio that asks for it is refused, and auto does not take it.", highlight=False)
    return EXCEEDED if exceeded else 0


def quantize(name: str, *, recording: str = RECORDING, out: Console | None = None) -> int:
    """Make the int8 version of a network, and verify it."""
    console = out or Console()
    with console.status("") as status:
        made = integers.quantize(name, recording=recording, say=_updating(status.update))
    console.print(
        f"{name}: int8 with {made.floats} of {made.layers} layers in float32, {made.path.stat().st_size / 1e6:.1f} MB", highlight=False
    )
    return verify(name, recording=recording, only_precisions=("int8",), out=console)


def _updating(update: Callable[..., None]) -> Callable[[str], None]:
    return lambda text: update(text)


def _table(name: str, found: Sequence[Finding]) -> Table:
    table = Table(title=name, box=None, header_style="bold")
    for column in ("runtime", "precision"):
        table.add_column(column, no_wrap=True)
    for column in ("points", "median", "p95", "raw max", "raw rms", "NaN"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for one in found:
        if one.shift is None or one.verdict is None:
            continue
        s = one.shift
        figures = (
            str(len(s.shift_px)),
            f"{s.median_px:.3f}",
            f"{s.p95_px:.3f}",
            f"{s.raw_max:.2g}",
            f"{s.raw_rms:.2g}",
            f"{s.nan_share:.0%}",
        )
        table.add_row(one.runtime, one.precision, *figures, "within" if one.verdict.within else "[red]exceeds[/red]")
    return table


def _refuse_unknown(kind: str, given: Sequence[str], known: Sequence[str]) -> None:
    for one in given:
        if one not in known:
            raise EngineError(f"there is no {kind} {one!r}", hint=did_you_mean(one, known))
