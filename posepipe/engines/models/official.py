"""Published checkpoints of torch: read without running what is in them, compared with a network key by key, loaded. No weights are here."""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ...pipeline.errors import EngineError

PREFIX = "module."
SHOWN = 6
"""How many differences, or keys, a message names."""
_COUNTED = ".num_batches_tracked"  # PyTorch 0.4 did not write it, and nothing depends on it once trained
_SCALAR, _ARRAY = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
Net = TypeVar("Net", bound=nn.Module)


def load(path: Path, *, called: str = "weights.pth", numpys: bool = False) -> Any:
    """What is in a file of torch: tensors, numbers, lists and dictionaries of them. Nothing in it is run.

    called: what the publisher calls the file. numpys: also numbers and arrays of numpy, which the file is known to hold. Raises EngineError: no such file, not a checkpoint, one that ends in the middle, one with more in it.
    """
    where = str(path)
    if not path.is_file():
        raise EngineError("there is no such file", where=where, hint=f"give the path of the checkpoint, {called}")
    try:
        with path.open("rb") as f:
            begins = f.read(4)
    except OSError as e:
        raise EngineError(f"cannot read the checkpoint: {e.strerror or e}", where=where, hint=f"give the path of {called}") from e
    hint = _unchanged(called)
    if begins[:4] != b"PK\x03\x04" and begins[:2] != b"\x80\x02":  # a zip, or a pickle of protocol 2, as torch wrote until 2020
        raise EngineError("not a checkpoint: it does not begin like a file of torch", where=where, hint=hint)
    try:
        with numbers_allowed() if numpys else contextlib.nullcontext():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        if (foreign := re.search(r"GLOBAL (\S+)", str(e))) is not None:
            what = f"the file holds more than tensors ({foreign.group(1)}), and that could run code: nothing of it was read"
            raise EngineError(what, where=where, hint="load it where you trust it, and save its state_dict() alone") from e
        raise EngineError("not a checkpoint: what torch reads in it makes no sense", where=where, hint=hint) from e
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError) as e:
        raise EngineError(f"not a whole checkpoint: {_gist(e)}", where=where, hint=hint) from e


def tensors(held: Any, *, where: str, called: str = "weights.pth") -> dict[str, Tensor]:
    """What was held, as the dictionary of tensors that it has to be. EngineError."""
    if not isinstance(held, Mapping) or not held or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in held.items()):
        raise EngineError("not a checkpoint: there is no dictionary of tensors in it", where=where, hint=_unchanged(called))
    return dict(held)


def read(path: Path, *, numpys: bool = False) -> dict[str, Tensor]:
    """The tensors of a state dictionary (alone, or as `state_dict` of a checkpoint) by key, as they are in the file. EngineError as of `load`."""
    held = load(path, numpys=numpys)
    if isinstance(held, Mapping) and isinstance(held.get("state_dict"), Mapping):
        held = held["state_dict"]
    return tensors(held, where=str(path))


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same without the prefix that training on several GPUs puts in front of every key."""
    return {key.removeprefix(PREFIX): tensor for key, tensor in state.items()}


def fill(
    net: Net,
    state: Mapping[str, Tensor],
    *,
    where: str,
    what: str = "the weights do not fit",
    hint: str = "take the file that the publisher names for this network, unchanged",
) -> Net:
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
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        counts = f"({len(given)} keys, the network has {len(wanted)})"
        raise EngineError(f"{what} {counts}: {'; '.join(wrong[:SHOWN])}{more}", where=where, hint=hint)
    net.load_state_dict({**{k: v for k, v in wanted.items() if k.endswith(_COUNTED)}, **given})
    return net


def trained(state: Mapping[str, Tensor]) -> int:
    """How many numbers of a state dictionary were trained: statistics and counts are not."""
    return sum(t.numel() for key, t in state.items() if not key.endswith((_COUNTED, ".running_mean", ".running_var")))


@contextlib.contextmanager
def numbers_allowed() -> Iterator[None]:
    """Checkpoints of 2018 hold numpy's numbers beside the tensors; they are data, and rebuilding them runs nothing."""
    known: list[Any] = [np.ndarray, np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32)), type(np.dtype(np.int64))]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        known += [(_SCALAR, f"{module}.scalar"), (_ARRAY, f"{module}._reconstruct")]
    with torch.serialization.safe_globals(known):
        yield


def _unchanged(called: str) -> str:
    return f"give the publisher's {called} itself (not an archive of it), and compare its size: a broken download ends early"


def _gist(e: BaseException) -> str:
    """The first sentence: torch adds what its own developers need."""
    text = str(e).strip().partition(". ")[0].partition("\n")[0]
    return text if len(text) > 8 else f"{type(e).__name__} {text}".strip()
