"""Maps of a synthetic recording, one file a camera: which part of whom every pixel shows, where on it, and how deep. Without loss.

`<camera>.maps.npz` is a zip as numpy writes it, made as it grows: `part_00000` uint8 [h,w] (1..24, 0: no body), `u_...` and `v_...`
uint8 [h,w] (0..255 for 0..1 inside the part), `person_...` uint8 [h,w] (id + 1, 0: nobody), `depth_mm_...` uint16 [h,w] (along the optical
axis; 65535: nothing, or further), for every frame.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.packet import F32, U8

from .npz import DAMAGED

_FAR = 65535


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Of one frame, each [h,w]: part, u, v, person uint8; depth_mm uint16."""

    part: U8
    u: U8
    v: U8
    person: U8
    depth_mm: NDArray[np.uint16]


class MapWriter:
    """Appends frames to a file. OSError when the disk does not take it."""

    def __init__(self, path: Path) -> None:
        self._file = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=3)
        self._frames = 0

    def add(self, surface: U8, depth_m: F32) -> None:
        """surface [h,w,4]: part, u, v, person + 1; depth_m [h,w]."""
        depth = np.where(np.isfinite(depth_m), np.clip(np.round(depth_m * 1000), 0, _FAR), _FAR).astype(np.uint16)
        for k, name in enumerate(("part", "u", "v", "person")):
            self._put(name, surface[..., k])
        self._put("depth_mm", depth)
        self._frames += 1

    def _put(self, name: str, array: NDArray[np.integer]) -> None:
        entry = zipfile.ZipInfo(f"{name}_{self._frames:05d}.npy")  # without the time of day: the same scene is the same file
        entry.compress_type = zipfile.ZIP_DEFLATED
        with self._file.open(entry, "w") as out:
            np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)

    def close(self) -> None:
        self._file.close()


def maps_file(folder: str | Path, camera: str) -> Path:
    """Where the maps of a camera are."""
    return Path(folder) / f"{camera}.maps.npz"


def read_maps(folder: str | Path, camera: str, frame: int) -> Maps:
    """The maps of one frame. SourceError when the recording was made without --maps, is damaged, or has no such frame."""
    path = maps_file(folder, camera)
    try:
        with np.load(path, allow_pickle=False) as file:
            return Maps(*(file[f"{name}_{frame:05d}"] for name in ("part", "u", "v", "person", "depth_mm")))
    except FileNotFoundError:
        raise SourceError(f"camera {camera} has no maps", where=str(path), hint="render the recording with --maps") from None
    except KeyError:
        raise SourceError(f"it has no frame {frame}", where=str(path), hint="frames count from 0") from None
    except DAMAGED as error:
        raise SourceError(f"damaged or cut off: {error}", where=str(path), hint="copy or render it again") from None
