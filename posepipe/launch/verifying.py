"""`posepipe engines verify` and `posepipe engines quantize`: does a faster number type still see the same key points?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from posepipe.engines import quantize as integers
from posepipe.engines import verify as room
from posepipe.engines.assets import asset
from posepipe.engines.runtimes import runtimes
from posepipe.engines.verify import CERTAIN, PRECISIONS, RECORDING, ROUNDED, SEEN, SIDE_M, Finding
from posepipe.pipeline.errors import EngineError, PullError, did_you_mean

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
    network, seen = room.Subject(name), _Seen(recording)
    with console.status("") as status:
        found = room.verify(
            name,
            recording=recording,
            only_runtimes=only_runtimes,
            only_precisions=only_precisions,
            cut=seen.cubes(_updating(status.update)) if network.gives == "volume" else None,
            say=_updating(status.update),
        )
    console.print(_table(name, found))
    measured = (
        f"key points with confidence above {SEEN:g}, pixels of the network's picture"
        if network.unit == "px"
        else f"joints with a deviation of at most {CERTAIN * SIDE_M:g} m, millimetres in a cube of {SIDE_M:g} m"
    )
    console.print(
        f"Against ONNX Runtime fp32 on {seen.what}, {measured}. Allowed: {network.limit_median:g} median, {network.limit_p95:g} p95.",
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
        cut = _Seen(recording).cubes(_updating(status.update)) if room.Subject(name).gives == "volume" else None
        made = integers.quantize(name, recording=recording, cut=cut, say=_updating(status.update))
    console.print(
        f"{name}: int8 with {made.floats} of {made.layers} layers in float32, {made.path.stat().st_size / 1e6:.1f} MB", highlight=False
    )
    return verify(name, recording=recording, only_precisions=("int8",), out=console)


class _Seen:
    """What a network is looked at with. what: in words."""

    def __init__(self, recording: str) -> None:
        self._recording = self.what = recording

    def cubes(self, say: Callable[[str], None]) -> room.Cut:
        """Makes volumes of the recording; where the usual one, or what finds people in it, is not on this machine, of drawn people."""

        def cut(network: room.Subject) -> NDArray[Any]:
            from . import volumes

            n = network.shape[0]
            try:
                say(f"filling cubes from {self._recording}")
                recording = asset(self._recording.removeprefix("pull:"))
                return volumes.of_recording(recording, n=n, instants=room.INSTANTS)
            except PullError as e:
                if self._recording != RECORDING:
                    raise
                self.what = f"drawn people ({e.what}; {e.hint})"
                say("filling cubes with drawn people")
                return volumes.drawn(n=n, count=2 * room.INSTANTS)

        return cut


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
            str(len(s.moved)),
            f"{s.median:.3f}",
            f"{s.p95:.3f}",
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
