"""heatmap.topdown hands heatmaps on when a node behind it reads them, and otherwise makes none."""

from __future__ import annotations

import numpy as np
from node_kit import T0_NS, Studio, grey_frame, instant
from people import ring

from posepipe.nodes.heatmap_topdown import HeatmapTopdown
from posepipe.pipeline.node import Caps
from posepipe.pipeline.packet import ViewPoses
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17

RIG = ring(width=640, height=480)
FRAMES = {c: grey_frame(c, 0, T0_NS, width=640, height=480) for c in RIG.names}
IN_BLAZE = [BLAZEPOSE33.index(j) for j in COCO17.joints]


def see(cameras: tuple[str, ...] = RIG.names, *, asked: bool = True) -> ViewPoses:
    node = HeatmapTopdown(HeatmapTopdown.Settings(engine="stub"))
    node.open(Studio(RIG.names).context(rig=RIG, gives=Caps(maps=asked)))
    return node.step(instant(0, T0_NS, {c: FRAMES[c] for c in cameras}, RIG.names), None)


def test_the_heatmaps_are_those_of_the_key_points() -> None:
    views = see()
    assert views.maps is not None
    assert views.rois is not None
    assert (views.maps.shape, views.maps.dtype, views.rois.shape, views.rois.dtype) == (
        (1, 4, 64, 64, 17),
        np.float32,
        (1, 4, 4),
        np.float32,
    )
    assert not views.maps.flags.writeable
    assert not views.rois.flags.writeable
    np.testing.assert_allclose(views.maps[0].max(axis=(1, 2)), views.conf[0][:, IN_BLAZE], atol=1e-6)
    for view in range(4):
        row, column = np.unravel_index(views.maps[0, view, :, :, 0].argmax(), (64, 64))
        x, y, side, angle = views.rois[0, view]
        at_px = np.array([x, y]) + (np.array([column, row]) - 32) * side / 64  # the stub's person stands upright: no angle
        assert angle == 0
        assert np.linalg.norm(at_px - views.uv_px[0, view, 0]) < side / 64


def test_a_view_that_is_missing_has_no_heatmap() -> None:
    views = see(("north", "south", "west"))
    assert views.maps is not None
    assert views.rois is not None
    assert np.isnan(views.rois[0, 1]).all()
    assert not views.maps[0, 1].any()
    assert np.isfinite(views.rois[0, [0, 2, 3]]).all()
    assert (views.maps[0, [0, 2, 3]].max(axis=(1, 2, 3)) > 0.9).all()


def test_nobody_has_no_heatmap() -> None:
    views = see(("east",))
    assert views.maps is not None
    assert views.rois is not None
    assert (views.maps.shape, views.rois.shape) == ((0, 4, 64, 64, 17), (0, 4, 4))


def test_nobody_asked() -> None:
    views = see(asked=False)
    assert views.maps is None
    assert views.rois is None
