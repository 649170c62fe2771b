"""Who leaves, in which place, whatever combination of people is seen, lost and forgotten."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from posepipe.calib.people_kernel import look, place

people = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), max_size=6)
"""In the list of the instant; with a joint seen in it; how long ago any joint was seen, else (1: too long ago from 3 on)."""


@given(people, st.integers(0, 2), st.booleans())
def test_everybody_has_a_place_of_his_own(drawn: list[tuple[bool, bool, int]], strangers: int, crowded: bool) -> None:
    rows = np.arange(len(drawn))[::-1].copy()
    owner = 100 + np.arange(len(drawn))
    joint_ns = np.array([[1000, -1] if listed and seen else [1000 - 1 - ago, -1] for listed, seen, ago in drawn], np.int64).reshape(-1, 2)
    ids = np.array([*range(strangers), *(100 + k for k, (listed, _, _) in enumerate(drawn) if listed)], np.int64)
    root_m = np.zeros((len(drawn), 3), np.float32)
    root_m[:, 0] = 0 if crowded else rows
    at = np.full(len(drawn), 77)
    leave, any_seen, any_given = place(rows, 1000, 4, owner, joint_ns, ids, root_m, 0.3, at)
    by_row = dict(zip(rows.tolist(), at.tolist(), strict=True))
    somebody = any(listed and seen for listed, seen, _ in drawn)
    lost = {k for k, (listed, _, ago) in enumerate(drawn) if not listed and 1 + ago < 4 and not (crowded and somebody)}
    assert all(ids[by_row[k]] == 100 + k for k, (listed, _, _) in enumerate(drawn) if listed)
    assert sorted(by_row[k] for k in lost) == list(range(len(ids), leave))
    assert all(by_row[k] == -1 for k, (listed, _, _) in enumerate(drawn) if not listed and k not in lost)
    assert any_seen == somebody
    assert any_given == (somebody or bool(lost) or any(listed and 1 + ago < 4 for listed, _, ago in drawn))


def test_what_is_seen_has_a_place_and_a_confidence() -> None:
    window = np.ones((1, 17, 5), np.float32)
    window[0, 0, 4], window[0, 1, 2], window[0, 2, 1], window[0, 3, 3], window[0, 4, 3] = 0, np.nan, np.inf, np.nan, np.inf
    seen, there = np.zeros((1, 17), np.bool_), np.zeros(1, np.bool_)
    look(window, False, 0.7, seen, there)
    assert np.flatnonzero(~seen[0]).tolist() == [0, 1, 2]
    assert (window[0, :3] == 0).all()
    assert window[0, 3:5, 3].tolist() == [np.float32(0.7)] * 2
    assert there[0]
    look(window, True, 0.7, seen, there)
    assert not seen.any()
    assert not there[0]
    assert (window == 0).all()
