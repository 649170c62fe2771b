"""Motion as a studio would have seen it, how it is split, and the windows that are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.calib.action_samples import Pool, Take, as_seen, every, folds, mirror
from posepipe.calib.action_window import JOINTS, MIRRORED, TICKS, inputs, joints_in
from posepipe.pipeline.skeleton import BLAZEPOSE33
from tests.people import standing

STANDING = standing()[joints_in(BLAZEPOSE33)].astype(np.float32)
WRIST = JOINTS.index("left_wrist")


def waving(seconds: float, *, hz: float = 30.0):  # type: ignore[no-untyped-def]
    t_s = np.arange(0, seconds, 1 / hz)
    xyz = np.repeat(STANDING[None], len(t_s), axis=0)
    xyz[:, WRIST, 2] += np.sin(2 * np.pi * t_s).astype(np.float32)
    return xyz, np.ones(xyz.shape[:2], np.bool_), t_s


def test_what_is_seen_is_off_by_centimetres_and_sometimes_missing() -> None:
    rng = np.random.default_rng(0)
    xyz, seen, t_s = waving(20)
    xyz[:] = STANDING
    errors, shares, rates = [], [], []
    for _ in range(20):
        ticks, there = as_seen(rng, xyz, seen, t_s)
        errors.append(np.linalg.norm(ticks - STANDING, axis=2)[there])
        shares.append(there.mean())
        rates.append(len(ticks) / 15 / 20)
    away = np.concatenate(errors)
    assert 0.01 < np.median(away) < 0.03
    assert 0.7 < np.mean(shares) < 0.98
    assert np.std(rates) > 0.03  # people are faster and slower


def test_rough_0_changes_only_speed_and_rate() -> None:
    xyz, seen, t_s = waving(5)
    seen[60:90, 0] = False
    ticks, there = as_seen(np.random.default_rng(1), xyz, seen, t_s, rough=0)
    assert there[:, 1:].all()
    assert 0.7 < there[:, 0].mean() < 0.9
    still = [j for j in range(13) if j != WRIST]
    assert ticks[:, still[1:]] == pytest.approx(np.broadcast_to(STANDING[still[1:]], (len(ticks), 11, 3)), abs=1e-5)


@pytest.mark.parametrize("count", [2, 3])
def test_what_is_short_gives_nothing_and_no_fault(count: int) -> None:
    xyz, seen, t_s = waving(1)
    ticks, there = as_seen(np.random.default_rng(1), xyz[:count], seen[:count], t_s[:count])
    assert len(ticks) == len(there) <= 2


@given(
    sets=st.lists(st.frozensets(st.sampled_from("abcdef"), min_size=1, max_size=3), min_size=1, max_size=40),
    count=st.integers(2, 6),
    seed=st.integers(0, 9),
)
@settings(max_examples=200, deadline=None)
def test_no_label_is_ever_wholly_in_one_fold(sets: list[frozenset[str]], count: int, seed: int) -> None:
    recordings = [(f"r{k}", labels) for k, labels in enumerate(sets)]
    found = folds(recordings, count=count, seed=seed)
    assert found.keys() == {name for name, _ in recordings}
    for fold in range(count):
        for label in {x for s in sets for x in s}:
            assert any(found[name] != fold for name, labels in recordings if label in labels)


def test_folds_are_even_and_the_first_has_all_that_can_be_spared() -> None:
    recordings = [(f"{label}{k}", frozenset([label])) for label, many in (("a", 10), ("b", 5), ("c", 2), ("d", 1)) for k in range(many)]
    found = folds(recordings, count=5, seed=3)
    in_fold = [[name for name, fold in found.items() if fold == f] for f in range(5)]
    assert [sum(n[0] == "a" for n in names) for names in in_fold] == [2] * 5
    assert [sum(n[0] == "b" for n in names) for names in in_fold] == [1] * 5
    assert {n[0] for n in in_fold[0]} == {"a", "b", "c"}
    assert found["d0"] == -1
    assert folds(recordings, count=5, seed=4) != found


def pool(**other: int) -> Pool:
    xyz, seen, _ = waving(4, hz=15)
    up = xyz.copy()
    up[:, WRIST, 2] = 1.9
    takes = [
        Take("one", "wave", xyz, seen),
        Take("two", "up", up, seen),
        Take("three", "up", up[:20], seen[:20]),
        Take("x", "up", up[:3], seen[:3]),
    ]
    return Pool(takes, ("up", "wave"), seed=3, **other)


def test_windows_are_drawn_evenly_and_say_what_is_in_them() -> None:
    drawn = pool().draw(400, joined=0, cut=0)
    assert drawn.windows.shape == (400, TICKS, 13, 7)
    assert 150 < drawn.label.sum() < 250
    wrists = drawn.windows[:, -1, [WRIST, JOINTS.index("right_wrist")], 2].max(axis=1)
    assert (wrists[drawn.label == 0] > 0.5).all()
    assert wrists[drawn.label == 1].std() > 0.1
    again = pool().draw(400, joined=0, cut=0)
    assert np.array_equal(again.windows, drawn.windows)


def test_half_are_in_a_mirror_and_directions_and_sizes_differ() -> None:
    windows = pool().draw(400, joined=0, cut=0).windows
    left_is_up = windows[:, -1, WRIST, 2] > 0.5
    right_is_up = windows[:, -1, JOINTS.index("right_wrist"), 2] > 0.5
    assert 0.2 < left_is_up.mean() < 0.5
    assert 0.2 < right_is_up.mean() < 0.5
    hip = windows[:, -1, JOINTS.index("left_hip")]
    assert np.arctan2(hip[:, 0], hip[:, 1]).std() == pytest.approx(0.15, abs=0.05)


def test_a_mirror_twice_is_nothing_and_once_is_a_person_in_a_mirror() -> None:
    xyz, seen, _ = waving(3, hz=15)
    windows = inputs(xyz[None, :TICKS], seen[None, :TICKS])
    assert np.array_equal(mirror(mirror(windows)), windows)
    flipped = xyz.copy()
    flipped[..., 0] *= -1  # the person looks along y
    assert mirror(windows) == pytest.approx(inputs(flipped[None, :TICKS][:, :, list(MIRRORED)], seen[None, :TICKS]), abs=1e-5)


def test_some_have_just_come_in_and_some_did_something_else_before() -> None:
    windows = pool().draw(300, joined=0, cut=1).windows
    assert (windows[:, 0, :, 6] == 0).all()
    assert (windows[:, -8:, :, 6] == 1).all(axis=(1, 2)).mean() > 0.9
    drawn = pool().draw(300, joined=1, cut=0)
    before, now = (np.abs(drawn.windows[:, t, :, 2]).max(axis=1) for t in (0, -1))
    assert np.abs(before - now)[drawn.label == 0].mean() > 0.05
    assert (drawn.windows[drawn.label == 0][:, -1, :, 2].max(axis=1) > 0.5).all()


def test_a_label_without_half_a_second_of_anything_is_refused() -> None:
    xyz, seen, _ = waving(4, hz=15)
    with pytest.raises(ValueError, match="no take of up"):
        Pool([Take("one", "wave", xyz, seen), Take("two", "up", xyz[:5], seen[:5])], ("up", "wave"), seed=1)


def test_every_window_of_a_take_comes_once_there_is_half_a_second() -> None:
    xyz, seen, _ = waving(4, hz=15)
    windows = every(Take("one", "wave", xyz, seen), step=1)
    assert len(windows) == len(xyz) - 7
    assert (windows[0, :16, :, 6] == 0).all()
    assert (windows[0, 16:, :, 6] == 1).all()
    assert windows[-1] == pytest.approx(inputs(xyz[None, -TICKS:], seen[None, -TICKS:])[0])
    assert len(every(Take("one", "wave", xyz[:7], seen[:7]))) == 0
