"""Heatmaps become skeletons through a volume; and what there is when they cannot. The network is the stub: the mean of every heatmap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from lift_kit import IN_BLAZE, Lift, views_of, without
from node_kit import MS, T0_NS, Studio, caps, packet
from people import ring, standing

from posepipe.calib.refine import _refine
from posepipe.calib.rig import Rig
from posepipe.calib.sides import mirror_of
from posepipe.calib.triangulate import _triangulate
from posepipe.calib.unproject_kernel import fill, first_not_finite, pack
from posepipe.engines.volume import _soft_argmax
from posepipe.nodes._lift import Algebraic
from posepipe.nodes._lift_maps import coco17_in, paint
from posepipe.nodes.lift_algebraic import LiftAlgebraic
from posepipe.nodes.lift_volumetric import LiftVolumetric
from posepipe.pipeline.errors import EngineError, GraphError, PullError, RigError
from posepipe.pipeline.packet import Poses
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17, Skeleton

OTHER = [j for j in range(33) if j not in IN_BLAZE]
LEGS = [j for j, name in enumerate(BLAZEPOSE33.joints) if any(part in name for part in ("knee", "ankle", "heel", "foot"))]


def far_m(poses: Poses, person: Any, row: int = 0) -> float:
    """The largest distance of a joint that was given from where it is."""
    return float(np.nanmax(np.linalg.norm(poses.xyz_m[row] - person, axis=1)))


@pytest.mark.parametrize("cameras", [2, 3, 4, 8])
def test_the_skeleton_is_recovered(cameras: int) -> None:
    person = standing(0.4, -0.3)
    poses = Lift(LiftVolumetric, ring(cameras)).see(person)
    assert far_m(poses, person) < 0.01
    assert np.isfinite(poses.xyz_m).all()
    assert (poses.tier, poses.skeleton, poses.cameras, poses.ids.tolist()) == ("volumetric", "blazepose33", ring(cameras).names, [0])
    assert poses.conf[0] == pytest.approx(0.9)
    assert np.all(poses.views_used == cameras)
    assert np.all((poses.sigma_m > 0) & (poses.sigma_m < 0.05))
    assert poses.reproj_px[0] < 1


def test_more_people_than_fit_into_one_batch() -> None:
    people = [standing(x, y) for x, y in ((0, 0), (1.2, 0.3), (-0.8, -1.0), (0.9, -1.1), (-1.2, 0.7))]
    poses = Lift(LiftVolumetric).see(*people)
    assert poses.tier == "volumetric"
    assert [far_m(poses, person, row) < 0.01 for row, person in enumerate(people)] == [True] * 5
    assert poses.ids.tolist() == [0, 1, 2, 3, 4]


def test_joints_that_coco17_does_not_have_stay_triangulated() -> None:
    def noisy(a: dict[str, Any]) -> None:
        a["uv_px"] += np.random.default_rng(1).normal(0, 4, a["uv_px"].shape).astype(np.float32)

    ours, theirs = Lift(LiftVolumetric).see(standing(), change=noisy), Lift(LiftAlgebraic).see(standing(), change=noisy)
    np.testing.assert_array_equal(ours.xyz_m[0, OTHER], theirs.xyz_m[0, OTHER])
    np.testing.assert_array_equal(ours.sigma_m[0, OTHER], theirs.sigma_m[0, OTHER])
    assert np.abs(ours.xyz_m[0, IN_BLAZE] - theirs.xyz_m[0, IN_BLAZE]).max() > 1e-4


def test_what_leaves_is_read_only_and_single() -> None:
    lift = Lift(LiftVolumetric)
    for poses in (lift.see(standing()), lift.see(standing(), ms=33, change=without(1, 2, 3)), Lift(LiftVolumetric).see()):
        for name in ("ids", "xyz_m", "conf", "sigma_m", "reproj_px", "views_used"):
            assert not getattr(poses, name).flags.writeable
        assert {poses.xyz_m.dtype, poses.conf.dtype, poses.sigma_m.dtype, poses.reproj_px.dtype} == {np.dtype(np.float32)}
        assert (poses.ids.dtype, poses.views_used.dtype) == (np.int64, np.uint8)


def test_nobody() -> None:
    poses = Lift(LiftVolumetric).see()
    shapes = {n: getattr(poses, n).shape for n in ("ids", "xyz_m", "conf", "sigma_m", "reproj_px", "views_used")}
    assert shapes == {"ids": (0,), "xyz_m": (0, 33, 3), "conf": (0, 33), "sigma_m": (0, 33), "reproj_px": (0,), "views_used": (0, 33)}


# fewer views ------------------------------------------------------------------------------------------------------------------


def test_two_of_four_views_are_enough() -> None:
    poses = Lift(LiftVolumetric).see(standing(), change=without(1, 2))
    assert poses.tier == "volumetric"
    assert far_m(poses, standing()) < 0.01
    assert np.all(poses.views_used == 2)


def test_with_one_view_the_last_skeleton_is_held_for_a_moment_and_then_there_is_none() -> None:
    lift = Lift(LiftVolumetric, hold_s=0.4)
    first = lift.see(standing())
    held = [lift.see(standing(0.7), ids=(0,), ms=ms, change=without(0, 1, 2)) for ms in (100, 300, 399)]
    assert [h.tier for h in held] == ["held"] * 3
    for one in held:
        assert one.ids.tolist() == [0]
        np.testing.assert_array_equal(one.xyz_m, first.xyz_m)
        assert not one.views_used.any()
    assert np.all(np.diff([h.conf[0, 0] for h in held]) < 0)
    assert np.all(np.diff([h.sigma_m[0, 0] for h in held]) > 0.05)
    gone = lift.see(standing(0.7), ids=(0,), ms=400, change=without(0, 1, 2))
    assert (len(gone.ids), gone.tier) == (0, "volumetric")
    assert len(lift.see(standing(0.7), ids=(0,), ms=401, change=without(0, 1, 2)).ids) == 0


def test_one_view_from_the_start_is_nobody() -> None:
    assert len(Lift(LiftVolumetric).see(standing(), change=without(1, 2, 3)).ids) == 0


def test_who_was_held_is_the_same_person_afterwards() -> None:
    lift = Lift(LiftVolumetric)
    lift.see(standing())
    lift.see(standing(), ids=(0,), ms=100, change=without(1, 2, 3))
    back = lift.see(standing(0.1), ms=200)
    assert (back.tier, back.ids.tolist()) == ("volumetric", [0])


def test_hold_nothing() -> None:
    lift = Lift(LiftVolumetric, hold_s=0)
    lift.see(standing())
    assert len(lift.see(ms=1).ids) == 0


def test_below_min_views_it_is_triangulation_and_says_so_once() -> None:
    lift = Lift(LiftVolumetric, min_views=3)
    poses = [lift.see(standing(), ms=33 * k, change=without(0, 1)) for k in range(3)]
    assert {p.tier for p in poses} == {"algebraic"}
    assert poses[0].xyz_m[0] == pytest.approx(standing(), abs=1e-4)
    assert lift.said == ["node: fewer than 3 views of a person: triangulation alone, if there are two"]


def test_one_person_with_too_few_views_makes_the_instant_algebraic() -> None:
    def first_hidden(a: dict[str, Any]) -> None:
        a["rois"][0, :2], a["maps"][0, :2] = np.nan, 0

    poses = Lift(LiftVolumetric, min_views=3).see(standing(), standing(1.2), change=first_hidden)
    assert (poses.tier, len(poses.ids)) == ("algebraic", 2)


# bad heatmaps -----------------------------------------------------------------------------------------------------------------


def test_a_view_whose_heatmaps_hold_nan_counts_for_nothing() -> None:
    def broken(a: dict[str, Any]) -> None:
        a["maps"][0, 2, 10, 10, 3] = np.nan

    lift = Lift(LiftVolumetric)
    poses = [lift.see(standing(), ms=33 * k, change=broken) for k in range(3)]
    assert {p.tier for p in poses} == {"volumetric"}
    assert far_m(poses[0], standing()) < 0.01
    assert lift.said == ["node: heatmaps hold NaN or infinite numbers: such a view counts for nothing"]


def test_heatmaps_of_nan_alone_are_triangulation() -> None:
    def broken(a: dict[str, Any]) -> None:
        a["maps"][:] = np.inf

    poses = Lift(LiftVolumetric).see(standing(), change=broken)
    assert poses.tier == "algebraic"
    assert poses.xyz_m[0] == pytest.approx(standing(), abs=1e-4)


def test_a_cube_that_no_heatmap_reaches_is_triangulation() -> None:
    def elsewhere(a: dict[str, Any]) -> None:
        a["rois"][..., :2] -= 1e5

    lift = Lift(LiftVolumetric)
    assert lift.see(standing(), change=elsewhere).tier == lift.see(standing(), ms=33, change=elsewhere).tier == "algebraic"
    assert lift.said == ["node: nothing of the heatmaps lies in the cube around a person: triangulation alone"]


def test_a_volume_that_tells_nothing_is_triangulation() -> None:
    def flat(a: dict[str, Any]) -> None:
        a["maps"][:] = 0.5
        a["conf"][:] = 0.25

    lift = Lift(LiftVolumetric, max_sigma_m=0.01)
    assert lift.see(standing(), change=flat).tier == "algebraic"
    assert lift.said == ["node: the volume does not tell where a person's joints are: triangulation alone"]


def test_of_a_person_half_outside_every_picture_the_other_half_is_given() -> None:
    def cut_off(a: dict[str, Any]) -> None:
        a["uv_px"][:, :, LEGS], a["conf"][:, :, LEGS] = np.nan, 0
        a["maps"][..., [COCO17.index(BLAZEPOSE33.joints[j]) for j in LEGS if j in IN_BLAZE]] = 0

    poses = Lift(LiftVolumetric).see(standing(), change=cut_off)
    assert poses.tier == "volumetric"
    assert np.isnan(poses.xyz_m[0, LEGS]).all()
    assert not poses.conf[0, LEGS].any()
    assert far_m(poses, standing()) < 0.01
    assert np.isfinite(np.delete(poses.xyz_m[0], LEGS, axis=0)).all()


def test_someone_whose_key_points_are_too_unsure_is_where_they_went() -> None:
    def unsure(a: dict[str, Any]) -> None:
        a["conf"][:] = 0.15

    lift = Lift(LiftVolumetric)
    for k in range(3):
        lift.see(standing(0.1 * k), ids=(0,), ms=50 * k)
    poses = lift.see(standing(0.3), ids=(0,), ms=150, change=unsure)
    assert poses.tier == "volumetric"
    assert np.nanmax(np.linalg.norm((poses.xyz_m[0] - standing(0.3))[IN_BLAZE], axis=1)) < 0.08
    assert not poses.views_used.any()
    assert len(Lift(LiftVolumetric).see(standing(), change=unsure).ids) == 0, "nobody knows where they are"


@pytest.mark.parametrize("cameras", [3, 4])
def test_a_view_that_takes_the_front_for_the_back_is_set_right(cameras: int) -> None:
    def mirrored(a: dict[str, Any]) -> None:
        a["uv_px"][0, 1] = a["uv_px"][0, 1, mirror_of(BLAZEPOSE33)]
        a["maps"][0, 1] = a["maps"][0, 1][..., mirror_of(COCO17)]

    poses = Lift(LiftVolumetric, ring(cameras)).see(standing(), change=mirrored)
    assert poses.tier == "volumetric"
    assert far_m(poses, standing()) < 0.01
    assert np.all(poses.views_used == cameras)


# no heatmaps ------------------------------------------------------------------------------------------------------------------


def test_without_heatmaps_they_are_painted_around_key_points() -> None:
    def none(a: dict[str, Any]) -> None:
        a["maps"] = a["rois"] = None

    lift = Lift(LiftVolumetric, maps=False)
    assert lift.node.runs_on == "stub on stub fp32 (none), heatmaps painted around key points"
    poses = lift.see(standing(0.2), change=none)
    assert poses.tier == "volumetric"
    assert far_m(poses, standing(0.2)) < 0.015
    assert lift.said == ["node: there are no heatmaps: they are painted around the key points of every view"]


def test_painted_heatmaps_have_their_peaks_at_the_key_points() -> None:
    def unseen(a: dict[str, Any]) -> None:
        without(3)(a)
        a["conf"][0, 0, IN_BLAZE[4]] = 0

    v = views_of(ring(), [standing()], change=unseen)
    maps, rois = paint(v.uv_px[:, :, IN_BLAZE], v.conf[:, :, IN_BLAZE], v.side_px)
    assert (maps.shape, rois.shape) == ((1, 4, 64, 64, 17), (1, 4, 4))
    assert np.isnan(rois[0, 3]).all()
    assert not maps[0, 3].any()
    assert maps[0, 0, :, :, 4].max() < 1e-3
    for view in range(3):
        for joint in (0, 7, 16):
            row, column = np.unravel_index(maps[0, view, :, :, joint].argmax(), (64, 64))
            at_px = rois[0, view, :2] + (np.array([column, row]) - 32) * rois[0, view, 2] / 64
            cell_px = rois[0, view, 2] / 64
            assert np.abs(at_px - v.uv_px[0, view, IN_BLAZE[joint]]).max() <= 0.51 * cell_px
            assert 0.8 < maps[0, view, row, column, joint] <= 0.9


# refused before the start -----------------------------------------------------------------------------------------------------


def test_a_rig_in_millimetres_is_refused() -> None:
    metres = ring()
    cameras = tuple(replace(c, camera_from_world=c.camera_from_world * [1, 1, 1, 1000]) for c in metres.cameras)
    rig = Rig(cameras, where="hall.toml", units_stated=True)
    says = r"hall.toml: cameras stand 8000 m apart, so the calibration looks like millimetres\n  -> write units = \"mm\" in \[metadata\]"
    with pytest.raises(RigError, match=says):
        Lift(LiftVolumetric, rig)


def test_a_rig_far_above_the_floor_is_refused() -> None:
    up = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 120.0]])
    cameras = tuple(replace(c, camera_from_world=c.camera_from_world - c.camera_from_world[:, :3] @ up) for c in ring().cameras)
    with pytest.raises(RigError, match=r"cameras stand 122 m above or below the floor, .* centimetres or millimetres"):
        Lift(LiftVolumetric, Rig(cameras))


def test_without_a_rig_it_says_what_to_add() -> None:
    with pytest.raises(RigError, match=r"the studio has no rig, so nothing can be triangulated\n  -> add rig: FILE to the studio file"):
        LiftVolumetric(LiftVolumetric.Settings(engine="stub")).open(Studio().context(caps=caps("views", skeleton="blazepose33")))


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ("blazepose.full", r"engine is 'blazepose.full': there is no network 'blazepose.full' for joints in a cube"),
        ("stubb", r"engine is 'stubb': there is no network 'stubb' for joints in a cube\n  -> did you mean 'stub'\?"),
        ("nowhere/card.toml", r"engine is 'nowhere/card.toml': the card cannot be read"),
    ],
)
def test_a_network_of_another_kind_is_refused(engine: str, says: str) -> None:
    with pytest.raises(GraphError, match=says):
        LiftVolumetric.check(LiftVolumetric.Settings(engine=engine), {})


def test_a_skeleton_without_the_joints_is_refused() -> None:
    three = Skeleton("three", ("nose", "left_hip", "right_hip"), (), (1, 2))
    with pytest.raises(GraphError, match=r"heatmaps are those of coco17's joints, and three has no left_eye\n  -> use lift.algebraic"):
        coco17_in(three)


def test_settings_of_engines_that_are_none() -> None:
    node = LiftVolumetric(LiftVolumetric.Settings(engine="stub"))
    with pytest.raises(EngineError, match=r"engines: .*\n  -> correct engines: in the studio file"):
        node.open(Studio(ring().names).context(rig=ring(), caps=caps("views", skeleton="coco17"), engines={"runtime": "no"}))
    node.close()


def test_a_network_that_does_not_open_leaves_no_other_one_open(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Algebraic] = []
    monkeypatch.setattr(Algebraic, "close", lambda self: closed.append(self))
    with pytest.raises(PullError, match="card"):
        Lift(LiftVolumetric, engine="nowhere/card.toml")
    assert len(closed) == 1
    Lift(LiftVolumetric)
    assert len(closed) == 1


def test_nothing_is_compiled_once_it_is_open() -> None:
    kernels: list[Any] = [fill, first_not_finite, pack, _refine, _triangulate, _soft_argmax]
    lift = Lift(LiftVolumetric)
    before = [len(kernel.signatures) for kernel in kernels]
    lift.see(standing())
    lift.see(standing(), standing(1), ms=33)
    assert [len(kernel.signatures) for kernel in kernels] == before
    assert min(before) > 0


def test_the_same_instants_give_the_same_skeletons() -> None:
    views = [views_of(ring(), [standing(0.05 * k)], ids=(0,)) for k in range(4)]
    runs = [[Lift(LiftVolumetric).give(packet(v, t_ns=T0_NS + k * 33 * MS)).xyz_m.tobytes() for k, v in enumerate(views)] for _ in range(2)]
    assert runs[0] == runs[1]
