"""Networks that are shipped (they have a card), as files that a plan can be made from, and what a plan of each must be."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from network_kit import ready_net, simcc_net

from posepipe.engines.assets import asset, catalogue
from posepipe.engines.card import MirrorOnly, Packaged
from posepipe.engines.engine import Contract, fits, must_agree
from posepipe.engines.network import onnx_of
from posepipe.engines.tensorrt_build import Described

rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed (pip install tensorrt-rtx-cu13, 95 MB to download)",
)

Shapes = dict[str, tuple[int, ...]]

OPEN: dict[str, Shapes] = {
    "triangulation.confidence": {"shapes": (-1, 4, 17, 14), "agreement": (-1, 4, 17, 19), "seen": (-1, 4, 17)},
}
"""What cards leave open beside the batch. A studio runs the confidences on the processor (`posepipe.engines.engine.open_small`)."""


def shipped() -> list[str]:
    """Every network with a card, also one that nobody added here."""
    return sorted(name for name, one in catalogue().items() if one.kind == "model")


def packaged() -> list[str]:
    """Those that come with posepipe itself."""
    return [name for name in shipped() if isinstance(asset(name).source, Packaged)]


def generated(name: str, folder: Path) -> Path:
    """A network of the card's signature in the folder, for one whose weights were not run."""
    card = asset(name)
    assert card.preprocess is not None, name
    wide, high = card.preprocess.size
    path = folder / card.files[0].name
    folder.mkdir(parents=True, exist_ok=True)
    if "labels" in card.outputs:
        return ready_net(path, (wide / 4, high / 4, wide / 2, high / 2), side=wide)
    return simcc_net(path, wide=wide, high=high)


def file_of(name: str, real: Path) -> Path:
    """The ONNX file of a shipped network, where the product looks for it: under $POSEPIPE_HOME, which is a folder of the caller's own.

    It comes with posepipe, or is linked from what was pulled on this machine (real: its cache folder) or from $POSEPIPE_MIRROR, or is
    generated where the card's weights were not run. FileNotFoundError, with the file's name and how to get it, where none is here.
    """
    card = asset(name)
    if card.not_run:
        generated(name, card.folder)
    elif not isinstance(card.source, Packaged):
        for file in card.files:
            places = [real / "assets" / name / file.name]
            if mirror := os.environ.get("POSEPIPE_MIRROR"):
                places.append(Path(mirror) / file.name)
            found = next((place for place in places if place.is_file()), None)
            if found is None:
                fetch = "POSEPIPE_MIRROR=FOLDER posepipe pull" if isinstance(card.source, MirrorOnly) else "posepipe pull"
                raise FileNotFoundError(f"{places[0]} is not here: {fetch} {name}")
            card.folder.mkdir(parents=True, exist_ok=True)
            (card.folder / file.name).symlink_to(found)
    return onnx_of(card)


def must_be_its_card(found: Described, name: str, *, most: int) -> None:
    """Names, number types and shapes are the card's; an open batch runs from 1 to `most`. A file may give more than its card reads."""
    card = asset(name)
    must_agree(found, Contract.of(card.inputs, card.outputs), name)
    assert {s.name for s in found.inputs} == set(card.inputs)
    profile = {}
    for spec in found.inputs:
        item = spec.shape[1:]
        assert fits(item, OPEN.get(name, card.input_shapes)[spec.name][1:]), spec.name
        assert min(item) > 0, spec.name
        if spec.shape[0] < 0:
            profile[spec.name] = ((1, *item), (min(4, most), *item), (most, *item))
    assert found.profile == profile
    batch = next(iter(card.inputs.values())).shape[0]
    assert {s.shape[0] for s in (*found.inputs, *found.outputs)} == {batch}
