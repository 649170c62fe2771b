"""Poses of bodies of many shapes, for training without pictures: every clip on several bodies, as COCO-17 key points."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from posepipe.pipeline.packet import F32

from .body import Body, load_body
from .motion import Clip, retarget


@dataclass(frozen=True, slots=True)
class Track:
    """One clip on one body. coco17_m [T,17,3]: metres, z up, floor z = 0. shape [K]. `name` is the recording's: split by it."""

    name: str
    label: str
    fps: float
    coco17_m: F32
    shape: F32


def bank(clips: Iterable[Clip], *, body: Body | None = None, shapes: int, seed: int) -> list[Track]:
    """Every clip on `shapes` bodies (of the body that is shipped, unless another is given).

    The shapes follow from the seed and the clip's name alone: a part of the clips gives the same tracks as all of them.
    """
    body = body or load_body()
    tracks = []
    for clip in clips:
        rng = np.random.default_rng([seed, zlib.crc32(clip.name.encode())])
        for _ in range(shapes):
            shape = body.draw(rng)
            tracks.append(Track(clip.recording, clip.label, clip.fps, retarget(clip, body, shape).joints_m("coco17"), shape))
    return tracks
