"""Durations: what is kept of them, and the histogram of all since the start."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posepipe.pipeline import stats
from posepipe.pipeline.stats import BUCKETS_MS, Durations

BOUNDS_NS = np.array([round(ms * 1e6) for ms in BUCKETS_MS])
on_bounds = st.sampled_from(BOUNDS_NS.tolist())
durations = st.lists(st.integers(0, 20_000_000_000) | on_bounds | on_bounds.map(lambda ns: ns + 1), max_size=60)


def at_most(durations_ns: list[int]) -> list[int]:
    """How many lie in each bucket, each with those of the buckets before it: `numpy.histogram` over half-open buckets."""
    edges = np.array([0, *(BOUNDS_NS + 1), 1 << 62])
    return np.cumsum(np.histogram(durations_ns, edges)[0]).tolist()


@given(durations)
def test_the_histogram_is_that_of_numpy(durations_ns: list[int]) -> None:
    kept = Durations()
    for ns in durations_ns:
        kept.add(ns)
    assert list(kept.histogram.counts) == at_most(durations_ns)
    assert kept.histogram.total_ns == sum(durations_ns)


@given(st.lists(durations, max_size=5))
def test_many_at_once_are_as_many_one_by_one(heaps: list[list[int]]) -> None:
    at_once, one_by_one = Durations(), Durations()
    for heap in heaps:
        at_once.extend(np.array(heap, np.int64))
        for ns in heap:
            one_by_one.add(ns)
    assert at_once.histogram == one_by_one.histogram
    assert at_once.count == one_by_one.count
    assert at_once.since(0).tolist() == one_by_one.since(0).tolist()
    assert at_once.percentiles_ms() == one_by_one.percentiles_ms()


@pytest.mark.parametrize("heap", [1, 7, 16, 40])
def test_the_histogram_outlives_what_is_kept(monkeypatch: pytest.MonkeyPatch, heap: int) -> None:
    monkeypatch.setattr(stats, "_KEEP", 16)
    kept = Durations()
    every = np.arange(1, 121, dtype=np.int64) * 1_000_000
    for at in range(0, len(every), heap):
        kept.extend(every[at : at + heap])
    assert kept.count == kept.histogram.counts[-1] == 120
    assert kept.since(0).tolist() == every[-16:].tolist()
    assert kept.histogram.total_ns == every.sum()
    assert kept.percentiles_ms()["max"] == 120.0


def test_before_the_first() -> None:
    kept = Durations()
    kept.extend(np.array([], np.int64))
    assert (kept.count, kept.last_ns, kept.rate_hz) == (0, 0, 0.0)
    assert set(kept.histogram.counts) == {0}
