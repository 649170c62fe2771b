"""Networks that lift one view of a person into three dimensions.

A card says which: one input `view` [N,54] as `posepipe.calib.single.looks` makes it, outputs `xyz` [N,17,3] (metres from the middle of the hips, in the
view's axes) and `spread` [N,17] (one standard deviation in each axis, metres), skeleton coco17. There is no table `[decoder]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..pipeline.errors import EngineError, did_you_mean
from ..pipeline.skeleton import COCO17
from .assets import Asset, catalogue, find
from .engine import Contract, EngineOptions, open_small

F32 = NDArray[np.float32]
INPUTS = 54
_JOINTS = len(COCO17.joints)


def lifter_card(name: str) -> Asset:
    """The card of a lifter, by name or path. EngineError for a network of another kind; PullError."""
    fit = [n for n, a in catalogue().items() if n.startswith("lifter.")]
    if not name.endswith(".toml") and name not in fit:
        raise EngineError(f"there is no network {name!r} that lifts one view", hint=did_you_mean(name, fit))
    card = find(name)
    inputs, outputs = [t.shape for t in card.inputs.values()], {n: t.shape for n, t in card.outputs.items()}
    good = inputs == [(-1, INPUTS)] and outputs == {"xyz": (-1, _JOINTS, 3), "spread": (-1, _JOINTS)}
    if not good or card.skeleton != COCO17.name:
        given = "; ".join(f"{n} {list(t.shape)}" for n, t in {**card.inputs, **card.outputs}.items()) or "nothing"
        what = f"the card has {given} for {card.skeleton or 'no skeleton'}; wanted are one input [-1, {INPUTS}], xyz [-1, 17, 3] and spread [-1, 17] for coco17"
        raise EngineError(what, where=name, hint="train one with `posepipe train lifter` (docs/lifter.md), and correct the card")
    return card


def lifter_file(name: str) -> Mapping[str, Path]:
    """The ONNX file that `LifterNetwork` opens, by name, for `posepipe build`. PullError when it is not here."""
    return {name: _file(lifter_card(name))}


class LifterNetwork:
    """An opened lifter. Not for several threads at once. engine: what runs it."""

    def __init__(self, name: str, options: EngineOptions, *, batch: int = 1) -> None:
        """Open a network by the name or path of its card and run it once for every batch size up to `batch`. It runs in float32, and also where
        the studio's networks are stubs. Raises PullError when it is not here, EngineError when it cannot be run or is of another shape."""
        card = lifter_card(name)
        self._name = name
        self.engine = open_small(_file(card), options, contract=Contract.of(card.inputs, card.outputs))
        (self._input,) = card.inputs
        for people in range(1, batch + 1):
            self(np.zeros((people, INPUTS), np.float32))

    def __call__(self, view: F32) -> tuple[F32, F32]:
        """Positions [N,17,3] and spread [N,17] of views [N,54]. EngineError where the network gives NaN."""
        found = self.engine({self._input: np.ascontiguousarray(view, np.float32)})
        xyz, spread = np.asarray(found["xyz"], np.float32), np.asarray(found["spread"], np.float32)
        if not (np.isfinite(xyz).all() and np.isfinite(spread).all()):
            raise EngineError("the network gives numbers that are not finite", where=self._name, hint="train it again, or take another")
        return xyz, spread

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def _file(card: Asset) -> Path:
    if not card.files:
        raise EngineError("the card names no file", where=card.name, hint="docs/models.md shows a complete card")
    return card.path(card.files[0].name)
