from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_nodes import Harness, Hooked


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    Hooked.hooks.clear()
    Hooked.log.clear()
    yield Harness(tmp_path)
    Hooked.hooks.clear()
