"""What a card may say: the tables of a `card.toml`, read strictly. A key that is not one is refused with the nearest that is.

A card describes networks and recordings: where the files come from, and of a network what it takes, what it gives and how that is read.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, inspect

from ..pipeline.errors import PullError, did_you_mean

# Both bounds, so that NaN and infinity, which TOML has words for, are refused too.
Finite = Annotated[float, Meta(ge=-1e6, le=1e6)]
Positive = Annotated[float, Meta(gt=0, le=1e6)]
Bytes = Annotated[int, Meta(ge=0)]
Pixels = Annotated[int, Meta(ge=2, le=8192)]
Dtype = Literal["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"]
"""What the runtimes hand over between them."""


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of an asset: `name` is the one it has here, `member` its path in what the source gives (a pattern with * for one that
    is downloaded without a sum; empty: the source is the file itself).

    also: sums of files that hold the same network, for example the publisher's where another export of it was run here.
    """

    name: str
    member: str = ""
    sha256: str = ""
    bytes: Bytes = 0
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
    bytes: Bytes = 0

    @property
    def filename(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


class MirrorOnly(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="mirror"):
    """Files that nobody publishes in this form: found by their sums in `$POSEPIPE_MIRROR`. publisher: where the network comes from."""

    publisher: str
    filename: str = ""
    sha256: str = ""
    bytes: Bytes = 0


class Packaged(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="packaged"):
    """Files that come with posepipe itself, beside the card: networks that its own training made."""

    filename: str = ""
    sha256: str = ""
    bytes: Bytes = 0


Source = Wheel | NpmPackage | Download | MirrorOnly | Packaged


class TensorCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One named array of a network; -1 in `shape` is any number. origin: its name in a .tflite file, which is transcribed."""

    shape: Annotated[tuple[Annotated[int, Meta(ge=-1)], ...], Meta(min_length=1)]
    dtype: Dtype
    meaning: str = ""
    origin: str = ""


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a picture becomes the network's input: (v - mean) / std of the colours 0..255, in the network's own order of colours.

    size: width, height. fit: `crop`, a square turned so that the person stands upright in it and centred on the hips; `affine`, an upright
    box around the person with the shape of the input; `letterbox`, the whole picture. padding: how much larger than the body the region is.
    A .tflite network is transcribed with mean and std inside, so that it takes uint8.
    """

    size: tuple[Pixels, Pixels]
    colour: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nhwc", "nchw"] = "nhwc"
    dtype: Literal["uint8", "float32", "int32"] = "uint8"
    mean: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0)
    std: tuple[Finite, Finite, Finite] = (1.0, 1.0, 1.0)
    fit: Literal["crop", "affine", "letterbox"] = "crop"
    padding: Annotated[float, Meta(ge=0.5, le=4)] = 1.15

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one item."""
        width, height = self.size
        return (height, width, 3) if self.layout == "nhwc" else (3, height, width)


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a precision may move key points: in pixels of the crop; of a network for joints in a cube in millimetres, in a cube of 2.5 m."""

    median_px: Positive | None = None
    p95_px: Positive | None = None
    median_mm: Positive | None = None
    p95_mm: Positive | None = None

    def limits(self, unit: Literal["px", "mm"]) -> tuple[float, float]:
        """Median and p95, in a unit that they are given in (`Entry` is refused with others)."""
        median, p95 = (self.median_px, self.p95_px) if unit == "px" else (self.median_mm, self.p95_mm)
        assert median is not None
        assert p95 is not None
        return median, p95


