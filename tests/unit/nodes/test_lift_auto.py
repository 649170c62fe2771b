"""The volume gives way when instants come late, and comes back when there is time: on clocks set by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lift_kit import Lift, views_of, without
from node_kit import MS, Studio, packet
from people import ring, standing

from posepipe.nodes._lift_governor import Governor
from posepipe.nodes.lift_auto import LiftAuto
from posepipe.nodes.lift_volumetric import LiftVolumetric


def run(governor: Governor, ages_ms: Iterable[float], *, takes_ms: float = 12.0) -> str:
    """One letter an instant: v with the volume, a without."""
    way = ""
    for age_ms in ages_ms:
        way += "v" if governor.decide(age_ms) else "a"
        if way[-1] == "v":
            governor.took(takes_ms)
    return way


# the governor -----------------------------------------------------------------------------------------------------------------


def test_down_after_some_late_instants_and_up_after_more_good_ones() -> None:
    governor = Governor(100, late_instants=3, good_instants=5)
    assert run(governor, [30] * 8) == "v" * 8
    assert run(governor, [95, 95, 30, 95, 95, 95]) == "vvvvva", "three late ones in a row"
    assert run(governor, [30] * 4 + [75] + [30] * 6) == "a" * 9 + "vv", "75 ms and the volume leave no fifth of the budget"


def test_late_is_age_and_what_the_volume_takes() -> None:
    governor = Governor(100, late_instants=1, good_instants=5)
    assert run(governor, [0], takes_ms=50) == "v"
    assert run(governor, [50], takes_ms=50) == "v"
    assert run(governor, [51], takes_ms=50) == "a"


def test_one_slow_step_is_not_taken_for_all() -> None:
    governor = Governor(100, late_instants=3, good_instants=5)
    governor.decide(20)
    governor.took(900)
    assert run(governor, [20] * 30) == "v" * 30


def test_going_up_too_soon_makes_the_next_wait_longer() -> None:
    """Whenever the volume is computed, instants come late: the studio cannot afford it."""
    governor, ways = Governor(100, late_instants=2, good_instants=10), ""
    for _ in range(2000):
        volumes = governor.volumes
        ways += run(governor, [120.0 if volumes else 40.0])
    waits = [len(part) for part in ways.split("v") if part]
    assert waits[:6] == [10, 20, 40, 80, 160, 160]
    assert ways.count("v") / len(ways) < 0.02


def test_after_a_long_good_time_it_is_patient_no_longer() -> None:
    governor = Governor(100, late_instants=2, good_instants=10)
    run(governor, [30] * 5 + [150] * 2 + [30] * 10 + [150] * 2)
    assert not governor.volumes
    assert run(governor, [30] * 21) == "a" * 19 + "vv", "too soon the first time: twice as long"
    run(governor, [30] * 50 + [150] * 2)
    assert run(governor, [30] * 11) == "a" * 9 + "vv"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0, 300), max_size=200), st.integers(1, 5), st.integers(1, 20))
def test_it_never_changes_faster_than_it_says(ages_ms: list[float], late: int, good: int) -> None:
    way = run(Governor(100, late_instants=late, good_instants=good), ages_ms)
    inner = way.replace("va", "v|a").replace("av", "a|v").split("|")[:-1]
    for at, part in enumerate(inner):
        assert len(part) >= (late if part[0] == "v" else good) - (at == 0)


# the node ---------------------------------------------------------------------------------------------------------------------


class Auto(Lift):
    """A lift.auto whose instants have the age that is asked for, and whose steps take as long as is said."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(LiftAuto, studio=Studio(ring().names), **settings)
        self.t_ms = 0.0
        self.takes_ms = 12.0
        self._spent_ns = 0
        self.node._clock_ns = self._clock

    def _clock(self) -> int:
        self._spent_ns += int(self.takes_ms * MS)
        return self._spent_ns

    def instant(self, age_ms: float, *, change: Any = None) -> str:
        self.t_ms += 33
        views = packet(views_of(self.rig, [standing()], ids=(0,), change=change), t_ns=int(self.t_ms * MS))
        self.studio.now_ns = views.t_capture_ns + int(age_ms * MS)
        return self.give(views).tier


def test_it_goes_down_and_up_and_says_so() -> None:
    auto = Auto(budget_ms=100, late_instants=3, good_instants=4)
    assert [auto.instant(30) for _ in range(4)] == ["volumetric"] * 4
    assert [auto.instant(95) for _ in range(5)] == ["volumetric"] * 2 + ["algebraic"] * 3
    assert [auto.instant(30) for _ in range(5)] == ["algebraic"] * 3 + ["volumetric"] * 2
    assert auto.said == [
        "node: algebraic for now: an instant is 95 ms old when it comes, the volume takes 12 ms, the budget is 100 ms",
        "node: volumetric again: an instant is 30 ms old when it comes, the volume takes 12 ms, the budget is 100 ms",
    ]


def test_too_few_views_are_down_for_that_instant_alone() -> None:
    auto = Auto(min_views=3)
    assert [auto.instant(30, change=c) for c in (None, without(0, 1), None, without(0, 1, 2), None)] == [
        "volumetric",
        "algebraic",
        "volumetric",
        "held",
        "volumetric",
    ]


def test_under_load_a_person_in_one_view_is_held_too() -> None:
    auto = Auto(late_instants=1)
    auto.instant(30)
    assert [auto.instant(500), auto.instant(500, change=without(0, 1, 2))] == ["algebraic", "held"]


def test_offline_time_does_not_count() -> None:
    auto, plain = Auto(offline=True, budget_ms=1), Lift(LiftVolumetric)
    assert [auto.instant(10_000) for _ in range(10)] == ["volumetric"] * 10
    views = packet(views_of(auto.rig, [standing()], ids=(0,)), t_ns=int(auto.t_ms * MS))
    np.testing.assert_array_equal(auto.give(views).xyz_m, plain.give(views).xyz_m)
    assert auto.said == []


def test_nobody_is_no_measure_of_what_the_volume_takes() -> None:
    auto = Auto()
    auto.takes_ms = 1.0
    for _ in range(3):
        auto.studio.now_ns = 0
        auto.give(packet(views_of(auto.rig, []), t_ns=0))
    assert auto.node._governor.volume_ms == 0
    auto.takes_ms = 12.0
    auto.instant(30)
    assert auto.node._governor.volume_ms == pytest.approx(12)
