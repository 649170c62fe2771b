"""What posepipe fetches (networks and recordings), as its cards name it, and where it is kept on this machine.

A card (`posepipe.engines.card`) is a TOML file beside the code that uses it, or a user's own beside the studio file.
`posepipe.engines.pull` fetches.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from ..pipeline.errors import PullError, did_you_mean
from .card import Bf16, Download, Member, MirrorOnly, NpmPackage, Packaged, Preprocess, Source, TensorCard, Tolerance, Wheel, read_entries

__all__ = [
    "PULL",
    "Asset",
    "Download",
    "Member",
    "MirrorOnly",
    "NpmPackage",
    "Packaged",
    "Source",
    "TensorCard",
    "Wheel",
    "asset",
    "catalogue",
    "find",
    "home",
    "read_card",
    "resolve",
    "user_card",
]

PULL = "pull:"
_BESIDE = MirrorOnly("beside the card")


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

    inputs, outputs: the contract of a network (empty for a recording). labels: what it tells apart. measured: accuracy and latency, in words. decoder: the table
    `[x.decoder]`. detector: what finds people for it. not_run: why it was not run for this release. beside: the folder of a user's card.
    """

    name: str
    kind: Literal["model", "recording"]
    summary: str
    licence: str
    source: Source
    files: tuple[Member, ...]
    skeleton: str
    inputs: Mapping[str, TensorCard]
    outputs: Mapping[str, TensorCard]
    measured: Mapping[str, str]
    preprocess: Preprocess | None = None
    decoder: Mapping[str, Any] = field(default_factory=dict)
    tolerance: Tolerance | None = None
    detector: str = ""
    not_run: str = ""
    beside: Path | None = None
    labels: tuple[str, ...] = ()
    bf16: Bf16 | None = None

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of its inputs, as it is run; a picture is as large as [preprocess] makes it, also where the card leaves that open. -1: any."""
        found = {name: tensor.shape for name, tensor in self.inputs.items()}
        if self.preprocess is not None:
            found = {name: (*shape[:1], *self.preprocess.shape) for name, shape in found.items()}
        return found

    @property
    def folder(self) -> Path:
        """Where its files are, or will be."""
        return self.beside if self.beside is not None else home() / "assets" / self.name

    @property
    def download_bytes(self) -> int:
        """What fetching it moves; 0 where the card does not know."""
        return self.source.bytes or self.size_bytes

    @property
    def download(self) -> str:
        """The same in words."""
        if isinstance(self.source, Packaged):
            return "nothing, it comes with posepipe"
        size = f"{self.download_bytes / 1e6:.0f} MB" if self.download_bytes else "a file of unknown size"
        return f"{size} from a mirror folder (POSEPIPE_MIRROR)" if isinstance(self.source, MirrorOnly) else size

    @property
    def size_bytes(self) -> int:
        """Disk space that its files take."""
        return sum(f.bytes for f in self.files)

    def missing(self) -> tuple[Member, ...]:
        """The files that are not here with the size that the card names. Sums are checked when they are fetched."""
        return tuple(f for f in self.files if not _is_here(self.folder / f.name, f))

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
        if missing := self.missing():
            if isinstance(self.source, Packaged):
                what = f"posepipe's own file {missing[0].name!r} is missing or of another size"
                raise PullError(what, where=str(self.folder), hint="reinstall posepipe")
            if self.beside is not None:
                raise PullError(
                    f"the card names {missing[0].name!r}, which is not beside it",
                    where=str(self.folder / missing[0].name),
                    hint="put it there",
                )
            hint = f"run `posepipe pull {self.name}` ({self.download})"
            raise PullError(f"{self.name!r} is not on this machine", where=str(self.folder), hint=hint)
        return self.folder / name if name else self.folder


def _is_here(path: Path, file: Member) -> bool:
    try:
        size = path.stat().st_size
    except OSError:
        return False
    return size == file.bytes if file.bytes and not file.also else size > 0


def _cards() -> Iterator[Traversable]:
    here = resources.files(__package__)
    for card in (here / "recordings").iterdir():
        if card.name.endswith(".toml"):
            yield card
    for folder in (here / "models").iterdir():
        if folder.is_dir() and (card := folder / "card.toml").is_file():
            yield card


def read_card(text: str, *, where: str, beside: Path | None = None) -> dict[str, Asset]:
    """The assets of one card. beside: the folder of a user's own card, whose files lie there and which needs no source.

    Raises PullError for a card that is not one.
    """
    found = {}
    for name, e in read_entries(text, where=where).items():
        if e.source is None and beside is None:
            raise PullError(f"[{name}] has no source", where=where, hint="add the table [source], see docs/models.md")
        tables = (e.files, e.skeleton, e.inputs, e.outputs, e.measured, e.preprocess, e.decoder, e.tolerance, e.detector, e.not_run)
        folder = Path(where).parent if beside is None and isinstance(e.source, Packaged) else beside
        found[name] = Asset(name, e.kind, e.summary, e.licence, e.source or _BESIDE, *tables, beside=folder, labels=e.labels, bf16=e.bf16)
    return found


def user_card(path: Path) -> Asset:
    """The one network of a user's own card; its files lie beside it. PullError for what is not a card with one network."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        hint = "the path of a card is relative to the studio file"
        raise PullError(f"the card cannot be read: {e}", where=str(path), hint=hint) from e
    found = read_card(text, where=str(path), beside=path.parent)
    if len(found) != 1 or (one := next(iter(found.values()))).kind != "model":
        raise PullError(f"a card of one's own describes one network, this one {len(found)}: {', '.join(found)}", where=str(path))
    return one


def find(name: str) -> Asset:
    """A network by its name, or by the path of a user's card (`my_net/card.toml`). PullError."""
    return user_card(Path(name)) if name.endswith(".toml") else asset(name)


def imported_card(name: str) -> Path | None:
    """The card of a network that was imported on this machine under that name, such as `triangulation.paper-algebraic`; None without one."""
    if "/" in name or "\\" in name or name.endswith(".toml"):
        return None
    card = home() / "imported" / name / "card.toml"
    return card if name and card.is_file() else None


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
