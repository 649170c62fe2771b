"""Published checkpoints of learnable triangulation (`weights.pth`): which network they are of, and that network with its weights.

Files are torch's, of a whole state dictionary with the prefix `module.`. No weights are here: the user brings them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from ....pipeline.errors import EngineError
from ..official import SHOWN, fill, plain, trained
from .geometry import Aggregation
from .net import Algebraic, Volumetric
from .resnet import BLOCKS

Kind = Literal["algebraic", "volumetric"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Found:
    """What a checkpoint is of, as its keys say."""

    kind: Kind
    depth: int
    confidences: Literal["", "algebraic", "volumetric"]
    numbers: int


def look(state: Mapping[str, Tensor], *, where: str) -> Found:
    """What network a checkpoint is of. EngineError for one that is of another."""
    keys = plain(state)
    if "backbone.conv1.weight" not in keys or not any(key.startswith("backbone.layer3.") for key in keys):
        first = ", ".join(list(keys)[:SHOWN])
        what = f"these are the weights of another network: it begins with {first}"
        if "conv1.weight" in keys and "final_layer.weight" in keys:
            what = "this is the 2D network alone, which the others were begun with"
        raise EngineError(what, where=where, hint="take the weights.pth of the algebraic or of the volumetric network")
    blocks = 1 + max(int(key.split(".")[2]) for key in keys if key.startswith("backbone.layer3."))
    depth = next((d for d, stages in BLOCKS.items() if stages[2] == blocks), 0)
    if not depth:
        what = f"its backbone has {blocks} blocks in layer3, posepipe knows {', '.join(f'{s[2]} (ResNet-{d})' for d, s in BLOCKS.items())}"
        raise EngineError(what, where=where, hint="the published networks have a ResNet-152")
    volumetric = any(key.startswith(("volume_net.", "process_features.")) for key in keys)
    heads = {"algebraic": "backbone.alg_confidences.", "volumetric": "backbone.vol_confidences."}
    head = next((name for name, start in heads.items() if any(key.startswith(start) for key in keys)), "")
    return Found("volumetric" if volumetric else "algebraic", depth, head, trained(keys))  # type: ignore[arg-type]


def algebraic(state: Mapping[str, Tensor], *, where: str) -> Algebraic:
    """The algebraic network with the weights of its checkpoint, ready to run. EngineError as of `look` and `fill`."""
    found = look(state, where=where)
    if found.kind != "algebraic":
        raise EngineError("these are the weights of the volumetric network", where=where, hint="write --kind volumetric")
    return fill(Algebraic(found.depth, confidences=found.confidences == "algebraic"), state, where=where).eval()


def volumetric(state: Mapping[str, Tensor], *, how: Aggregation | None = None, where: str) -> Volumetric:
    """The volumetric network with the weights of its checkpoint, ready to run. how: it was trained; which of `sum`, `max` and `softmax`, or of `conf` and
    `conf_norm` is not in the file (None: softmax or conf). EngineError as of `look` and `fill`, and for one that cannot be."""
    found = look(state, where=where)
    if found.kind != "volumetric":
        raise EngineError("these are the weights of the algebraic network", where=where, hint="write --kind algebraic")
    learned = found.confidences == "volumetric"
    chosen: Aggregation = how or ("conf" if learned else "softmax")
    if chosen.startswith("conf") != learned:
        has = "a head for confidences" if learned else "no head for confidences"
        hint = f"write --aggregation {'conf or conf_norm' if learned else 'softmax, sum or max'}, as it was trained"
        raise EngineError(f"the checkpoint has {has}, which {chosen} does not go with", where=where, hint=hint)
    return fill(Volumetric(found.depth, how=chosen), state, where=where).eval()
