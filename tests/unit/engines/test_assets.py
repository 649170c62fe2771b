from __future__ import annotations

import re
from pathlib import Path

import pytest

from posepipe.engines import assets
from posepipe.engines.assets import asset, catalogue, home, read_card, resolve
from posepipe.pipeline.errors import PullError


def test_the_catalogue_names_what_first_light_needs() -> None:
    known = catalogue()
    assert {"blazepose.full", "blazepose.detector", "pose2sim.single", "pose2sim.multi"} <= set(known)
    for found in known.values():
        assert found.licence
        assert found.summary
        for file in found.files:
            if not found.not_run:
                assert re.fullmatch("[0-9a-f]{64}", file.sha256)
                assert file.bytes > 0
            assert "/" not in file.name


def test_recordings_have_four_cameras_and_a_calibration() -> None:
    for name in ("pose2sim.single", "pose2sim.multi"):
        assert [f.name for f in asset(name).files] == ["cam01.mp4", "cam02.mp4", "cam03.mp4", "cam04.mp4", "Calib.qca.txt"]


@pytest.mark.parametrize("name", ["blazepose.lite", "blazepose.full", "blazepose.heavy"])
def test_a_model_states_its_contract(name: str) -> None:
    found = asset(name)
    assert found.skeleton == "blazepose33"
    assert found.inputs["image"].shape == (-1, 3, 256, 256)
    assert found.outputs["heatmaps"].shape == (-1, 39, 64, 64)


def test_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("POSEPIPE_HOME", raising=False)
    assert home() == Path("/x/posepipe")
    monkeypatch.setenv("POSEPIPE_HOME", "/y")
    assert home() == Path("/y")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("POSEPIPE_HOME")
    assert home() == Path.home() / ".cache" / "posepipe"


def test_resolve_leaves_other_paths_alone() -> None:
    assert resolve("clips/a.mp4") == Path("clips/a.mp4")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pull:pose2sim.singel/cam01.mp4", "did you mean 'pose2sim.single'?"),
        ("pull:pose2sim.single/cam1.mp4", "did you mean 'cam01.mp4'?"),
        ("pull:pose2sim.single/cam01.mp4", "run `posepipe pull pose2sim.single`"),
        ("pull:pose2sim.single", "is not on this machine"),
    ],
)
def test_resolve_says_what_is_wrong(cache: Path, text: str, says: str) -> None:
    with pytest.raises(PullError) as e:
        resolve(text)
    assert says in str(e.value)


def test_resolve_finds_what_is_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "catalogue", lambda: read_card(CARD, where="here"))
    folder = cache / "assets" / "toy.one"
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"12345")
    assert resolve("pull:toy.one/a.bin") == folder / "a.bin"
    assert resolve("pull:toy.one") == folder
    (folder / "a.bin").write_bytes(b"1234")
    assert [f.name for f in asset("toy.one").missing()] == ["a.bin"]


CARD = """
[source]
kind = "pypi"
package = "toy"
version = "1"
filename = "toy-1-py3-none-any.whl"
sha256 = "00"
bytes = 100
[toy.one]
kind = "model"
summary = "s"
licence = "MIT"
[[toy.one.files]]
name = "a.bin"
member = "toy/a.bin"
sha256 = "00"
bytes = 5
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CARD.replace('package = "toy"', ""), "[source] Object missing required field `package`"),
        (CARD.replace('licence = "MIT"', ""), "licence"),
        (CARD.replace('licence = "MIT"', 'licence = "MIT"\ncolour = "red"'), "colour"),
        (CARD.replace('kind = "model"', 'kind = "song"'), "song"),
        (CARD.replace("[toy.one]", "[toy.one"), "line"),
        (CARD + "\n[toy2]\nx = 1\n", "[toy2.x] Expected `object`"),
    ],
)
def test_a_bad_card_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(PullError) as e:
        read_card(text, where="toy/card.toml")
    assert "toy/card.toml" in str(e.value)
    assert says in str(e.value)
