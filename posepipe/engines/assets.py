"""Cards of what posepipe fetches (networks and recordings), and where it is kept on this machine.

A card is a TOML file beside the code that uses it. It names the wheel that carries the files (package, version, file name, size,
SHA-256), and for each file its path in the wheel, its local name, its size and its SHA-256. `posepipe.engines.pull` fetches.
"""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from ..pipeline.errors import PullError, did_you_mean

PULL = "pull:"
T = TypeVar("T")


class Wheel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One exact wheel of a package index, or the archive (.tgz) of an npm package."""

    package: str
    version: str
    filename: str
    sha256: str
    bytes: int
    registry: Literal["pypi", "npm"] = "pypi"


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of an asset: `member` is its path in the wheel, `name` the one it has here."""

    name: str
    member: str
    sha256: str
    bytes: int


class TensorCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One named array of a network; -1 in `shape` is the batch."""

    shape: tuple[int, ...]
    dtype: str
    meaning: str = ""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["model", "recording"]
    summary: str
    licence: str
    files: tuple[Member, ...]
    skeleton: str = ""
    inputs: dict[str, TensorCard] = {}
    outputs: dict[str, TensorCard] = {}
    measured: dict[str, str] = {}


def home() -> Path:
    """The cache folder: `$POSEPIPE_HOME`, else `$XDG_CACHE_HOME/posepipe`, else `~/.cache/posepipe`."""
    if own := os.environ.get("POSEPIPE_HOME"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "posepipe"
    return Path.home() / ".cache" / "posepipe"


@dataclass(frozen=True, slots=True)
class Asset:
    """A network or a recording that can be fetched by its name.

    inputs, outputs: the contract of a network (empty for a recording). measured: accuracy and latency, in words.
    """

    name: str
    kind: Literal["model", "recording"]
    summary: str
    licence: str
    wheel: Wheel
    files: tuple[Member, ...]
    skeleton: str
    inputs: Mapping[str, TensorCard]
    outputs: Mapping[str, TensorCard]
    measured: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """Where its files are, or will be."""
        return home() / "assets" / self.name

    @property
    def size_bytes(self) -> int:
        """Disk space that its files take."""
        return sum(f.bytes for f in self.files)

    def missing(self) -> tuple[Member, ...]:
        """The files that are not here with the size that the card names. Sums are checked when they are fetched."""
        return tuple(f for f in self.files if not _has_size(self.folder / f.name, f.bytes))

    def present(self) -> bool:
        """True when every file is here."""
        return not self.missing()

    def path(self, name: str = "") -> Path:
        """The path of one file (or of the folder, or of the only file), which must be here.

        Raises PullError for a name that the asset does not have and for one that is not on this machine yet.
        """
        names = [f.name for f in self.files]
        if name and name not in names:
            raise PullError(f"{self.name!r} has no file {name!r}", hint=did_you_mean(name, names))
        if self.missing():
            hint = f"run `posepipe pull {self.name}` ({self.wheel.bytes / 1e6:.0f} MB download)"
            raise PullError(f"{self.name!r} is not on this machine", where=str(self.folder), hint=hint)
        return self.folder / name if name else self.folder


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _cards() -> Iterator[Traversable]:
    here = resources.files(__package__)
    for card in (here / "recordings").iterdir():
        if card.name.endswith(".toml"):
            yield card
    for folder in (here / "models").iterdir():
        if folder.is_dir() and (card := folder / "card.toml").is_file():
            yield card


def read_card(text: str, *, where: str) -> dict[str, Asset]:
    """The assets of one card.

    The table `[wheel]` is shared by all; every other `[group.name]` is an asset. Raises PullError for a card that is not one.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(text)
        wheel = _convert(tables.pop("wheel", {}), Wheel, "wheel")
        groups = {group: _convert(part, dict[str, Any], group) for group, part in tables.items()}
        found = {f"{g}.{n}": _convert(table, _Entry, f"{g}.{n}") for g, part in groups.items() for n, table in part.items()}
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as e:
        raise PullError(f"not a card: {e}", where=where, hint="reinstall posepipe, or compare the file with another card.toml") from e
    return {
        name: Asset(name, e.kind, e.summary, e.licence, wheel, e.files, e.skeleton, e.inputs, e.outputs, e.measured)
        for name, e in found.items()
    }


def _convert(table: Any, kind: type[T], name: str) -> T:
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as e:
        raise msgspec.ValidationError(f"[{name}] {e}") from e


@functools.cache
def catalogue() -> Mapping[str, Asset]:
    """Everything that `posepipe pull` knows, by name."""
    found: dict[str, Asset] = {}
    for card in _cards():
        found |= read_card(card.read_text(encoding="utf-8"), where=str(card))
    return dict(sorted(found.items()))


def asset(name: str) -> Asset:
    """The asset of that name; PullError with the nearest name when there is none."""
    try:
        return catalogue()[name]
    except KeyError:
        raise PullError(f"nothing is called {name!r} here", hint=did_you_mean(name, catalogue())) from None


def resolve(text: str) -> Path:
    """A path of a studio file as a real one: `pull:NAME/FILE` (or `pull:NAME`, its folder) -> the fetched file; others as they are.

    Raises PullError for an unknown name or file, and when it has not been fetched.
    """
    if not text.startswith(PULL):
        return Path(text)
    name, _, file = text.removeprefix(PULL).partition("/")
    return asset(name).path(file)
