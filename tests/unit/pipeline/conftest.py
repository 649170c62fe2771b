from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_nodes import Harness, Hooked
from ring_kit import Rings


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    Hooked.hooks.clear()
    Hooked.log.clear()
    yield Harness(tmp_path)
    Hooked.hooks.clear()


@pytest.fixture
def rings() -> Iterator[Rings]:
    made = Rings()
    yield made
    made.close()
