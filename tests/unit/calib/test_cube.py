"""The cube around a person: where it stands and how it is turned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import standing

from posepipe.calib.cube import cube_around
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17

PERSON = standing()[[BLAZEPOSE33.index(j) for j in COCO17.joints]]
HIPS, SHOULDERS = [11, 12], [5, 6]


def without(*joints: int) -> Any:
    xyz_m = PERSON.copy()
    xyz_m[list(joints)] = np.nan
    return xyz_m


@settings(max_examples=50, deadline=None)
@given(turn=st.floats(-3.1, 3.1), x=st.floats(-5, 5), y=st.floats(-5, 5), side=st.floats(0.5, 4))
def test_it_goes_and_turns_with_the_hips(turn: float, x: float, y: float, side: float) -> None:
    cos, sin = np.cos(turn), np.sin(turn)
    moved = PERSON @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + [x, y, 0]
    cube = cube_around(moved, side_m=side)
    assert cube is not None
    np.testing.assert_allclose(cube.centre_m, moved[HIPS].mean(axis=0), atol=1e-9)
    assert cube.side_m == side
    at = cube.shares(moved)
    assert at[HIPS[0], 0] > 0 > at[HIPS[1], 0], "x runs from right to left"
    assert at[HIPS, 1] == pytest.approx(0, abs=1e-6)


def test_one_hip_is_not_their_middle() -> None:
    cube = cube_around(without(11))
    assert cube is not None
    np.testing.assert_allclose(cube.centre_m, np.nanmean(without(11)[5:], axis=0))
    assert cube.yaw_rad == pytest.approx(cube_around(PERSON).yaw_rad)  # type: ignore[union-attr]


def test_with_neither_hips_nor_shoulders_it_is_not_turned() -> None:
    cube = cube_around(without(5, 11))
    assert cube is not None
    assert cube.yaw_rad == 0


def test_a_head_alone_has_no_cube() -> None:
    assert cube_around(without(*range(5, 17))) is None
