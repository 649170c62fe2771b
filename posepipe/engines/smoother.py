"""Networks that smooth people over time: one step for everybody at once, what they remember goes in and comes out.

A card says which: inputs `state` [N,M], `window` [N,9,17,5] (x, y, z in metres, sigma_m, conf; conf 0: not seen) and `after_s` [N,9], outputs `joints`
[N,17,3], `spread` [N,17] (one standard deviation in each axis, metres), `pose` [N,24,6], `shape` [N,16], `root` [N,3] and `state_after` [N,M], skeleton
coco17. There is no table `[decoder]`. A state of zeros is a person who begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..pipeline.errors import EngineError, did_you_mean
from ..pipeline.skeleton import COCO17
from .assets import Asset, catalogue, find
from .engine import Contract, EngineOptions, fits, open_small

F32 = NDArray[np.float32]
WINDOW, JOINTS, BONES, SHAPES = 9, len(COCO17.joints), 24, 16
_INPUTS = {"state": (-1, -1), "window": (-1, WINDOW, JOINTS, 5), "after_s": (-1, WINDOW)}
_OUTPUTS = {
    "joints": (-1, JOINTS, 3),
    "spread": (-1, JOINTS),
    "pose": (-1, BONES, 6),
    "shape": (-1, SHAPES),
    "root": (-1, 3),
    "state_after": (-1, -1),
}


@dataclass(frozen=True, slots=True)
class Step:
    """What one step says of N people. joints [N,17,3] and root [N,3]: metres, world; spread [N,17]; pose [N,24,6]: as `Bodies.pose`; shape [N,16];
    state [N,M]: what it remembers of them now."""

    joints: F32
    spread: F32
    pose: F32
    shape: F32
    root: F32
    state: F32


def smoother_card(name: str) -> Asset:
    """The card of a network that smooths, by name or path. EngineError for a network of another kind; PullError."""
    fit = [n for n, a in catalogue().items() if n.startswith("vibe.") and "window" in a.inputs]
    if not name.endswith(".toml") and name not in fit:
        raise EngineError(f"there is no network {name!r} that smooths people", hint=did_you_mean(name, fit))
    card = find(name)
    inputs, outputs = ({n: t.shape for n, t in table.items()} for table in (card.inputs, card.outputs))
    good = all(
        have.keys() == want.keys() and all(fits(have[n], want[n]) for n in want) for have, want in ((inputs, _INPUTS), (outputs, _OUTPUTS))
    )
    if not good or inputs["state"] != outputs["state_after"] or card.skeleton != COCO17.name:
        given = _said({**inputs, **outputs}) or "nothing"
        what = f"the card has {given} for {card.skeleton or 'no skeleton'}; wanted are {_said(_INPUTS)}, and out of it {_said(_OUTPUTS)} for coco17"
        raise EngineError(what, where=name, hint="train one with `posepipe train vibe` (docs/vibe.md), and correct the card")
    return card


def _said(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return "; ".join(f"{n} {list(s)}" for n, s in shapes.items())


def smoother_file(name: str) -> Mapping[str, Path]:
    """The ONNX file that `SmootherNetwork` opens, by name, for `posepipe build`. PullError when it is not here."""
    return {name: _file(smoother_card(name))}


class SmootherNetwork:
    """An opened network. Not for several threads at once. engine: what runs it. memory: numbers of one person's state."""

    def __init__(self, name: str, options: EngineOptions, *, batch: int = 1) -> None:
        """Open a network by the name or path of its card and run it once for every number of people up to `batch`. It runs in float32, since what it
        gives goes into it again, and also where the studio's networks are stubs. Raises PullError when it is not here, EngineError when
        it cannot be run or is of another shape."""
        card = smoother_card(name)
        self._name = name
        self.engine = open_small(_file(card), options, contract=Contract.of(card.inputs, card.outputs))
        self.memory = next(s.shape[1] for s in self.engine.inputs if s.name == "state")
        if self.memory < 1:
            self.engine.close()
            raise EngineError(
                "the network's input `state` is of any size, so nobody knows how much it remembers",
                where=name,
                hint="export it with a fixed second dimension of `state`",
            )
        for people in range(1, batch + 1):
            self(np.zeros((people, self.memory), np.float32), *self.nothing(people))

    @staticmethod
    def nothing(people: int) -> tuple[F32, F32]:
        """A window [N,9,17,5] in which nobody is seen, and its times [N,9]: to be filled."""
        return np.zeros((people, WINDOW, JOINTS, 5), np.float32), np.zeros((people, WINDOW), np.float32)

    def __call__(self, state: F32, window: F32, after_s: F32) -> Step:
        """One step of N people, in arrays of their own. state [N,M]: zeros for a person who begins. window [N,9,17,5]: the instant that is answered, then
        later ones. after_s [N,9]: seconds from the instant answered last to each of them, 0 where there is none. EngineError where it gives NaN."""
        given = {"state": state, "window": window, "after_s": after_s}
        found = self.engine({n: np.ascontiguousarray(a, np.float32) for n, a in given.items()})
        arrays = [np.array(found[n], np.float32) for n in _OUTPUTS]
        if not all(np.isfinite(a).all() for a in arrays):
            raise EngineError("the network gives numbers that are not finite", where=self._name, hint="train it again, or take another")
        return Step(*arrays)

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def _file(card: Asset) -> Path:
    if not card.files:
        raise EngineError("the card names no file", where=card.name, hint="docs/models.md shows a complete card")
    return card.path(card.files[0].name)