class Bf16(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a network stays float32 when it is run in bf16. fp32_layers: its layers with weights, counted from 0 in the order of the file."""

    fp32_layers: tuple[Annotated[int, Meta(ge=0)], ...]


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


class DecoderTable(dict[str, Any]):
    """The table `[x.decoder]` of a network. where: the card's file, for messages about what the decoder finds wrong with it."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        super().__init__(table)
        self.where = where


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
            entry = convert(table, Entry, f"{group}.{name}", where=where)
            _must_be_whole(entry, f"{where} [{group}.{name}]")
            found[f"{group}.{name}"] = msgspec.structs.replace(entry, decoder=DecoderTable(entry.decoder, where))
    return found


def convert(table: Any, kind: Any, name: str, *, where: str) -> Any:
    """A table of a card as a struct; PullError with the key, its value, and the nearest key or word for one that it cannot have."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as e:
        what, hint = _explained(str(e), kind, table)
        raise PullError(f"not a card: [{name}] {what}", where=where, hint=hint) from None


def _explained(error: str, kind: Any, table: Any) -> tuple[str, str]:
    """What msgspec says of a table, with the value that it says it of, and what to write instead."""
    says, _, path = error.partition(" - at `$")
    key, value, words = _fault(re.findall(r"\.\.\.|[^.\[\]`]+", path), inspect.type_info(kind), table)
    if unknown := re.search(r"unknown field `([^`]*)`", says):
        return error, did_you_mean(unknown.group(1), words)
    if says.startswith("Invalid") and words:
        return f"{key} cannot be {value!r}", did_you_mean(str(value), words)
    hint = "docs/models.md shows a complete card"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{key} is {value}: Expected a finite number", hint
    return (f"{key} is {_short(value)}: {says}" if key and says.startswith("Expected") else error), hint


def _fault(path: list[str], at: inspect.Type, value: Any) -> tuple[str, Any, list[str]]:
    """The key that a path of msgspec's leads to, its value, and the words (values, or keys of a table) that are valid there."""
    key, words = "", _words(at, value)
    for step in path:
        one = _alternative(at, value)
        if isinstance(one, inspect.StructType) and step == one.tag_field:
            kinds = at.types if isinstance(at, inspect.UnionType) else (one,)
            return f"{key}.{step}".lstrip("."), value[step], [str(k.tag) for k in kinds if isinstance(k, inspect.StructType)]
        if isinstance(one, inspect.StructType):
            at, name = next(f.type for f in one.fields if f.encode_name == step), step
        elif isinstance(one, inspect.DictType):  # msgspec says "..." for the key of a table that may have any
            at, name = one.value_type, next(k for k, v in value.items() if not _agrees(v, one.value_type))
        else:
            assert isinstance(one, inspect.TupleType | inspect.VarTupleType)
            index = int(step)
            at = one.item_types[index] if isinstance(one, inspect.TupleType) else one.item_type
            key, value = f"{key}[{index}]", value[index]
            words = _words(at, value)
            continue
        key, value = f"{key}.{name}".lstrip("."), value[name]
        words = _words(at, value)
    return key, value, words


def _alternative(at: inspect.Type, value: Any) -> inspect.Type:
    """What a value was taken for where it may be one of several: nothing, or tables told apart by their kind."""
    if not isinstance(at, inspect.UnionType):
        return at
    kinds = [k for k in at.types if not isinstance(k, inspect.NoneType)]
    named = value.get("kind") if isinstance(value, dict) else None
    return next((k for k in kinds if isinstance(k, inspect.StructType) and k.tag == named), kinds[0])


def _words(at: inspect.Type, value: Any) -> list[str]:
    one = _alternative(at, value)
    if isinstance(one, inspect.StructType):
        return [f.encode_name for f in one.fields]
    return [str(v) for v in one.values] if isinstance(one, inspect.LiteralType) else []


def _agrees(value: Any, at: inspect.Type) -> bool:
    try:
        msgspec.convert(value, at.cls if isinstance(at, inspect.StructType) else str)
    except msgspec.ValidationError:
        return False
    return True


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _must_be_whole(entry: Entry, where: str) -> None:
    """Refuse what no table says alone."""
    if entry.source is not None and not entry.not_run:
        for file in (f for f in entry.files if not f.sha256):
            hint = 'add its sha256 and bytes, or not_run = "weights not run here"'
            raise PullError(f"the file {file.name!r} has no sha256", where=where, hint=hint)
    if (limits := entry.tolerance) is not None:
        unit: Literal["px", "mm"] = "mm" if entry.decoder.get("kind") == "volume" else "px"
        wanted = [f"median_{unit}", f"p95_{unit}"]
        if (given := [f for f in limits.__struct_fields__ if getattr(limits, f) is not None]) != wanted:
            hint = "pixels of the crop; of a network with the decoder volume millimetres, in a cube of 2.5 m"
            raise PullError(
                f"[tolerance] gives {' and '.join(given) or 'nothing'}, wanted are {' and '.join(wanted)}", where=where, hint=hint
            )
        median, p95 = limits.limits(unit)
        if p95 < median:
            what = f"[tolerance] has p95_{unit} = {p95:g} below median_{unit} = {median:g}"
            raise PullError(what, where=where, hint="95 % of the key points move by less than p95, half of them by less than the median")
    for name, tensor in (*entry.inputs.items(), *entry.outputs.items()):
        if 0 in tensor.shape:
            raise PullError(f"the shape of {name!r} is {list(tensor.shape)}", where=where, hint="write -1 for any number")
    if entry.preprocess is None:
        return
    p = entry.preprocess
    if min(p.std) <= 0 or any(n % 2 for n in p.size):
        raise PullError(
            f"size {list(p.size)} and std {list(p.std)} cannot be", where=where, hint="an even width and height, and std above 0"
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
