"""Detections of several views are the same person when their rays meet, and the person whom most views see comes first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import ring, seen, standing

from posepipe.calib.associate import match_views
from posepipe.pipeline.skeleton import BLAZEPOSE33

HIPS, SHOULDERS = ([BLAZEPOSE33.index(f"{side}_{part}") for side in ("left", "right")] for part in ("hip", "shoulder"))
SIZE_PX = 700.0


def detections(rig, people, views_of, order=None, noise_px=0.0):
    """(points_px, size_px, who): what the detector of every view sees of the people, in the given order of people."""
    rng = np.random.default_rng(1)
    uv = seen(rig, people)
    middles = np.stack([uv[:, :, HIPS].mean(axis=2), uv[:, :, SHOULDERS].mean(axis=2)], axis=2)
    points, who = [], []
    for view in range(len(rig)):
        rows = [p for p in (order[view] if order else range(len(people))) if view in views_of[p]]
        points.append(middles[rows, view].reshape(-1, 2, 2) + noise_px * rng.standard_normal((len(rows), 2, 2)))
        who.append(rows)
    return points, [np.full(len(rows), SIZE_PX) for rows in who], who


def people_of(found, who):
    """Found people as {person: views}; a mixture of people fails."""
    out = []
    for views in found:
        persons = {who[view][row] for view, row in views.items()}
        assert len(persons) == 1, "detections of different people were taken for one"
        out.append((persons.pop(), sorted(views)))
    return out


def test_the_performer_seen_by_four_comes_before_the_bystander_seen_by_two():
    rig = ring()
    performer, bystander = standing(0.3, -0.2), standing(-1.1, 1.0)
    points, sizes, who = detections(rig, [bystander, performer], [{0, 1}, {0, 1, 2, 3}])
    assert people_of(match_views(rig, points, sizes, max_people=1), who) == [(1, [0, 1, 2, 3])]
    assert people_of(match_views(rig, points, sizes, max_people=5), who) == [(1, [0, 1, 2, 3]), (0, [0, 1])]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.permutations([0, 1, 2]), min_size=4, max_size=4), st.integers(0, 3))
def test_the_order_of_detections_does_not_matter(order, noise_px):
    rig = ring()
    people = [standing(0.0, 0.0), standing(1.2, 0.4), standing(-0.9, -1.0)]
    points, sizes, who = detections(rig, people, [{0, 1, 2, 3}, {1, 2, 3}, {0, 2}], order, noise_px)
    found = people_of(match_views(rig, points, sizes, max_people=3), who)
    assert [(person, len(views)) for person, views in found] == [(0, 4), (1, 3), (2, 2)]


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_any_number_of_cameras(count):
    rig = ring(count)
    points, sizes, who = detections(rig, [standing(0.2, 0.1)], [set(range(count))])
    assert people_of(match_views(rig, points, sizes, max_people=2), who) == [(0, list(range(count)))]


def test_a_false_detection_joins_nobody():
    rig = ring()
    points, sizes, _ = detections(rig, [standing()], [{0, 1, 2, 3}])
    points[2] = np.concatenate([[[[5.0, 5.0], [5.0, -95.0]]], points[2]])
    sizes[2] = np.full(2, SIZE_PX)
    (person,) = match_views(rig, points, sizes, max_people=4)
    assert person == {0: 0, 1: 0, 2: 1, 3: 0}


@pytest.mark.parametrize("views", [set(), {2}])
def test_nobody_is_found_with_less_than_two_views(views):
    rig = ring()
    points, sizes, _ = detections(rig, [standing()], [views])
    assert match_views(rig, points, sizes, max_people=1) == []


def test_nobody_wanted():
    rig = ring()
    points, sizes, _ = detections(rig, [standing()], [{0, 1, 2, 3}])
    assert match_views(rig, points, sizes, max_people=0) == []
