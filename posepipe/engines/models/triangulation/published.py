"""The volumetric network that `posepipe import triangulation` keeps, run whole through engines: crops and projections in, joints in space out.

Three networks one after the other (features, their way into the cube, the volume), without torch. For offline use and for comparisons: a studio's
`lift.volumetric` takes heatmaps of coco17 instead of these features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ....pipeline.errors import EngineError
from ...engine import Engine, EngineOptions, open_engine

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

PARTS = ("network.onnx", "unproject.onnx", "volume.onnx")
SIDE_M = 2.5
_OUTSIDE = -3.0


class InSpace(NamedTuple):
    """xyz [N,17,3] (human36m17) and one standard deviation per axis [N,17], in the unit of the projections."""

    xyz: F32
    spread: F32


class PublishedVolumetric:
    """An imported volumetric network. side_px: of its square pictures. n: voxels along the cube. Not for several threads at once."""

    def __init__(self, folder: Path, options: EngineOptions) -> None:
        """Open the parts in the folder that the import named. EngineError: a part is missing or cannot be run."""
        if missing := [part for part in PARTS if not (folder / part).is_file()]:
            hint = "posepipe import triangulation weights.pth --kind volumetric"
            raise EngineError(f"there is no {missing[0]}", where=str(folder), hint=hint)
        self._engines: list[Engine] = []
        try:
            for part in PARTS:
                self._engines.append(open_engine(folder / part, options))
        except EngineError:
            self.close()
            raise
        self._features, self._unproject, self._volume = self._engines
        self.side_px = self._features.inputs[0].shape[2]
        self.n = self._volume.inputs[0].shape[1]
        self._trusted = any(i.name == "confidences" for i in self._unproject.inputs)

    def __call__(
        self,
        pictures: F32,
        projections: F64,
        centre: F64,
        *,
        side: float = SIDE_M,
        yaw_rad: Sequence[float] | F64 | None = None,
        seen: NDArray[np.bool_] | None = None,
    ) -> InSpace:
        """The joints of N people in V views.

        pictures [N,V,3,S,S]: crops as the card's [preprocess] says, without distortion. projections [N,V,3,4]: from the world to pixels of the crops.
        centre [N,3]: of the cubes, the pelvis as far as it is known; side in the unit of the projections. yaw_rad [N]: of the cubes about z. seen
        [N,V]: False where a view is missing; its picture and projection must still be numbers. Raises EngineError for other shapes.
        """
        people, views = pictures.shape[:2]
        if (
            projections.shape != (people, views, 3, 4)
            or centre.shape != (people, 3)
            or (seen is not None and seen.shape != (people, views))
        ):
            what = f"{people} people in {views} views need projections [{people}, {views}, 3, 4] and centres [{people}, 3], and seen "
            given = f"[{people}, {views}]; given were {list(projections.shape)}, {list(centre.shape)}"
            raise EngineError(what + given + (f" and {list(seen.shape)}" if seen is not None else ""))
        found = self._features({"picture": np.ascontiguousarray(pictures.reshape(-1, *pictures.shape[2:]))})
        features = found["features"].reshape(people, views, *found["features"].shape[1:])
        turns = np.zeros(people) if yaw_rad is None else np.asarray(yaw_rad, np.float64)
        cubes = _cubes(centre, side, turns, self.n)
        inputs = {
            "features": features,
            "grid": sampling_grid(projections, cubes, side_px=self.side_px),
            "seen": np.ones((people, views), np.float32) if seen is None else seen.astype(np.float32),
        }
        if self._trusted:
            inputs["confidences"] = found["confidences"].reshape(people, views, -1)
        volume = self._unproject(inputs)["volume"]
        outputs = self._volume({"volume": volume})
        xyz = _turned(outputs["xyz"].astype(np.float64) * side, turns) + centre[:, None]
        return InSpace(xyz.astype(np.float32), outputs["spread"] * np.float32(side))

    def close(self) -> None:
        """Close the engines."""
        for engine in self._engines:
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def sampling_grid(projections: F64, points: F64, *, side_px: int) -> F32:
    """Where world points [N,K,3] lie in square pictures, as `unproject.onnx` takes it [N,V,K,2]; as `geometry.sampling_grid`, in numpy."""
    image = np.einsum("nvab,nkb->nvka", projections[..., :3], points) + projections[:, :, None, :, 3]
    depth = image[..., 2:]
    in_front = depth > 0
    shares = image[..., :2] / np.where(in_front, depth, 1.0) / side_px
    grid: F32 = np.where(in_front, 2 * (shares - 0.5), _OUTSIDE).astype(np.float32)
    return grid


def _cubes(centre: F64, side: float, yaw: F64, n: int) -> F64:
    at = (np.arange(n) / (n - 1) - 0.5) * side
    grid = np.stack(np.meshgrid(at, at, at, indexing="ij"), axis=-1).reshape(1, -1, 3)
    return _turned(np.broadcast_to(grid, (len(centre), *grid.shape[1:])), yaw) + centre[:, None]


def _turned(points: F64, yaw: F64) -> F64:
    """Points [N,K,3], turned by yaw [N] about z."""
    cos, sin, x, y = np.cos(yaw)[:, None], np.sin(yaw)[:, None], points[..., 0], points[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y, points[..., 2]], axis=-1)
