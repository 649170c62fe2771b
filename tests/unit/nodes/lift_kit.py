"""What a volumetric lift is tried with: a standing person, the heatmaps that a rig's views have of it, and a context."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from node_kit import MS, T0_NS, Studio, packet
from people import ring, seen

from posepipe.calib.rig import Rig
from posepipe.calib.unproject import cells_from_video
from posepipe.pipeline.node import Caps, Context, Node
from posepipe.pipeline.packet import Packet, Poses, Sync, ViewPoses
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17

SIDE_PX = 700.0
IN_BLAZE = [BLAZEPOSE33.index(j) for j in COCO17.joints]
Change = Callable[[dict[str, Any]], None]


def peaks(cells: Any, conf: Any, *, size: int = 64, width: float = 1.06) -> Any:
    """Maps [...,size,size,J] with a peak of that height at every cell [...,J,2]; nothing where it is NaN."""
    at = np.nan_to_num(np.asarray(cells), nan=-1e3)
    k = np.arange(size)
    r2 = (k[:, None, None] - at[..., None, None, :, 1]) ** 2 + (k[:, None] - at[..., None, None, :, 0]) ** 2
    height = np.clip(conf, 1e-6, 0.995)[..., None, None, :]
    return (height / (height + (1 - height) * np.exp(np.minimum(r2 / (2 * width**2), 60)))).astype(np.float32)


def views_of(rig: Rig, people: list[Any], *, ids: tuple[int, ...] | None = None, change: Change | None = None) -> ViewPoses:
    """What a heatmap network without errors would see of people [33,3]. change: may write into the arrays before they are packed."""
    count = len(people)
    uv_px = seen(rig, people) if people else np.zeros((0, len(rig), 33, 2))
    conf = np.full(uv_px.shape[:3], 0.9, np.float32)
    rois = np.zeros((count, len(rig), 4))
    rois[..., :2] = uv_px[:, :, IN_BLAZE].mean(axis=2) if count else 0
    rois[..., 2], rois[..., 3] = SIDE_PX, 0.1
    maps = np.zeros((count, len(rig), 64, 64, 17), np.float32)
    for p in range(count):
        to_cells = cells_from_video(rois[p], 64)
        cells = np.einsum("cij,cnj->cni", to_cells[:, :, :2], uv_px[p][:, IN_BLAZE]) + to_cells[:, None, :, 2]
        maps[p] = peaks(cells, conf[p][:, IN_BLAZE])
    arrays: dict[str, Any] = {
        "uv_px": uv_px.astype(np.float32), "conf": conf, "side_px": np.full(uv_px.shape[:2], SIDE_PX, np.float32),
        "maps": maps, "rois": rois.astype(np.float32),
    }  # fmt: skip
    if change is not None:
        change(arrays)
    for array in arrays.values():
        if array is not None:
            array.setflags(write=False)
    who = np.array(ids if ids is not None else [-1] * count, np.int64)
    return ViewPoses(rig.names, "blazepose33", Sync(5, tuple(range(len(rig))), ()), who, **arrays)


def without(*views: int) -> Change:
    """Those views saw nothing of the person."""

    def gone(a: dict[str, Any]) -> None:
        a["uv_px"][:, views], a["conf"][:, views], a["rois"][:, views] = np.nan, 0, np.nan
        a["maps"][:, views], a["side_px"][:, views] = 0, 0

    return gone


class Lift:
    """An opened lift in front of a rig; `see` gives it what the rig's views have of people."""

    def __init__(
        self, use: type[Node], rig: Rig | None = None, *, studio: Studio | None = None, maps: bool = True, **settings: Any
    ) -> None:
        self.rig = rig or ring()
        self.studio = studio or Studio(self.rig.names)
        self.offline = bool(settings.pop("offline", False))
        if "engine" in use.Settings.__struct_fields__:
            settings = {"engine": "stub", **settings}
        self.node: Any = use(use.Settings(**settings))
        self.said: list[str] = []
        self.node.open(self.context(maps))

    def context(self, maps: bool) -> Context:
        log = logging.Logger("lift")
        log.addHandler(_Kept(self.said))
        arriving = {"views": Caps(skeleton="blazepose33", maps=maps)}
        return replace(self.studio.context(rig=self.rig, caps=arriving, offline=self.offline), log=log)

    def see(self, *people: Any, ids: tuple[int, ...] | None = None, ms: float = 0.0, change: Change | None = None) -> Poses:
        return self.give(packet(views_of(self.rig, list(people), ids=ids, change=change), t_ns=T0_NS + int(ms * MS)))

    def give(self, views: Packet[ViewPoses]) -> Poses:
        given: Poses = self.node.step(views)
        return given


class _Kept(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
