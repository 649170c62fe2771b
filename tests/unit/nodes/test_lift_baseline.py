"""One view of a person becomes a skeleton in the room; a network with one fixed answer stands for the trained one where it matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from baseline_kit import CARD, RIG, always, true_answer
from lift_kit import IN_BLAZE, Lift, views_of, without
from node_kit import T0_NS, packet
from people import standing

from posepipe.nodes.lift_baseline import LiftBaseline
from posepipe.pipeline.errors import EngineError, GraphError
from posepipe.pipeline.node import Caps
from posepipe.pipeline.skeleton import BLAZEPOSE33


@pytest.fixture
def card(tmp_path: Path) -> str:
    return always(tmp_path, true_answer(standing(), 1))


def test_a_person_stands_where_one_view_shows_it(card: str) -> None:
    lift = Lift(LiftBaseline, engine=card)
    poses = lift.see(standing(), change=without(0, 2, 3))
    assert (poses.tier, poses.skeleton, len(poses.ids)) == ("lifted", "blazepose33", 1)
    assert poses.xyz_m[0, IN_BLAZE] == pytest.approx(standing()[IN_BLAZE], abs=1e-3)
    assert (poses.views_used[0, IN_BLAZE] == 1).all()
    assert poses.reproj_px[0] < 0.5
    assert "on onnxruntime fp32" in lift.node.runs_on


def test_the_distance_is_known_less_than_what_lies_across_and_the_packet_says_so(card: str) -> None:
    poses = Lift(LiftBaseline, engine=card).see(standing(), change=without(0, 2, 3))
    assert (poses.sigma_m[0, IN_BLAZE] > 0.1).all()
    assert (poses.sigma_m[0, IN_BLAZE] < 0.25).all()


def test_joints_that_coco17_lacks_are_not_given(card: str) -> None:
    poses = Lift(LiftBaseline, engine=card).see(standing())
    heel = BLAZEPOSE33.index("left_heel")
    assert np.isnan(poses.xyz_m[0, heel]).all()
    assert (poses.conf[0, heel], poses.views_used[0, heel]) == (0, 0)


def test_a_joint_that_the_view_does_not_show_is_guessed_with_less_confidence(card: str) -> None:
    wrist = BLAZEPOSE33.index("left_wrist")

    def hidden(a: dict[str, Any]) -> None:
        without(0, 2, 3)(a)
        a["conf"][0, 1, wrist] = 0.1

    poses = Lift(LiftBaseline, engine=card).see(standing(), change=hidden)
    assert poses.xyz_m[0, wrist] == pytest.approx(standing()[wrist], abs=5e-3)
    assert 0 < poses.conf[0, wrist] < 0.5
    assert poses.views_used[0, wrist] == 0


def test_the_view_is_kept_until_another_is_much_better(card: str) -> None:
    lift = Lift(LiftBaseline, engine=card)

    def shown(*conf: float) -> Any:
        def change(a: dict[str, Any]) -> None:
            a["conf"][:] = np.array(conf, np.float32)[None, :, None]

        return change

    def used(change: Any) -> int:
        views = views_of(RIG, [standing()], ids=(4,), change=change)
        points = lift.node._single.lift(views, lift.node._people.seen(views), np.arange(1))
        return int(points.used[0].any(axis=1).argmax())

    assert used(shown(0.5, 0.9, 0.5, 0.5)) == 1
    assert used(shown(0.95, 0.9, 0.5, 0.5)) == 1
    assert used(shown(0.95, 0.5, 0.5, 0.5)) == 0
    assert used(shown(0.7, 0.8, 0.5, 0.5)) == 0


def test_people_keep_their_names_and_come_back_under_them(card: str) -> None:
    lift = Lift(LiftBaseline, engine=card)
    first = lift.see(standing(), change=without(0, 2, 3)).ids[0]
    assert lift.see(standing(), ids=(int(first),), ms=33, change=without(0, 2, 3)).ids[0] == first
    assert len(lift.see(ms=66).ids) == 0
    assert lift.see(standing(), ms=99, change=without(0, 2, 3)).ids[0] == first


def test_too_little_of_a_person_is_nobody(card: str) -> None:
    def legs(a: dict[str, Any]) -> None:
        a["conf"][
            :, :, [BLAZEPOSE33.index(f"{side}_{limb}") for side in ("left", "right") for limb in ("shoulder", "elbow", "wrist", "hip")]
        ] = 0

    poses = Lift(LiftBaseline, engine=card).see(standing(), change=legs)
    assert (poses.tier, poses.xyz_m.shape) == ("lifted", (0, 33, 3))


def test_seven_people_are_more_than_one_batch(card: str) -> None:
    poses = Lift(LiftBaseline, engine=card).see(*[standing(0.1 * k) for k in range(7)])
    assert len(poses.ids) == len(set(poses.ids.tolist())) == 7


def test_a_network_of_another_kind_is_refused_before_the_start(tmp_path: Path) -> None:
    arriving = {"views": Caps(skeleton="blazepose33")}
    with pytest.raises(GraphError, match=r"engine is 'blazepose.full': there is no network 'blazepose.full' that lifts one view"):
        LiftBaseline.check(LiftBaseline.Settings(engine="blazepose.full"), arriving)
    path = Path(always(tmp_path, np.zeros((17, 3))))
    path.write_text(CARD.replace("[-1, 54]", "[-1, 32]"))
    with pytest.raises(GraphError, match=r"the card has view \[-1, 32\].*wanted are one input \[-1, 54\]"):
        LiftBaseline.check(LiftBaseline.Settings(engine=str(path)), arriving)


def test_a_skeleton_without_the_joints_is_refused(card: str) -> None:
    with pytest.raises(GraphError, match="human36m17 has no left_eye"):
        LiftBaseline.check(LiftBaseline.Settings(engine=card), {"views": Caps(skeleton="human36m17")})


def test_a_network_that_gives_nan_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="the network gives numbers that are not finite"):
        Lift(LiftBaseline, engine=always(tmp_path, np.full((17, 3), np.nan)))


def test_the_path_of_a_card_is_relative_to_the_studio_file() -> None:
    settings = LiftBaseline.Settings(engine="my/card.toml").beside(Path("/studio"))
    assert settings.engine == "/studio/my/card.toml"
    assert LiftBaseline.Settings(engine="lifter.baseline").beside(Path("/studio")).engine == "lifter.baseline"


def test_arrays_of_the_packet_are_read_only(card: str) -> None:
    poses = Lift(LiftBaseline, engine=card).give(packet(views_of(RIG, [standing()]), t_ns=T0_NS))
    assert not any(a.flags.writeable for a in (poses.ids, poses.xyz_m, poses.conf, poses.sigma_m, poses.reproj_px, poses.views_used))


@pytest.mark.parametrize("view", range(4))
def test_the_network_that_comes_with_posepipe_knows_what_a_standing_person_looks_like(view: int) -> None:
    poses = Lift(LiftBaseline, engine="lifter.baseline").see(standing(), change=without(*(c for c in range(4) if c != view)))
    hips = [BLAZEPOSE33.index(f"{side}_hip") for side in ("left", "right")]
    given_m, true_m = (xyz[IN_BLAZE] - xyz[hips].mean(axis=0) for xyz in (poses.xyz_m[0], standing()))
    assert np.linalg.norm(given_m - true_m, axis=1).mean() < 0.12
    assert np.linalg.norm(poses.xyz_m[0, hips].mean(axis=0) - standing()[hips].mean(axis=0)) < 1.0
