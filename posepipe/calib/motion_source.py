"""A recording as a file has it: named joints that turn, in the file's own axes and units; the readers of BVH and of ASF with AMC make it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from posepipe.pipeline.errors import SourceError
from posepipe.pipeline.packet import F64


@dataclass(frozen=True, slots=True)
class Source:
    """T instants of N joints, parents before children; lengths in the file's unit.

    offsets [N,3]: from the parent's joint to this one in the rest pose. ends: per joint without children the offset [3] of its far end, where the file
    has one. rotations [T,N,3,3]: in the world, against the rest pose. positions [T,N,3]: in the world. `unit_m` is 0 where the file does not say.
    """

    where: str
    fps: float
    unit_m: float
    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: F64
    ends: dict[str, F64]
    rotations: F64
    positions: F64

    def rest(self) -> F64:
        """Joints [N,3] in the rest pose, the root at the origin."""
        at = np.zeros_like(self.offsets)
        for n, parent in enumerate(self.parents):
            if parent >= 0:
                at[n] = at[parent] + self.offsets[n]
        return at


def place(parents: tuple[int, ...], offsets: F64, rotations: F64, root: F64) -> F64:
    """Joints [T,N,3] of a root [T,3] and world rotations [T,N,3,3]."""
    out = np.empty(rotations.shape[:3])
    out[:, 0] = root
    for n, parent in enumerate(parents):
        if parent >= 0:
            out[:, n] = out[:, parent] + rotations[:, parent] @ offsets[n]
    return out


def about(axis: str, angle_rad: F64) -> F64:
    """Rotations [...,3,3] about `x`, `y` or `z`."""
    k = "xyz".index(axis)
    i, j = (k + 1) % 3, (k + 2) % 3
    out = np.zeros((*np.shape(angle_rad), 3, 3))
    out[..., k, k] = 1.0
    out[..., i, i] = out[..., j, j] = np.cos(angle_rad)
    out[..., j, i] = np.sin(angle_rad)
    out[..., i, j] = -out[..., j, i]
    return out


@dataclass(slots=True)
class Lines:
    """The words of a text file, line by line, with where they stand."""

    path: Path
    rows: list[tuple[int, list[str]]]
    at: int = 0

    @classmethod
    def of(cls, path: Path, *, comment: str = "#") -> Lines:
        """Raises SourceError for a file that is not there or is not text."""
        try:
            text = path.read_text(encoding="utf-8", errors="strict")
        except UnicodeDecodeError:
            raise SourceError(
                "this is no text file", where=str(path), hint="motion is read from .bvh, and from .amc with its .asf"
            ) from None
        except OSError as e:
            raise SourceError(f"cannot be read: {e.strerror}", where=str(path)) from None
        rows = ((number, line.partition(comment)[0].split()) for number, line in enumerate(text.splitlines(), 1))
        return cls(path, [(number, words) for number, words in rows if words])

    def __iter__(self) -> Iterator[list[str]]:
        while self.at < len(self.rows):
            self.at += 1
            yield self.rows[self.at - 1][1]

    def next(self, expected: str) -> list[str]:
        """The next line's words; SourceError at the end of the file."""
        if self.at == len(self.rows):
            self.fail(f"the file ends where {expected} should be", hint="the file is not whole: fetch it again")
        self.at += 1
        return self.rows[self.at - 1][1]

    def fail(self, what: str, *, hint: str = "") -> NoReturn:
        """SourceError at the line read last."""
        number = self.rows[self.at - 1][0] if self.rows and self.at else 1
        raise SourceError(what, where=f"{self.path}:{number}", hint=hint)

    def numbers(self, words: list[str], count: int, what: str) -> list[float]:
        """`count` finite numbers."""
        if len(words) != count:
            self.fail(f"{what} has {len(words)} numbers, not {count}")
        out = []
        for word in words:
            try:
                value = float(word)
            except ValueError:
                self.fail(f"{what}: {word!r} is not a number")
            if not math.isfinite(value):
                self.fail(f"{what}: {word} is not finite")
            out.append(value)
        return out

    def whole(self, word: str, what: str) -> int:
        """A whole number of at least 1."""
        if not word.isdigit() or int(word) < 1:
            self.fail(f"{what}: {word!r} is not a whole number of at least 1")
        return int(word)
