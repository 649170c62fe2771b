"""Everybody is seen in every view, and the one whom most views agree on is given. With the stub network, which sees one person in the middle
of every picture, and with people whom the cameras of a ring would see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_kit import T0_NS, Studio, grey_frame, instant
from people import ring, standing

from posepipe.calib.project import project
from posepipe.engines.decoders.paf import Bodies
from posepipe.nodes import Catalogue
from posepipe.nodes.heatmap_paf import HeatmapPaf
from posepipe.pipeline.errors import EngineError, GraphError, RigError
from posepipe.pipeline.packet import ViewPoses
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17, COCO18, skeleton

WIDTH, HEIGHT = 640, 480
RIG = ring(width=WIDTH, height=HEIGHT)
FRAMES = {c: grey_frame(c, 0, T0_NS, width=WIDTH, height=HEIGHT) for c in RIG.names}
Array = np.ndarray[Any, np.dtype[np.float64]]


def coco18(x_m: float = 0.0, y_m: float = 0.0) -> Array:
    """A person [18,3] who stands there, with the neck between the shoulders."""
    joints = standing(x_m, y_m)
    neck = joints[[BLAZEPOSE33.index("left_shoulder"), BLAZEPOSE33.index("right_shoulder")]].mean(axis=0)
    return np.array([neck if name == "neck" else joints[BLAZEPOSE33.index(name)] for name in COCO18.joints])


class Paf:
    """An opened heatmap.paf; `see` gives it an instant, or people whom its network is to have seen."""

    def __init__(self, **settings: Any) -> None:
        self.node = HeatmapPaf(HeatmapPaf.Settings(**{"engine": "stub", **settings}))
        self.node.open(Studio(RIG.names).context(rig=RIG))
        self.calls: list[int] = []
        infer = self.node._network.infer

        def counted(frames: Any) -> Any:
            self.calls.append(len(frames))
            return infer(frames)

        self.node._network.infer = counted  # type: ignore[method-assign]

    def see(self, cameras: tuple[str, ...] = RIG.names) -> ViewPoses:
        return self.node.step(instant(0, T0_NS, {c: FRAMES[c] for c in cameras}, RIG.names))

    def see_people(self, by_view: list[list[Array]], cameras: tuple[str, ...] = RIG.names) -> ViewPoses:
        """by_view: per camera that has a frame the people [18,3] (NaN: a joint that it does not see) in any order."""

        def infer(frames: Any) -> list[Bodies]:
            found = []
            for frame, people in zip(frames, by_view, strict=True):
                view = RIG.names.index(frame.camera)
                points = np.full((len(people), 18, 3), np.nan, np.float32)
                for p, xyz in enumerate(people):
                    points[p, :, :2] = project(RIG, np.nan_to_num(xyz, nan=1e6)).uv_px[view]
                    points[p, :, 2] = np.isfinite(xyz[:, 0]) * 0.9
                    points[p, ~np.isfinite(xyz[:, 0]), :2] = np.nan
                found.append(Bodies(points, np.ones(len(people), np.float32)))
            return found

        self.node._network.infer = infer  # type: ignore[method-assign]
        return self.see(cameras)


def where(views: ViewPoses, layout: str, joint: str) -> Array:
    """[C,2] of the one person."""
    assert len(views.uv_px) == 1
    return views.uv_px[0][:, skeleton(layout).index(joint)].astype(np.float64)


def seen(xyz: Array, joint: str) -> Array:
    """[C,2] where the cameras see a joint of a person [18,3]."""
    return project(RIG, xyz[[COCO18.index(joint)]]).uv_px[:, 0]


# the network ------------------------------------------------------------------------------------------------------------------


def test_all_views_are_seen_in_one_call() -> None:
    paf = Paf()
    views = paf.see()
    assert paf.calls == [4]
    assert (views.cameras, views.skeleton, views.sync.views) == (RIG.names, "coco17", (0, 1, 2, 3))
    assert views.uv_px.shape == (1, 4, 17, 2)
    assert np.isfinite(views.uv_px).all()
    assert views.conf.min() > 0.7
    assert views.conf.max() <= 1
    assert views.ids.tolist() == [-1]
    for array in (views.uv_px, views.conf, views.side_px):
        assert array.dtype == np.float32
        assert not array.flags.writeable


def test_the_stubs_person_is_in_the_middle_of_the_picture() -> None:
    views = Paf().see()
    hips = (where(views, "coco17", "left_hip") + where(views, "coco17", "right_hip")) / 2
    # The input is wider than the picture by what makes it a multiple of 16: its middle is a little to the right.
    assert hips == pytest.approx(np.tile([(WIDTH - 1) / 2, (HEIGHT - 1) / 2], (4, 1)), abs=12)
    assert (where(views, "coco17", "left_hip")[:, 0] > where(views, "coco17", "right_hip")[:, 0]).all()


def test_the_networks_own_joints_have_a_neck() -> None:
    paf = Paf(joints="network")
    assert HeatmapPaf.caps(paf.node.settings, {}).skeleton == "coco18"
    views = paf.see()
    assert views.skeleton == "coco18"
    shoulders = (where(views, "coco18", "left_shoulder") + where(views, "coco18", "right_shoulder")) / 2
    assert where(views, "coco18", "neck") == pytest.approx(shoulders, abs=3)


def test_a_view_that_is_missing_is_left_out() -> None:
    views = Paf().see(cameras=("north", "south", "west"))
    assert np.isnan(views.uv_px[:, 1]).all()
    assert (views.conf[:, 1] == 0).all()
    assert (views.side_px[:, 1] == 0).all()
    assert np.isfinite(views.uv_px[:, [0, 2, 3]]).all()


def test_smaller_pictures_are_asked_for_by_their_shorter_side() -> None:
    network = Paf(short_px=128).node._network
    assert (network.width, network.height) == (176, 128)
    assert network.cell_px(WIDTH, HEIGHT) == 8 * 480 / 128


# who is given -----------------------------------------------------------------------------------------------------------------


def test_the_joints_are_where_the_cameras_see_them() -> None:
    one = coco18(0.2, -0.1)
    views = Paf().see_people([[one]] * 4)
    for joint in COCO17.joints:
        assert where(views, "coco17", joint) == pytest.approx(seen(one, joint), abs=0.01)
    assert views.conf == pytest.approx(0.9)
    height = np.ptp(project(RIG, one).uv_px[:, :, 1], axis=1)
    assert (views.side_px[0] >= 1.2 * height).all()


@pytest.mark.parametrize("first", [0, 1])
def test_the_one_whom_more_views_see_is_given(first: int) -> None:
    performer, bystander = coco18(0.0, 0.0), coco18(1.2, 0.8)
    pair = [performer, bystander][:: 1 if first == 0 else -1]
    views = Paf().see_people([pair, [performer], pair[::-1], [performer]])
    assert where(views, "coco17", "nose") == pytest.approx(seen(performer, "nose"), abs=0.01)


def test_a_view_that_sees_somebody_else_gives_nothing() -> None:
    performer, other = coco18(), coco18(1.5, 1.0)
    views = Paf().see_people([[performer], [performer], [other], [performer]])
    assert np.isnan(where(views, "coco17", "nose")[2]).all()
    assert views.conf[0, 2].max() == 0
    assert views.conf[0, [0, 1, 3]].min() > 0


def test_one_hip_is_enough_to_be_matched_and_none_is_not() -> None:
    one, half, legless = coco18(), coco18(), coco18()
    half[COCO18.index("left_hip")] = np.nan
    legless[[COCO18.index(f"{side}_hip") for side in ("left", "right")]] = np.nan
    views = Paf().see_people([[one], [half], [legless], [one]])
    there = (views.conf[0] > 0).sum(axis=1)
    assert there.tolist() == [17, 16, 0, 17]


def test_somebody_whom_one_view_sees_is_nobody() -> None:
    views = Paf().see_people([[coco18()], [], [], []])
    assert views.uv_px.shape == (0, 4, 17, 2)
    assert views.ids.shape == (0,)


def test_nobody_in_any_view() -> None:
    assert len(Paf().see_people([[], [], [], []]).ids) == 0


# refused ----------------------------------------------------------------------------------------------------------------------


def test_it_is_in_the_vocabulary_and_names_what_it_needs() -> None:
    assert Catalogue()["heatmap.paf"] is HeatmapPaf
    assert HeatmapPaf.needs(HeatmapPaf.Settings()) == ("openpose.light",)
    assert HeatmapPaf.needs(HeatmapPaf.Settings(engine="stub")) == ()


def test_a_users_card_lies_beside_the_studio_file() -> None:
    settings = HeatmapPaf.Settings(engine="my_net/card.toml")
    assert settings.beside(Path("/studios")).engine == "/studios/my_net/card.toml"
    assert HeatmapPaf.Settings().beside(Path("/studios")) == HeatmapPaf.Settings()


def test_a_card_that_is_wrong_is_refused_before_start_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text("[mine.net]\nkind = 'modle'\n")
    with pytest.raises(GraphError, match=r"engine is '.*card\.toml': .*kind cannot be 'modle'\n  -> did you mean 'model'"):
        HeatmapPaf.check(HeatmapPaf.Settings(engine=str(tmp_path / "card.toml")), None)


def test_an_unknown_network_is_refused_before_start() -> None:
    with pytest.raises(GraphError, match=r"engine is 'openpose.lihgt': there is no part affinity network") as e:
        HeatmapPaf.check(HeatmapPaf.Settings(engine="openpose.lihgt"), {})
    assert "openpose.light" in e.value.hint


def test_cmus_networks_say_how_they_are_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path))
    with pytest.raises(GraphError, match=r"'openpose.body25'") as e:
        HeatmapPaf.check(HeatmapPaf.Settings(engine="openpose.body25"), {})
    assert "posepipe import openpose FILE.caffemodel" in e.value.hint


def test_a_network_of_another_family_is_refused() -> None:
    with pytest.raises(GraphError, match=r"no part affinity network 'blazepose.full'"):
        HeatmapPaf.check(HeatmapPaf.Settings(engine="blazepose.full"), {})


def test_pictures_too_small_to_see_anybody_are_refused() -> None:
    with pytest.raises(GraphError, match="short_px is 32"):
        HeatmapPaf.check(HeatmapPaf.Settings(engine="stub", short_px=32), {})


def test_without_a_rig_it_is_refused() -> None:
    with pytest.raises(RigError, match="no rig"):
        HeatmapPaf(HeatmapPaf.Settings(engine="stub")).open(Studio(RIG.names).context())


def test_maps_that_are_not_finite_stop_the_instant() -> None:
    paf = Paf()
    engine = paf.node._network.engine
    paf.node._network.engine = lambda inputs: {n: a * np.nan for n, a in engine(inputs).items()}  # type: ignore[assignment]
    with pytest.raises(EngineError, match="stub: the heatmaps have numbers that are not finite"):
        paf.see()
