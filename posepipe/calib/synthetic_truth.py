"""The truth beside a synthetic recording: what its pictures show, exactly. Layout of a recording's folder in docs/synthetic.md.

P people, C cameras, T frames, J joints of coco17. World frame, metres, z up, floor z = 0; NaN where a person is absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.errors import RecordError, SourceError
from posepipe.pipeline.packet import F32, F64

from .npz import DAMAGED

FORMAT = "posepipe-synthetic-1"
SCENE, ARRAYS, RIG = "scene.json", "truth.npz", "rig.toml"
_HINT = "name the folder that `posepipe synth render --out DIR` wrote"


class Person(msgspec.Struct, frozen=True):
    """Who a row of the truth is. shape: the body's shape components. colours: what is worn -> [r, g, b] 0..1, linear."""

    id: int
    shape: list[float]
    colours: dict[str, list[float]]
    clip: str
    label: str


class Scene(msgspec.Struct, frozen=True):
    """What `scene.json` holds. `options` are those of the command that made the recording."""

    format: str
    seed: int
    fps: float
    frames: int
    size_px: tuple[int, int]
    cameras: tuple[str, ...]
    actions: tuple[str, ...]
    people: tuple[Person, ...]
    options: dict[str, Any] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The truth of one recording; arrays are read-only.

    t_s [T]: frame k of a perfect camera was taken then; the three-dimensional arrays and `action` are of these times.
    coco17_m [P,T,17,3], body25_m [P,T,25,3], smpl24_m [P,T,24,3], root_m [P,T,3]; action [P,T]: index into scene.actions, -1 absent.
    capture_t_s [C,T]: when frame k of a camera was really taken (another time than t_s only with skew or drift); camera_from_world
    [C,T,3,4]: where the camera really was then (another pose than the rig's only with shake). coco17_uv_px [C,P,T,17,2] (video
    pixels, NaN behind the camera) and coco17_visible [C,P,T,17] (inside the picture, nothing in front) are of the pictures as taken.
    """

    where: str
    scene: Scene
    t_s: F64
    capture_t_s: F64
    camera_from_world: F64
    coco17_m: F32
    body25_m: F32
    smpl24_m: F32
    root_m: F32
    coco17_uv_px: F32
    coco17_visible: NDArray[np.bool_]
    action: NDArray[np.int16]

    def __post_init__(self) -> None:
        for name, shape in _shapes(self.scene).items():
            array = getattr(self, name)
            if array.shape != shape:
                raise SourceError(f"{name} has shape {list(array.shape)}, not {list(shape)}", where=self.where, hint="render it again")
            array.setflags(write=False)

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.scene.cameras

    def joints_m(self, layout: str) -> F32:
        """The skeletons [P,T,J,3] of `coco17`, `body25` or `smpl24`."""
        return {"coco17": self.coco17_m, "body25": self.body25_m, "smpl24": self.smpl24_m}[layout]


_TYPES: dict[str, Any] = {"t_s": np.float64, "capture_t_s": np.float64, "camera_from_world": np.float64, "coco17_visible": np.bool_}
_TYPES["action"] = np.int16


def _shapes(scene: Scene) -> dict[str, tuple[int, ...]]:
    people, cameras, frames = len(scene.people), len(scene.cameras), scene.frames
    return {
        "t_s": (frames,),
        "capture_t_s": (cameras, frames),
        "camera_from_world": (cameras, frames, 3, 4),
        "coco17_m": (people, frames, 17, 3),
        "body25_m": (people, frames, 25, 3),
        "smpl24_m": (people, frames, 24, 3),
        "root_m": (people, frames, 3),
        "coco17_uv_px": (cameras, people, frames, 17, 2),
        "coco17_visible": (cameras, people, frames, 17),
        "action": (people, frames),
    }


def write_truth(folder: str | Path, truth: Truth) -> None:
    """Write `scene.json` and `truth.npz`. RecordError when they cannot be written."""
    folder = Path(folder)
    try:
        np.savez_compressed(folder / ARRAYS, **{name: getattr(truth, name) for name in _shapes(truth.scene)})
        (folder / SCENE).write_bytes(msgspec.json.format(msgspec.json.encode(truth.scene), indent=1) + b"\n")
    except OSError as error:
        raise RecordError(
            f"the truth cannot be written ({error.strerror})", where=str(folder), hint="free some space, or write elsewhere"
        ) from None


def read_scene(folder: str | Path) -> Scene:
    """What `scene.json` says. SourceError when the folder is no synthetic recording."""
    folder = Path(folder)
    where = str(folder / SCENE)
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}", where="truth", hint=_HINT)
    try:
        scene = msgspec.json.decode((folder / SCENE).read_bytes(), type=Scene)
    except FileNotFoundError:
        raise SourceError(f"{folder} is no synthetic recording: it has no {SCENE}", where="truth", hint=_HINT) from None
    except OSError as error:
        raise SourceError(f"cannot be read ({error.strerror})", where=where, hint="check its permissions") from None
    except msgspec.DecodeError as error:
        raise SourceError(f"damaged: {error}", where=where, hint="render it again") from None
    if scene.format != FORMAT:
        raise SourceError(f"format {scene.format!r}", where=where, hint=f"this version reads {FORMAT}; render it again")
    return scene


def read_truth(folder: str | Path) -> Truth:
    """The truth of a synthetic recording. SourceError names the file and what is wrong: missing, damaged, cut off, other shapes."""
    folder = Path(folder)
    scene = read_scene(folder)
    path = folder / ARRAYS
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], _TYPES.get(name, np.float32)) for name in _shapes(scene)}
    except FileNotFoundError:
        raise SourceError(f"{folder} has no {ARRAYS}", where="truth", hint=_HINT) from None
    except KeyError as error:
        raise SourceError(f"it lacks {error.args[0]}", where=str(path), hint="render it again") from None
    except DAMAGED as error:
        raise SourceError(f"damaged or cut off: {error}", where=str(path), hint="copy or render it again") from None
    return Truth(where=str(folder), scene=scene, **arrays)
