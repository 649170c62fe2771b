"""Cubes for networks under test: from a recording as a studio fills them, or of drawn people, and which of the two is said."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from posepipe.engines.assets import asset
from posepipe.engines.verify import Finding
from posepipe.launch import verifying, volumes
from posepipe.pipeline.errors import EngineError, PullError


def test_drawn_people_are_always_the_same_and_fill_the_middle() -> None:
    first, again = (volumes.drawn(n=16, count=3) for _ in range(2))
    assert (first.shape, first.dtype) == ((3, 16, 16, 16, 17), np.float32)
    np.testing.assert_array_equal(first, again)
    assert np.all((first.max(axis=(1, 2, 3, 4)) > 0.1) & (first.max(axis=(1, 2, 3, 4)) <= 1))
    hips = (first[..., 11:13] ** 3).sum(axis=(0, 4))
    assert hips[5:11, 5:11, 5:11].sum() > 4 * (6 / 16) ** 3 * hips.sum(), "the cube stands around the hips"


@pytest.fixture
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "empty"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The cubes that a network was looked at with."""
    seen: list[Any] = []

    def verify(name: str, *, cut: Any, **more: Any) -> list[Finding]:
        seen.append(cut(SimpleNamespace(shape=(8, 8, 8, 17))))
        return [Finding("onnxruntime", "1", "bf16", cannot="has no bf16")]

    subject = SimpleNamespace(gives="volume", unit="mm", limit_median=2.0, limit_p95=6.0)
    monkeypatch.setattr(verifying.room, "verify", verify)
    monkeypatch.setattr(verifying.room, "Subject", lambda name: subject)
    monkeypatch.setattr(volumes, "drawn", lambda *, n, count: ("drawn", n, count))
    return seen


@pytest.mark.usefixtures("nothing_here")
def test_without_the_recording_people_are_drawn_and_that_is_said(asked: list[Any]) -> None:
    out = io.StringIO()
    assert verifying.verify("my.volume", out=Console(file=out, width=1000)) == 0
    assert asked == [("drawn", 8, 50)]
    assert (
        "Against ONNX Runtime fp32 on drawn people ('pose2sim.single' is not on this machine; run `posepipe pull pose2sim.single`"
        in out.getvalue()
    )
    assert "joints with a deviation of at most 0.25 m, millimetres in a cube of 2.5 m. Allowed: 2 median, 6 p95." in out.getvalue()


@pytest.mark.usefixtures("nothing_here")
def test_a_recording_that_was_named_is_not_replaced(asked: list[Any]) -> None:
    with pytest.raises(PullError, match=r"'pose2sim.multi' is not on this machine"):
        verifying.verify("my.volume", recording="pose2sim.multi", out=Console(file=io.StringIO()))
    with pytest.raises(EngineError, match=r"blazepose.full is a network"):
        verifying.verify("my.volume", recording="blazepose.full", out=Console(file=io.StringIO()))


@pytest.mark.recording
def test_cubes_of_a_recording_are_those_of_a_studio() -> None:
    if lacks := [name for name in (volumes.JOINTS, volumes.PEOPLE, "pose2sim.single") if not asset(name).present()]:
        pytest.skip(f"not on this machine: `posepipe pull {' '.join(lacks)}`")
    filled = volumes.of_recording(asset("pose2sim.single"), n=16, instants=1)
    assert filled.shape == (2, 16, 16, 16, 17), "with all views, and with two"
    height = np.arange(16) / 15 - 0.5
    for volume in filled:
        mean = (volume**3 * height[:, None]).sum(axis=(0, 1, 2)) / (volume**3).sum(axis=(0, 1, 2))
        assert mean[0] > mean[11] > mean[15], "nose over hip over ankle"
    few, many = ((volume > 0.2 * volume.max()).mean() for volume in filled[::-1])
    assert few > many, "two views cross in a wider region than four"
