"""What a card may say: the tables of a `card.toml`, read strictly. A key that is not one is refused with the nearest that is.

A card describes networks and recordings: where the files come from, and of a network what it takes, what it gives and how that is read.
"""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from ..pipeline.errors import PullError, did_you_mean

T = TypeVar("T")


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of an asset: `name` is the one it has here, `member` its path in what the source gives (a pattern with * for one that
    is downloaded without a sum; empty: the source is the file itself).

    also: sums of files that hold the same network, for example the publisher's where another export of it was run here.
    """

    name: str
    member: str = ""
    sha256: str = ""
    bytes: int = 0
    also: tuple[str, ...] = ()


class Wheel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="pypi"):
    """One exact wheel of a package index."""

    package: str
    version: str
    filename: str
    sha256: str
    bytes: int


class NpmPackage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="npm"):
    """The archive (.tgz) of one version of an npm package."""

    package: str
    version: str
    filename: str
    sha256: str
    bytes: int


class Download(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="https"):
    """A file or a .zip at its publisher's address. Without a sum, what comes is believed, and its sum is said."""

    url: str
    sha256: str = ""
    bytes: int = 0

    @property
    def filename(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


class MirrorOnly(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="mirror"):
    """Files that nobody publishes in this form: found by their sums in `$POSEPIPE_MIRROR`. publisher: where the network comes from."""

    publisher: str
    filename: str = ""
    sha256: str = ""
    bytes: int = 0


class Packaged(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="packaged"):
    """Files that come with posepipe itself, beside the card: networks that its own training made."""

    filename: str = ""
    sha256: str = ""
    bytes: int = 0


Source = Wheel | NpmPackage | Download | MirrorOnly | Packaged


class TensorCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One named array of a network; -1 in `shape` is any number. origin: its name in a .tflite file, which is transcribed."""

    shape: tuple[int, ...]
    dtype: str
    meaning: str = ""
    origin: str = ""


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a picture becomes the network's input: (v - mean) / std of the colours 0..255, in the network's own order of colours.

    size: width, height. fit: `crop`, a square turned so that the person stands upright in it and centred on the hips; `affine`, an upright
    box around the person with the shape of the input; `letterbox`, the whole picture. padding: how much larger than the body the region is.
    A .tflite network is transcribed with mean and std inside, so that it takes uint8.
    """

    size: tuple[int, int]
    colour: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nhwc", "nchw"] = "nhwc"
    dtype: Literal["uint8", "float32", "int32"] = "uint8"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    fit: Literal["crop", "affine", "letterbox"] = "crop"
    padding: float = 1.15

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one item."""
        width, height = self.size
        return (height, width, 3) if self.layout == "nhwc" else (3, height, width)


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a precision may move key points: in pixels of the crop; of a network for joints in a cube in millimetres, in a cube of 2.5 m."""

    median_px: float | None = None
    p95_px: float | None = None
    median_mm: float | None = None
    p95_mm: float | None = None

    def limits(self, unit: Literal["px", "mm"]) -> tuple[float, float]:
        """Median and p95, in a unit that they are given in (`Entry` is refused with others)."""
        median, p95 = (self.median_px, self.p95_px) if unit == "px" else (self.median_mm, self.p95_mm)
        assert median is not None
        assert p95 is not None
        return median, p95


class Bf16(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a network stays float32 when it is run in bf16. fp32_layers: its layers with weights, counted from 0 in the order of the file."""

    fp32_layers: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One network or recording of a card. not_run: why nobody has run it for this release; empty when it was. labels: what a network tells
    apart, in the order of its answers."""

    kind: Literal["model", "recording"]
    summary: str
    licence: str
    files: tuple[Member, ...]
    source: Source | None = None
    skeleton: str = ""
    labels: tuple[str, ...] = ()
    detector: str = ""
    not_run: str = ""
    inputs: dict[str, TensorCard] = {}
    outputs: dict[str, TensorCard] = {}
    preprocess: Preprocess | None = None
    decoder: dict[str, Any] = {}
    tolerance: Tolerance | None = None
    bf16: Bf16 | None = None
    measured: dict[str, str] = {}


_TABLES: dict[str, type[msgspec.Struct]] = {
    "files": Member,
    "inputs": TensorCard,
    "outputs": TensorCard,
    "preprocess": Preprocess,
    "tolerance": Tolerance,
    "bf16": Bf16,
}
_SOURCES: dict[str, type[msgspec.Struct]] = {
    "pypi": Wheel,
    "npm": NpmPackage,
    "https": Download,
    "mirror": MirrorOnly,
    "packaged": Packaged,
}


def read_entries(text: str, *, where: str) -> dict[str, Entry]:
    """The entries of a card by name. The table `[source]` holds for those without one of their own; every other `[group.name]` is an entry.

    Raises PullError for a card that is not one.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise PullError(f"not a card: {e}", where=where, hint="a card is a TOML file, see docs/models.md") from e
    shared = tables.pop("source", None)
    if shared is not None:
        convert(shared, Source, "source", where=where)
    found: dict[str, Entry] = {}
    for group, part in tables.items():
        for name, table in convert(part, dict[str, Any], group, where=where).items():
            if isinstance(table, dict) and "source" not in table and shared is not None:
                table = {**table, "source": shared}
            entry = found[f"{group}.{name}"] = convert(table, Entry, f"{group}.{name}", where=where)
            _must_be_whole(entry, f"{where} [{group}.{name}]")
    return found


def convert(table: Any, kind: Any, name: str, *, where: str) -> Any:
    """A table of a card as a struct; PullError with the nearest key for one that has others."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as e:
        raise PullError(f"not a card: [{name}] {e}", where=where, hint=_nearest(str(e), kind, table)) from None


def _nearest(says: str, kind: Any, table: Any) -> str:
    if key := re.search(r"unknown field `([^`]*)`", says):
        path = [p for p in re.split(r"[.\[\]]+", (re.search(r"`\$\.?([^`]*)`", says) or re.match("()", "")).group(1)) if p]  # type: ignore[union-attr]
        struct = next((_TABLES[p] for p in path if p in _TABLES), kind)
        if "source" in path or struct is Source:
            named = table.get("source", table).get("kind", "") if isinstance(table, dict) else ""
            struct = _SOURCES.get(named, Wheel)
        return did_you_mean(key.group(1), [f.encode_name for f in msgspec.structs.fields(struct)])
    if value := re.search(r"Invalid (?:enum )?value '([^']*)'", says):
        choices = ("rgb", "bgr", "nhwc", "nchw", "uint8", "float32", "int32", "crop", "affine", "letterbox", *_SOURCES)
        return did_you_mean(value.group(1), choices)
    return "docs/models.md shows a complete card"


def _must_be_whole(entry: Entry, where: str) -> None:
    """Refuse what no table says alone."""
    if entry.source is not None and not entry.not_run:
        for file in (f for f in entry.files if not f.sha256):
            hint = 'add its sha256 and bytes, or not_run = "weights not run here"'
            raise PullError(f"the file {file.name!r} has no sha256", where=where, hint=hint)
    if (limits := entry.tolerance) is not None:
        unit = "mm" if entry.decoder.get("kind") == "volume" else "px"
        wanted = [f"median_{unit}", f"p95_{unit}"]
        if (given := [f for f in limits.__struct_fields__ if getattr(limits, f) is not None]) != wanted:
            hint = "pixels of the crop; of a network with the decoder volume millimetres, in a cube of 2.5 m"
            raise PullError(
                f"[tolerance] gives {' and '.join(given) or 'nothing'}, wanted are {' and '.join(wanted)}", where=where, hint=hint
            )
    if entry.preprocess is None:
        return
    p = entry.preprocess
    if not all(p.std) or min(p.size) < 2 or any(n % 2 for n in p.size):
        raise PullError(
            f"size {list(p.size)} and std {list(p.std)} cannot be", where=where, hint="an even width and height, and no 0 in std"
        )
    tflite = entry.files and entry.files[0].name.endswith(".tflite")
    if p.dtype != "float32" and not tflite and (any(p.mean) or p.std != (1.0, 1.0, 1.0)):
        raise PullError(f"mean and std need dtype float32, not {p.dtype}", where=where, hint="leave mean and std out, or correct dtype")
    if len(entry.inputs) != 1:
        raise PullError(f"a network of pictures has one input, the card names {len(entry.inputs)}", where=where, hint="see docs/models.md")
    ((name, tensor),) = entry.inputs.items()
    agrees = len(tensor.shape) == 4 and all(a in (-1, b) for a, b in zip(tensor.shape[1:], p.shape, strict=True))
    if not agrees or tensor.dtype != p.dtype:
        what = f"the input {name!r} is {tensor.dtype} {list(tensor.shape)}, [preprocess] makes {p.dtype} {[-1, *p.shape]}"
        raise PullError(what, where=where, hint="correct size, layout or dtype in [preprocess], or the shape of the input")
