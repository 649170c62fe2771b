"""Networks that find a person's joints in a cube of unprojected heatmaps.

    network = VolumeNetwork("triangulation.slim", options, batch=4)
    found = network(network.volumes[:2])        # two cubes, filled before; `InCube`

A card says which: kind of decoder `volume`, one input `volume` [N,n,n,n,17], outputs `xyz` and `spread` (see `decoders.volume`). There is no
picture, so there is no table `[preprocess]`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ..pipeline.errors import EngineError, did_you_mean
from ..pipeline.skeleton import COCO17, skeleton
from .assets import Asset, catalogue, find
from .card import TensorCard
from .decoders import decoder_options, family, open_decoder
from .decoders.volume import InCube
from .engine import Arrays, Contract, Engine, EngineOptions, Precision, open_engine
from .network import STUB

F32 = NDArray[np.float32]

_JOINTS = len(COCO17.joints)
_CELLS = 32
_BETA = 20.0
_INPUTS = {"volume": TensorCard((-1, _CELLS, _CELLS, _CELLS, _JOINTS), "float32")}
_OUTPUTS = {"xyz": TensorCard((-1, _JOINTS, 3), "float32"), "spread": TensorCard((-1, _JOINTS), "float32")}


def volume_card(name: str) -> Asset:
    """The card of a network for joints in a cube, by name or path. EngineError for a network of another kind; PullError."""
    fit = [n for n, a in catalogue().items() if a.decoder and family(a).gives == "volume"]
    if not name.endswith(".toml") and name not in fit:
        raise EngineError(f"there is no network {name!r} for joints in a cube", hint=did_you_mean(name, (*fit, STUB)))
    card = find(name)
    if family(card).gives != "volume":
        raise EngineError(
            f"the decoder {card.decoder['kind']} does not read joints in a cube", where=name, hint="wanted is one of kind volume"
        )
    decoder_options(card)
    skeleton(card.skeleton)
    shapes = [t.shape for t in card.inputs.values()]
    good = len(shapes) == 1 and len(shapes[0]) == 5 and len(set(shapes[0][1:4])) == 1 and shapes[0][1] >= 2 and shapes[0][4] == _JOINTS
    if not good or card.skeleton != COCO17.name:
        given = "; ".join(f"{n} {list(t.shape)}" for n, t in card.inputs.items()) or "nothing"
        what = f"the card takes {given} for {card.skeleton or 'no skeleton'}; wanted is one input [-1, n, n, n, {_JOINTS}] for coco17"
        raise EngineError(what, where=name, hint="export the network as docs/triangulation.md says, channel last, and correct the card")
    return card


class VolumeNetwork:
    """An opened network for joints in a cube. Not for several threads at once.

    engine: what runs it. cells: n, along each side. volumes [batch,n,n,n,17]: float32 memory to be filled for it.
    """

    def __init__(self, name: str, options: EngineOptions, *, batch: int = 1) -> None:
        """Open a network by the name or path of its card and run it once for every batch size up to `batch`. `stub`, and the runtime
        stub, take the mean of every heatmap's place in the cube (`SoftArgmax`). Raises PullError when it is not here, EngineError when
        it cannot be run or is of another shape than its card."""
        card = None if name == STUB else volume_card(name)
        inputs, outputs = (card.inputs, card.outputs) if card is not None else (_INPUTS, _OUTPUTS)
        ((self._input, tensor),) = inputs.items()
        self.cells = tensor.shape[1]
        if card is None or options.runtime == "stub":
            self._input, self._decode = "volume", None
            self.engine: Engine = SoftArgmax(Contract.of({"volume": tensor}, _OUTPUTS))
        else:
            self._decode = open_decoder(card)
            self.engine = open_engine(_file(card), options, contract=Contract.of(inputs, outputs))
        self._one_by_one = self.engine.inputs[0].shape[0] == 1
        self.volumes: F32 = np.zeros((max(batch, 1), self.cells, self.cells, self.cells, _JOINTS), np.float32)
        try:
            for people in range(1, len(self.volumes) + 1):
                self(self.volumes[:people])
        except BaseException:
            self.engine.close()  # nobody has it to close yet
            raise

    def __call__(self, volumes: F32) -> InCube:
        """The joints in every cube [N,n,n,n,17]. Raises EngineError, which states wanted and given, for another shape, and where the
        network gives NaN."""
        if self._one_by_one and len(volumes) > 1:
            runs = [self(volumes[i : i + 1]) for i in range(len(volumes))]
            return InCube(np.concatenate([r.xyz for r in runs]), np.concatenate([r.spread for r in runs]))
        outputs = self.engine({self._input: volumes})
        found: InCube = InCube(outputs["xyz"], outputs["spread"]) if self._decode is None else self._decode(outputs)
        return found

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def network_file(name: str) -> Mapping[str, Path]:
    """The ONNX file that `VolumeNetwork` opens, by name, for `posepipe build`; nothing for `stub`. PullError when it is not here."""
    return {} if name == STUB else {name: _file(volume_card(name))}


def _file(card: Asset) -> Path:
    if not card.files:
        raise EngineError("the card names no file", where=card.name, hint="docs/models.md shows a complete card")
    return card.path(card.files[0].name)


class SoftArgmax(Engine):
    """No network: the mean place of a heatmap in the cube, every voxel weighted by exp(20 v), and the deviation around it.

    What a volumetric network has to be better than; and for trying a studio file without one.
    """

    def __init__(self, contract: Contract) -> None:
        self.inputs, self.outputs = contract.inputs, contract.outputs
        self.runtime, self.device, self.reason = "stub", "none", "asked for"
        self.precision: Precision = "fp32"

    def _run(self, inputs: Arrays, instance: int) -> dict[str, NDArray[Any]]:
        volume = np.ascontiguousarray(inputs["volume"])
        xyz, spread = np.empty((len(volume), _JOINTS, 3), np.float32), np.empty((len(volume), _JOINTS), np.float32)
        _soft_argmax(volume, xyz, spread)
        return {"xyz": xyz, "spread": spread}

    def _close(self) -> None:
        return


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _soft_argmax(volume: Any, xyz: Any, spread: Any) -> None:
    n, joints = volume.shape[1], volume.shape[4]
    sums = np.empty((joints, 5))
    top = np.empty(joints, np.float32)
    for p in range(volume.shape[0]):
        sums[:] = 0
        top[:] = -np.inf
        for x in range(n):
            for y in range(n):
                for z in range(n):
                    for j in range(joints):
                        top[j] = max(top[j], volume[p, x, y, z, j])
        for x in range(n):
            sx = x / (n - 1) - 0.5
            for y in range(n):
                sy = y / (n - 1) - 0.5
                for z in range(n):
                    sz = z / (n - 1) - 0.5
                    for j in range(joints):
                        w = math.exp(_BETA * (volume[p, x, y, z, j] - top[j]))
                        one = sums[j]
                        one[0] += w
                        one[1] += w * sx
                        one[2] += w * sy
                        one[3] += w * sz
                        one[4] += w * (sx * sx + sy * sy + sz * sz)
        for j in range(joints):
            one = sums[j]
            mx, my, mz = one[1] / one[0], one[2] / one[0], one[3] / one[0]
            xyz[p, j, 0], xyz[p, j, 1], xyz[p, j, 2] = mx, my, mz
            spread[p, j] = math.sqrt(max(one[4] / one[0] - mx * mx - my * my - mz * mz, 0.0) / 3)


__all__ = ["InCube", "SoftArgmax", "VolumeNetwork", "network_file", "volume_card"]
