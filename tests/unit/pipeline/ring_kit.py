"""Rings of frames to try, and pictures to put into them."""

from __future__ import annotations

import os
from contextlib import ExitStack

import numpy as np

from posepipe.pipeline.packet import Frame, PixelFormat
from posepipe.pipeline.ring import FrameRing, SlotRef, plane_layouts
from posepipe.pipeline.ringends import RingWriter

WIDTH, HEIGHT = 64, 48


class Rings:
    """Rings that are closed after the test; `again` attaches as another process would."""

    def __init__(self) -> None:
        self._closing = ExitStack()

    def new(self, slots: int = 3) -> FrameRing:
        return self._kept(FrameRing.create(slots, WIDTH, HEIGHT))

    def again(self, ring: FrameRing) -> FrameRing:
        return self._kept(FrameRing.attach(os.dup(ring.fd)))

    def _kept(self, ring: FrameRing) -> FrameRing:
        self._closing.callback(ring.close)
        return ring

    def close(self) -> None:
        self._closing.close()


def picture(seq: int, *, width: int = WIDTH, height: int = HEIGHT, format: PixelFormat = "i420", pad: int = 0) -> Frame:
    """Random planes; `pad` makes strided views of wider rows."""
    rng = np.random.default_rng(seq)
    planes = []
    for layout in plane_layouts(width, height, format):
        wide = rng.integers(0, 256, (layout.shape[0], layout.shape[1] + pad, *layout.shape[2:]), np.uint8)
        planes.append(wide[:, : layout.shape[1]])
    return Frame("north", seq, 1_700_000_000_000_000_000 + seq, format, width, height, tuple(planes), bool(seq % 2))


def put(writer: RingWriter, seq: int, *, pin: bool = False) -> SlotRef:
    ref = writer.put(picture(seq), pin=pin)
    assert ref is not None
    return ref


def same(a: Frame, b: Frame) -> bool:
    metadata = [(f.camera, f.seq, f.t_capture_ns, f.format, f.width, f.height, f.full_range) for f in (a, b)]
    return metadata[0] == metadata[1] and all(np.array_equal(p, q) for p, q in zip(a.planes, b.planes, strict=True))
