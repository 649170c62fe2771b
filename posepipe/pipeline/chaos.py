"""`chaos:` of a studio file: harm done to a running studio on purpose, and the recovery that is expected of it.

`posepipe run` leaves it alone; `posepipe chaos` does it and judges (docs/chaos.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from .errors import did_you_mean
from .node import Source
from .yamlfile import Where

if TYPE_CHECKING:
    from .graph import PlanNode

_SETTLE_S = 1.5
"""What a killed worker held is accounted for a second after its death; only then can losses be counted."""
_AT_LEAST_S = 1.0

Positive = Annotated[float, Meta(gt=0, le=86_400_000)]
Share = Annotated[float, Meta(gt=0, le=1)]


class Expect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has to be seen from outside. Times count from the harm, or from its end where it lasts (`for_s`)."""

    published_again_within_s: Annotated[
        Positive | None, Meta(description="After so long instants come again, and from then on without a silence longer than gap_s.")
    ] = None
    back_within_s: Annotated[
        Positive | None, Meta(description="After so long the harmed worker runs again, and its cameras are in the instants again.")
    ] = None
    missing: Annotated[
        tuple[str, ...] | None, Meta(description="Cameras: meanwhile instants are published that are marked as lacking them.")
    ] = None
    others_lose: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="Of cameras that were not harmed, at most so many frames are dropped for good.")
    ] = None
    publishing: Annotated[
        Literal[True] | None, Meta(description="There is no silence longer than gap_s, neither during the harm nor after it.")
    ] = None
    gap_s: Annotated[Positive, Meta(description="The longest silence of the stream that counts as none.")] = 0.5


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One harm, `at_s` seconds after the start of the cameras."""

    at_s: Annotated[float, Meta(gt=0, le=86_400, description="Seconds after the start of the cameras.")]
    expect: Annotated[Expect, Meta(description="The recovery that is expected.")]

    @property
    def kind(self) -> str:
        return next(kind for kind, cls in KINDS.items() if isinstance(self, cls))

    @property
    def target(self) -> str:
        return str(getattr(self, self.kind))

    @property
    def lasts_s(self) -> float:
        """How long the harm is kept up, 0 for a single blow; expectations count from its end."""
        return float(getattr(self, "for_s", 0.0))

    @property
    def judged_until_s(self) -> float:
        """End of the time that belongs to this entry, in seconds after the start."""
        e = self.expect
        stall_s = self.for_ms / 1e3 if isinstance(self, Stall) else 0.0
        patience_s = max(e.published_again_within_s or 0.0, e.back_within_s or 0.0, e.gap_s, stall_s, _AT_LEAST_S)
        return self.at_s + self.lasts_s + patience_s + _SETTLE_S

    @property
    def text(self) -> str:
        """For people: `drop 10 % of what comes to instants for 3 s`."""
        return f"{self.kind} {self.target}"


class Kill(Entry, frozen=True, kw_only=True):
    kill: Annotated[str, Meta(description="A node or a worker: its process is killed (SIGKILL).")]


class Stall(Entry, frozen=True, kw_only=True):
    stall: Annotated[str, Meta(description="A node: its next step takes for_ms longer.")]
    for_ms: Positive

    @property
    def text(self) -> str:
        return f"stall {self.stall} for {self.for_ms:g} ms"


class Skew(Entry, frozen=True, kw_only=True):
    skew: Annotated[str, Meta(description="A camera: its capture stamps are by_ms too late (below 0: too early).")]
    by_ms: Annotated[float, Meta(ge=-60_000, le=60_000)]
    for_s: Positive

    @property
    def text(self) -> str:
        return f"skew {self.skew} by {self.by_ms:g} ms for {self.for_s:g} s"


class Drop(Entry, frozen=True, kw_only=True):
    drop: Annotated[str, Meta(description="A node: a share of what other processes send to it is lost on the way.")]
    share: Share
    for_s: Positive

    @property
    def text(self) -> str:
        return f"drop {100 * self.share:g} % of what comes to {self.drop} for {self.for_s:g} s"


class Corrupt(Entry, frozen=True, kw_only=True):
    corrupt: Annotated[str, Meta(description="A node: in a share of what other processes send to it, one bit is wrong.")]
    share: Share
    for_s: Positive

    @property
    def text(self) -> str:
        return f"corrupt {100 * self.share:g} % of what comes to {self.corrupt} for {self.for_s:g} s"


class FillDisk(Entry, frozen=True, kw_only=True):
    fill_disk: Annotated[str, Meta(description="A node: for for_s, nothing more can be written to files by its process.")]
    for_s: Positive

    @property
    def text(self) -> str:
        return f"fill the disk of {self.fill_disk} for {self.for_s:g} s"


KINDS: dict[str, type[Entry]] = {"kill": Kill, "stall": Stall, "skew": Skew, "drop": Drop, "corrupt": Corrupt, "fill_disk": FillDisk}
Wrong = Callable[[Where, str, str], None]


def harmed_cameras(entry: Entry, nodes: Sequence[PlanNode]) -> tuple[str, ...]:
    """The cameras that the harm takes away: the sources of a killed worker, the source that is stalled or skewed."""
    sources = [n for n in nodes if issubclass(n.cls, Source)]
    if isinstance(entry, Kill):
        return tuple(_camera(n) for n in sources if n.process == worker_of(entry, nodes))
    if isinstance(entry, Skew):
        return (entry.skew,)
    return tuple(_camera(n) for n in sources if isinstance(entry, Stall) and n.name == entry.stall)


def worker_of(entry: Entry, nodes: Sequence[PlanNode]) -> str:
    """The worker process that is harmed."""
    if isinstance(entry, Skew):
        return next(n.process for n in nodes if issubclass(n.cls, Source) and _camera(n) == entry.skew)
    return next((n.process for n in nodes if n.name == entry.target), entry.target)


def entries(raw: Any, nodes: Sequence[PlanNode], wrong: Wrong) -> tuple[Entry, ...]:
    """The entries of `chaos:`, in the order of their times. Mistakes go to `wrong`; what is wrong is left out."""
    if raw is None:
        return ()
    if not isinstance(raw, list):
        wrong(("chaos",), f"chaos is {raw!r}, want a list", "chaos: [{at_s: 4, kill: main, expect: {published_again_within_s: 3}}]")
        return ()
    found = [(i, entry) for i, one in enumerate(raw) if (entry := _entry(("chaos", str(i)), one, wrong)) is not None]
    good = [(i, entry) for i, entry in found if _fits(("chaos", str(i)), entry, nodes, wrong)]
    good.sort(key=lambda pair: pair[1].at_s)
    for (_, before), (i, entry) in pairwise(good):
        if entry.at_s < before.judged_until_s:
            what = f"{entry.text} comes at {entry.at_s:g} s, while {before.text} (at {before.at_s:g} s) is judged until {before.judged_until_s:g} s"
            wrong(("chaos", str(i), "at_s"), what, f"at_s: {before.judged_until_s:g} or later")
    return tuple(entry for _, entry in good)


def _entry(path: Where, raw: Any, wrong: Wrong) -> Entry | None:
    kinds = [key for key in raw if key in KINDS] if isinstance(raw, dict) else []
    if len(kinds) != 1:
        unknown = [k for k in raw if k not in _FIELDS] if isinstance(raw, dict) else []
        if not kinds and unknown:
            wrong((*path, unknown[0]), f"an entry of chaos has the unknown key {unknown[0]!r}", did_you_mean(unknown[0], _FIELDS))
        else:
            hint = "for example {at_s: 4, kill: main, expect: {published_again_within_s: 3}}"
            wrong(path, f"an entry of chaos does one of {', '.join(KINDS)}; this one {' and '.join(kinds) or 'none'}", hint)
        return None
    cls = KINDS[kinds[0]]
    if not _fields(path, raw, cls, kinds[0], wrong):
        return None
    expect = raw["expect"]
    if not isinstance(expect, dict) or not set(expect) - {"gap_s"}:
        wrong((*path, "expect"), f"{kinds[0]}: nothing is expected, so nothing can be judged", "expect: {publishing: true}")
        return None
    if not _fields((*path, "expect"), expect, Expect, "expect", wrong):
        return None
    return msgspec.convert(raw, cls)


def _fields(path: Where, raw: dict[str, Any], cls: type[msgspec.Struct], name: str, wrong: Wrong) -> bool:
    fields = {f.encode_name: f for f in msgspec.structs.fields(cls)}
    good = True
    for key, value in raw.items():
        if key not in fields:
            good = False
            wrong((*path, key), f"{name} in chaos has no key {key!r}", did_you_mean(key, fields))
        elif key != "expect":
            try:
                msgspec.convert(value, fields[key].type)
            except msgspec.ValidationError as e:
                good = False
                wrong((*path, key), f"{name} in chaos: {key} is {value!r}: {e}", "docs/chaos.md shows every key")
    for key in (k for k, f in fields.items() if f.required and k not in raw):
        good = False
        wrong(path, f"{name} in chaos needs {key}", "docs/chaos.md shows every key")
    return good


def _fits(path: Where, entry: Entry, nodes: Sequence[PlanNode], wrong: Wrong) -> bool:
    """Whether what is named is there, can be harmed so, and can be expected."""
    cameras = [_camera(n) for n in nodes if issubclass(n.cls, Source)]
    names = cameras if isinstance(entry, Skew) else [n.name for n in nodes]
    if isinstance(entry, Kill):
        names = [*names, *(n.process for n in nodes if n.process not in names)]
    at = (*path, entry.kind)
    if entry.target not in names:
        what = "camera" if isinstance(entry, Skew) else "node or worker" if isinstance(entry, Kill) else "node"
        wrong(at, f"{entry.kind}: there is no {what} {entry.target!r}", did_you_mean(entry.target, names))
        return False
    if _on_links(entry) and not _linked(entry, nodes, at, wrong):
        return False
    for camera in entry.expect.missing or ():
        if camera not in cameras:
            wrong((*path, "expect", "missing"), f"missing: there is no camera {camera!r}", did_you_mean(camera, cameras))
            return False
    if entry.expect.back_within_s is not None and not isinstance(entry, Kill) and not harmed_cameras(entry, nodes):
        what = f"{entry.text}: nothing goes away that could be back within {entry.expect.back_within_s:g} s"
        wrong((*path, "expect", "back_within_s"), what, "for example published_again_within_s")
        return False
    return True


def _linked(entry: Entry, nodes: Sequence[PlanNode], at: Where, wrong: Wrong) -> bool:
    """Only what crosses from one process to another can be lost or damaged on the way."""
    process = {n.name: n.process for n in nodes}
    node = next(n for n in nodes if n.name == entry.target)

    def linked(n: PlanNode) -> bool:
        return any(process[up] != n.process for up in (*(u for ups in n.inputs.values() for u in ups), *n.feedback.values()))

    if not linked(node):
        there = [n.name for n in nodes if linked(n)]
        wrong(at, f"{entry.kind}: no other process sends anything to {entry.target!r}", did_you_mean(entry.target, there))
        return False
    if isinstance(entry, Drop) and node.queue.full == "block":
        wrong(at, f"drop: {entry.target!r} has the queue block, whose links lose nothing", "corrupt can be done to it")
        return False
    return True


def _on_links(entry: Entry) -> bool:
    return isinstance(entry, (Drop, Corrupt))


def _camera(node: PlanNode) -> str:
    return node.key or node.base


_FIELDS = sorted({f.encode_name for cls in KINDS.values() for f in msgspec.structs.fields(cls)})
