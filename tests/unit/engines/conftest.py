"""Shared by the tests of this room: skips that say what is missing and how to get it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from posepipe.engines.assets import Asset, asset


@pytest.fixture
def pulled() -> Callable[[str], Asset]:
    """Gives an asset of this machine's own cache, or skips the test naming the file that is missing and the command that fetches it."""

    def get(name: str) -> Asset:
        found = asset(name)
        if missing := found.missing():
            pytest.skip(f"{found.folder / missing[0].name} is not here: run `posepipe pull {name}`")
        return found

    return get


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own, no mirror, and nothing of the user's settings."""
    for name in ("POSEPIPE_MIRROR", "PIP_INDEX_URL", "PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
