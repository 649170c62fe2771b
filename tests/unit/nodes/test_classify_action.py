"""What everybody does, instant by instant, through whatever happens to people and to time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from action_kit import LABELS, by_left_hand
from node_kit import MS, T0_NS, Studio, caps, packet, poses
from people import standing

from posepipe.nodes.classify_action import ClassifyAction
from posepipe.pipeline.errors import EngineError, GraphError
from posepipe.pipeline.node import Caps
from posepipe.pipeline.packet import Actions
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17

WRIST = BLAZEPOSE33.index("left_wrist")
UP, DOWN = 0, 1
FRAME_MS = 33


def person(up: bool, *, x_m: float = 0.0) -> np.ndarray[Any, Any]:
    xyz = standing(x_m)
    if up:
        xyz[WRIST, 2] = 1.9
    return xyz


class Watched:
    """A studio that looks at people at a rate."""

    def __init__(self, card: str, **settings: Any) -> None:
        self.node = ClassifyAction(ClassifyAction.Settings(engine=card, **settings))
        self.node.open(Studio().context(caps=caps("poses", skeleton="blazepose33"), engines={"threads": 1}))
        self.ms = 0

    def see(self, *people: Any, ids: tuple[int, ...] | None = None, after_ms: int = FRAME_MS) -> Actions:
        self.ms += after_ms
        xyz = np.stack(people) if people else np.zeros((0, 33, 3))
        return self.node.step(packet(poses(xyz, ids=ids), t_ns=T0_NS + self.ms * MS))

    def for_ms(self, duration_ms: int, *people: Any, ids: tuple[int, ...] | None = None, every_ms: int = FRAME_MS) -> list[Actions]:
        return [self.see(*people, ids=ids, after_ms=every_ms) for _ in range(duration_ms // every_ms)]


@pytest.fixture
def card(tmp_path: Path) -> str:
    return by_left_hand(tmp_path)


def test_everybody_has_an_action_of_their_own_under_their_own_name(card: str) -> None:
    watched = Watched(card)
    found = watched.for_ms(2000, person(True), person(False, x_m=1), ids=(7, 3))[-1]
    assert found.ids.tolist() == [7, 3]
    assert found.label.tolist() == [UP, DOWN]
    assert found.p.shape == (2, 3)
    assert found.p.sum(axis=1) == pytest.approx([1, 1])
    assert not found.p.flags.writeable
    assert "on onnxruntime fp32" in watched.node.runs_on or "fp32" in watched.node.runs_on


def test_there_is_no_answer_before_enough_was_seen(card: str) -> None:
    watched = Watched(card, warm_ms=600)
    answers = watched.for_ms(1000, person(True))
    first = next(k for k, a in enumerate(answers) if len(a.ids))
    assert 550 <= first * FRAME_MS <= 750
    assert [a.label.tolist() for a in answers[first:]] == [[UP]] * (len(answers) - first)


def test_a_new_action_is_followed_within_the_window_and_smoothing_delays_it(card: str) -> None:
    def followed_ms(smooth_ms: float) -> int:
        watched = Watched(card, smooth_ms=smooth_ms)
        watched.for_ms(3000, person(False))
        answers = watched.for_ms(4000, person(True))
        return FRAME_MS * next(k for k, a in enumerate(answers) if a.label.tolist() == [UP])

    at_once, later = followed_ms(0), followed_ms(600)
    assert 500 < at_once < 1000
    assert at_once + 100 < later < 3000


def test_what_is_not_probable_is_unknown_and_says_by_how_much(tmp_path: Path) -> None:
    watched = Watched(by_left_hand(tmp_path, gain=0.2), threshold=0.9)
    found = watched.for_ms(2000, person(True))[-1]
    assert found.label.tolist() == [-1]
    assert 0.5 < found.p[0, UP] < 0.9


def test_someone_who_is_lost_for_long_begins_anew_and_for_a_moment_goes_on(card: str) -> None:
    watched = Watched(card, forget_ms=500)
    watched.for_ms(2000, person(True), ids=(1,))
    watched.for_ms(300)
    assert watched.see(person(True), ids=(1,)).label.tolist() == [UP]
    watched.for_ms(900)
    assert watched.see(person(True), ids=(1,)).ids.tolist() == []
    assert watched.for_ms(1000, person(True), ids=(1,))[-1].label.tolist() == [UP]


def test_a_newcomer_on_the_same_spot_inherits_nothing(card: str) -> None:
    watched = Watched(card, forget_ms=100)
    watched.for_ms(2000, person(True), ids=(1,))
    watched.for_ms(300)
    answers = watched.for_ms(2000, person(False), ids=(2,))
    assert answers[0].ids.tolist() == []
    assert {tuple(a.label.tolist()) for a in answers} == {(), (DOWN,)}


def test_time_that_goes_back_begins_everybody_anew(card: str) -> None:
    watched = Watched(card)
    watched.for_ms(2000, person(True))
    assert watched.see(person(True), after_ms=-5000).ids.tolist() == []
    assert watched.for_ms(1500, person(False))[-1].label.tolist() == [DOWN]


def test_the_same_instant_twice_changes_nothing(card: str) -> None:
    watched = Watched(card)
    before = watched.for_ms(2000, person(True))[-1]
    again = watched.see(person(True), after_ms=0)
    assert again.p == pytest.approx(before.p)


@pytest.mark.parametrize("every_ms", [8, 16, 66, 120])
def test_the_rate_of_the_cameras_does_not_matter(card: str, every_ms: int) -> None:
    watched = Watched(card)
    assert watched.for_ms(2500, person(True), every_ms=every_ms)[-1].label.tolist() == [UP]
    answers = watched.for_ms(2500, person(False), every_ms=every_ms)
    changed_ms = every_ms * next(k for k, a in enumerate(answers) if a.label.tolist() == [DOWN])
    assert 400 < changed_ms < 1600


def test_a_rate_that_is_halved_midway_costs_no_answer(card: str) -> None:
    watched = Watched(card)
    watched.for_ms(2000, person(True), every_ms=16)
    assert all(a.label.tolist() == [UP] for a in watched.for_ms(2000, person(True), every_ms=33))


@pytest.mark.parametrize(("every_ms", "sizes", "calls"), [(10, {1}, (29, 31)), (33, {2}, (29, 31)), (66, {2}, (14, 16))])
def test_the_network_is_asked_in_turns_about_new_ticks_only(
    card: str, monkeypatch: pytest.MonkeyPatch, every_ms: int, sizes: set[int], calls: tuple[int, int]
) -> None:
    people = [person(True), person(False)] if every_ms == 10 else [person(True), person(False)] * 2
    watched = Watched(card)
    watched.for_ms(2000, *people, every_ms=every_ms)
    asked: list[int] = []
    network = watched.node._network
    monkeypatch.setattr(watched.node, "_network", lambda clips: asked.append(len(clips)) or network(clips))
    watched.for_ms(1000, *people, every_ms=every_ms)
    assert calls[0] <= len(asked) <= calls[1]
    assert set(asked) == sizes


def test_everybody_has_a_turn_also_when_every_instant_is_a_tick(card: str) -> None:
    watched = Watched(card, smooth_ms=0)
    watched.for_ms(2000, *[person(False, x_m=k) for k in range(5)], every_ms=67)
    answers = watched.for_ms(2000, *[person(True, x_m=k) for k in range(5)], every_ms=67)
    first = [next(k for k, a in enumerate(answers) if a.label[p] == UP) for p in range(5)]
    assert max(first) - min(first) <= 2


def test_joints_missing_for_seconds_end_the_answer_and_bring_it_back(card: str) -> None:
    watched = Watched(card)
    watched.for_ms(2000, person(True))
    nothing = np.full((33, 3), np.nan)
    answers = watched.for_ms(3000, nothing)
    assert answers[0].label.tolist() == [UP]
    assert answers[-1].ids.tolist() == []
    assert watched.for_ms(1500, person(False))[-1].label.tolist() == [DOWN]


def test_legs_out_of_sight_and_sides_exchanged_for_moments_do_not_matter(card: str) -> None:
    watched = Watched(card)
    legless = person(True)
    legless[[BLAZEPOSE33.index(f"{s}_{j}") for s in ("left", "right") for j in ("knee", "ankle")]] = np.nan
    assert watched.for_ms(2000, legless)[-1].label.tolist() == [UP]
    swapped = legless.copy()
    for name in ("shoulder", "elbow", "wrist", "hip"):
        left, right = (BLAZEPOSE33.index(f"{s}_{name}") for s in ("left", "right"))
        swapped[[left, right]] = legless[[right, left]]
    assert all(a.label.tolist() == [UP] for a in watched.for_ms(120, swapped))


def test_two_people_whose_names_are_exchanged_for_three_instants(card: str) -> None:
    watched = Watched(card)
    watched.for_ms(2000, person(True), person(False, x_m=1), ids=(1, 2))
    watched.for_ms(100, person(True), person(False, x_m=1), ids=(2, 1))
    answers = watched.for_ms(1000, person(True), person(False, x_m=1), ids=(1, 2))
    assert all(a.label.tolist() == [UP, DOWN] for a in answers)


def test_nobody_is_no_fault_and_nine_are_more_than_a_batch(card: str) -> None:
    watched = Watched(card)
    assert watched.see().p.shape == (0, 3)
    found = watched.for_ms(1500, *[person(k % 2 == 0, x_m=k) for k in range(9)])[-1]
    assert found.label.tolist() == [UP, DOWN] * 4 + [UP]


def test_its_labels_are_known_before_the_start(card: str) -> None:
    arriving = {"poses": Caps(skeleton="coco17", cameras=("a", "b"), frame_rate_hz=30.0)}
    settings = ClassifyAction.Settings(engine=card)
    ClassifyAction.check(settings, arriving)
    assert ClassifyAction.caps(settings, arriving) == Caps(cameras=("a", "b"), frame_rate_hz=30.0, actions=LABELS)
    assert ClassifyAction.needs(settings) == (card,)
    assert list(ClassifyAction.networks(settings, None)) == [card]


def test_another_layout_of_joints_gives_the_same(card: str) -> None:
    node = ClassifyAction(ClassifyAction.Settings(engine=card))
    node.open(Studio().context(caps=caps("poses", skeleton="coco17"), engines={"threads": 1}))
    xyz = person(True)[[BLAZEPOSE33.index(name) for name in COCO17.joints]][None]
    for k in range(50):
        found = node.step(packet(poses(xyz, skeleton="coco17"), t_ns=T0_NS + k * 40 * MS))
    assert found.label.tolist() == [UP]
    node.close()


def test_a_network_of_another_kind_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"engine is 'blazepose.full': there is no network 'blazepose.full' for actions"):
        ClassifyAction.check(ClassifyAction.Settings(engine="blazepose.full"), {})
    path = Path(by_left_hand(tmp_path))
    path.write_text(path.read_text().replace("[-1, 24, 13, 7]", "[-1, 20, 13, 7]"))
    with pytest.raises(GraphError, match=r"the card has clip \[-1, 20, 13, 7\].*wanted are \[-1, 24, 13, 7\] in and \[-1, 3\] out"):
        ClassifyAction.caps(ClassifyAction.Settings(engine=str(path)), {})


def test_cameras_that_are_too_slow_are_refused(card: str) -> None:
    with pytest.raises(GraphError, match="skeletons come 2 times a second") as e:
        ClassifyAction.check(ClassifyAction.Settings(engine=card), {"poses": Caps(skeleton="coco17", frame_rate_hz=2.0)})
    assert e.value.hint == "cameras of 5 Hz or more"


def test_a_network_whose_answers_are_no_probabilities_is_told_of(tmp_path: Path) -> None:
    node = ClassifyAction(ClassifyAction.Settings(engine=by_left_hand(tmp_path, broken=True)))
    with pytest.raises(EngineError, match="the network's answers are no probabilities: they do not add up to 1"):
        node.open(Studio().context(caps=caps("poses", skeleton="blazepose33"), engines={"threads": 1}))
    node.close()
