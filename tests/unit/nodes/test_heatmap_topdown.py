"""Crops are placed where a person is expected, and the detector looks again when nobody is followed. With the stub networks:

its detector sees one person in the middle of every picture, its heatmaps show a person in the middle of every crop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from node_kit import MS, T0_NS, Studio, grey_frame, instant, packet, poses
from people import ring, seen, standing

from posepipe.nodes.heatmap_topdown import HeatmapTopdown
from posepipe.pipeline.errors import EngineError, GraphError, RigError
from posepipe.pipeline.node import Caps
from posepipe.pipeline.packet import Packet, Poses, ViewPoses
from posepipe.pipeline.skeleton import BLAZEPOSE33

WIDTH, HEIGHT = 640, 480
RIG = ring(width=WIDTH, height=HEIGHT)
FRAMES = {c: grey_frame(c, 0, T0_NS, width=WIDTH, height=HEIGHT) for c in RIG.names}
HIPS = [BLAZEPOSE33.index("left_hip"), BLAZEPOSE33.index("right_hip")]


class Topdown:
    """An opened heatmap.topdown; `see` gives it an instant and what came back."""

    def __init__(self, **settings: Any) -> None:
        self.node = HeatmapTopdown(HeatmapTopdown.Settings(**{"engine": "stub", **settings}))
        self.node.open(Studio(RIG.names).context(rig=RIG))
        self.looks: list[tuple[int, bool]] = []
        detect = self.node._detector.detect

        def counted(frames: Any, *around: Any) -> Any:
            self.looks.append((len(frames), bool(around)))
            return detect(frames, *around)

        self.node._detector.detect = counted  # type: ignore[method-assign]

    def see(self, feedback: Packet[Poses] | None = None, *, ms: float = 0.0, cameras: tuple[str, ...] = RIG.names) -> ViewPoses:
        frames = {c: FRAMES[c] for c in cameras}
        return self.node.step(instant(0, T0_NS + int(ms * MS), frames, RIG.names), feedback)


def there(x_m: float = 0.0, *, ms: float = 0.0, seq: int = 0, who: int = 7) -> Packet[Poses]:
    """A skeleton that comes back."""
    return packet(poses(standing(x_m)[None], ids=(who,), cameras=RIG.names), seq=seq, t_ns=T0_NS + int(ms * MS))


def middle(views: ViewPoses) -> np.ndarray[Any, Any]:
    """[C,2] middle of the hips in every view."""
    return views.uv_px[0][:, HIPS].mean(axis=1)


# nobody is followed -----------------------------------------------------------------------------------------------------------


def test_a_new_person_is_looked_for_in_all_views_at_once() -> None:
    topdown = Topdown()
    views = topdown.see()
    assert topdown.looks == [(4, False)]
    assert views.ids.tolist() == [-1]
    assert views.uv_px.shape == (1, 4, 33, 2)
    assert np.isfinite(views.uv_px).all()
    assert views.conf == pytest.approx(0.98, abs=0.01)
    assert middle(views) == pytest.approx(np.tile([(WIDTH - 1) / 2, (HEIGHT - 1) / 2], (4, 1)), abs=4)
    assert (views.cameras, views.skeleton, views.sync.views) == (RIG.names, "blazepose33", (0, 1, 2, 3))


def test_what_leaves_is_read_only_and_single() -> None:
    views = Topdown().see()
    for array in (views.uv_px, views.conf, views.side_px):
        assert array.dtype == np.float32
        assert not array.flags.writeable


def test_a_view_that_is_missing_is_left_out() -> None:
    views = Topdown().see(cameras=("north", "south", "west"))
    assert np.isnan(views.uv_px[0, 1]).all()
    assert (views.conf[0, 1].max(), views.side_px[0, 1]) == (0, 0)
    assert (views.conf[0, [0, 2, 3]] > 0.9).all()


def test_one_view_is_nobody() -> None:
    views = Topdown().see(cameras=("east",))
    assert (views.ids.shape, views.uv_px.shape, views.conf.shape, views.side_px.shape) == ((0,), (0, 4, 33, 2), (0, 4, 33), (0, 4))


def test_nobody_is_nobody_and_the_next_instant_is_looked_at_again() -> None:
    topdown = Topdown()
    topdown.node._detector.detect = lambda frames, *_: topdown.looks.append((len(frames), False)) or [[] for _ in frames]  # type: ignore
    nobody = packet(poses(np.zeros((0, 33, 3)), cameras=RIG.names))
    assert len(topdown.see().ids) == len(topdown.see(nobody, ms=33).ids) == 0
    assert topdown.looks == [(4, False)] * 2


# somebody is followed ---------------------------------------------------------------------------------------------------------


def test_a_followed_person_is_cut_out_where_the_skeleton_is_and_keeps_the_identity() -> None:
    topdown = Topdown()
    views = topdown.see(there(0.3), ms=33)
    assert topdown.looks == [], "nobody is looked for"
    assert views.ids.tolist() == [7]
    want = seen(RIG, [standing(0.3)])[0][:, HIPS].mean(axis=1)
    assert middle(views) == pytest.approx(want, abs=5)
    whole = np.ptp(seen(RIG, [standing(0.3)])[0, :, :, 1], axis=1)
    assert np.all((views.side_px[0] > 1.2 * whole) & (views.side_px[0] < 3 * whole)), "the crop holds the whole person"


def test_a_moving_person_is_expected_further_on() -> None:
    topdown = Topdown()
    topdown.see(there(0.0, ms=0), ms=33)
    views = topdown.see(there(0.1, ms=33, seq=1), ms=66)
    want = seen(RIG, [standing(0.2)])[0][:, HIPS].mean(axis=1)
    assert middle(views) == pytest.approx(want, abs=5), "3 m/s for one more period"


def test_the_speed_of_another_person_is_not_taken_over() -> None:
    topdown = Topdown()
    topdown.see(there(0.0, ms=0, who=1), ms=33)
    views = topdown.see(there(0.1, ms=33, seq=1, who=2), ms=66)
    assert middle(views) == pytest.approx(seen(RIG, [standing(0.1)])[0][:, HIPS].mean(axis=1), abs=5)


def test_a_view_that_the_person_has_left_is_not_cut() -> None:
    aside = 2.6
    inside = [(uv[:, 0] >= 0) & (uv[:, 0] < WIDTH) & (uv[:, 1] >= 0) & (uv[:, 1] < HEIGHT) for uv in seen(RIG, [standing(aside)])[0]]
    want = [int(i[list(BLAZEPOSE33.body)].sum()) >= 4 for i in inside]
    assert 0 < sum(want) < 4, "the test needs views with and without the person"
    views = Topdown().see(there(aside), ms=33)
    assert (views.conf[0].max(axis=1) > 0).tolist() == want


@pytest.mark.parametrize(("ms", "followed"), [(299, True), (301, False)])
def test_a_skeleton_from_long_ago_is_not_followed(ms: float, followed: bool) -> None:
    topdown = Topdown()
    views = topdown.see(there(0.3), ms=ms)
    assert views.ids.tolist() == ([7] if followed else [-1])
    assert topdown.looks == ([] if followed else [(4, False)])


@pytest.mark.parametrize("before_m", [1e-12, 1e-6, 0.01])
def test_a_joint_beside_the_camera_does_not_make_its_region_endless(before_m: float) -> None:
    feedback = there(0.3)
    xyz, camera = np.array(feedback.body.xyz_m), RIG.cameras[1]
    right, down, forward = camera.camera_from_world[:, :3]
    xyz[0, 15] = camera.centre_m + 0.4 * right + 0.2 * down + before_m * forward
    topdown = Topdown()
    rois = topdown.node._rois(xyz[0].astype(np.float64), instant(0, T0_NS, FRAMES, RIG.names))
    assert rois.there.all()
    assert rois.side_px.max() < 3 * WIDTH
    views = topdown.see(packet(poses(xyz, ids=(7,), cameras=RIG.names)), ms=33)
    assert np.isfinite(views.uv_px[0][1]).all()


def test_a_joint_that_nobody_knows_does_not_matter() -> None:
    feedback = there(0.3)
    xyz = np.array(feedback.body.xyz_m)
    xyz[0, [0, 15, 16, 31]] = np.nan
    views = Topdown().see(packet(poses(xyz, ids=(7,), cameras=RIG.names)), ms=33)
    assert np.isfinite(views.uv_px).all()
    assert np.all(views.side_px[0] < 2000)


def test_the_detector_confirms_one_view_after_the_other() -> None:
    topdown = Topdown(detect_every=3)
    for i in range(12):
        assert topdown.see(there(0.0, ms=33 * i, seq=i), ms=33 * i + 33).ids.tolist() == [7]
    assert topdown.looks == [(1, True)] * 4


def test_a_person_who_is_not_confirmed_three_times_is_looked_for_anew() -> None:
    topdown = Topdown(detect_every=2)
    detect = topdown.node._detector.detect
    topdown.node._detector.detect = lambda frames, *around: [[] for _ in frames] if around else detect(frames)  # type: ignore
    followed = [topdown.see(there(0.0, ms=33 * i, seq=i), ms=33 * i + 33).ids.tolist() for i in range(6)]
    assert followed == [[7]] * 5 + [[-1]]
    assert topdown.looks == [(4, False)]
    assert topdown.see(there(0.0, ms=165, seq=5), ms=240).ids.tolist() == [-1], "the same old skeleton is not followed again"
    assert topdown.see(there(0.0, ms=233, seq=6, who=8), ms=266).ids.tolist() == [8], "a new one is"


def test_a_bystander_in_few_views_is_left_for_a_person_whom_more_views_see() -> None:
    """Found while cameras were missing, he was followed for ever, though the performer stood before all of them."""
    topdown = Topdown(detect_every=2)
    topdown.node._confirmed = lambda *_: True  # type: ignore[method-assign]
    aside = [topdown.see(there(3.2, ms=33 * i, seq=i), ms=33 * i + 33) for i in range(8)]
    assert [v.ids.tolist() for v in aside] == [[7]] * 7 + [[-1]]
    assert topdown.looks == [(4, False)], "everybody is looked at once in four looks"
    assert middle(aside[-1]) == pytest.approx(np.tile([(WIDTH - 1) / 2, (HEIGHT - 1) / 2], (4, 1)), abs=4)
    assert topdown.see(there(3.2, ms=231, seq=7), ms=297).ids.tolist() == [-1], "the bystander's skeleton is not followed again"
    assert topdown.see(there(0.0, ms=297, seq=9, who=8), ms=330).ids.tolist() == [8]


@pytest.mark.parametrize(("x_m", "cameras"), [(1.2, ("north", "east")), (1.2, RIG.names), (2.6, RIG.names)])
def test_a_person_whom_most_views_see_is_not_compared_with_others(x_m: float, cameras: tuple[str, ...]) -> None:
    """At 2.6 m three of four views see him: who steps out of one picture is not exchanged for a bystander."""
    topdown = Topdown(detect_every=1)
    topdown.node._confirmed = lambda *_: True  # type: ignore[method-assign]
    for i in range(8):
        assert topdown.see(there(x_m, ms=33 * i, seq=i), ms=33 * i + 33, cameras=cameras).ids.tolist() == [7]
    assert topdown.looks == []


def test_a_person_in_few_views_stays_while_nobody_is_seen_by_more() -> None:
    topdown = Topdown(detect_every=1)
    topdown.node._confirmed = lambda *_: True  # type: ignore[method-assign]
    detect = topdown.node._detector.detect
    topdown.node._detector.detect = lambda frames, *around: [[], [], [], *detect(frames[3:], *around)]  # type: ignore[method-assign]
    for i in range(8):
        assert topdown.see(there(3.2, ms=33 * i, seq=i), ms=33 * i + 33).ids.tolist() == [7]
    assert topdown.looks == [(1, False)] * 2


# settings ---------------------------------------------------------------------------------------------------------------------


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(
        GraphError,
        match=r"engine is 'blazepose\.ful': there is no network 'blazepose\.ful' for this\n  -> did you mean 'blazepose\.full'\?",
    ):
        HeatmapTopdown.check(HeatmapTopdown.Settings(engine="blazepose.ful"), {})


def test_what_has_to_be_fetched() -> None:
    assert HeatmapTopdown.needs(HeatmapTopdown.Settings()) == ("blazepose.full", "blazepose.detector")
    assert HeatmapTopdown.needs(HeatmapTopdown.Settings(engine="stub")) == ()
    assert HeatmapTopdown.caps(HeatmapTopdown.Settings(), {}) == Caps(skeleton="blazepose33")


def test_without_a_rig_it_says_what_to_add_and_still_closes() -> None:
    node = HeatmapTopdown(HeatmapTopdown.Settings(engine="stub"))
    with pytest.raises(
        RigError, match=r"the studio has no rig, so people cannot be followed from view to view\n  -> add rig: FILE to the studio file"
    ):
        node.open(Studio().context())
    node.close()


def test_options_of_the_engines_are_obeyed() -> None:
    node = HeatmapTopdown(HeatmapTopdown.Settings(engine="stub"))
    node.open(Studio(RIG.names).context(rig=RIG, engines={"runtime": "openvino", "threads": 2}))
    assert node.runs_on == "stub on stub fp32 (none)", "the stub is a stub on every runtime"
    node.close()
    with pytest.raises(EngineError, match=r"engines: Expected `int` >= 0 - at `\$\.threads`"):
        HeatmapTopdown(HeatmapTopdown.Settings(engine="blazepose.full")).open(
            Studio(RIG.names).context(rig=RIG, engines={"runtime": "stub", "threads": -1})
        )
