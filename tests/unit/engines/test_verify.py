"""What a precision moves: how it is measured, and when it is too much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from network_kit import own_card

from posepipe.engines import verdicts
from posepipe.engines.assets import Asset, asset
from posepipe.engines.crowd import Crowd, beside
from posepipe.engines.decoders import stub_answers
from posepipe.engines.engine import EngineOptions, open_engine
from posepipe.engines.models.openpose.paint import paint, upright
from posepipe.engines.quantize import quantize
from posepipe.engines.verify import Subject, compare, verifiable, verify, within
from posepipe.pipeline.errors import EngineError, PullError
from posepipe.pipeline.skeleton import skeleton

PULLED = ("blazepose.full", "blazepose.detector", "pose2sim.single")


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pulled: Callable[[str], Asset]) -> Path:
    """A cache of the test's own that has what this machine fetched."""
    folders = [pulled(name).folder for name in PULLED]
    home = tmp_path / "home"
    home.mkdir()
    (home / "assets").symlink_to(folders[0].parent)
    monkeypatch.setenv("POSEPIPE_HOME", str(home))
    return home


@pytest.fixture
def blazepose(own_home: Path) -> Subject:
    return Subject("blazepose.full")


def heatmaps(at: list[tuple[int, int]], n: int = 1, peak: float = 4.0) -> dict[str, np.ndarray[Any, Any]]:
    """Logits with one peak per joint at a cell (column, row), the 39 channels in turn."""
    columns, rows = np.meshgrid(np.arange(64), np.arange(64))
    maps = np.stack([np.maximum(peak - (columns - c) ** 2 - (rows - r) ** 2, -10) for c, r in (at[j % len(at)] for j in range(39))])
    return {"heatmaps": np.repeat(maps[None].astype(np.float32), n, axis=0)}


def test_a_peak_that_moves_by_a_cell_moves_by_four_pixels(blazepose: Subject) -> None:
    shift = compare(blazepose, heatmaps([(20, 30)]), heatmaps([(21, 30)]))
    assert len(shift.moved) == 33
    np.testing.assert_allclose(shift.moved, 4.0, atol=1e-4)
    assert shift.median == pytest.approx(4.0)
    assert shift.nan_share == 0
    assert not within(blazepose, shift)
    error = heatmaps([(20, 30)])["heatmaps"].astype(np.float64) - heatmaps([(21, 30)])["heatmaps"]
    assert shift.raw_max == pytest.approx(np.abs(error).max())
    assert shift.raw_rms == pytest.approx(np.sqrt((error**2).mean()))


def test_the_same_is_within(blazepose: Subject) -> None:
    shift = compare(blazepose, heatmaps([(20, 30)]), heatmaps([(20, 30)]))
    assert (shift.median, shift.p95, shift.raw_max, shift.nan_share) == (0, 0, 0, 0)
    assert within(blazepose, shift)


def test_what_float32_is_not_sure_of_is_left_out(blazepose: Subject) -> None:
    sure, unsure = heatmaps([(20, 30)]), heatmaps([(20, 30)], peak=-0.5)
    reference = {"heatmaps": np.concatenate([sure["heatmaps"], unsure["heatmaps"]])}
    moved = {"heatmaps": np.concatenate([sure["heatmaps"], heatmaps([(50, 50)], peak=-0.5)["heatmaps"]])}
    shift = compare(blazepose, reference, moved)
    assert len(shift.moved) == 33
    assert shift.p95 == 0
    with pytest.raises(EngineError, match="sure of no key point"):
        compare(blazepose, unsure, unsure)


def test_a_crop_without_numbers_exceeds_whatever_the_others_do(blazepose: Subject) -> None:
    reference, found = heatmaps([(20, 30)], n=30), heatmaps([(20, 30)], n=30)
    found["heatmaps"][7, 3, 5, 5] = np.nan
    shift = compare(blazepose, reference, found)
    assert shift.nan_share == pytest.approx(1 / 30)
    assert (shift.median, shift.p95, shift.raw_max) == (0, 0, 0)
    assert np.isinf(shift.moved).sum() == 33
    assert not within(blazepose, shift)
    found["heatmaps"][:] = np.nan
    assert compare(blazepose, reference, found).median == np.inf


