"""Published checkpoints of learnable triangulation (`weights.pth`): read without running what is in them, compared key by key, loaded.

Files are torch's, of a whole state dictionary with the prefix `module.`. No weights are here: the user brings them.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from ....pipeline.errors import EngineError
from .geometry import Aggregation
from .net import Algebraic, Volumetric
from .resnet import BLOCKS

Kind = Literal["algebraic", "volumetric"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PREFIX = "module."
_SHOWN = 6
_COUNTED = ".num_batches_tracked"  # PyTorch 0.4 did not write it, and nothing depends on it once trained
Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Found:
    """What a checkpoint is of, as its keys say."""

    kind: Kind
    depth: int
    confidences: Literal["", "algebraic", "volumetric"]
    numbers: int


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by key, as they are in the file. Nothing in the file is run.

    Raises EngineError: no such file, not a checkpoint, one that ends in the middle, one with more than tensors in it.
    """
    where = str(path)
    if not path.is_file():
        raise EngineError("there is no such file", where=where, hint="give the path of the checkpoint, weights.pth")
    hint = "give the publisher's weights.pth itself (not an archive of it), and compare its size: a broken download ends early"
    try:
        with path.open("rb") as f:
            begins = f.read(4)
    except OSError as e:
        raise EngineError(f"cannot read the checkpoint: {e.strerror or e}", where=where, hint="give the path of weights.pth") from e
    if begins[:4] != b"PK\x03\x04" and begins[:2] != b"\x80\x02":  # a zip, or a pickle of protocol 2, as torch wrote until 2020
        raise EngineError("not a checkpoint: it does not begin like a file of torch", where=where, hint=hint)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        if (foreign := re.search(r"GLOBAL (\S+)", str(e))) is not None:
            what = f"the file holds more than tensors ({foreign.group(1)}), and that could run code: nothing of it was read"
            raise EngineError(what, where=where, hint="load it where you trust it, and save its state_dict() alone") from e
        raise EngineError("not a checkpoint: what torch reads in it makes no sense", where=where, hint=hint) from e
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError) as e:
        raise EngineError(f"not a whole checkpoint: {_gist(e)}", where=where, hint=hint) from e
    if isinstance(held, Mapping) and isinstance(held.get("state_dict"), Mapping):
        held = held["state_dict"]
    if not isinstance(held, Mapping) or not held or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in held.items()):
        raise EngineError("not a checkpoint: there is no dictionary of tensors in it", where=where, hint=hint)
    return dict(held)


def _gist(e: BaseException) -> str:
    """The first sentence: torch adds what its own developers need."""
    text = str(e).strip().partition(". ")[0].partition("\n")[0]
    return text if len(text) > 8 else f"{type(e).__name__} {text}".strip()


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same without the prefix that training on several GPUs puts in front of every key."""
    return {key.removeprefix(PREFIX): tensor for key, tensor in state.items()}


def look(state: Mapping[str, Tensor], *, where: str) -> Found:
    """What network a checkpoint is of. EngineError for one that is of another."""
    keys = plain(state)
    if "backbone.conv1.weight" not in keys or not any(key.startswith("backbone.layer3.") for key in keys):
        first = ", ".join(list(keys)[:_SHOWN])
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
    numbers = sum(t.numel() for key, t in keys.items() if not key.endswith((_COUNTED, ".running_mean", ".running_var")))
    return Found("volumetric" if volumetric else "algebraic", depth, head, numbers)  # type: ignore[arg-type]


def fill(net: Net, state: Mapping[str, Tensor], *, where: str) -> Net:
    """Give a network the weights of a checkpoint.

    Raises EngineError that lists the first differences (keys that are missing, too many, or of another shape), and for numbers that are not
    finite; the network is then unchanged.
    """
    wanted, given = net.state_dict(), plain(state)
    wrong = [f"{key} is missing" for key in wanted if key not in given and not key.endswith(_COUNTED)]
    wrong += [f"{key} is too much" for key in given if key not in wanted]
    wrong += [
        f"{key} is {list(given[key].shape)} instead of {list(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in given and given[key].shape != tensor.shape
    ]
    wrong += [f"{key} has numbers that are not finite" for key, t in given.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        what = f"the weights do not fit ({len(given)} keys, the network has {len(wanted)}): {'; '.join(wrong[:_SHOWN])}{more}"
        raise EngineError(what, where=where, hint="take the file that the publisher names for this network, unchanged")
    net.load_state_dict({**{k: v for k, v in wanted.items() if k.endswith(_COUNTED)}, **given})
    return net


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
