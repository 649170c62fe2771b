"""Acclaim skeletons and motion (.asf, .amc), as the CMU motion capture database has them.

A bone has a rest direction and length, its own axes (`axis`, Euler angles in the world) about which its degrees of freedom turn it, and hangs at the far end of
its parent. M of the dofs turns in those axes: world rotation = parent's * C M C^-1. Lengths are in units of 1/`length` inches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from posepipe.pipeline.errors import SourceError, did_you_mean
from posepipe.pipeline.packet import F64

from .motion_source import Lines, Source, about, place

INCH_M = 0.0254
_DOFS = ("tx", "ty", "tz", "rx", "ry", "rz")


@dataclass(slots=True)
class _Bone:
    axes: F64
    dofs: list[str]
    along: F64


@dataclass(slots=True)
class Skeleton:
    """An .asf file. Bones in the order of the hierarchy, `root` first."""

    path: Path
    unit_m: float
    radians: float
    """What an angle of the file is in radians."""
    bones: dict[str, _Bone] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    start: F64 = field(default_factory=lambda: np.zeros(3))


def read_asf(path: Path) -> Skeleton:
    """Raises SourceError with file and line for what is no ASF, or a broken one."""
    lines = Lines.of(path)
    skeleton = Skeleton(path, INCH_M, np.pi / 180)
    section = ""
    for words in lines:
        if words[0].startswith(":"):
            section = words[0].lower()
            if section not in (":version", ":name", ":units", ":documentation", ":root", ":bonedata", ":hierarchy", ":skin"):
                lines.fail(f"ASF files have no section {words[0]}")
        elif section == ":units":
            _unit(lines, skeleton, words)
        elif section == ":root":
            _root(lines, skeleton, words)
        elif section == ":bonedata":
            if words[0] != "begin":
                lines.fail(f"begin should be here, not {' '.join(words)!r}")
            _bone(lines, skeleton)
        elif section == ":hierarchy" and words[0] not in ("begin", "end"):
            for child in words[1:]:
                if child not in skeleton.bones or words[0] not in (*skeleton.parents, "root"):
                    lines.fail(f"the hierarchy names {child!r} below {words[0]!r}, which :bonedata and the lines above do not have")
                skeleton.parents[child] = words[0]
    if "root" not in skeleton.bones or not skeleton.parents:
        raise SourceError("this is no ASF skeleton: it has no :root and :hierarchy", where=str(path))
    return skeleton


def _unit(lines: Lines, skeleton: Skeleton, words: list[str]) -> None:
    if words[0] == "length":
        length = lines.numbers(words[1:], 1, "length")[0]
        if length <= 0:
            lines.fail(f"length {length} is not above 0")
        skeleton.unit_m = INCH_M / length
    elif words[0] == "angle":
        if words[1:] not in (["deg"], ["rad"]):
            lines.fail("angle is deg or rad")
        skeleton.radians = np.pi / 180 if words[1] == "deg" else 1.0


def _root(lines: Lines, skeleton: Skeleton, words: list[str]) -> None:
    root = skeleton.bones.setdefault("root", _Bone(np.eye(3), list(_DOFS), np.zeros(3)))
    if words[0] == "order":
        root.dofs = _dofs(lines, words[1:])
    elif words[0] == "position":
        skeleton.start = np.array(lines.numbers(words[1:], 3, "position"))
    elif words[0] == "orientation":
        root.axes = _euler(lines.numbers(words[1:], 3, "orientation"), "xyz", skeleton.radians)


def _bone(lines: Lines, skeleton: Skeleton) -> None:
    name, direction, length, bone = "", np.zeros(3), 0.0, _Bone(np.eye(3), [], np.zeros(3))
    while (words := lines.next("end of a bone"))[0] != "end":
        if words[0] == "name":
            name = words[1] if len(words) == 2 else lines.fail("a bone has one name")
        elif words[0] == "direction":
            direction = np.array(lines.numbers(words[1:], 3, "direction"))
        elif words[0] == "length":
            length = lines.numbers(words[1:], 1, "length")[0]
        elif words[0] == "axis":
            order = words[4].lower() if len(words) == 5 else "xyz"
            if sorted(order) != ["x", "y", "z"]:
                lines.fail(f"axis has the order {order!r}, not one like XYZ")
            bone.axes = _euler(lines.numbers(words[1:4], 3, "axis"), order, skeleton.radians)
        elif words[0] == "dof":
            bone.dofs = _dofs(lines, words[1:])
    if not name or name in skeleton.bones:
        lines.fail(f"there are two bones {name!r}" if name else "a bone has no name")
    bone.along = direction / max(float(np.linalg.norm(direction)), 1e-12) * length
    skeleton.bones[name] = bone


def _dofs(lines: Lines, words: list[str]) -> list[str]:
    dofs = [word.lower() for word in words]
    unknown = [dof for dof in dofs if dof not in (*_DOFS, "l")]
    if unknown:
        lines.fail(f"{unknown[0]!r} is no degree of freedom", hint=f"they are {', '.join(_DOFS)}")
    return dofs


def _euler(angles: list[float], order: str, radians: float) -> F64:
    """The first axis of the order turns first, about axes that stay: R = R3 R2 R1."""
    out = np.eye(3)
    for axis in order:
        out = about(axis, np.asarray(angles["xyz".index(axis)] * radians)) @ out
    return out


def read_amc(path: Path, skeleton: Skeleton, *, fps: float) -> Source:
    """Motion of that skeleton, `fps` instants a second (the format does not say). Raises SourceError with file and line."""
    lines = Lines.of(path)
    radians = np.pi / 180
    values: dict[str, list[list[float]]] = {name: [] for name, bone in skeleton.bones.items() if bone.dofs}
    count = 0
    for words in lines:
        if words[0].startswith(":"):
            radians = 1.0 if words[0].upper() == ":RADIANS" else radians
        elif len(words) == 1 and words[0].isdigit():
            _complete(lines, values, count)
            count += 1
        elif words[0] not in values:
            lines.fail(f"{skeleton.path.name} has no bone {words[0]!r} that moves", hint=did_you_mean(words[0], values))
        elif len(values[words[0]]) != count - 1:
            lines.fail(f"bone {words[0]!r} is there twice" if count else "a frame number should come first")
        else:
            values[words[0]].append(lines.numbers(words[1:], len(skeleton.bones[words[0]].dofs), f"bone {words[0]!r}"))
    _complete(lines, values, count)
    if not count:
        raise SourceError("there is no frame in it", where=str(path), hint="motion is read from .bvh, and from .amc with its .asf")
    names = ("root", *(name for name in skeleton.parents))
    parents = (-1, *(names.index(skeleton.parents[name]) for name in names[1:]))
    offsets = np.array([skeleton.bones[names[p]].along if p > 0 else np.zeros(3) for p in parents])
    rotations = np.empty((count, len(names), 3, 3))
    root = np.tile(skeleton.start, (count, 1))
    for n, name in enumerate(names):
        bone = skeleton.bones[name]
        turn = np.broadcast_to(np.eye(3), (count, 3, 3))
        for k, dof in enumerate(bone.dofs):
            column = np.array(values[name])[:, k]
            if dof[0] == "r":
                turn = about(dof[1], column * radians) @ turn
            elif name == "root" and dof[0] == "t":
                root[:, "xyz".index(dof[1])] = column
        local = bone.axes @ turn @ bone.axes.T
        rotations[:, n] = local if parents[n] < 0 else rotations[:, parents[n]] @ local
    ends = {name: skeleton.bones[name].along for name in names[1:] if name not in skeleton.parents.values()}
    positions = place(parents, offsets, rotations, root)
    return Source(str(path), fps, skeleton.unit_m, names, parents, offsets, ends, rotations, positions)


def _complete(lines: Lines, values: dict[str, list[list[float]]], count: int) -> None:
    short = [name for name, rows in values.items() if len(rows) != count]
    if short:
        lines.fail(f"frame {count} ends without bone {short[0]!r}", hint="the file is not whole, or its skeleton is another")
