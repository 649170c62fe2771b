"""Bottom-up inference: the joints of everybody in whole pictures, all pictures in one call."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ....pipeline.errors import EngineError
from ....pipeline.packet import Frame
from ....pipeline.skeleton import skeleton
from ...crop import crop_rgb, warm_up
from ...decoders.paf import Bodies, PafDecoder, in_pixels
from ...engine import EngineOptions
from .networks import find, open_network
from .paint import paint, upright

F64 = NDArray[np.float64]

_STEP_PX = 16


class BottomUp:
    """Everybody in whole pictures: letterboxing, one batched engine call, decoding.

    network: what is run. engine: what runs it. skeleton: the order of the parts. width, height: of its input. Not for several threads at once.
    """

    def __init__(
        self, name: str, options: EngineOptions, *, pictures_px: Sequence[tuple[int, int]], short_px: int = 0, batch: int = 0
    ) -> None:
        """Open a network by its name, and run it once for every batch size up to `batch` (0: as many as pictures).

        pictures_px: width and height of the pictures that will come, one or more. short_px: what their shorter side becomes (0: as the
        network was trained). Raises PullError when it was not fetched, EngineError when it cannot be run.
        """
        self.network = find(name)
        self.skeleton = skeleton(self.network.parts.skeleton)
        self._short_px = short_px or self.network.short_px
        self.width, self.height = input_size(pictures_px, self._short_px)
        self.engine = open_network(self.network, options, width=self.width, height=self.height)
        parts, self._stride = self.network.parts, self.network.decoder.stride
        self._decoder = PafDecoder(parts, self.network.decoder)
        self._pictures = np.zeros((max(batch or len(pictures_px), 1), 3, self.height, self.width), np.float32)
        try:
            self._warm_up()
        except BaseException:
            self.engine.close()  # nobody has it to close yet
            raise

    def _warm_up(self) -> None:
        warm_up()
        for n in range(1, len(self._pictures) + 1):
            self.engine({self.network.picture: self._pictures[:n]})
        parts = self.network.parts
        # Compiles all that decodes, or loads what was compiled before: an empty picture would not reach the last of it.
        rows, columns = self.height // self._stride, self.width // self._stride
        self._decoder.decode(*paint(parts, upright(self.skeleton.joints, rows=rows, columns=columns), rows=rows, columns=columns))

    def infer(self, frames: Sequence[Frame]) -> list[Bodies]:
        """The people of every frame, the surest first; points [P,J,3] in pixels of the frame (pixel centres at integers) and confidence.

        Raises EngineError for outputs that are not finite.
        """
        if not frames:
            return []
        if len(frames) > len(self._pictures):
            self._pictures = np.empty((len(frames), 3, self.height, self.width), np.float32)
        pictures = self._pictures[: len(frames)]
        scales = [self.frame_px(f.width, f.height) for f in frames]
        for frame, scale, picture in zip(frames, scales, pictures, strict=True):
            crop_rgb(frame, frame_from_input(scale), picture, self.network.pixels)
        out = self.engine({self.network.picture: pictures})
        d, found = self.network.decoder, []
        for heatmaps, fields, scale in zip(out[d.heatmaps], out[d.fields], scales, strict=True):
            found.append(in_pixels(self._decoder.decode(heatmaps, fields, where=self.network.name), self._stride * scale))
        return found

    def frame_px(self, width: int, height: int) -> float:
        """How many pixels of a frame of this size one pixel of the network's input is worth."""
        return frame_px((width, height), (self.width, self.height), self._short_px)

    def cell_px(self, width: int, height: int) -> float:
        """How many pixels of a frame of this size one cell of the maps is worth."""
        return self._stride * self.frame_px(width, height)

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def input_size(pictures_px: Sequence[tuple[int, int]], short_px: int) -> tuple[int, int]:
    """Width and height that take all these pictures with their shorter side at `short_px`, in steps of 16."""
    if not pictures_px or min(min(size) for size in pictures_px) < 1:
        raise EngineError(f"pictures of the sizes {list(pictures_px)} cannot be looked at")
    ends = np.array([[n * short_px / min(size) for n in size] for size in pictures_px]).max(axis=0)
    width, height = (math.ceil(round(float(n), 3) / _STEP_PX) * _STEP_PX for n in ends)
    return width, height


def frame_px(size_px: tuple[int, int], input_px: tuple[int, int], short_px: int) -> float:
    """How many pixels of a frame of that width and height one pixel of the network's input of that width and height is worth."""
    return max(min(size_px) / short_px, size_px[0] / input_px[0], size_px[1] / input_px[1])


def frame_from_input(scale: float) -> F64:
    """[2,3] map from pixels of the network's input to pixels of the frame, whose upper left corners meet."""
    shift = (scale - 1) / 2
    return np.array([[scale, 0, shift], [0, scale, shift]])
