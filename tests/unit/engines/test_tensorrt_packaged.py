"""TensorRT plans of every network that has a card, made without a GPU: what they take and give is what their cards say.

Of RTMPose and RTMDet a network of the same signature is generated: their weights were not run here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from plan_kit import OPEN, file_of, must_be_its_card, packaged, rtx, shipped

from posepipe.engines import cache
from posepipe.engines.assets import asset, home
from posepipe.engines.confidence import network_file
from posepipe.engines.engine import EngineOptions
from posepipe.engines.tensorrt_build import build_plan, describe
from posepipe.pipeline.errors import EngineError


@pytest.fixture(autouse=True)
def real_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's own cache folder, where what was pulled is; what a test makes stays in its own."""
    real = home()
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "home"))
    return real


def here(name: str, real: Path) -> Path:
    """The file of a network, or a skip that names what is missing."""
    try:
        return file_of(name, real)
    except FileNotFoundError as e:
        pytest.skip(str(e))


@rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", shipped())
def test_every_shipped_network_becomes_a_plan_of_its_card(name: str, precision: Any, real_home: Path) -> None:
    """As `posepipe build --for` makes it: no sizes but the card's, except where a studio never makes one."""
    path, options, shapes = here(name, real_home), EngineOptions(runtime="tensorrt_rtx", precision=precision, max_batch=12), OPEN.get(name)
    plan = build_plan(path, options=options, capability="sm89", shapes=shapes)
    must_be_its_card(found := describe(path, options=options, shapes=shapes), name, most=12)
    for spec in (*found.inputs, *found.outputs):
        assert spec.name.encode() in plan
    (kept,) = (k for k in cache.kept() if k.key)
    assert (kept.key.runtime, kept.key.device, kept.key.precision) == ("tensorrt_rtx", "sm89", precision)
    assert build_plan(path, options=options, capability="sm89", shapes=shapes) == plan


@rtx
def test_the_size_of_the_cards_pictures_is_the_plans_own(real_home: Path) -> None:
    """A size that the plan left open would have to be named at every run, and the sizes of its outputs could not be known."""
    found = describe(here("movenet.multipose", real_home), options=EngineOptions(runtime="tensorrt_rtx", precision="fp32"))
    assert [str(s) for s in (*found.inputs, *found.outputs)] == ["input int32 [1, 256, 256, 3]", "output_0 float32 [1, 6, 56]"]
    assert not found.profile


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
