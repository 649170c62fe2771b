"""What the tests of the runner share: the studio that most of them run, and how a run is waited for and refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from memory_nodes import Harness

from posepipe.pipeline.errors import RunError

TWO = "capture: {use: mem.camera, each: {north: {}, south: {}}, frames: 12}\ninstants: {use: mem.instants, from: capture}\n"
LINE = TWO + "work: {use: mem.work, from: instants}\nsink: {use: mem.sink, from: work}\n"


def until(true: Callable[[], bool]) -> None:
    """Wait for something that another thread is about to do."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


def refused(harness: Harness, nodes: str, **options: Any) -> RunError:
    begin = time.monotonic()
    with pytest.raises(RunError) as caught:
        harness.run(nodes, **options)
    assert time.monotonic() - begin < 8, "a fault must not wait for the time-out of a clean stop"
    return caught.value
