"""Joints in a cube: what the networks of `engines.volume` give. Coordinates are shares of the cube's side along its own axes, -0.5..0.5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...pipeline.skeleton import skeleton
from ..assets import Asset
from . import Decoder, Outputs, must_be, must_be_finite, output_of

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InCube:
    """Joints of the person in every cube. xyz [N,J,3]: shares of the side, from the middle. spread [N,J]: one standard deviation in each
    axis, shares of the side."""

    xyz: F32
    spread: F32


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """xyz, spread: the outputs."""

    xyz: str = "xyz"
    spread: str = "spread"


def must_fit(options: Options, card: Asset) -> None:
    """Refuse outputs that there are not; their shapes are looked at when the network is opened, which runs it once."""
    for name in (options.xyz, options.spread):
        output_of(card, name)


def decoder(options: Options, card: Asset) -> Decoder:
    """Outputs xyz [N,J,3] and spread [N,J] -> `InCube`."""
    joints = len(skeleton(card.skeleton).joints)
    xyz, spread = output_of(card, options.xyz), output_of(card, options.spread)

    def decode(outputs: Outputs) -> InCube:
        for name, shape in ((xyz, (joints, 3)), (spread, (joints,))):
            must_be(card, name, outputs[name].shape, f"[N, {', '.join(map(str, shape))}]", outputs[name].shape[1:] == shape)
        found = InCube(np.array(outputs[xyz], np.float32), np.array(outputs[spread], np.float32))
        must_be_finite(card, {name: outputs[name] for name in (xyz, spread)}, found.xyz, found.spread)
        return found

    return decode


def answers(options: Options, card: Asset) -> dict[str, NDArray[Any]]:
    """One item of every output: everything in the middle of the cube, known to a tenth of its side."""
    joints = len(skeleton(card.skeleton).joints)
    return {
        output_of(card, options.xyz): np.zeros((joints, 3), np.float32),
        output_of(card, options.spread): np.full(joints, 0.1, np.float32),
    }