def two(one: dict[str, np.ndarray[Any, Any]], first: float, second: float) -> dict[str, np.ndarray[Any, Any]]:
    """The stub's person with one score, and the same far to the left with another."""
    at = int(np.argmax(one["scores"][0, :, 0]))
    scores, boxes = one["scores"].copy(), one["boxes"].copy()
    boxes[0, at - 20] = boxes[0, at]
    scores[0, at], scores[0, at - 20] = first, second
    return {"scores": scores, "boxes": boxes}


def test_of_a_detector_the_best_person_counts(own_home: Path) -> None:
    detector = Subject("blazepose.detector")
    one = {n: a[None] for n, a in stub_answers(detector.card).items()}
    moved = {**one, "boxes": one["boxes"] + np.float32(2.0)}
    shift = compare(detector, one, moved)
    assert len(shift.moved) == 4
    np.testing.assert_allclose(shift.moved, np.hypot(2, 2), rtol=1e-3)
    assert compare(detector, two(one, 3.0, 3.5), two(one, 3.5, 3.0)).p95 == pytest.approx(0, abs=1e-9), (
        "another one is the best, both are where they were"
    )
    nobody = {**one, "scores": np.full_like(one["scores"], -20)}
    assert compare(detector, one, nobody).median == np.inf


# part affinity networks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def light(cache: Path) -> Crowd:
    """It reads no file to decode."""
    return Crowd("openpose.light")


