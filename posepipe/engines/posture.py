"""What the whole body says of every joint: after the volume and its fine step all joints of a person are corrected together.

The volume's network sees heatmaps in cells, the fine step sees one joint after the other. Neither knows that the other arm is as long, or that feet
under a straight body stand below it. A small network that sees where both, and triangulation, put every joint, and how sure they are, moves them.
It is a refinement of poses alone, after Martinez et al. 2017 (a plain network on joints is enough to know bodies), in the cube of the volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..pipeline.skeleton import COCO17
from .card import TensorCard
from .engine import Contract, EngineOptions, open_small

F32 = NDArray[np.float32]

JOINTS = len(COCO17.joints)
FEATURES = 20
VIEWS = 4
"""So many of the confidences of a joint count, the highest first."""
INPUTS = {"joints": TensorCard((-1, JOINTS, FEATURES), "float32")}
OUTPUTS = {"shift": TensorCard((-1, JOINTS, 3), "float32"), "sigma": TensorCard((-1, JOINTS), "float32")}
NAME = "triangulation.posture"
_LEAST, _MOST = 1e-3, 0.3
_UNSURE = 0.2


@dataclass(frozen=True, slots=True)
class Placed:
    """Where one step puts N people's joints. xyz [N,17,3], sigma [N,17]: shares of the cube's side, NaN where it has none. views [N,17]: how many it used."""

    xyz: NDArray[np.floating]
    sigma: NDArray[np.floating]
    views: NDArray[np.integer] | NDArray[np.floating]


def describe(volume: Placed, fine: Placed, first: Placed, conf: NDArray[np.floating]) -> tuple[F32, F32]:
    """The network's input [N,17,20], and from where [N,17,3] its shifts count: the fine step, or the volume where that has no point.

    volume, fine, first: the volume's network (its `views` do not matter), the fine step, and triangulation before both. conf [N,C,17]: of the key points,
    0 where not seen. Columns: 0-2 the volume's position, doubled; 3-5 and 6-8 how far the fine step and triangulation are from it, times ten, at most 3;
    9-11 logarithms of the three deviations; 12, 13 whether the fine step and triangulation have a point; 14, 15 how many views they used, a quarter;
    16-19 the four highest confidences.
    """
    has = [np.isfinite(p.xyz).all(axis=2) & np.isfinite(p.sigma) for p in (fine, first)]
    at = [np.where(there[..., None], p.xyz, volume.xyz) for there, p in zip(has, (fine, first), strict=True)]
    sigma = [volume.sigma, *(np.where(there, p.sigma, _UNSURE) for there, p in zip(has, (fine, first), strict=True))]
    sure = -np.sort(-np.nan_to_num(np.asarray(conf)), axis=1)[:, :VIEWS]
    sure = np.concatenate([sure, np.zeros((len(sure), VIEWS - sure.shape[1], JOINTS))], axis=1)
    columns = [
        2 * volume.xyz,
        *(np.clip(10 * (one - volume.xyz), -3, 3) for one in at),
        *(0.5 * np.log(np.clip(one, _LEAST, _MOST) / 0.02)[..., None] for one in sigma),
        *(there[..., None] for there in has),
        *(np.asarray(p.views)[..., None] / 4 for p in (fine, first)),
        sure.transpose(0, 2, 1),
    ]
    return np.concatenate(columns, axis=2).astype(np.float32), at[0].astype(np.float32)


def network_file() -> Path:
    """The ONNX file of the network, which is part of this package."""
    return Path(str(resources.files("posepipe.engines.models.triangulation") / "posture.onnx"))


class Posture:
    """The opened network. Not for several threads at once. engine: what runs it, on the processor also where the studio's networks run on a GPU
    (`open_small`)."""

    def __init__(self, options: EngineOptions, *, path: Path | None = None) -> None:
        """path: instead of the shipped file. Raises EngineError when it cannot be run or is of another shape."""
        self.engine = open_small(path or network_file(), options, contract=Contract.of(INPUTS, OUTPUTS))

    def __call__(self, volume: Placed, fine: Placed, first: Placed, conf: NDArray[np.floating]) -> tuple[F32, F32]:
        """Positions [N,17,3] and standard deviations per axis [N,17], shares of the cube's side; arguments as of `describe`."""
        joints, base = describe(volume, fine, first, conf)
        found = self.engine({"joints": joints})
        return base + found["shift"], found["sigma"].copy()

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()
