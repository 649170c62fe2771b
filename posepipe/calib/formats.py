"""`load_rig` and `save_rig`: any calibration file to a rig, by suffix and content."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from posepipe.pipeline.errors import RecordError, RigError

from . import opencv, qualisys, toml
from .rig import Camera, ImageTransform, Rig
from .text import read_text

_HINT = "readable are Qualisys .qca.txt, OpenCV .yml (or a folder of them), Pose2Sim or Anipose .toml, and .rig.toml"


def load_rig(path: str | Path, *, image: Mapping[str, ImageTransform] | None = None) -> Rig:
    """The rig of a calibration file or folder.

    image: camera -> how its video maps onto the calibration image; replaces what the file says for that camera.
    RigError names the file, the key and what to do: missing, empty, of no known format, lacking keys, numbers that are not finite,
    rotations that are none, cameras twice, millimetres, or an `image` for a camera that is not there.
    """
    path = Path(path)
    cameras, stated = _read(path)
    rig = Rig(cameras, where=str(path), units_stated=stated)
    return rig.with_image(image) if image else rig


def _read(path: Path) -> tuple[tuple[Camera, ...], bool]:
    where = str(path)
    if path.is_dir():
        return opencv.parse_folder(path)
    text = read_text(path)
    head = text.lstrip()
    if head.startswith("<"):
        return qualisys.parse(text, where), True
    if path.suffix == ".toml":
        return toml.parse(text, where)
    if path.suffix in (".yml", ".yaml") or head.startswith("%YAML"):
        return opencv.parse(text, where)
    raise RigError(f"{path.name!r} is no calibration that can be read", where=where, hint=_HINT)


def save_rig(rig: Rig, path: str | Path) -> None:
    """Write a `.rig.toml`; the file appears whole or not at all. RecordError when it cannot be written."""
    path = Path(path)
    if not path.name.endswith(".rig.toml"):
        raise RecordError(
            f"a rig is saved as .rig.toml, not {path.name!r}", where=str(path), hint=f"write {path.name.split('.')[0]}.rig.toml"
        )
    part = path.with_name(path.name + f".{os.getpid()}.part")
    try:
        part.write_text(toml.render(rig), encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RecordError(
            f"the rig cannot be written ({error.strerror})", where=str(path), hint="check the folder, its permissions and the disk"
        ) from None
