"""The studios of examples/, run offline in a folder of the test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from studio_files import free_port

from posepipe.engines.assets import asset

EXAMPLES = Path(__file__).parents[2] / "examples"


def needs(*names: str, how: str = "posepipe pull") -> list[pytest.MarkDecorator]:
    """Marks of tests that skip, saying what is missing, until these were pulled. how: the command that does it."""
    absent = [name for name in names if not asset(name).present()]
    why = f"needs {', '.join(absent)}: run `{how} {' '.join(names)}`"
    return [pytest.mark.recording, pytest.mark.skipif(bool(absent), reason=why)]


def example(name: str) -> dict[str, Any]:
    """A studio of examples/ that publishes on a port of its own."""
    graph: dict[str, Any] = yaml.safe_load((EXAMPLES / name).read_text())
    graph["nodes"]["publish"]["bind"] = f"tcp://127.0.0.1:{free_port()}"
    return graph


def run_offline(graph: dict[str, Any], folder: Path, *, frames: int, timeout_s: float = 280) -> dict[str, Any]:
    """Run it to its end, all of its frames published. Its summary."""
    (folder / "studio.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    line = [sys.executable, "-m", "posepipe", "run", "studio.yaml", "--offline", "--summary", "s.json"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads((folder / "s.json").read_text())
    assert (figures["captured"], figures["published"], figures["balance"]) == (frames, frames, 0)
    return figures
