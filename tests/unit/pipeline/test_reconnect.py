"""How long a source that has gone is left alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from posepipe.pipeline.reconnect import LONGEST_S, Backoff


def test_the_waits_double_up_to_half_a_minute() -> None:
    backoff = Backoff(lambda: 0.0)
    assert [backoff.next_s() for _ in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]
    backoff.reset()
    assert [backoff.next_s() for _ in range(2)] == [1, 2]


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=50))
def test_chance_shortens_a_wait_by_a_fifth_at_most(chances: list[float]) -> None:
    drawn = iter(chances)
    backoff = Backoff(lambda: next(drawn))
    for n, chance in enumerate(chances):
        full = min(2.0**n, LONGEST_S)
        wait = backoff.next_s()
        assert 0.8 * full <= wait <= full
        assert wait == full * (1 - 0.2 * chance)


def test_two_cameras_that_went_together_do_not_come_together() -> None:
    assert len({Backoff().next_s() for _ in range(20)}) > 15
