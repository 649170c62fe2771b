"""One studio folder a test, made once a session and copied."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
from studio_files import StudioFiles, free_port


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> StudioFiles:
    return StudioFiles(tmp_path_factory.mktemp("studio"))


@pytest.fixture
def hall(_made: StudioFiles, tmp_path: Path) -> StudioFiles:
    """Three cameras of 30 frames, a stub network, a port of its own."""
    folder = tmp_path / "hall"
    shutil.copytree(_made.folder, folder)
    new = object.__new__(StudioFiles)
    new.folder, new.cameras, new.frames, new.port = folder, _made.cameras, _made.frames, free_port()
    new.graph = copy.deepcopy(_made.graph)
    new.nodes["publish"]["bind"] = new.address
    return new
