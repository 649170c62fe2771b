from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from memory_nodes import Hooked
from parts_kit import Crew


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Callable[..., Crew]]:
    """Makes the crew of a studio; what is left of it is ended."""
    made: list[Crew] = []

    def make(nodes: str, *, slots: int = 8) -> Crew:
        made.append(Crew(tmp_path, nodes, slots=slots))
        return made[-1]

    Hooked.hooks.clear()
    Hooked.log.clear()
    yield make
    Hooked.hooks.clear()
    for one in made:
        one.close()