def crowd(light: Crowd, *at: tuple[float, float]) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs for one picture of 32 x 57 cells with people who stand so many cells beside its middle."""
    parts = light.network.parts
    one = upright(skeleton(parts.skeleton).joints, rows=32, columns=57)[0]
    heat, fields = paint(parts, np.stack([one + np.array(shift) for shift in at]), rows=32, columns=57)
    return {light.network.decoder.heatmaps: heat[None], light.network.decoder.fields: fields[None]}


def test_everybody_is_followed_from_one_run_to_the_other(light: Crowd) -> None:
    subject = object.__new__(Subject)
    subject.card, subject.name, subject._crowd = light.card, "openpose.light", light
    here = crowd(light, (-12, 0), (12, 0))
    assert compare(subject, here, here).p95 == 0
    shift = compare(subject, here, crowd(light, (12.25, 0), (-12, 0)))
    assert len(shift.moved) == 2 * 18
    assert sorted(np.round(shift.moved).tolist()) == [0.0] * 18 + [2.0] * 18, "a quarter of a cell of eight pixels, of one of the two"
    lost = compare(subject, here, crowd(light, (-12, 0)))
    assert np.isinf(lost.moved).sum() == 18
    assert compare(subject, crowd(light, (-12, 0)), here).p95 < 0.01, "somebody more is nobody who moved"
    broken = {n: a.copy() for n, a in here.items()}
    broken[light.network.decoder.fields][0, 0, 0, 0] = np.nan
    assert compare(subject, here, broken).nan_share == 1


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 4))
def test_who_is_next_to_whom(seed: int, before: int, after: int) -> None:
    rng = np.random.default_rng(seed)
    near, points = rng.uniform(0, 400, (before, 18, 2)), rng.uniform(0, 400, (after, 18, 2))
    near[rng.random(near.shape[:2]) < 0.3] = np.nan
    points[rng.random(points.shape[:2]) < 0.3] = np.nan
    pairs = beside(points, near)
    far = {(m, p): np.nanmean(np.linalg.norm(near[m] - points[p], axis=1)) for m in range(before) for p in range(after)}
    assert len(pairs) == min(before, after)
    assert len({m for m, _ in pairs}) == len({p for _, p in pairs}) == len(pairs)
    for k, (m, p) in enumerate(pairs):
        left = [far[a, b] for a, b in far if a not in [m for m, _ in pairs[:k]] and b not in [p for _, p in pairs[:k]]]
        assert far[m, p] == pytest.approx(min(left))
    assert beside(points[:1], np.full((1, 18, 2), np.nan)) == []


@pytest.mark.recording
def test_a_part_affinity_network_is_verified_on_whole_pictures(own_home: Path, pulled: Callable[[str], Asset]) -> None:
    pulled("openpose.light")
    (found,) = verify("openpose.light", instants=1, only_runtimes=["rounded"], only_precisions=["fp16"])
    assert found.shift is not None
    assert len(found.shift.moved) > 20
    assert found.verdict is not None
    assert found.verdict.within


def test_limits_are_those_of_the_card(blazepose: Subject) -> None:
    tolerance = blazepose.card.tolerance
    assert tolerance is not None
    assert (blazepose.limit_median, blazepose.limit_p95) == tolerance.limits("px")


def test_a_detector_without_limits_of_its_own_may_move_by_a_hundredth_of_the_picture(own_home: Path) -> None:
    detector = Subject("blazepose.detector")
    assert detector.card.tolerance is None
    assert (detector.limit_median, detector.limit_p95) == (pytest.approx(2.24), pytest.approx(4.48))


@pytest.mark.parametrize("name", ["pose2sim.single", "openpose.body25", "human-pose-estimation.0001"])
def test_what_cannot_be_verified_is_refused(name: str) -> None:
    with pytest.raises((EngineError, PullError)) as e:
        Subject(name)
    assert "->" in str(e.value)
    assert "blazepose.full" in verifiable()


def test_what_is_no_network_is_refused_before_a_runtime_reads_it(tmp_path: Path) -> None:
    card = own_card(tmp_path)
    (tmp_path / "net.onnx").write_text("weights")
    with pytest.raises(EngineError, match=r"net\.onnx: not a whole ONNX network: "):
        Subject(card)


# the whole way, on the recording ---------------------------------------------------------------------------------------------


@pytest.mark.recording
def test_crops_of_a_recording_are_always_the_same(blazepose: Subject) -> None:
    recording = asset("pose2sim.single")
    first, again = (blazepose.cut(recording, instants=1) for _ in range(2))
    assert first.shape == (4, 3, 256, 256)
    assert first.dtype == np.uint8
    assert (first.reshape(4, -1).std(axis=1) > 20).all(), "pictures, not grey"
    np.testing.assert_array_equal(first, again)
    assert Subject("blazepose.detector").cut(recording, instants=1).shape == (4, 3, 224, 224)


@pytest.mark.recording
def test_float16_keeps_the_key_points_of_blazepose(own_home: Path) -> None:
    found = {
        (f.runtime, f.precision): f
        for f in verify("blazepose.full", instants=2, only_runtimes=("onnxruntime", "rounded"), only_precisions=("fp32", "fp16"))
    }
    assert set(found) == {("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("rounded", "fp16")}
    assert found["onnxruntime", "fp32"].shift.p95 == 0  # type: ignore[union-attr]
    shift = found["rounded", "fp16"].shift
    assert shift is not None
    assert 0 < shift.median <= 0.1
    assert shift.p95 <= 0.5
    assert [(v.runtime, v.precision, v.within) for v in verdicts.kept()] == [("onnxruntime", "fp32", True), ("onnxruntime", "fp16", True)]


@pytest.mark.recording
def test_what_was_named_and_cannot_be_run_is_refused(own_home: Path) -> None:
    with pytest.raises(EngineError, match="ONNX Runtime has no bf16"):
        verify("blazepose.full", instants=1, only_runtimes=("onnxruntime",), only_precisions=("bf16",))
    said: list[str] = []
    with pytest.raises(EngineError, match="no int8 version"):
        verify("blazepose.full", instants=1, only_runtimes=("onnxruntime",), only_precisions=("fp32", "int8"), say=said.append)
    assert [text for text in said if "onnxruntime" in text] == [], "before the others are looked at"


@pytest.mark.recording
def test_int8_is_made_within_the_tolerance_of_the_card(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posepipe.engines.quantize._STEPS", (0, 16))
    monkeypatch.setattr("posepipe.engines.quantize.ON_CPU", ("onnxruntime",))
    made = quantize("blazepose.full", instants=4)
    assert (made.layers, made.floats, made.within) == (56, 16, True), "with all layers in 8 bits the key points move too far"
    assert made.path.stat().st_size < 3_000_000
    with open_engine(Subject("blazepose.full").path, EngineOptions(runtime="onnxruntime", precision="int8")) as engine:
        assert engine.precision == "int8"
