"""Key points of two or more views become the skeleton that they were made of, and a person keeps one identity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from node_kit import MS, T0_NS, Studio, caps, packet
from people import ring, seen, standing

from posepipe.calib.rig import Rig
from posepipe.nodes.lift_algebraic import LiftAlgebraic
from posepipe.pipeline.errors import RigError
from posepipe.pipeline.packet import Poses, Sync, ViewPoses
from posepipe.pipeline.skeleton import BLAZEPOSE33

SIDE_PX = 700.0
JOINTS = 33


class Lift:
    """A lift.algebraic in front of a rig; `see` gives it the key points that the rig would have."""

    def __init__(self, rig: Rig | None = None, **settings: Any) -> None:
        self.rig = rig or ring()
        self.node = LiftAlgebraic(LiftAlgebraic.Settings(**settings))
        self.node.open(Studio(self.rig.names).context(rig=self.rig, caps=caps("views", skeleton="blazepose33")))

    def see(self, *people: Any, ids: tuple[int, ...] | None = None, ms: float = 0.0, change: Any = None) -> Poses:
        uv_px = seen(self.rig, list(people)) if people else np.zeros((0, len(self.rig), JOINTS, 2))
        conf = np.full(uv_px.shape[:3], 0.9, np.float32)
        if change is not None:
            change(uv_px, conf)
        views = ViewPoses(
            self.rig.names,
            "blazepose33",
            Sync(5, tuple(range(len(self.rig))), ()),
            np.array(ids if ids is not None else [-1] * len(people), np.int64),
            uv_px.astype(np.float32),
            conf,
            np.full(uv_px.shape[:2], SIDE_PX, np.float32),
        )
        return self.node.step(packet(views, t_ns=T0_NS + int(ms * MS)))


@pytest.mark.parametrize("cameras", range(2, 9))
def test_the_skeleton_is_recovered(cameras: int) -> None:
    person = standing(0.4, -0.3)
    poses = Lift(ring(cameras)).see(person)
    assert poses.xyz_m[0] == pytest.approx(person, abs=1e-4)
    assert poses.conf[0] == pytest.approx(0.9)
    assert np.all(poses.views_used == cameras)
    assert np.all((poses.sigma_m > 0) & (poses.sigma_m < 0.05))
    assert poses.reproj_px[0] < 0.01
    assert (poses.tier, poses.skeleton, poses.cameras) == ("algebraic", "blazepose33", ring(cameras).names)
    assert poses.sync == Sync(5, tuple(range(cameras)), ())


def test_several_people_at_once() -> None:
    people = [standing(0, 0), standing(1.2, 0.3), standing(-0.8, -1.0)]
    poses = Lift().see(*people)
    assert poses.xyz_m == pytest.approx(np.array(people), abs=1e-4)
    assert poses.ids.tolist() == [0, 1, 2]


def test_a_view_with_a_wrong_point_is_outvoted() -> None:
    def wrong(uv_px: Any, conf: Any) -> None:
        uv_px[0, 2, 13] += (160, -90)

    poses = Lift().see(standing(), change=wrong)
    assert poses.xyz_m[0] == pytest.approx(standing(), abs=1e-3)
    assert poses.views_used[0, 13] == 3


def test_points_below_the_confidence_do_not_count() -> None:
    def unsure(uv_px: Any, conf: Any) -> None:
        conf[0, 1] = 0.19
        uv_px[0, 1] += 50

    poses = Lift(min_conf=0.2).see(standing(), change=unsure)
    assert np.all(poses.views_used == 3)
    assert poses.xyz_m[0] == pytest.approx(standing(), abs=1e-3)


def test_what_is_seen_by_less_than_two_views_is_unseen() -> None:
    def hidden(uv_px: Any, conf: Any) -> None:
        uv_px[0, :, 15], conf[0, :, 15] = np.nan, 0
        uv_px[0, 1:, 16], conf[0, 1:, 16] = np.nan, 0
        uv_px[0, 2:, 20] = np.nan

    poses = Lift().see(standing(), change=hidden)
    assert np.isnan(poses.xyz_m[0, [15, 16]]).all()
    assert np.isnan(poses.sigma_m[0, [15, 16]]).all()
    assert poses.conf[0, [15, 16]].tolist() == [0, 0]
    assert poses.views_used[0, [15, 16, 20]].tolist() == [0, 0, 2]
    assert np.isfinite(np.delete(poses.xyz_m[0], [15, 16], axis=0)).all()


def test_nobody() -> None:
    poses = Lift().see()
    shapes = {n: getattr(poses, n).shape for n in ("ids", "xyz_m", "conf", "sigma_m", "reproj_px", "views_used")}
    assert shapes == {"ids": (0,), "xyz_m": (0, 33, 3), "conf": (0, 33), "sigma_m": (0, 33), "reproj_px": (0,), "views_used": (0, 33)}


@pytest.mark.parametrize(("kept", "people"), [(4, 1), (3, 0)])
def test_a_person_has_some_body(kept: int, people: int) -> None:
    gone = [j for j in range(JOINTS) if j not in BLAZEPOSE33.body[:kept]]

    def hidden(uv_px: Any, conf: Any) -> None:
        conf[0, :, gone] = 0

    assert len(Lift(min_joints=4).see(standing(), change=hidden).ids) == people


def test_no_numbers_at_all_is_nobody() -> None:
    def nothing(uv_px: Any, conf: Any) -> None:
        uv_px[...] = np.nan

    assert len(Lift().see(standing(), change=nothing).ids) == 0


def test_what_leaves_is_read_only_and_single() -> None:
    poses = Lift().see(standing())
    for name in ("ids", "xyz_m", "conf", "sigma_m", "reproj_px", "views_used"):
        assert not getattr(poses, name).flags.writeable
    assert {poses.xyz_m.dtype, poses.conf.dtype, poses.sigma_m.dtype, poses.reproj_px.dtype} == {np.dtype(np.float32)}
    assert (poses.ids.dtype, poses.views_used.dtype) == (np.int64, np.uint8)


def test_without_a_rig_it_says_what_to_add() -> None:
    with pytest.raises(RigError, match=r"the studio has no rig, so nothing can be triangulated\n  -> add rig: FILE to the studio file"):
        LiftAlgebraic(LiftAlgebraic.Settings()).open(Studio().context(caps=caps("views", skeleton="blazepose33")))


# identities -------------------------------------------------------------------------------------------------------------------


def test_a_known_person_keeps_the_identity_however_far_it_went() -> None:
    lift = Lift()
    assert lift.see(standing()).ids.tolist() == [0]
    assert lift.see(standing(1.4, 1.2), ids=(0,), ms=33).ids.tolist() == [0]


@pytest.mark.parametrize(
    ("x_m", "ms", "who"),
    [(0.9, 1900, 0), (1.1, 1900, 1), (0.9, 2100, 1), (0.0, 100, 0)],
)
def test_who_comes_back_near_and_soon_is_the_same(x_m: float, ms: float, who: int) -> None:
    lift = Lift(same_person_m=1.0, same_person_s=2.0)
    lift.see(standing())
    lift.see(ms=33)
    assert lift.see(standing(x_m), ms=ms).ids.tolist() == [who]


def test_two_new_people_at_once_are_two() -> None:
    lift = Lift()
    lift.see(standing())
    lift.see(ms=33)
    assert lift.see(standing(0.1), standing(0.6), ms=100).ids.tolist() == [0, 1]


def test_a_new_person_does_not_take_the_identity_of_one_who_is_there() -> None:
    lift = Lift()
    lift.see(standing())
    assert lift.see(standing(0.6), standing(0.05), ids=(-1, 0), ms=33).ids.tolist() == [1, 0]


def test_an_identity_is_never_used_twice() -> None:
    lift, given = Lift(same_person_s=0.5), []
    for visit in range(5):
        (who,) = lift.see(standing(), ms=1000 * visit).ids.tolist()
        given.append(who)
    assert given == [0, 1, 2, 3, 4]
