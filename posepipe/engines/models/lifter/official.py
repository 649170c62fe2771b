"""Published checkpoints of the lifter: torch's (`gt_ckpt_best.pth.tar`) and TensorFlow's (`checkpoint-4874200`), with their statistics.

Joints are Human3.6M's in its own order. In: 16 joints without Neck/Nose, x and y in turn; out: 16 joints without the hip, x, y and z in turn. What a
network's numbers mean is not in the checkpoint but in the statistics of its training set: without them it is of no use. No weights are here.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ....pipeline.errors import EngineError
from ..official import fill, numbers_allowed
from ..official import read as read_torch
from ..onnx_file import onnx_file
from .net import Lifter
from .tensorflow import read as read_tensorflow

F32 = NDArray[np.float32]
TENSORFLOW_EPSILON = 1e-3
RAW = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""The joints that move, of Human3.6M's 32: hip, right hip, knee, foot, left hip, knee, foot, spine, thorax, neck/nose, head, left shoulder, elbow,
wrist, right shoulder, elbow, wrist."""
JOINTS = (
    "hip", "right_hip", "right_knee", "right_foot", "left_hip", "left_knee", "left_foot", "spine", "thorax", "neck_nose", "head",
    "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip
_IN = [k for k, joint in enumerate(JOINTS) if joint != "neck_nose"]
_OUT = [k for k, joint in enumerate(JOINTS) if joint != "hip"]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Means and standard deviations of what goes in ([32], pixels; ones and zeros when the caller normalises himself) and out ([48], mm)."""

    mean_in: F32
    std_in: F32
    mean_out: F32
    std_out: F32


def load(path: Path, *, max_norm: bool | None = None) -> Lifter:
    """The network of a checkpoint: torch's, else TensorFlow's (by its prefix, or its .index).

    max_norm: TensorFlow's only, where it has to be said: whether it was trained with --max_norm, which scales every matrix to a Frobenius norm of at
    most 1 as it is used. EngineError: no such file, not a checkpoint, another network (with the first differences), numbers not finite.
    """
    tensorflow = path.suffix == ".index" or (not path.exists() and path.with_name(path.name + ".index").exists())
    if tensorflow and max_norm is None:
        hint = "--max-norm yes where it was trained with --max_norm, as its README does, else --max-norm no"
        raise EngineError("a TensorFlow checkpoint does not say whether its matrices are scaled to norm 1", where=str(path), hint=hint)
    if not tensorflow and max_norm:
        raise EngineError("torch's port does not scale its matrices", where=str(path), hint="leave --max-norm out")
    if tensorflow:
        return _filled(from_tensorflow(read_tensorflow(path), max_norm=bool(max_norm)), epsilon=TENSORFLOW_EPSILON, where=str(path))
    return _filled(read_torch(path, numpys=True), epsilon=1e-5, where=str(path))


def from_tensorflow(tensors: Mapping[str, F32], *, max_norm: bool) -> dict[str, Tensor]:
    """TensorFlow's tensors by torch's keys: matrices transposed, and scaled where they were as they were used. What has no place is left out."""
    state: dict[str, Tensor] = {}
    for theirs, ours in _names().items():
        if theirs not in tensors:
            continue
        array = tensors[theirs]
        if array.ndim == 2:
            norm = float(np.linalg.norm(array))
            array = (array / norm if max_norm and norm > 1 else array).T
        state[ours] = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    return state


def statistics(out: Path, into: Path | None = None) -> Statistics:
    """The statistics of a training set from torch files or .npz with `mean` and `std`: of all of Human3.6M's 32 joints (96 and 64 numbers), or of
    the 16 that are used. EngineError for a file that is none."""
    mean_out, std_out = _moments(out, 3, _OUT)
    mean_in, std_in = _moments(into, 2, _IN) if into is not None else (np.zeros(32, np.float32), np.ones(32, np.float32))
    return Statistics(mean_in, std_in, mean_out, std_out)


class Published(nn.Module):
    """The network with its statistics: `joints` [N,16,2] -> `xyz_mm` [N,17,3] in the camera's frame, the hip (which is 0) first."""

    def __init__(self, net: Lifter, stats: Statistics) -> None:
        super().__init__()
        self.net = net
        self.mean_in, self.std_in = nn.Buffer(torch.from_numpy(stats.mean_in)), nn.Buffer(torch.from_numpy(stats.std_in))
        self.mean_out, self.std_out = nn.Buffer(torch.from_numpy(stats.mean_out)), nn.Buffer(torch.from_numpy(stats.std_out))

    def forward(self, joints: Tensor) -> Tensor:
        answer = self.net((joints.flatten(1) - self.mean_in) / self.std_in) * self.std_out + self.mean_out
        return nn.functional.pad(answer, (3, 0)).reshape(-1, len(JOINTS), 3)


def export(net: Published) -> bytes:
    """It as ONNX, the batch open."""
    return onnx_file(net, {"joints": (torch.rand(2, len(_IN), 2), ("N",))}, {"xyz_mm": ("N",)})


def _names() -> dict[str, str]:
    """Where every tensor of TensorFlow's goes."""
    norm = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    top = "linear_model"
    names = {f"{top}/w1": "w1.weight", f"{top}/b1": "w1.bias", f"{top}/w4": "w2.weight", f"{top}/b4": "w2.bias"}
    names |= {f"{top}/batch_normalization/{a}": f"batch_norm1.{b}" for a, b in norm.items()}
    for i in range(2):
        block, stage = f"{top}/two_linear_{i}", f"linear_stages.{i}"
        for theirs, ours in ((2, 1), (3, 2)):
            names |= {f"{block}/w{theirs}_{i}": f"{stage}.w{ours}.weight", f"{block}/b{theirs}_{i}": f"{stage}.w{ours}.bias"}
            names |= {f"{block}/batch_normalization{ours}{i}/{a}": f"{stage}.batch_norm{ours}.{b}" for a, b in norm.items()}
    return names


def _filled(state: Mapping[str, Tensor], *, epsilon: float, where: str) -> Lifter:
    what = "these are not the weights of the lifter with 16 joints"
    hint = "wanted: linear size 1024, two blocks, residual, batch normalisation, not predict_14"
    return fill(Lifter(epsilon=epsilon), state, where=where, what=what, hint=hint).eval()


def _moments(path: Path, axes: int, used: list[int]) -> tuple[F32, F32]:
    where, hint = str(path), "a torch file or .npz with `mean` and `std`, as the data set's preparation writes them (stat_3d.pth.tar)"
    try:
        held: Any
        if path.suffix == ".npz":
            with np.load(path) as file:
                held = {key: file[key] for key in file.files}
        else:
            with numbers_allowed():
                held = torch.load(path, map_location="cpu", weights_only=True)
        mean, std = (np.asarray(held[key], np.float32).reshape(-1) for key in ("mean", "std"))
    except OSError as e:
        raise EngineError(f"cannot read the statistics: {e.strerror or e}", where=where, hint=hint) from e
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, IndexError) as e:
        raise EngineError("these are no statistics of a training set", where=where, hint=hint) from e
    if len(mean) == len(std) == 32 * axes:
        rows = [axes * RAW[k] + a for k in used for a in range(axes)]
        mean, std = mean[rows], std[rows]
    if (
        len(mean) != len(used) * axes
        or len(std) != len(mean)
        or not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all())
    ):
        what = f"mean and std have {len(mean)} and {len(std)} numbers; wanted are {32 * axes} or {16 * axes}, finite, and std above 0 for what is used"
        raise EngineError(what, where=where, hint=hint)
    return mean, std
