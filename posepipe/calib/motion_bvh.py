"""Biovision hierarchies (.bvh): a tree of joints with offsets and channels, then one line of channel values per instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from posepipe.pipeline.packet import F64

from .motion_source import Lines, Source, about

_CHANNELS = ("xposition", "yposition", "zposition", "xrotation", "yrotation", "zrotation")
_MOST = 500


@dataclass(slots=True)
class _Tree:
    names: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)
    channels: list[list[str]] = field(default_factory=list)
    ends: dict[str, F64] = field(default_factory=dict)


def read_bvh(path: Path) -> Source:
    """Raises SourceError with file and line for what is no BVH, or a broken one."""
    lines = Lines.of(path, comment="\0")
    if lines.next("HIERARCHY")[0].upper() != "HIERARCHY":
        lines.fail("a BVH file begins with HIERARCHY")
    tree = _Tree()
    words = lines.next("ROOT")
    if words[0].upper() != "ROOT" or len(words) < 2:
        lines.fail(f"ROOT and its name should be here, not {' '.join(words)!r}")
    _joint(lines, tree, words[1], -1)
    words = lines.next("MOTION")
    if words[0].upper() != "MOTION":
        lines.fail(f"MOTION should be here, not {' '.join(words)!r}", hint="files with several roots are not read")
    words = lines.next("Frames:")
    count = lines.whole(words[-1], "Frames:") if words[0].lower().startswith("frames") else lines.fail("Frames: should be here")
    words = lines.next("Frame Time:")
    seconds = lines.numbers(words[2:], 1, "Frame Time:")[0] if words[0].lower() == "frame" else lines.fail("Frame Time: should be here")
    if seconds <= 0:
        lines.fail(f"Frame Time: {seconds} is not above 0")
    width = sum(len(c) for c in tree.channels)
    values = np.array([lines.numbers(lines.next(f"instant {t + 1} of {count}"), width, f"instant {t + 1}") for t in range(count)])
    rotations, positions = _posed(tree, values)
    return Source(
        str(path), 1 / seconds, 0.0, tuple(tree.names), tuple(tree.parents), np.array(tree.offsets), tree.ends, rotations, positions
    )


def _joint(lines: Lines, tree: _Tree, name: str, parent: int) -> None:
    _open(lines, name)
    at = len(tree.names)
    if at == _MOST:
        lines.fail(f"there are more than {_MOST} joints")
    if name in tree.names:
        lines.fail(f"there are two joints {name!r}")
    tree.names.append(name)
    tree.parents.append(parent)
    tree.offsets.append(_offset(lines, name))
    words = lines.next("CHANNELS")
    channels = [word.lower() for word in words[2:]]
    if words[0].upper() != "CHANNELS" or len(words) < 2 or words[1] != str(len(channels)) or not set(channels) <= set(_CHANNELS):
        lines.fail(f"CHANNELS, their number and names should be here, not {' '.join(words)!r}", hint=f"channels are {', '.join(_CHANNELS)}")
    tree.channels.append(channels)
    while True:
        words = lines.next("}")
        if words[0] == "}":
            return
        if words[0].upper() == "JOINT" and len(words) > 1:
            _joint(lines, tree, words[1], at)
        elif words[0].upper() == "END":
            _open(lines, "End Site")
            tree.ends[name] = np.array(_offset(lines, "End Site"))
            if lines.next("}")[0] != "}":
                lines.fail("an End Site has an OFFSET and nothing else")
        else:
            lines.fail(f"JOINT, End Site or }} should be here, not {' '.join(words)!r}")


def _open(lines: Lines, name: str) -> None:
    if lines.next("{")[0] != "{":
        lines.fail(f"{{ of {name!r} should be here")


def _offset(lines: Lines, name: str) -> list[float]:
    words = lines.next("OFFSET")
    if words[0].upper() != "OFFSET":
        lines.fail(f"OFFSET of {name!r} should be here, not {' '.join(words)!r}")
    return lines.numbers(words[1:], 3, f"OFFSET of {name!r}")


def _posed(tree: _Tree, values: F64) -> tuple[F64, F64]:
    """World rotations [T,N,3,3] and positions [T,N,3]; channels turn in the order in which they are listed, each in the frame of those before."""
    rotations = np.empty((len(values), len(tree.names), 3, 3))
    positions = np.empty((len(values), len(tree.names), 3))
    column = 0
    for n, channels in enumerate(tree.channels):
        local = np.broadcast_to(np.eye(3), (len(values), 3, 3))
        offset = np.broadcast_to(np.array(tree.offsets[n]), (len(values), 3)).copy()
        for channel in channels:
            if channel.endswith("rotation"):
                local = local @ about(channel[0], np.radians(values[:, column]))
            else:
                offset[:, "xyz".index(channel[0])] = values[:, column]
            column += 1
        parent = tree.parents[n]
        rotations[:, n] = local if parent < 0 else rotations[:, parent] @ local
        positions[:, n] = offset if parent < 0 else positions[:, parent] + np.einsum("tij,tj->ti", rotations[:, parent], offset)
    return rotations, positions
