"""Whose action is whose, whatever the node that names them says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from node_kit import Studio, caps

from posepipe.nodes._actions import Acts, check_actions
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Caps
from posepipe.pipeline.packet import Actions

LABELS = ("walking", "jumping", "boxing")


def acts(studio: Studio, labels: tuple[str, ...] = LABELS) -> Acts:
    return Acts(studio.context(caps=caps("actions", actions=labels)))


def said(ids: list[int], label: list[int] | None = None, labels: int = 3) -> Actions:
    p = np.random.default_rng(0).dirichlet(np.ones(labels), len(ids)).astype(np.float32)
    return Actions(np.array(ids, np.int64), np.array(p.argmax(1) if label is None else label, np.int64), p)


ids = st.lists(st.integers(0, 30), unique=True, max_size=6)


@given(ids, ids)
def test_everybody_gets_their_own_and_nobody_another_s(people: list[int], known: list[int]) -> None:
    given_actions = said(known)
    found = acts(Studio()).of(np.array(people, np.int64), given_actions)
    assert len(found) == len(people)
    for person, act in zip(people, found, strict=True):
        if person not in known:
            assert act is None
        else:
            assert act is not None
            assert act.label == given_actions.label[known.index(person)]
            assert act.p is not None
            np.testing.assert_array_equal(act.p, [*given_actions.p[known.index(person)], 0])


def test_a_studio_without_actions_has_none() -> None:
    none = Acts(Studio().context(caps=caps("poses", skeleton="coco17")))
    assert none.labels == ()
    assert none.of(np.array([1, 2]), None) == [None, None]


@pytest.mark.parametrize(
    ("wrong", "given_labels"),
    [(said([1, 2], labels=4), 4), (said([1], label=[3]), 3), (said([1], label=[-2]), 3), (said([1], labels=2), 2)],
)
def test_labels_that_changed_while_the_studio_ran_are_left_out_with_one_warning(wrong: Actions, given_labels: int) -> None:
    studio = Studio()
    found = acts(studio)
    people = np.array([1, 2])
    assert [found.of(people, wrong) for _ in range(3)] == [[None, None]] * 3
    assert studio.warnings == [
        f"node: actions of {given_labels} labels came, and this run began with 3 (walking, jumping, boxing): they are left out, skeletons go on\n"
        "  -> start the studio again, so that everybody is told the new labels"
    ]
    assert found.of(people, said([2]))[1] is not None, "and what fits is taken again"


def test_unknown_is_an_answer() -> None:
    (act,) = acts(Studio()).of(np.array([4]), said([4], label=[-1]))
    assert act is not None
    assert acts(Studio()).names[act.label] == "unknown"
    assert act.p.shape == (4,)
    assert act.p[-1] == 0


def test_probabilities_that_are_no_numbers_are_no_answer() -> None:
    studio, broken = Studio(), said([4, 5])
    broken.p[0, 1] = np.nan
    found = acts(studio).of(np.array([4, 5]), broken)
    assert [act is None for act in found] == [True, False]


def test_nobody_has_no_shape_to_be_wrong() -> None:
    studio = Studio()
    assert acts(studio).of(np.array([1]), Actions(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 0), np.float32))) == [None]
    assert studio.warnings == []


def test_a_port_without_labels_is_refused() -> None:
    check_actions({"poses": Caps()})
    with pytest.raises(GraphError, match="what comes at 'actions' has no labels"):
        check_actions({"poses": Caps(), "actions": Caps(skeleton="coco17")})
