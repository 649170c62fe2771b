"""Builds of networks that come with posepipe, several of which lie in one folder, are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from posepipe.engines.assets import read_card
from posepipe.engines.cache import Kept
from posepipe.launch import building

CARD = """
[own.NAME]
kind = "model"
summary = "trained here"
licence = "Apache-2.0"
source = {kind = "packaged"}
files = [{name = "NAME.onnx", sha256 = "00", bytes = 1}]
"""


def test_a_build_is_told_from_that_of_its_neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {}
    for name in ("net", "other"):
        cards |= read_card(CARD.replace("NAME", name), where=str(tmp_path / "card.toml"))
    monkeypatch.setattr(building, "catalogue", lambda: cards)
    for name in ("net", "other"):
        kept = Kept(tmp_path / "x.engine", None, str(tmp_path / f"{name}.onnx"), 1, 0.0)
        assert building.network_name(kept) == f"own.{name}"
