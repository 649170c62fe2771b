"""Networks that say what a person does.

A card says which: one input `clip` [N,24,13,7] as `posepipe.calib.action_window.inputs` makes it, one output `p` [N,L], probabilities, and `labels`, L names in
the order of the output. There is no table `[decoder]`, and no skeleton: the 13 joints are in every layout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..pipeline.errors import EngineError, did_you_mean
from .assets import Asset, catalogue, find
from .engine import Contract, EngineOptions, open_small

F32 = NDArray[np.float32]
CLIP = (24, 13, 7)
UNKNOWN = "unknown"
"""What no label may be: it stands for none of them."""
_OFF = 1e-2


def action_card(name: str) -> Asset:
    """The card of a network for actions, by name or path. EngineError for a network of another kind and for labels that are none; PullError."""
    fit = [n for n, a in catalogue().items() if a.labels]
    if not name.endswith(".toml") and name not in fit:
        raise EngineError(f"there is no network {name!r} for actions", hint=did_you_mean(name, fit))
    card = find(name)
    hint = "train one with `posepipe train action` (docs/actions.md), and take the card that it writes"
    if not card.labels:
        raise EngineError("the card has no labels", where=name, hint=hint)
    check_labels(card.labels, where=name)
    inputs, outputs = [t.shape for t in card.inputs.values()], [t.shape for t in card.outputs.values()]
    if inputs != [(-1, *CLIP)] or outputs != [(-1, len(card.labels))]:
        given = "; ".join(f"{n} {list(t.shape)}" for n, t in {**card.inputs, **card.outputs}.items()) or "nothing"
        what = f"the card has {given}; with {len(card.labels)} labels wanted are {[-1, *CLIP]} in and [-1, {len(card.labels)}] out"
        raise EngineError(what, where=name, hint=hint)
    return card


def check_labels(labels: Sequence[str], *, where: str) -> None:
    """EngineError for labels with which nothing can be told apart."""
    if len(labels) < 2:
        what = f"there is one label, {labels[0]!r}" if labels else "there are no labels"
        raise EngineError(f"{what}: nothing can be told apart", where=where, hint="at least two labels")
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise EngineError(f"the label {twice[0]!r} is there twice", where=where, hint="every label once")
    for label in labels:
        if not label.strip() or label == UNKNOWN:
            raise EngineError(
                f"{label!r} cannot be a label", where=where, hint=f"a name other than {UNKNOWN!r}, which stands for none of them"
            )


def action_file(name: str) -> Mapping[str, Path]:
    """The ONNX file that `ActionNetwork` opens, by name, for `posepipe build`. PullError when it is not here."""
    return {name: _file(action_card(name))}


class ActionNetwork:
    """An opened network for actions. Not for several threads at once. engine: what runs it. labels: of its answers."""

    def __init__(self, name: str, options: EngineOptions, *, batch: int = 1) -> None:
        """Open a network by the name or path of its card and run it once for every batch size up to `batch`. It runs in float32, and also where
        the studio's networks are stubs. Raises PullError when it is not here, EngineError when it cannot be run or is of another shape."""
        card = action_card(name)
        self._name, self.labels = name, card.labels
        self.engine = open_small(_file(card), options, contract=Contract.of(card.inputs, card.outputs))
        (self._input,), (self._output,) = card.inputs, card.outputs
        try:
            for people in range(1, batch + 1):
                self(np.zeros((people, *CLIP), np.float32))
        except BaseException:
            self.engine.close()  # nobody has it to close yet
            raise

    def __call__(self, clips: F32) -> F32:
        """Probabilities [N,L] of clips [N,24,13,7]. EngineError where the network gives what is none."""
        p = np.array(self.engine({self._input: np.ascontiguousarray(clips, np.float32)})[self._output], np.float32)
        if not (np.abs(p.sum(axis=1) - 1) < _OFF).all() or p.min(initial=0) < -_OFF:
            what = "the network's answers are no probabilities: they do not add up to 1"
            raise EngineError(what, where=self._name, hint="train it again, or export it with its softmax")
        return p

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def write_card(path: Path, *, name: str, summary: str, labels: Sequence[str], file: str, licence: str, measured: Mapping[str, str]) -> Path:
    """Write the card of a network that was trained here. name: with one dot. measured: what is known of it, in words by name."""
    said = "".join(f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in measured.items())
    listed = ", ".join(json.dumps(label, ensure_ascii=False) for label in labels)
    shape = ", ".join(map(str, CLIP))
    path.write_text(
        f"""# Written by `posepipe train action` (docs/actions.md).

[{name}]
kind = "model"
summary = {json.dumps(summary, ensure_ascii=False)}
licence = {json.dumps(licence, ensure_ascii=False)}
labels = [{listed}]

[[{name}.files]]
name = "{file}"

[{name}.inputs]
clip = {{shape = [-1, {shape}], dtype = "float32", meaning = "1.6 s of a skeleton at 15 Hz: posepipe.calib.action_window.inputs"}}

[{name}.outputs]
p = {{shape = [-1, {len(labels)}], dtype = "float32", meaning = "probability of every label"}}

[{name}.measured]
{said}""",
        encoding="utf-8",
    )
    return path


def _file(card: Asset) -> Path:
    if not card.files:
        raise EngineError("the card names no file", where=card.name, hint="docs/models.md shows a complete card")
    return card.path(card.files[0].name)
