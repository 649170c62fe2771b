"""OpenCV calibrations (FileStorage YAML). Poses are camera-from-world as OpenCV's solvers give them, metres unless `units` says mm or cm.

One file, or a folder with `intrinsics.yml` and `extrinsics.yml` (also `intri.yml`, `extri.yml`), with these keys per camera NAME:
    K_NAME 3x3;  D_NAME (or dist_NAME) coefficients;  R_NAME (3x3 or Rodrigues; or Rot_NAME);  T_NAME 3;  size_NAME [width, height]
    names: [...] gives the order (else the order of the K_ keys); `size: [width, height]` holds for cameras without their own.
Or a folder with one file per camera, NAME.yml:
    camera_matrix 3x3;  distortion_coefficients;  image_width, image_height;  R (3x3 or Rodrigues; or rvec);  T 3 (or tvec)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from posepipe.pipeline.errors import RigError

from .rig import Camera
from .text import METRES_PER_UNIT, Section, read_text

_PAIRS = (("intrinsics", "extrinsics"), ("intri", "extri"))
_SUFFIXES = (".yml", ".yaml")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain YAML and OpenCV's matrices; no other tag is known, so nothing but data can come out. Aliases are refused: they can
    multiply a small file without bound."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias (*name); write the values out", self.peek_event().start_mark)
        return super().compose_node(parent, index)


def _number(value: Any) -> float:
    """A number as FileStorage writes it, which spells `.Nan` and `.Inf` in its own way."""
    return float(value.replace(".Nan", "nan").replace(".Inf", "inf") if isinstance(value, str) else value)


def _matrix(loader: _Loader, node: yaml.Node) -> Any:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, "an opencv-matrix without rows, cols and data", node.start_mark)
    fields = loader.construct_mapping(node, deep=True)
    try:
        return np.array([_number(x) for x in fields["data"]]).reshape(int(fields["rows"]), int(fields["cols"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise yaml.constructor.ConstructorError(None, None, f"an opencv-matrix that is not one ({error})", node.start_mark) from None


_Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", _matrix)


def parse(text: str, where: str) -> tuple[tuple[Camera, ...], bool]:
    """Cameras of one file, and whether it states its units."""
    return _from_map(_load(text, where), where)


def parse_folder(folder: Path) -> tuple[tuple[Camera, ...], bool]:
    """Cameras of a folder, and whether it states its units."""
    files = sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES)
    stems = {p.stem: p for p in files}
    for names in _PAIRS:
        if any(n in stems for n in names):
            missing = [n for n in names if n not in stems]
            if missing:
                raise RigError(
                    f"{missing[0]}.yml is missing", where=str(folder), hint=f"the folder needs {names[0]}.yml and {names[1]}.yml"
                )
            values: dict[str, Any] = {}
            for n in names:
                values |= _load(read_text(stems[n]), str(stems[n]))
            return _from_map(values, str(folder))
    if not files:
        raise RigError(
            "the folder holds no .yml file", where=str(folder), hint="write intrinsics.yml and extrinsics.yml, or one NAME.yml per camera"
        )
    cameras, stated = [], False
    for path in files:
        values = _load(read_text(path), str(path))
        section = Section(values, where=str(path), what="")
        scale = section.metres_per_unit()
        stated |= "units" in values
        size = (section.whole(section.number("image_width"), "image_width"), section.whole(section.number("image_height"), "image_height"))
        cameras.append(
            section.camera(
                path.stem,
                size,
                section.array("camera_matrix", (3, 3)),
                section.array("distortion_coefficients", (-1,)),
                section.rotation("rvec" if "rvec" in section else "R"),
                section.array("tvec" if "tvec" in section else "T", (3,)) * scale,
            )
        )
    return tuple(cameras), stated


def _from_map(values: Mapping[str, Any], where: str) -> tuple[tuple[Camera, ...], bool]:
    top = Section(values, where=where, what="")
    names = [str(n) for n in values["names"]] if isinstance(values.get("names"), list) else [k[2:] for k in values if k.startswith("K_")]
    if not names:
        raise RigError(
            "no camera in the file (no key K_NAME)",
            where=where,
            hint="write K_NAME, D_NAME, R_NAME, T_NAME and size_NAME for every camera, or a folder with one file per camera",
        )
    scale = top.metres_per_unit()
    cameras = []
    for n in names:
        section = Section(values, where=where, what=f"camera {n!r}")
        cameras.append(
            section.camera(
                n,
                section.size(f"size_{n}" if f"size_{n}" in section or "size" not in section else "size"),
                section.array(f"K_{n}", (3, 3)),
                section.array(f"dist_{n}" if f"dist_{n}" in section else f"D_{n}", (-1,)),
                section.rotation(f"Rot_{n}" if f"Rot_{n}" in section else f"R_{n}"),
                section.array(f"T_{n}", (3,)) * scale,
            )
        )
    return tuple(cameras), values.get("units") in METRES_PER_UNIT


def _load(text: str, where: str) -> dict[str, Any]:
    body = re.sub(r"\A%YAML[: ]\S*[ \t]*\r?\n", "", text)
    try:
        values = yaml.load(body, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise RigError(
            f"not OpenCV YAML: {' '.join(str(error).split())}", where=where, hint="write the file with cv2.FileStorage, or export it again"
        ) from None
    if not isinstance(values, dict):
        raise RigError("not OpenCV YAML: the file is not a map of keys", where=where, hint="write the file with cv2.FileStorage")
    return {str(k): v for k, v in values.items()}
