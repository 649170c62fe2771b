"""A studio to be drawn: three cameras, their frames, and a person who stands between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from node_kit import MS, instant
from people import looking_at

from posepipe.calib.rig import Camera, Rig
from posepipe.nodes.view_mosaic import Mosaic
from posepipe.pipeline.packet import Frame, FrameSet, Packet, Poses, Sync
from posepipe.pipeline.skeleton import COCO17

CAMERAS = ("north", "east", "south")
WIDTH, HEIGHT = 640, 480
MATRIX = np.array([[500, 0, WIDTH / 2], [0, 500, HEIGHT / 2], [0, 0, 1.0]])
RIG = Rig(
    tuple(
        Camera(name, WIDTH, HEIGHT, MATRIX, np.zeros(5), looking_at(centre_m))
        for name, centre_m in zip(CAMERAS, ((0, 4, 1.6), (4, 0, 1.6), (0, -4, 1.6)), strict=True)
    )
)


def frame(camera: str, *, luma: int = 60) -> Frame:
    y = np.full((HEIGHT, WIDTH), luma, np.uint8)
    chroma = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)
    return Frame(camera, 0, 0, "i420", WIDTH, HEIGHT, (y, chroma, chroma))


def frames(seq: int = 0, *, missing: tuple[str, ...] = (), luma: int = 60) -> FrameSet:
    there = {c: frame(c, luma=luma) for c in CAMERAS if c not in missing}
    return instant(seq, seq * 33 * MS, there, CAMERAS)


def standing(*, x_m: float = 0.0, conf: float = 0.9) -> Poses:
    """One person of 17 joints, upright at (x, 0), arms out."""
    heights = {"nose": 1.6, "eye": 1.65, "ear": 1.62, "shoulder": 1.4, "elbow": 1.2, "wrist": 1.0, "hip": 0.95, "knee": 0.5, "ankle": 0.08}
    aside = {"nose": 0.0, "eye": 0.04, "ear": 0.08, "shoulder": 0.2, "elbow": 0.4, "wrist": 0.6, "hip": 0.12, "knee": 0.14, "ankle": 0.16}
    xyz = np.zeros((1, 17, 3), np.float32)
    for j, name in enumerate(COCO17.joints):
        side = 1 if name.startswith("left_") else -1
        part = name.rpartition("_")[2]
        xyz[0, j] = (x_m + side * aside[part], 0, heights[part])
    confidence, sigma = np.full((1, 17), conf, np.float32), np.full((1, 17), 0.02, np.float32)
    used = np.full((1, 17), 3, np.uint8)
    return Poses(
        CAMERAS, "coco17", Sync(0, (0, 1, 2), ()), "algebraic", np.array([5]), xyz, confidence, sigma, np.array([4.2], np.float32), used
    )


def nobody() -> Poses:
    p = standing()
    return Poses(
        CAMERAS, "coco17", p.sync, "algebraic", p.ids[:0], p.xyz_m[:0], p.conf[:0], p.sigma_m[:0], p.reproj_px[:0], p.views_used[:0]
    )


def packet(body: Poses, seq: int = 0, *, t_ms: float | None = None) -> Packet[Poses]:
    return Packet(seq, round((seq * 33 if t_ms is None else t_ms) * MS), "smooth", body, (), ())


def mosaic(rig: Rig | None = RIG, *, width_px: int = 1280) -> Mosaic:
    return Mosaic(frames(), rig, studio="hall", width_px=width_px, offline=True)


def painted(m: Mosaic, body: Poses, f: FrameSet | None = None, words: list[str] | None = None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    m.remember(body)
    return m.paint(f or frames(), packet(body), [""] * len(body.ids) if words is None else words)


def near(image: Any, colour: tuple[int, int, int], tolerance: int = 60) -> Any:
    """Where a picture has about that colour [h,w]."""
    return np.abs(image.astype(int) - colour).max(axis=2) < tolerance
