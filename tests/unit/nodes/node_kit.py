"""What a node needs to be tried on its own: a context with a clock that is set by hand, and frames."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from posepipe.pipeline.node import Caps, Context
from posepipe.pipeline.packet import Bodies, Frame, FrameSet, Packet, Poses, Sync

MS = 1_000_000
T0_NS = 1_700_000_000_000_000_000
CAMERAS = ("north", "east", "south", "west")
PIXELS = np.zeros((2, 2), np.uint8)


@dataclass
class Studio:
    """The runner's side of a context: what the node dropped and said, and the time that it is."""

    cameras: tuple[str, ...] = CAMERAS
    now_ns: int = T0_NS
    dropped: list[tuple[tuple[tuple[str, int], ...], str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def context(self, **other: Any) -> Context:
        fields: dict[str, Any] = {
            "studio": "hall",
            "name": "node",
            "key": "node",
            "cameras": self.cameras,
            "caps": {},
            "graph_sha256": "0" * 64,
            "offline": False,
            "loop": False,
            "rig": None,
            "engines": {},
            "resolve": Path,
            "now_ns": lambda: self.now_ns,
            "stopping": threading.Event(),
            "drop": lambda body, reason: self.dropped.append((body.frame_ids, reason)),
            "warn": self.warnings.append,
        }
        return Context(**{**fields, **other})


def caps(port: str, **what: Any) -> dict[str, Caps]:
    return {port: Caps(**what)}


def frame(camera: str, seq: int, t_ns: int) -> Frame:
    return Frame(camera, seq, t_ns, "i420", 2, 2, (PIXELS, PIXELS[:1, :1], PIXELS[:1, :1]))


def grey_frame(camera: str, seq: int, t_ns: int, *, width: int, height: int) -> Frame:
    y, chroma = np.full((height, width), 90, np.uint8), np.full((height // 2, width // 2), 128, np.uint8)
    return Frame(camera, seq, t_ns, "i420", width, height, (y, chroma, chroma))


def instant(seq: int, t_ns: int, frames: dict[str, Frame], cameras: tuple[str, ...] = CAMERAS) -> FrameSet:
    views = tuple(i for i, c in enumerate(cameras) if c in frames)
    return FrameSet(seq, t_ns, cameras, frames, Sync(0, views, tuple(i for i in range(len(cameras)) if i not in views)))


def poses(
    xyz_m: np.ndarray[Any, Any],
    *,
    ids: tuple[int, ...] | None = None,
    conf: np.ndarray[Any, Any] | None = None,
    cameras: tuple[str, ...] = CAMERAS,
    skeleton: str = "blazepose33",
    sync: Sync | None = None,
    bodies: Bodies | None = None,
) -> Poses:
    """Skeletons [P,J,3]; unseen where NaN."""
    xyz = np.asarray(xyz_m, np.float32)
    people, joints, _ = xyz.shape
    seen = np.isfinite(xyz).all(axis=2).astype(np.float32) if conf is None else np.asarray(conf, np.float32)
    return Poses(
        cameras,
        skeleton,
        sync or Sync(0, tuple(range(len(cameras))), ()),
        "algebraic",
        np.arange(people) if ids is None else np.array(ids, np.int64),
        xyz,
        seen,
        np.full((people, joints), 0.01, np.float32),
        np.full(people, 5.0, np.float32),
        np.full((people, joints), len(cameras), np.uint8),
        bodies,
    )


def bodies(people: int, *, seed: int = 0) -> Bodies:
    """Bodies in any pose and shape, standing anywhere."""
    rng = np.random.default_rng(seed)
    pose, shape, root_m = (rng.standard_normal((people, *rest)).astype(np.float32) for rest in ((24, 6), (16,), (3,)))
    return Bodies("posepipe.adult", pose, shape, root_m)


def packet(body: Any, *, seq: int = 0, t_ns: int = T0_NS) -> Packet[Any]:
    return Packet(seq, t_ns, "test", body, (), ())
