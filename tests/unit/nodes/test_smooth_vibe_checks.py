"""What cannot work is refused before a camera opens, with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from vibe_kit import card, network

from posepipe.nodes.smooth_vibe import SmoothVibe
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Caps


def test_a_layout_without_the_joints_is_refused(tmp_path: Path) -> None:
    settings = SmoothVibe.Settings(engine=network(tmp_path))
    with pytest.raises(
        GraphError, match=r"smooth\.vibe knows a body by coco17's joints, and human36m17 has no left_eye\n  -> smooth\.kalman"
    ):
        SmoothVibe.check(settings, {"poses": Caps(skeleton="human36m17")})
    for layout in ("coco17", "blazepose33", "coco18", "body25"):
        SmoothVibe.check(settings, {"poses": Caps(skeleton=layout)})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lifter.baseline", r"engine is 'lifter\.baseline': there is no network 'lifter\.baseline' that smooths people"),
        ("no_such/card.toml", r"engine is 'no_such/card\.toml': "),
    ],
)
def test_a_network_that_is_none_is_refused_before_anything_opens(name: str, says: str) -> None:
    with pytest.raises(GraphError, match=says):
        SmoothVibe.check(SmoothVibe.Settings(engine=name), {})


def test_a_card_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"the card has state \[-1, 52\]; window \[-1, 5, 17, 5\].*; wanted are state"):
        SmoothVibe.check(SmoothVibe.Settings(engine=card(tmp_path, window=5)), {})


def test_a_card_is_looked_for_beside_the_studio_file(tmp_path: Path) -> None:
    assert SmoothVibe.Settings(engine="my/card.toml").beside(tmp_path).engine == str(tmp_path / "my/card.toml")
    assert SmoothVibe.Settings().beside(tmp_path).engine == "vibe.smooth"


def test_nothing_is_given_of_people_who_are_forgotten() -> None:
    with pytest.raises(GraphError, match="fill_ms is 600, but a person is forgotten after forget_ms: 500\n  -> fill_ms at most forget_ms"):
        SmoothVibe.check(SmoothVibe.Settings(fill_ms=600), {})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lookahead": 9}, "`int` <= 8"),
        ({"lookahead": -1}, "`int` >= 0"),
        ({"reset": "always"}, "Invalid enum"),
        ({"forget_ms": 0}, "> 0.0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says):
        msgspec.convert(settings, SmoothVibe.Settings)
