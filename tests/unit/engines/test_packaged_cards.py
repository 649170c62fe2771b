"""Networks that come with posepipe: nothing is fetched for them, and nothing of them is ever removed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from posepipe.engines import assets, pull
from posepipe.engines.assets import Asset, read_card
from posepipe.pipeline.errors import ChecksumError, PullError

NET = b"weights" * 30
CARD = f"""
[own.net]
kind = "model"
summary = "trained here"
licence = "Apache-2.0"

[own.net.source]
kind = "packaged"

[[own.net.files]]
name = "net.onnx"
sha256 = "{hashlib.sha256(NET).hexdigest()}"
bytes = {len(NET)}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    one = read_card(CARD, where=str(tmp_path / "card.toml"))["own.net"]
    monkeypatch.setattr(assets, "catalogue", lambda: {"own.net": one})
    monkeypatch.setattr(pull, "catalogue", lambda: {"own.net": one})
    return one


def test_it_is_there(own: Asset, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(NET)
    assert (own.folder, own.present(), own.path("net.onnx")) == (tmp_path, True, tmp_path / "net.onnx")
    assert own.download == "nothing, it comes with posepipe"
    assert pull.fetch("own.net") == tmp_path
    assert pull.intact(own)


def test_a_file_that_is_missing_is_not_fetched(own: Asset, tmp_path: Path) -> None:
    says = rf"{tmp_path}: posepipe's own file 'net.onnx' is missing or of another size\n  -> reinstall posepipe"
    with pytest.raises(PullError, match=says):
        own.path("net.onnx")
    with pytest.raises(PullError, match=says):
        pull.fetch("own.net")


def test_a_file_that_was_changed_stays_and_is_told_of(own: Asset, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"x" * len(NET))
    with pytest.raises(ChecksumError, match=r"net.onnx: posepipe's own file is not what its card names\n  -> reinstall posepipe"):
        pull.intact(own)
    assert (tmp_path / "net.onnx").exists()
