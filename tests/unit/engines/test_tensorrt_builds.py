"""TensorRT plans from ONNX files: made by TensorRT for RTX, which needs no GPU for it, and what is refused before."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from fake_gpu import FakeDriver
from fake_trt import FakeTrt, save_network
from plan_kit import rtx

from posepipe.engines import cache, convert, device, tensorrt_build
from posepipe.engines.engine import EngineOptions
from posepipe.engines.tensorrt_build import build_plan, describe
from posepipe.pipeline.errors import EngineError


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of a test stay in its folder; what was pulled is read where it is."""
    monkeypatch.setattr(cache, "home", lambda: tmp_path)
    monkeypatch.setattr(convert, "home", lambda: tmp_path)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return save_network(tmp_path / "double.onnx", [onnx.helper.make_node("Add", ["x", "x"], ["double"])])


def test_a_tensorrt_that_is_not_installed_says_what_to_install(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="tensorrt_rtx is not installed") as e:
        build_plan(network, options=EngineOptions(runtime="tensorrt_rtx"))
    assert e.value.hint == "pip install posepipe[tensorrt-rtx]"


OPEN_CARD = """
[mine.net]
kind = "model"
summary = "twice its input"
licence = "mine"
files = [{name = "double.onnx"}]
inputs.x = {shape = [1, 2, 3], dtype = "float32"}
outputs.double = {shape = [-1, 2, 3], dtype = "float32"}
"""


@pytest.mark.parametrize(
    ("shape", "stated", "found"),
    [
        (("n", "h", 3), "[1, 2, 3]", " x [-1, 2, 3]"),
        ((1, "h", "w"), "[-1, 2, 4]", " x [1, 2, 4]"),
        (("n", 2, 3), "[1, 2, 3]", ""),
        (("n", "h", 3), "[-1, -1, 3]", ""),
        (("n", "h", "w", 3), "[1, 2, 3]", ""),
    ],
)
def test_sizes_that_a_file_leaves_open_are_those_of_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: Any, stated: str, found: str
) -> None:
    """For the start of a studio and for what is built ahead of it alike: both ask for the plan of the same key."""
    path = save_network(tmp_path / "double.onnx", [onnx.helper.make_node("Add", ["x", "x"], ["double"])], shape=shape)
    monkeypatch.setattr(tensorrt_build, "module_for", lambda options: ("tensorrt_rtx", FakeTrt(FakeDriver())))
    chosen = tensorrt_build.Settled("fp32", path, "")
    options = EngineOptions(runtime="tensorrt_rtx", precision="fp32")
    assert tensorrt_build.plan_key(path, options, chosen, "sm89").shapes == "batch 1..16"
    (tmp_path / "card.toml").write_text(OPEN_CARD.replace("[1, 2, 3]", stated))
    assert tensorrt_build.plan_key(path, options, chosen, "sm89").shapes == f"batch 1..16{found}"
    assert tensorrt_build.plan_key(path, options, chosen, "sm89", {"x": (-1, 9)}).shapes == "batch 1..16 x [-1, 9]"


RTX = EngineOptions(runtime="tensorrt_rtx", precision="fp32")


PICTURE_CARD = f"""{OPEN_CARD.replace("[1, 2, 3]", "[1, -1, -1, 3]").replace("[-1, 2, 3]", "[1, -1, -1, 3]")}
preprocess = {{size = [6, 4], dtype = "float32"}}
"""


@rtx
def test_a_picture_whose_size_file_and_card_leave_open_is_as_large_as_it_is_cut(tmp_path: Path) -> None:
    """Its size is in what the plan takes and gives: whoever opens it need not name it."""
    nodes = [onnx.helper.make_node("Add", ["x", "x"], ["double"])]
    path = save_network(tmp_path / "double.onnx", nodes, shape=("n", "h", "w", 3))
    (tmp_path / "card.toml").write_text(PICTURE_CARD)
    assert build_plan(path, options=RTX, capability="sm89")
    found = describe(path, options=RTX)
    assert [str(s) for s in (*found.inputs, *found.outputs)] == ["x float32 [any, 4, 6, 3]", "double float32 [any, 4, 6, 3]"]
    assert found.profile == {"x": ((1, 4, 6, 3), (4, 4, 6, 3), (16, 4, 6, 3))}


