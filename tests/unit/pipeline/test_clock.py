"""The studio clock as other hosts have it: near the studio's, and never backwards."""

from __future__ import annotations

import time

import pytest

from posepipe.pipeline.clock import FarClock

S = 1_000_000_000


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    now = [100 * S]
    monkeypatch.setattr(time, "monotonic_ns", lambda: now[0])
    return now


def test_the_first_offset_is_taken_at_once(monotonic: list[int]) -> None:
    clock = FarClock()
    assert clock.error_ns is None
    clock.learn(7 * S, error_ns=50)
    assert (clock.now_ns(), clock.error_ns) == (107 * S, 50)


@pytest.mark.parametrize("step_ns", [3_000_000, -3_000_000, 9 * S, -9 * S])
def test_a_later_one_over_ten_seconds_without_a_step_back(monotonic: list[int], step_ns: int) -> None:
    clock = FarClock()
    clock.learn(7 * S, error_ns=50)
    clock.learn(7 * S + step_ns, error_ns=60)
    seen = []
    for _ in range(120):
        seen.append(clock.now_ns())
        monotonic[0] += S // 10
    assert seen[0] == 107 * S
    assert seen == sorted(set(seen))
    assert clock.now_ns() == monotonic[0] + 7 * S + step_ns


def test_what_is_learned_halfway_begins_where_the_clock_is(monotonic: list[int]) -> None:
    clock = FarClock()
    clock.learn(0, error_ns=1)
    clock.learn(1000, error_ns=1)
    monotonic[0] += 5 * S
    before = clock.now_ns()
    clock.learn(0, error_ns=1)
    assert clock.now_ns() == before == monotonic[0] + 500
