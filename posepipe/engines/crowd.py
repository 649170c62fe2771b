"""Part affinity networks under test: whole pictures as a studio hands them over, and the people of two runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..pipeline.errors import EngineError
from .assets import Asset
from .crop import crop_rgb
from .decoders.paf import PafDecoder, in_pixels
from .engine import Arrays
from .footage import pictures, sizes_px
from .models.openpose import networks
from .models.openpose.bottomup import frame_from_input, frame_px, input_size

F64 = NDArray[np.float64]


class Crowd:
    """A part affinity network that sees everybody in whole pictures. network: what is known of it; card: its card."""

    def __init__(self, name: str) -> None:
        """By its name or the path of its card. EngineError when it is not known or has no card, PullError for a card that is not one."""
        self.network = networks.find(name)
        if self.network.card is None:
            raise EngineError("it is no network, so there is nothing to verify", where=name)
        self.card: Asset = self.network.card
        self._size = self.network.preprocess.size
        self._decoder = PafDecoder(self.network.parts, self.network.decoder)

    @property
    def path(self) -> Path:
        """Its file for the size of the pictures that were cut last (before, of its card): a verdict holds for that size. PullError."""
        return networks.sized(self.network, self.card, width=self._size[0], height=self._size[1])

    def cut(self, recording: Asset, *, instants: int) -> NDArray[np.float32]:
        """Whole pictures of a recording [N,3,h,w], letterboxed to the size that a studio with these cameras takes, always the same ones.

        EngineError when there are none."""
        self._size = width, height = input_size(sizes_px(recording), self.network.short_px)
        cut: list[NDArray[np.float32]] = []
        for frame in pictures(recording, instants=instants):
            cut.append(np.empty((3, height, width), np.float32))
            scale = frame_px((frame.width, frame.height), (width, height), self.network.short_px)
            crop_rgb(frame, frame_from_input(scale), cut[-1], self.network.pixels)
        if not cut:
            raise EngineError(
                "there are no pictures in this recording", where=recording.name, hint="name another; `posepipe pull` lists them"
            )
        return np.stack(cut)

    def points(self, outputs: Arrays, near_px: NDArray[np.floating[Any]] | None = None) -> tuple[F64, F64]:
        """Everybody's key points [N,M x J,2] in pixels of the network's picture, and their confidence [N,M x J]; NaN and 0 where there is none.

        M is the most people in a picture. near_px: points of another run; whoever is next to a person there comes in that person's place.
        """
        d, joints = self.network.decoder, self.network.parts.count
        maps = zip(outputs[d.heatmaps], outputs[d.fields], strict=True)
        bodies = [in_pixels(self._decoder.decode(heat, fields, where=self.network.name), d.stride).points for heat, fields in maps]
        most = max((len(b) for b in bodies), default=0) if near_px is None else near_px.shape[1] // joints
        found = np.full((len(bodies), most, joints, 3), (np.nan, np.nan, 0.0))
        for i, points in enumerate(bodies):
            if near_px is None:
                found[i, : len(points)] = points
                continue
            for m, p in beside(points[..., :2].astype(np.float64), near_px[i].reshape(most, joints, 2)):
                found[i, m] = points[p]
        flat = found.reshape(len(bodies), most * joints, 3)
        return flat[..., :2], flat[..., 2]


def beside(points_px: F64, near_px: NDArray[np.floating[Any]]) -> list[tuple[int, int]]:
    """Who of P people [P,J,2] is whom of M [M,J,2], as pairs (m, p), the nearest first: by the mean distance of the joints that both have."""
    off = np.linalg.norm(near_px[:, None] - points_px[None], axis=-1)
    both = np.isfinite(off)
    far = np.where(both.any(-1), np.where(both, off, 0.0).sum(-1) / np.maximum(both.sum(-1), 1), np.inf)
    pairs = []
    while far.size and np.isfinite(far).any():
        m, p = (int(n) for n in np.unravel_index(np.argmin(far), far.shape))
        pairs.append((m, p))
        far[m, :] = far[:, p] = np.inf
    return pairs