def mirrored(name: str) -> Path:
    folder = os.environ.get("POSEPIPE_MIRROR")
    path = Path(folder or "") / name
    if not folder or not path.is_file():
        pytest.skip(f"{name} is not here (set POSEPIPE_MIRROR to a folder that has it)")
    return path


@rtx
@pytest.mark.parametrize("target", ["sm75", "sm80", "sm86", "sm89", "sm120", "sm121", None])
def test_plans_are_made_for_every_gpu_and_for_none_in_particular(network: Path, target: str | None) -> None:
    lines: list[str] = []
    assert build_plan(network, options=RTX, capability=target, progress=lines.append)
    assert lines[-1].startswith(f"double.onnx: built for {target or 'portable'}, fp32, ")
    assert any("steps" in line for line in lines)
    build_plan(network, options=RTX, capability=target, progress=lines.append)
    assert lines[-1].startswith(f"double.onnx: kept for {target or 'portable'}, fp32, ")


@rtx
def test_a_quantised_network_is_refused_in_the_parsers_words() -> None:
    with pytest.raises(EngineError, match=r"DequantizeLinear node 'sub_2_dequant': .*Non-zero zero point is not supported"):
        build_plan(mirrored("bodypix_075_512_int8.onnx"), options=RTX, capability="sm89")


@rtx
def test_bytes_are_made_floats_first(tmp_path: Path) -> None:
    """TensorRT takes an input of bytes only into a Cast; the file moves them about before."""
    nodes = [
        onnx.helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        onnx.helper.make_node("Transpose", ["t"], ["u"], perm=[0, 2, 1]),
        onnx.helper.make_node("Cast", ["u"], ["double"], to=onnx.TensorProto.FLOAT),
    ]
    path = save_network(tmp_path / "bytes.onnx", nodes, dtype=onnx.TensorProto.UINT8)
    assert build_plan(path, options=RTX, capability="sm86")
    assert [str(s) for s in describe(path, options=RTX).inputs] == ["x uint8 [any, 2, 3]"]


@rtx
def test_a_size_that_the_file_leaves_open_must_be_named(tmp_path: Path) -> None:
    path = save_network(tmp_path / "open.onnx", [onnx.helper.make_node("Add", ["x", "x"], ["double"])], shape=("n", "h", 3))
    with pytest.raises(EngineError, match=r"the input 'x' has the shape \[-1, -1, 3\]: TensorRT wants to know every number but the batch"):
        build_plan(path, options=RTX, capability="sm89")
    with pytest.raises(EngineError, match=r"the input 'x' has the shape \[-1, -1, 3\], which is not to be had as \[-1, 2, 4\]"):
        build_plan(path, options=RTX, capability="sm89", shapes={"x": (-1, 2, 4)})
    assert build_plan(path, options=RTX, capability="sm89", shapes={"x": (-1, 2, 3)})


@rtx
def test_what_rtx_does_not_build_for_is_refused_with_what_it_does(network: Path) -> None:
    with pytest.raises(EngineError, match=r"tensorrt_rtx .* does not build for sm90") as e:
        build_plan(network, options=RTX, capability="sm90")
    assert "sm75, sm80, sm86, sm89, sm120, sm121" in e.value.hint
    assert "runtime: tensorrt" in e.value.hint


