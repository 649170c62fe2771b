"""Published checkpoints of VIBE and SPIN: which is which, compared key by key, loaded. No weights are here: the user brings them.

`vibe_model_wo_3dpw.pth.tar` and `vibe_model_w_3dpw.pth.tar` hold `gen_state_dict` and `disc_motion_state_dict`, `spin_model_checkpoint.pth.tar` holds
`model`. What they hold of SMPL itself (`regressor.smpl.*`) is left alone: a body comes from the user's own file of it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....pipeline.errors import EngineError
from ..official import SHOWN, fill, load, plain, tensors
from .core import MotionDiscriminator
from .published import SHAPES, Features, MeanRegressor, Vibe

VIBE_FILE, SPIN_FILE, MEAN_FILE = "vibe_model_wo_3dpw.pth.tar", "spin_model_checkpoint.pth.tar", "smpl_mean_params.npz"
GENERATOR, DISCRIMINATOR, MODEL = "gen_state_dict", "disc_motion_state_dict", "model"
_BODY = ("regressor.smpl.", "smpl.")
_MEAN = {"init_pose": ("pose", 144), "init_shape": ("shape", SHAPES), "init_cam": ("cam", 3)}
_DEEP = ("conv1.", "bn1.", "layer")
_APART = 1e-4


def vibe(path: Path, *, mean: Mapping[str, Tensor] | None = None) -> Vibe:
    """VIBE with the weights of its checkpoint (or of its `state_dict()` alone), ready to run.

    mean: of `smpl_mean`, for a checkpoint that lacks it. EngineError: no such file, not a checkpoint, of another network (with the first differences), a
    mean that is missing or is not the one that it was trained with.
    """
    where = str(path)
    state = _part(load(path, called=VIBE_FILE, numpys=True), GENERATOR, where=where, called=VIBE_FILE)
    if "conv1.weight" in state:
        raise EngineError(
            "these are the weights of SPIN, not of VIBE", where=where, hint=f"give it with --spin, and {VIBE_FILE} with --checkpoint"
        )
    state = _with_mean(state, mean, where=where)
    return fill(Vibe(), state, where=where, hint=f"take {VIBE_FILE}, unchanged: two layers of 1024, forwards only").eval()


def motion_discriminator(path: Path) -> MotionDiscriminator:
    """The motion discriminator of VIBE's checkpoint, for those who go on training. EngineError as of `vibe`, and where there is none."""
    where, held = str(path), load(path, called=VIBE_FILE, numpys=True)
    if not isinstance(held, Mapping) or DISCRIMINATOR not in held:
        raise EngineError("there is no motion discriminator in it", where=where, hint=f"take {VIBE_FILE}, unchanged")
    return fill(MotionDiscriminator(), tensors(held[DISCRIMINATOR], where=where, called=VIBE_FILE), where=where).eval()


def spin(path: Path) -> tuple[Features, MeanRegressor]:
    """SPIN from its checkpoint: the features that VIBE takes, and the regressor that VIBE's began as. EngineError as of `vibe`."""
    where = str(path)
    state = _part(load(path, called=SPIN_FILE, numpys=True), MODEL, where=where, called=SPIN_FILE)
    if any(key.startswith("encoder.gru.") for key in state):
        raise EngineError(
            "these are the weights of VIBE, not of SPIN", where=where, hint=f"give it with --checkpoint, and {SPIN_FILE} with --spin"
        )
    deep = {key: value for key, value in state.items() if key.startswith(_DEEP)}
    rest = {key: value for key, value in state.items() if key not in deep}
    what = "these are not the weights of SPIN"
    return tuple(fill(net, part, where=where, what=what).eval() for net, part in ((Features(), deep), (MeanRegressor(), rest)))  # type: ignore[return-value]


def smpl_mean(path: Path) -> dict[str, Tensor]:
    """The mean of `smpl_mean_params.npz` (pose [144], shape [10], cam [3]) as the regressor's buffers. EngineError for a file that is none."""
    where, hint = str(path), f"give the publisher's {MEAN_FILE}: pose [144], shape [10], cam [3]"
    found = {}
    try:
        with np.load(path) as file:
            for key, (name, size) in _MEAN.items():
                found[key] = torch.from_numpy(np.asarray(file[name], np.float32).reshape(1, -1))
                if found[key].shape != (1, size) or not torch.isfinite(found[key]).all():
                    raise EngineError(
                        f"{name} has {found[key].numel()} numbers instead of {size}, or some are not finite", where=where, hint=hint
                    )
    except OSError as e:
        raise EngineError(f"cannot read the mean: {e.strerror or e}", where=where, hint=hint) from e
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise EngineError("this is no mean of SMPL's parameters", where=where, hint=hint) from e
    return found


def _part(held: Any, name: str, *, where: str, called: str) -> dict[str, Tensor]:
    """The state dictionary of that name, or what was held when it is one itself; without what it holds of a body."""
    others = {GENERATOR, MODEL} - {name}
    if isinstance(held, Mapping):
        held = held.get(name, next((held[other] for other in others if other in held), held))
    if isinstance(held, Mapping) and held and not any(isinstance(v, Tensor) for v in held.values()):
        first = ", ".join(str(key) for key in list(held)[:SHOWN])
        raise EngineError(f"there is no {name} in it: it begins with {first}", where=where, hint=f"take {called}, unchanged")
    state = plain(tensors(held, where=where, called=called))
    return {key: value for key, value in state.items() if not key.startswith(_BODY)}


def _with_mean(state: dict[str, Tensor], mean: Mapping[str, Tensor] | None, *, where: str) -> dict[str, Tensor]:
    absent = [key for key in _MEAN if f"regressor.{key}" not in state]
    if mean is None:
        if absent:
            raise EngineError(
                f"the checkpoint lacks the mean that it begins at ({', '.join(absent)})",
                where=where,
                hint=f"give {MEAN_FILE} with --smpl-mean",
            )
        return state
    for key in _MEAN:
        own = state.setdefault(f"regressor.{key}", mean[key])
        if own.shape == mean[key].shape and float((own - mean[key]).abs().max()) > _APART:
            what = f"the mean is another one than the checkpoint was trained with ({key} differs)"
            raise EngineError(what, where=where, hint="leave --smpl-mean out: the checkpoint has its own")
    return state
