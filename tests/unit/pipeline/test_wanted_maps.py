"""Heatmaps are made only where a node behind wants them: the plan says so to both, shows it, and they travel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_nodes import MEMORY, Hooked

from posepipe.pipeline import draw
from posepipe.pipeline.errors import RunError
from posepipe.pipeline.graph import Plan, load_plan
from posepipe.pipeline.headers import Headers
from posepipe.pipeline.node import Caps, Node, NodeSettings
from posepipe.pipeline.packet import FrameSet, Packet, Poses, Sync, ViewPoses
from posepipe.pipeline.runner import Runner

STUDIO = """studio: hall
nodes:
  capture: {use: mem.camera, each: {north: {}, south: {}}, frames: 2}
  instants: {use: mem.instants, from: capture}
  eyes: {use: mem.eyes, from: instants}
"""


class Eyes(Hooked):
    use = "mem.eyes"

    class Settings(NodeSettings, frozen=True):
        able: bool = True

    settings: Settings

    @classmethod
    def caps(cls, settings: Any, inputs: Any) -> Caps:
        return Caps(skeleton="coco17")

    @classmethod
    def gives_maps(cls, settings: Any) -> bool:
        return bool(settings.able)

    def step(self, frames: FrameSet) -> ViewPoses: ...


class Deep(Hooked):
    use = "mem.deep"

    @classmethod
    def wants_maps(cls, settings: Any) -> bool:
        return True

    def step(self, views: ViewPoses) -> Poses: ...


class Flat(Hooked):
    use = "mem.flat"

    def step(self, views: ViewPoses) -> Poses: ...


def plan(more: str) -> Plan:
    registry: dict[str, type[Node]] = {**MEMORY, "mem.eyes": Eyes, "mem.deep": Deep, "mem.flat": Flat}
    return load_plan(Path("hall.yaml"), registry, text=STUDIO + more)


def test_a_node_that_wants_them_gets_them() -> None:
    made = plan("  deep: {use: mem.deep, from: eyes}\n")
    assert (made["eyes"].caps.maps, made["deep"].caps_in["views"].maps) == (True, True)
    assert made["deep"].caps.maps is False, "skeletons have none"
    assert "ViewPoses, coco17, with heatmaps" in draw.text(made)
    assert "with heatmaps" in draw.dot(made)
    assert "with heatmaps" in draw.mermaid(made)


def test_nobody_wants_them() -> None:
    made = plan("  flat: {use: mem.flat, from: eyes}\n")
    assert (made["eyes"].caps.maps, made["flat"].caps_in["views"].maps) == (False, False)
    assert "heatmaps" not in draw.text(made)


def test_one_of_two_wants_them() -> None:
    assert plan("  flat: {use: mem.flat, from: eyes}\n  deep: {use: mem.deep, from: eyes}\n")["eyes"].caps.maps


def test_a_node_that_has_none_is_not_asked() -> None:
    made = plan("  blind: {use: mem.eyes, from: instants, able: false}\n  deep: {use: mem.deep, from: blind}\n")
    assert (made["blind"].caps.maps, made["deep"].caps_in["views"].maps, made["eyes"].caps.maps) == (False, False, False)


def test_the_node_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, bool] = {}
    monkeypatch.setattr(Hooked, "open", lambda self, ctx: told.update({ctx.name: ctx.gives.maps}) or setattr(self, "ctx", ctx))
    runner = Runner(plan("  deep: {use: mem.deep, from: eyes}\n"), rig=None, resolve=Path)
    for name in ("eyes", "deep"):
        runner._part.slots[name].node.open(runner._part._context(runner.plan[name]))
    assert told == {"eyes": True, "deep": False}
    runner.close()


# between processes --------------------------------------------------------------------------------------------------------------


def views(maps: Any, rois: Any) -> Packet[ViewPoses]:
    arrays = (np.zeros((1, 2, 17, 2), np.float32), np.zeros((1, 2, 17), np.float32), np.ones((1, 2), np.float32))
    body = ViewPoses(("north", "south"), "coco17", Sync(0, (0, 1), ()), np.array([-1]), *arrays, maps, rois)
    return Packet(3, 5, "eyes", body, (), ())


def test_heatmaps_travel_as_they_are() -> None:
    maps = np.random.default_rng(0).random((1, 2, 8, 6, 17), np.float32)
    rois = np.array([[[3, 4, 5, 0.1], [np.nan] * 4]], np.float32)
    arrived = Headers(ViewPoses).decode(Headers(ViewPoses).encode(views(maps, rois)), where="link").body
    for mine, theirs in ((maps, arrived.maps), (rois, arrived.rois)):
        assert (mine.tobytes(), mine.shape, mine.dtype) == (theirs.tobytes(), theirs.shape, theirs.dtype)
        assert not theirs.flags.writeable


def test_key_points_travel_without_heatmaps() -> None:
    arrived = Headers(ViewPoses).decode(Headers(ViewPoses).encode(views(None, None)), where="link").body
    assert arrived.maps is None
    assert arrived.rois is None


def test_heatmaps_of_another_number_type_are_refused() -> None:
    packet = views(np.zeros((1, 2, 8, 6, 17)), None)
    with pytest.raises(RunError, match=r"an array of <f8, expected float32"):
        Headers(ViewPoses).decode(Headers(ViewPoses).encode(packet), where="link")
