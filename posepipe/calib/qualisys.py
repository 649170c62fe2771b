"""Qualisys Track Manager calibrations (`.qca.txt`, XML).

What is read, per <camera>: `serial` is the name; <fov_video> left, right, top, bottom give the image size; <intrinsic> holds focal
lengths and the centre point in 1/64 pixel and the distortion as it is; <transform> r11..r33 are the camera's axes in the world, row
by row (right, up, backwards: y and z are flipped to get right, down, forward) and x, y, z its centre in mm.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.parsers import expat

import numpy as np

from posepipe.pipeline.errors import RigError

from .rig import Camera
from .text import Section

_SUBPIXELS = 64.0
_METRES_PER_MM = 1e-3
_PARTS = ("transform", "intrinsic", "fov_video")


def parse(text: str, where: str) -> tuple[Camera, ...]:
    """Cameras in the file's order."""
    cameras = []
    for k, parts in enumerate(_elements(text, where)):
        name = parts["camera"].get("serial", "")
        what = f"camera {name!r}" if name else f"camera number {k + 1}"
        if not name:
            raise RigError(f"{what} has no serial", where=where, hint="every <camera> needs a serial, which is its name here")
        missing = [p for p in _PARTS if p not in parts]
        if missing:
            raise RigError(f"{what}: <{missing[0]}> is missing", where=where, hint="export the calibration again as .qca.txt")
        cameras.append(_camera(name, *(Section(parts[p], where=where, what=f"{what}, <{p}>") for p in _PARTS)))
    if not cameras:
        raise RigError("the file holds no <camera>", where=where, hint="export the calibration from Qualisys Track Manager as .qca.txt")
    return tuple(cameras)


def _camera(name: str, transform: Section, intrinsic: Section, picture: Section) -> Camera:
    rows = np.array([[transform.number(f"r{i}{j}") for j in (1, 2, 3)] for i in (1, 2, 3)])
    rotation = np.diag([1.0, -1.0, -1.0]) @ rows
    centre_m = np.array([transform.number(axis) for axis in "xyz"]) * _METRES_PER_MM
    left, top = picture.number("left"), picture.number("top")
    size = (picture.whole(picture.number("right") - left + 1, "right"), picture.whole(picture.number("bottom") - top + 1, "bottom"))
    focal_u, focal_v = (intrinsic.number(f"focalLength{axis}") / _SUBPIXELS for axis in "UV")
    centre_u, centre_v = (intrinsic.number(f"centerPoint{axis}") / _SUBPIXELS for axis in "UV")
    radial = [intrinsic.number(f"radialDistortion{k}") for k in (1, 2, 3)]
    tangential = [intrinsic.number(f"tangentalDistortion{k}") for k in (1, 2)]
    return intrinsic.camera(
        name,
        size,
        np.array([[focal_u, 0, centre_u - left], [0, focal_v, centre_v - top], [0, 0, 1]]),
        np.array([*radial[:2], *tangential, radial[2]]),
        rotation,
        -rotation @ centre_m,
    )


def _elements(text: str, where: str) -> list[dict[str, Mapping[str, str]]]:
    """Attributes of every <camera> and of its parts. A document type is refused: no entity is ever expanded."""
    cameras: list[dict[str, Mapping[str, str]]] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "camera":
            cameras.append({"camera": attributes})
        elif tag in _PARTS and cameras:
            cameras[-1][tag] = attributes

    def refuse(*_: object) -> None:
        raise RigError("the file declares a document type", where=where, hint="a Qualisys calibration has none; remove <!DOCTYPE ...>")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        raise RigError(f"not well-formed XML: {error}", where=where, hint="the file is damaged or cut off; export it again") from None
    return cameras
