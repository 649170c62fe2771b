"""Reading calibration files without surprises: text, keys and numbers, and the error that says which of them is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posepipe.pipeline.errors import RigError, did_you_mean
from posepipe.pipeline.packet import F64

from .rig import Camera

_LARGEST_BYTES = 4 << 20
METRES_PER_UNIT = {"m": 1.0, "cm": 0.01, "mm": 0.001}


def read_text(path: Path) -> str:
    """The whole file; RigError when it is missing, empty, too large or not text."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise RigError(
                f"{path.stat().st_size >> 20} MB is no calibration", where=str(path), hint="rig: names a calibration file, not a recording"
            )
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RigError("no such calibration file", where=str(path), hint=_nearby(path)) from None
    except OSError as error:
        raise RigError(
            f"the calibration cannot be read ({error.strerror})", where=str(path), hint="check the path and the permissions"
        ) from None
    except UnicodeDecodeError:
        raise RigError(
            "the calibration is not a text file", where=str(path), hint="name a .qca.txt, .yml, .toml or .rig.toml file"
        ) from None
    if not text.strip():
        raise RigError("the calibration file is empty", where=str(path), hint="export the calibration again")
    return text


def _nearby(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist"
    return did_you_mean(path.name, (p.name for p in path.parent.iterdir() if p.suffix in (".txt", ".yml", ".yaml", ".toml", ".xml")))


class Section:
    """One camera's part of a calibration file: keys are looked up and turned to numbers with errors that name file and key."""

    def __init__(self, values: Mapping[str, Any], *, where: str, what: str) -> None:
        self._values, self._where, self._what = values, where, what

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def error(self, what: str, hint: str) -> RigError:
        return RigError(f"{self._what}: {what}" if self._what else what, where=self._where, hint=hint)

    def get(self, key: str) -> Any:
        if key not in self._values:
            raise self.error(f"key {key!r} is missing", f"{did_you_mean(key, map(str, self._values))} A camera needs {key!r}")
        return self._values[key]

    def array(self, key: str, *shapes: tuple[int, ...]) -> F64:
        """Finite numbers in one of these shapes; -1 is any length. A vector may also be written as a row or a column."""
        value = self.get(key)
        try:
            array = np.array(value, np.float64)
        except (TypeError, ValueError, OverflowError):
            raise self.error(f"{key!r} is not an array of numbers", f"write {_shapes(shapes)} numbers") from None
        for shape in shapes:
            flat = array.ravel() if len(shape) == 1 and array.ndim == 2 and 1 in array.shape else array
            if flat.ndim == len(shape) and all(want in (-1, got) for want, got in zip(shape, flat.shape, strict=True)):
                if not np.isfinite(flat).all():
                    raise self.error(f"{key!r} holds a number that is not finite", "the calibration did not converge; calibrate again")
                return np.asarray(flat, np.float64)
        raise self.error(f"{key!r} has shape {list(array.shape)}", f"write {_shapes(shapes)} numbers")

    def number(self, key: str) -> float:
        value = self.get(key)
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise self.error(f"{key!r} is {value!r}, not a number", "write a number") from None
        if not np.isfinite(number):
            raise self.error(f"{key!r} is {value!r}", "the calibration did not converge; calibrate again")
        return number

    def size(self, key: str) -> tuple[int, int]:
        width, height = self.array(key, (2,))
        return self.whole(width, key), self.whole(height, key)

    def whole(self, pixels: float, key: str) -> int:
        if pixels != round(pixels) or pixels < 1:
            raise self.error(f"{key!r} holds {pixels:g}", "an image size is a whole, positive number of pixels")
        return int(pixels)

    def rotation(self, key: str) -> F64:
        """A 3x3 matrix, or a Rodrigues vector (axis times angle in radians)."""
        array = self.array(key, (3, 3), (3,))
        if array.ndim == 2:
            return array
        return np.asarray(cv2.Rodrigues(array)[0], np.float64)

    def camera(self, name: str, size: tuple[int, int], matrix: F64, distortion: F64, rotation: F64, translation_m: F64) -> Camera:
        """The camera; what `Camera` refuses is told with the file's name."""
        try:
            return Camera(name, *size, matrix, distortion, np.column_stack([rotation, translation_m]))
        except RigError as error:
            raise RigError(error.what, where=self._where, hint=error.hint) from None

    def metres_per_unit(self, key: str = "units") -> float:
        """1 when nothing is stated."""
        unit = self._values.get(key, "m")
        if not isinstance(unit, str) or unit not in METRES_PER_UNIT:
            raise self.error(f"{key!r} is {unit!r}", did_you_mean(str(unit), METRES_PER_UNIT))
        return METRES_PER_UNIT[unit]


def _shapes(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " or ".join("x".join("n" if n < 0 else str(n) for n in shape) for shape in shapes)
