"""TensorRT plans of the networks that come with posepipe, made without a GPU: what they take and give is what their cards say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from posepipe.engines import cache, convert
from posepipe.engines.assets import asset, catalogue
from posepipe.engines.card import Packaged
from posepipe.engines.confidence import network_file
from posepipe.engines.engine import Contract, EngineOptions, TensorSpec, fits
from posepipe.engines.tensorrt_build import build_plan, describe
from posepipe.pipeline.errors import EngineError

rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed (pip install tensorrt-rtx-cu13, 95 MB to download)",
)

# What cards leave open beside the batch. A studio runs the confidences on the processor (`posepipe.engines.engine.open_small`).
OPEN: dict[str, dict[str, tuple[int, ...]]] = {
    "triangulation.confidence": {"shapes": (-1, 4, 17, 14), "agreement": (-1, 4, 17, 19), "seen": (-1, 4, 17)}
}


def packaged() -> list[str]:
    """Every network that comes with posepipe, also one that nobody added here."""
    return sorted(name for name, one in catalogue().items() if one.kind == "model" and isinstance(one.source, Packaged))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of a test stay in its folder."""
    monkeypatch.setattr(cache, "home", lambda: tmp_path)
    monkeypatch.setattr(convert, "home", lambda: tmp_path)


def must_be(found: tuple[TensorSpec, ...], card: tuple[TensorSpec, ...]) -> None:
    """Names and number types of the card, its shapes where it states them, and any batch."""
    assert {s.name: s.dtype for s in found} == {s.name: s.dtype for s in card}
    for spec in card:
        shape = next(s.shape for s in found if s.name == spec.name)
        assert fits(shape, spec.shape), spec.name
        assert shape[0] == -1, spec.name


@rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", packaged())
def test_every_network_that_comes_along_becomes_a_plan_of_its_card(name: str, precision: Any) -> None:
    card, options = asset(name), EngineOptions(runtime="tensorrt_rtx", precision=precision, max_batch=12)
    path, shapes, contract = card.path(card.files[0].name), OPEN.get(name), Contract.of(card.inputs, card.outputs)
    plan = build_plan(path, options=options, capability="sm89", shapes=shapes)
    found = describe(path, options=options, shapes=shapes)
    must_be(found.inputs, contract.inputs)
    must_be(found.outputs, contract.outputs)
    for spec in found.inputs:
        item = (shapes or {}).get(spec.name, spec.shape)[1:]
        assert min(item) > 0, spec.name
        assert found.profile[spec.name] == ((1, *item), (4, *item), (12, *item))
    assert set(found.profile) == set(card.inputs)
    for spec in (*contract.inputs, *contract.outputs):
        assert spec.name.encode() in plan
    (kept,) = (k for k in cache.kept() if k.key)
    assert (kept.key.runtime, kept.key.device, kept.key.precision) == ("tensorrt_rtx", "sm89", precision)


def test_none_that_comes_along_is_left_out() -> None:
    """Files beside the cards without a card would be built by nobody."""
    listed = {asset(name).path(asset(name).files[0].name) for name in packaged()}
    assert listed == set(network_file().parent.parent.glob("*/*.onnx"))


@rtx
def test_float32_products_on_turing_are_refused_with_what_to_write() -> None:
    """Lifters, smoothers and actions run in float32 whatever the studio file says."""
    card = asset("lifter.baseline")
    with pytest.raises(EngineError, match=r"tensorrt_rtx cannot build this network: .*FP32 GEMM is not supported") as e:
        build_plan(card.path("lifter.onnx"), options=EngineOptions(runtime="tensorrt_rtx", precision="fp32"), capability="sm75")
    assert e.value.hint == "for Turing GPUs it has no float32 products: write `runtime: tensorrt`, or `device: cpu`"


@rtx
def test_confidences_of_any_number_of_views_are_no_plan() -> None:
    """Why a studio runs them on the processor."""
    with pytest.raises(
        EngineError, match=r"the input 'shapes' has the shape \[-1, -1, 17, 14\]: TensorRT wants to know every number but the batch"
    ):
        build_plan(network_file(), options=EngineOptions(runtime="tensorrt_rtx", precision="fp32"), capability="sm89")
