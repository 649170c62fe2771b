"""Recordings as record.jsonl writes them, of somebody who stands and now and then raises a hand, and their labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from posepipe.nodes.record_jsonl import Header, encode
from posepipe.pipeline.packet import Packet, Poses, Sync
from posepipe.pipeline.skeleton import BLAZEPOSE33, Skeleton, skeleton
from tests.people import standing

T0_NS = 1_700_000_000_000_000_000
WRISTS = [BLAZEPOSE33.index(f"{side}_wrist") for side in ("left", "right")]


def record(
    path: Path,
    seconds: float,
    *,
    up: tuple[float, float] = (0, 0),
    ids: tuple[int, ...] = (0,),
    hz: float = 30.0,
    layout: str = "blazepose33",
    seed: int = 0,
) -> Path:
    """Both hands are up between two times; a centimetre of noise."""
    rng = np.random.default_rng(seed)
    form: Skeleton = skeleton(layout)
    header = Header(1, "hall", form.name, form.joints, form.bones, ("a", "b"), "0" * 64)
    lines = [msgspec.json.encode(header) + b"\n"]
    for k in range(round(seconds * hz)):
        packet = Packet(k, T0_NS + round(k / hz * 1e9), "test", _instant(rng, form, up[0] <= k / hz < up[1], ids), (), ())
        lines.append(encode(packet, [None] * len(ids)))
    path.write_bytes(b"".join(lines))
    return path


def _instant(rng: np.random.Generator, form: Skeleton, up: bool, ids: tuple[int, ...]) -> Poses:
    whole = standing()
    whole[WRISTS, 2] += 1.0 if up else 0.0
    one = np.array([whole[BLAZEPOSE33.index(name)] if name in BLAZEPOSE33.joints else whole.mean(axis=0) for name in form.joints])
    xyz = one + np.arange(len(ids))[:, None, None] * np.array([1.0, 0, 0]) + rng.normal(0, 0.01, (len(ids), len(one), 3))
    shape: Any = xyz.shape[:2]
    ones, views = np.ones(shape, np.float32), np.full(shape, 2, np.uint8)
    return Poses(
        ("a", "b"), form.name, Sync(0, (0, 1), ()), "algebraic", np.array(ids, np.int64), xyz.astype(np.float32), ones, ones * np.float32(0.01),
        np.ones(len(ids), np.float32), views,
    )  # fmt: skip


def labels(path: Path, *lines: str, columns: str = "start_s,end_s,label") -> Path:
    path.write_text("\n".join([columns, *lines]) + "\n", encoding="utf-8")
    return path
