"""Top-down inference: people in whole pictures, and the joints of people whose regions are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ....pipeline.errors import EngineError
from ....pipeline.packet import Frame
from ....pipeline.skeleton import BLAZEPOSE33, Skeleton
from ...crop import Rois, crop_rgb, image_from_crop, to_image, warm_up
from ...engine import EngineOptions
from .decode import JOINTS, decode_heatmaps
from .detector import SIZE_PX, Detection, decode_detections
from .networks import open_detector, open_landmarks

F32 = NDArray[np.float32]

CROP_PX = 256


class TopDown:
    """Joints of people in known regions: crops, one batched engine call, decoding.

    engine: what runs the network. skeleton: the order of the joints. Not for several threads at once.
    """

    def __init__(self, name: str, options: EngineOptions, *, batch: int = 4) -> None:
        """Open a network by the name of its card (`blazepose.lite`, `.full`, `.heavy`, or `stub`) and run it once for every batch size up to `batch`.

        Raises PullError when it was not fetched, EngineError when it cannot be run.
        """
        self.engine = open_landmarks(name, options)
        self.skeleton: Skeleton = BLAZEPOSE33
        self._crops = np.zeros((max(batch, 1), CROP_PX, CROP_PX, 3), np.uint8)
        warm_up()
        for n in range(1, len(self._crops) + 1):
            decode_heatmaps(self.engine({"image": self._crops[:n]})["heatmaps"])

    def infer(self, frames: Sequence[Frame], rois: Rois) -> tuple[F32, F32]:
        """The joints in N regions, region i being of frames[i].

        Returns uv_px [N,33,2] (pixels of the frame, pixel centres at integers) and conf [N,33]; NaN and 0 where there is no region.
        """
        if len(frames) != len(rois):
            raise EngineError(f"{len(rois)} regions need as many frames, given were {len(frames)}")
        uv_px, conf = np.full((len(rois), JOINTS, 2), np.nan, np.float32), np.zeros((len(rois), JOINTS), np.float32)
        (at,) = np.nonzero(rois.there)
        if not len(at):
            return uv_px, conf
        maps = image_from_crop(Rois(rois.centre_px[at], rois.side_px[at], rois.angle_rad[at]), size=CROP_PX)
        if len(at) > len(self._crops):
            self._crops = np.empty((len(at), CROP_PX, CROP_PX, 3), np.uint8)
        crops = self._crops[: len(at)]
        for i, of in enumerate(at.tolist()):
            crop_rgb(frames[of], maps[i], crops[i])
        in_crop_px, conf[at] = decode_heatmaps(self.engine({"image": crops})["heatmaps"])
        uv_px[at] = to_image(maps, in_crop_px)
        return uv_px, conf

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


class PersonDetector:
    """People in whole frames. engine: what runs the network. Not for several threads at once."""

    def __init__(self, name: str, options: EngineOptions, *, batch: int = 4) -> None:
        """Open a detector by the name of its card (`blazepose.detector`, or `stub`) and run it once for every batch size up to `batch`.

        Raises PullError when it was not fetched, EngineError when it cannot be run.
        """
        self.engine = open_detector(name, options)
        self._pictures = np.zeros((max(batch, 1), SIZE_PX, SIZE_PX, 3), np.uint8)
        warm_up()
        for n in range(1, len(self._pictures) + 1):
            out = self.engine({"image": self._pictures[:n]})
            decode_detections(out["scores"][0], out["boxes"][0])

    def detect(self, frames: Sequence[Frame], rois: Rois | None = None) -> list[list[Detection]]:
        """The people of every frame (or of one region of it), best first, in pixels of the frame."""
        if not frames:
            return []
        if rois is None:
            size = np.array([(f.width, f.height) for f in frames], np.float64)
            rois = Rois((size - 1) / 2, size.max(axis=1), np.zeros(len(frames)))
        maps = image_from_crop(rois, size=SIZE_PX)
        if len(frames) > len(self._pictures):
            self._pictures = np.empty((len(frames), SIZE_PX, SIZE_PX, 3), np.uint8)
        pictures = self._pictures[: len(frames)]
        for frame, map_, picture in zip(frames, maps, pictures, strict=True):
            crop_rgb(frame, map_, picture)
        out = self.engine({"image": pictures})
        found = []
        for i, map_ in enumerate(maps):
            score, points = decode_detections(out["scores"][i], out["boxes"][i])
            px = to_image(np.broadcast_to(map_, (len(points), 2, 3)), points * SIZE_PX - 0.5)
            found.append([Detection(float(s), p[:2].ravel(), p[2:]) for s, p in zip(score, px, strict=True)])
        return found

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()