@rtx
@pytest.mark.parametrize(("precision", "words"), [("bf16", "does not take bf16"), ("int8", "takes int8 only without zero points")])
def test_precisions_that_the_parser_lacks_are_refused(network: Path, precision: Any, words: str) -> None:
    with pytest.raises(EngineError, match=words) as e:
        build_plan(network, options=EngineOptions(runtime="tensorrt_rtx", precision=precision), capability="sm89")
    assert "fp16" in e.value.hint


def test_auto_is_fp16_or_says_why_it_is_not(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auto, fp16 = EngineOptions(runtime="tensorrt_rtx"), EngineOptions(runtime="tensorrt_rtx", precision="fp16")
    monkeypatch.setattr(convert, "to_fp16", lambda path: tmp_path / "half.onnx")
    for options, why in ((auto, "precision auto: fp16, which GPUs multiply faster"), (fp16, "precision asked for")):
        assert tensorrt_build.settle(options, network) == tensorrt_build.Settled("fp16", tmp_path / "half.onnx", why)

    def refuses(path: Path) -> Path:
        raise EngineError("an odd node")

    monkeypatch.setattr(convert, "to_fp16", refuses)
    why = "precision auto: fp32, since this network cannot be had in fp16: an odd node"
    assert tensorrt_build.settle(auto, network) == tensorrt_build.Settled("fp32", network, why)
    with pytest.raises(EngineError, match="this network cannot be had in fp16: an odd node") as e:
        tensorrt_build.settle(fp16, network)
    assert e.value.hint == "write `precision: fp32`, or `auto`"


@rtx
def test_a_file_that_is_no_network_and_an_operator_that_is_unknown_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"this is not a network")
    with pytest.raises(EngineError, match="not an ONNX network") as e:
        build_plan(bad, options=RTX, capability="sm89")
    assert e.value.where == str(bad)
    with pytest.raises(EngineError, match="there is no such network file"):
        build_plan(tmp_path / "none.onnx", options=RTX, capability="sm89")
    nodes = [onnx.helper.make_node("Nonsense", ["x"], ["double"], name="the_middle")]
    with pytest.raises(EngineError, match="Nonsense node 'the_middle'"):
        build_plan(save_network(tmp_path / "odd.onnx", nodes), options=RTX, capability="sm89")


def test_tensorrt_itself_builds_only_where_its_gpu_is(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_build, "module_for", lambda options: ("tensorrt", FakeTrt(FakeDriver())))
    options = EngineOptions(runtime="tensorrt", precision="fp32")
    monkeypatch.setattr(device, "driver", lambda: device.Driver(why="no NVIDIA driver (libcuda.so.1)"))
    with pytest.raises(EngineError, match="tensorrt builds only where its GPU is: no NVIDIA driver") as e:
        build_plan(network, options=options, capability="sm89")
    assert "tensorrt_rtx" in e.value.hint
    monkeypatch.setattr(device, "driver", lambda: device.Driver((device.Gpu("Made Up 9000", "sm90"),), "13.0"))
    with pytest.raises(EngineError, match=r"builds for the GPU that it runs on \(sm90\), not for sm89"):
        build_plan(network, options=options, capability="sm89")


def test_what_tensorrt_measured_for_a_build_is_given_to_the_next(network: Path) -> None:
    given: list[Any] = []
    config = SimpleNamespace(
        create_timing_cache=lambda content: content, set_timing_cache=lambda c, anyway: given.append((c, anyway)) or c != b"old"
    )
    make = tensorrt_build._Build("tensorrt", FakeTrt(FakeDriver()), network, 4, "sm89", {}, lambda line: None)
    path = make._timings(config)
    assert path is not None
    assert path.name == "tensorrt-11.9-sm89.timings"
    path.parent.mkdir(parents=True)
    for content in (b"measured", b"old"):
        path.write_bytes(content)
        make._timings(config)
    # What does not fit is not forced on the builder: it begins with nothing.
    assert given == [(b"", False), (b"measured", False), (b"old", False), (b"", False)]
    assert dataclasses.replace(make, name="tensorrt_rtx")._timings(config) is None
