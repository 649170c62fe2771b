from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from capture_kit import OPEN
from clips import encode


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 pictures at 30 per second with B-pictures, a key picture every 12."""
    return encode(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.fixture
def closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()
