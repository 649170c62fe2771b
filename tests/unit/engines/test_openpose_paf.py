"""People painted into heatmaps and affinity fields, as a network is trained to paint them, are found again."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from posepipe.engines.decoders.paf import Bodies, Options, PafDecoder
from posepipe.engines.models.openpose.layout import BODY25, COCO18, PARTS, Parts, parts_of
from posepipe.engines.models.openpose.paint import paint, upright
from posepipe.pipeline.errors import EngineError
from posepipe.pipeline.skeleton import COCO17, SKELETONS

ROWS, COLUMNS = 46, 62
Array = NDArray[np.float64]
DECODERS = {name: PafDecoder(parts, Options()) for name, parts in PARTS.items()}


def person(parts: Parts, *, x: float, y: float, tall: float, missing: tuple[int, ...] = ()) -> Array:
    """[J,2] in cells."""
    one = upright(SKELETONS[parts.skeleton].joints, rows=ROWS, columns=COLUMNS)[0]
    one = (one - one[1]) * tall / (0.75 * ROWS) + [x, y]
    one[list(missing)] = np.nan
    return np.asarray(one)


def decode(parts: Parts, people: Array, **options: Any) -> Bodies:
    reader = PafDecoder(parts, Options(**options)) if options else DECODERS[parts.skeleton]
    return reader.decode(*paint(parts, people, rows=ROWS, columns=COLUMNS))


def must_be(found: Bodies, people: Array, *, within: float = 0.2) -> None:
    """Everybody is there once, with all parts and no others."""
    assert len(found.points) == len(people)
    off = [[worst(points, one) for one in people] for points in found.points]
    best = [int(np.argmin(row)) for row in off]
    assert sorted(best) == list(range(len(people)))
    assert all(row[k] <= within for row, k in zip(off, best, strict=True))


def worst(points: NDArray[np.float32], one: Array) -> float:
    """The largest distance of a part in cells; infinite when other parts are there."""
    there = points[:, 2] > 0
    assert (np.isfinite(points[:, 0]) == there).all()
    if (there != np.isfinite(one[:, 0])).any():
        return float("inf")
    return float(np.linalg.norm(points[there, :2] - one[there], axis=1).max())


def apart(people: Array, cells: float) -> bool:
    """Whether same parts of different people are this far from each other."""
    pairs = itertools.combinations(people, 2)
    return all(np.nanmin(np.linalg.norm(a - b, axis=1)) >= cells for a, b in pairs)


@st.composite
def crowds(draw: st.DrawFn, parts: Parts = COCO18) -> Array:
    """One to six people in a row that stand so close that limbs of one cross those of the next, some without a wrist or an ankle."""
    count = draw(st.integers(1, 6))
    ends = [j for j in range(parts.count) if SKELETONS[parts.skeleton].joints[j].endswith(("wrist", "ankle", "ear"))]
    if parts is BODY25:
        ends = [j for j in ends if not SKELETONS["body25"].joints[j].endswith("ankle")]
    people = []
    for k in range(count):
        tall = draw(st.floats(26, 32))
        x = 8 + k * 9 + draw(st.floats(-1, 1))
        y = 8 + draw(st.floats(-1, 3))
        missing = tuple(draw(st.sets(st.sampled_from(ends), max_size=2)))
        people.append(person(parts, x=x, y=y, tall=tall, missing=missing))
    return np.array(people)


@given(crowds())
@settings(max_examples=60)
def test_painted_people_are_found(people: Array) -> None:
    must_be(decode(COCO18, people), people)


@given(crowds(BODY25))
@settings(max_examples=30)
def test_painted_people_with_feet_are_found(people: Array) -> None:
    must_be(decode(BODY25, people), people)


@given(crowds(), st.randoms())
@settings(max_examples=30)
def test_the_order_of_people_does_not_matter(people: Array, chance: Any) -> None:
    shuffled = list(people)
    chance.shuffle(shuffled)
    a, b = decode(COCO18, people), decode(COCO18, np.array(shuffled))
    assert np.array_equal(a.points, b.points, equal_nan=True)
    assert np.array_equal(a.score, b.score)


@given(st.floats(12, 50), st.floats(8, 14), st.floats(26, 32))
def test_a_part_is_found_to_a_hundredth_of_a_cell(x: float, y: float, tall: float) -> None:
    people = person(COCO18, x=x, y=y, tall=tall)[None]
    must_be(decode(COCO18, people), people, within=0.01)


@pytest.mark.parametrize("parts", [COCO18, BODY25], ids=["coco18", "body25"])
def test_nobody_is_in_an_empty_picture(parts: Parts) -> None:
    found = decode(parts, np.zeros((0, parts.count, 2)))
    assert found.points.shape == (0, parts.count, 3)
    assert found.score.shape == (0,)


def test_a_person_of_two_parts_is_nobody_and_of_three_is_one() -> None:
    two = np.full((1, 18, 2), np.nan)
    two[0, 1], two[0, 2] = (20, 20), (16, 20)
    assert len(decode(COCO18, two).points) == 0
    assert len(decode(COCO18, two, min_parts=2).points) == 1
    three = two.copy()
    three[0, 3] = (15, 27)
    must_be(decode(COCO18, three), three)


def test_two_halves_that_a_limb_joins_are_one_person() -> None:
    """The surest pairs are in both halves; the trunk, which is weak here, joins what are two persons by then."""
    people = person(COCO18, x=30, y=10, tall=32)[None]
    heat, fields = paint(COCO18, people, rows=ROWS, columns=COLUMNS)
    for limb, (a, _) in enumerate(COCO18.limbs):
        if a == 1:
            fields[COCO18.fields[limb] : COCO18.fields[limb] + 2] *= 0.3
    must_be(DECODERS["coco18"].decode(heat, fields), people)


def test_without_the_limbs_between_them_the_halves_are_two() -> None:
    people = person(COCO18, x=30, y=10, tall=32)[None]
    heat, fields = paint(COCO18, people, rows=ROWS, columns=COLUMNS)
    for limb, (a, b) in enumerate(COCO18.limbs):
        if a == 1 and b in (8, 11):
            fields[COCO18.fields[limb] : COCO18.fields[limb] + 2] = 0
    found = DECODERS["coco18"].decode(heat, fields)
    legs = [set(np.flatnonzero(p[:, 2] > 0)) for p in found.points]
    assert {8, 9, 10} in legs
    assert {11, 12, 13} in legs
    assert len(legs) == 3


def test_feet_alone_are_nobody_unless_nothing_else_is_there() -> None:
    joints = SKELETONS["body25"].joints
    leg = [joints.index(f"left_{part}") for part in ("ankle", "big_toe", "small_toe", "heel")]
    whole = person(BODY25, x=20, y=10, tall=30)
    foot = np.full((25, 2), np.nan)
    foot[leg] = [(40, 30), (45, 33), (48, 31), (38, 34)]
    must_be(decode(BODY25, np.array([whole, foot])), whole[None])
    must_be(decode(BODY25, foot[None]), foot[None])


def test_people_come_with_the_surest_first() -> None:
    people = np.array([person(COCO18, x=12, y=10, tall=30), person(COCO18, x=45, y=10, tall=30)])
    heat, fields = paint(COCO18, people, rows=ROWS, columns=COLUMNS)
    heat[:, :, :28] *= 0.5
    fields[:, :, :28] *= 0.5
    found = DECODERS["coco18"].decode(heat, fields)
    assert found.points[0, 1, 0] == pytest.approx(45, abs=0.1)
    assert found.score[0] > found.score[1]
    assert found.points[0, 1, 2] == pytest.approx(1, abs=0.2)


def test_more_peaks_than_are_looked_at_keep_the_highest() -> None:
    heat, fields = paint(COCO18, person(COCO18, x=30, y=12, tall=30)[None], rows=ROWS, columns=COLUMNS)
    noise = np.zeros((ROWS, COLUMNS), np.float32)
    noise[::3, ::3] = 0.1
    heat[:18] = np.maximum(heat[:18], noise)
    found = DECODERS["coco18"].decode(heat, fields)
    assert np.abs(found.points[0, :, :2] - person(COCO18, x=30, y=12, tall=30)).max() < 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_heatmaps_that_are_not_finite_are_refused(value: float) -> None:
    heat, fields = paint(COCO18, np.zeros((0, 18, 2)), rows=ROWS, columns=COLUMNS)
    heat[3, 5, 7] = value
    with pytest.raises(EngineError, match="net: the heatmaps have numbers that are not finite") as e:
        DECODERS["coco18"].decode(heat, fields, where="net")
    assert "precision: fp32" in e.value.hint


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_fields_that_are_not_finite_are_refused(value: float) -> None:
    heat, fields = paint(COCO18, person(COCO18, x=30, y=12, tall=30)[None], rows=ROWS, columns=COLUMNS)
    fields[COCO18.fields[0]] = value
    with pytest.raises(EngineError, match="the affinity fields have numbers that are not finite"):
        DECODERS["coco18"].decode(heat, fields)


@pytest.mark.parametrize(
    ("heat", "fields", "says"),
    [
        ((17, 4, 4), (38, 4, 4), "do not fit 18 parts"),
        ((19, 4, 4), (36, 4, 4), "do not fit 18 parts"),
        ((19, 4, 4), (38, 4, 5), "differ in size"),
        ((19, 4), (38, 4), "do not fit"),
    ],
)
def test_maps_of_other_shapes_are_refused(heat: tuple[int, ...], fields: tuple[int, ...], says: str) -> None:
    with pytest.raises(EngineError, match=says):
        DECODERS["coco18"].decode(np.zeros(heat, np.float32), np.zeros(fields, np.float32))


@pytest.mark.parametrize("parts", [COCO18, BODY25], ids=["coco18", "body25"])
def test_the_tables_fit_the_skeletons(parts: Parts) -> None:
    layout = SKELETONS[parts.skeleton]
    assert parts.count == len(layout.joints)
    assert tuple(layout.joints[j] for j in parts.coco17) == COCO17.joints
    assert sorted([*parts.fields, *(parts.fields + 1)]) == list(range(2 * len(parts.limbs)))
    assert {layout.joints[j] for j in np.flatnonzero(parts.feet)} == {j for j in layout.joints if "toe" in j or "heel" in j}
    for a, b in parts.limbs:  # no limb goes from one side of the body to the other
        sides = {layout.joints[j].split("_")[0] for j in (a, b)}
        assert not {"left", "right"} <= sides


def test_another_skeleton_has_no_parts() -> None:
    with pytest.raises(EngineError, match="no parts and limbs are known for the skeleton 'coco17'"):
        parts_of("coco17")
