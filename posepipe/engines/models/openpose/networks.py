"""Part affinity networks by name: those with a card, those that were imported on this machine, a user's own card, and a stub."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....pipeline.errors import EngineError, PullError, did_you_mean
from ....pipeline.skeleton import skeleton
from ...assets import Asset, catalogue, home, user_card
from ...card import Preprocess
from ...convert import damaged
from ...crop import Pixels
from ...decoders import decoder_options
from ...decoders.paf import Options
from ...engine import Contract, Engine, EngineOptions, TensorSpec, open_engine
from ...files import cannot_keep, write_whole
from .export import fix, fixed_size, load
from .layout import COCO18, Parts, parts_of
from .paint import paint, upright
from .plan import PICTURE

STUB = "stub"
KIND = "paf"
NETWORK_FILE, CARD_FILE = "network.onnx", "card.toml"
VERSION = 1
"""Counts changes of what is written for one size of picture, so that files of an older posepipe are not used."""


@dataclass(frozen=True, slots=True)
class PafNetwork:
    """A part affinity network. picture: its input; heatmaps, fields: its outputs. short_px: the shorter side of the pictures that it was
    trained for."""

    name: str
    parts: Parts
    preprocess: Preprocess
    decoder: Options
    picture: str
    card: Asset | None

    @property
    def short_px(self) -> int:
        return min(self.preprocess.size)

    @property
    def pixels(self) -> Pixels:
        """How a picture is written for it."""
        p = self.preprocess
        return Pixels(p.colour == "bgr", p.layout == "nchw", p.mean, p.std)


def imported_folder(name: str) -> Path:
    """Where an imported network is, or will be."""
    return home() / "imported" / name


def imported() -> tuple[str, ...]:
    """The names of the part affinity networks that were imported on this machine."""
    return tuple(sorted(card.parent.name for card in (home() / "imported").glob(f"*/{CARD_FILE}") if _may_be_paf(card)))


def _may_be_paf(card: Path) -> bool:
    """Other networks are imported too. A card that cannot be read is named, so that `find` says what is wrong with it."""
    try:
        return _is_paf(user_card(card).decoder)
    except PullError:
        return True


def known() -> tuple[str, ...]:
    """Every name that `find` takes."""
    return (*(name for name, one in catalogue().items() if _is_paf(one.decoder)), *imported(), STUB)


def find(name: str) -> PafNetwork:
    """The network of that name (of a card, of one that was imported, `stub`), or of a user's card by its path.

    Raises EngineError with what to do when there is none, PullError for a card that is not one.
    """
    if name == STUB:
        return PafNetwork(name, COCO18, Preprocess((456, 256), "bgr", "nchw", "float32"), Options(), PICTURE, None)
    if name.endswith(".toml"):
        return _of_card(name, user_card(Path(name)))
    if name in catalogue() and _is_paf(catalogue()[name].decoder):
        return _of_card(name, catalogue()[name])
    if name in imported():
        return _of_card(name, user_card(imported_folder(name) / CARD_FILE))
    hint = did_you_mean(name, known())
    if name.startswith("openpose."):
        hint = f"CMU's networks are imported: `posepipe import openpose FILE.caffemodel` (docs/openpose.md); here are {', '.join(known())}"
    raise EngineError(f"there is no part affinity network {name!r} on this machine", hint=hint)


def _is_paf(decoder: Mapping[str, Any]) -> bool:
    return decoder.get("kind") == KIND


def _of_card(name: str, card: Asset) -> PafNetwork:
    where = f"the card of {card.name}"
    if not _is_paf(card.decoder):
        raise EngineError(f"{card.name!r} has no part affinity fields", where=where, hint='its card would say decoder = {kind = "paf"}')
    _, decoder = decoder_options(card)
    p = card.preprocess
    if p is None or p.layout != "nchw" or p.dtype != "float32":
        hint = 'preprocess = {size = [W, H], layout = "nchw", dtype = "float32", fit = "letterbox", ...}'
        raise EngineError("a part affinity network takes float32 pictures, channels first", where=where, hint=hint)
    return PafNetwork(name, parts_of(card.skeleton), p, decoder, next(iter(card.inputs)), card)


def open_network(network: PafNetwork, options: EngineOptions, *, width: int, height: int) -> Engine:
    """Open it for pictures of one size (multiples of its stride). The file for that size is made again when it is damaged.

    Raises PullError when it was not fetched, EngineError when it cannot be run.
    """
    parts, d = network.parts, network.decoder
    if network.card is None:
        options = EngineOptions(runtime="stub")
    rows, columns = height // d.stride, width // d.stride
    f32 = np.dtype(np.float32)
    contract = Contract(
        (TensorSpec(network.picture, (-1, 3, height, width), f32),),
        (
            TensorSpec(d.heatmaps, (-1, parts.count + 1, rows, columns), f32),
            TensorSpec(d.fields, (-1, 2 * len(parts.limbs), rows, columns), f32),
        ),
    )
    if options.runtime == STUB or network.card is None:
        heat, fields = paint(parts, upright(skeleton(parts.skeleton).joints, rows=rows, columns=columns), rows=rows, columns=columns)
        return open_engine(Path(), options, contract=contract, answers={d.heatmaps: heat, d.fields: fields})
    path = sized(network, network.card, width=width, height=height)
    try:
        return open_engine(path, options, contract=contract)
    except EngineError:
        if path.parent != home() / "onnx" or not damaged(path):
            raise
    path.unlink(missing_ok=True)
    return open_engine(sized(network, network.card, width=width, height=height), options, contract=contract)


def sized(network: PafNetwork, card: Asset, *, width: int, height: int) -> Path:
    """The network's file for pictures of one size, made once and kept. PullError when it was not fetched, EngineError."""
    file = card.files[0]
    path = card.path(file.name)
    sha256 = file.sha256 or hashlib.sha256(_content(path)).hexdigest()
    kept = home() / "onnx" / f"{sha256[:16]}-paf-{width}x{height}-v{VERSION}.onnx"
    if kept.is_file():
        return kept
    content = _content(path)
    if file.sha256 and hashlib.sha256(content).hexdigest() not in (file.sha256, *file.also):
        hint = "import the network again" if card.beside else f"`posepipe pull {card.name}` fetches it again"
        raise EngineError("the file is damaged: its sha256 is not the card's", where=str(path), hint=hint)
    model = load(content, where=str(path))
    if (only := fixed_size(model)) is not None:
        if only != (width, height):
            what = f"the network takes pictures of {only[0]} x {only[1]} only, wanted were {width} x {height}"
            raise EngineError(what, where=str(path), hint="leave short_px out, and correct size in the card's [preprocess]")
        return path
    fix(model, width=width, height=height, stride=network.decoder.stride)
    try:
        write_whole(kept, model.SerializeToString())
    except OSError as e:
        raise cannot_keep("the network", kept.parent, e) from e
    return kept


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise EngineError(f"cannot read the network: {e.strerror or e}", where=str(path), hint="pull or import it again") from e
