"""TensorRT: running plans on a made-up GPU, and making them with TensorRT for RTX, which needs no GPU for it."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from fake_gpu import FakeDriver
from fake_trt import ITEM, SCRATCH, FakeTrt
from numpy.typing import NDArray

from posepipe.engines import cache, convert, cuda, device, tensorrt, tensorrt_build
from posepipe.engines.assets import asset
from posepipe.engines.cuda import Cuda, OutOfDeviceMemory
from posepipe.engines.engine import Contract, EngineOptions
from posepipe.engines.models.blazepose.networks import DETECTOR, HEATMAPS, PEOPLE, SIZES, onnx_path
from posepipe.engines.runtimes import opener
from posepipe.engines.tensorrt import TensorrtEngine
from posepipe.engines.tensorrt_build import build_plan, describe
from posepipe.pipeline.errors import EngineError

Open = Callable[..., TensorrtEngine]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of a test stay in its folder; what was pulled is read where it is."""
    monkeypatch.setattr(cache, "home", lambda: tmp_path)
    monkeypatch.setattr(convert, "home", lambda: tmp_path)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return save(tmp_path / "double.onnx", [onnx.helper.make_node("Add", ["x", "x"], ["double"])])


def save(path: Path, nodes: list[Any], *, dtype: int = onnx.TensorProto.FLOAT, shape: Any = ("n", *ITEM)) -> Path:
    ends = [onnx.helper.make_tensor_value_info(n, t, shape) for n, t in (("x", dtype), ("double", onnx.TensorProto.FLOAT))]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def open_with(network: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens the network on a made-up GPU."""

    def make(trt: FakeTrt, **options: Any) -> TensorrtEngine:
        name = "tensorrt_rtx" if trt.rtx else "tensorrt"
        gpu = Cuda(0, driver=trt.driver, library=trt.driver.library)
        monkeypatch.setattr(tensorrt, "gpu", lambda index: gpu)
        for part in (tensorrt, tensorrt_build):
            monkeypatch.setattr(part, "module_for", lambda options: (name, trt))
        monkeypatch.setattr(tensorrt, "build_plan", lambda *a, **k: b"plan")
        settings = EngineOptions(runtime=name, **{"precision": "fp32", "max_batch": 8, **options})  # type: ignore[arg-type]
        return TensorrtEngine(network, settings, "asked for")

    return make


def batch(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).integers(0, 99, (n, *ITEM)).astype(np.float32)


def check(engine: TensorrtEngine, n: int, seed: int = 0) -> None:
    x = batch(n, seed)
    found = engine({"x": x})
    np.testing.assert_array_equal(found["double"], 2 * x)
    np.testing.assert_array_equal(found["sum"], x.sum(axis=(1, 2)))


def kinds(driver: FakeDriver) -> list[str]:
    return [kind for kind, _ in driver.log if kind != "alloc"]


def test_a_run_is_upload_execute_download_wait(open_with: Open) -> None:
    driver = FakeDriver()
    with open_with(trt := FakeTrt(driver)) as engine:
        assert [str(s) for s in engine.inputs] == ["x float32 [any, 2, 3]"]
        assert [str(s) for s in engine.outputs] == ["double float32 [any, 2, 3]", "sum int32 [any]"]
        assert (engine.runtime, engine.precision, engine.device) == ("tensorrt", "fp32", "Made Up 9000")
        assert engine.reason == "asked for; precision asked for"
        driver.log.clear()
        check(engine, 3)
        assert kinds(driver) == ["htod_async", "execute", "dtoh_async", "dtoh_async", "wait"]
        assert [size for kind, size in driver.log if kind == "htod_async"] == [3 * 24]
        assert driver.depth == 0
    assert not driver.live
    assert len(trt.contexts) == 2  # of the largest batch, which sizes the memory, and of 3


def test_memory_and_contexts_are_used_again(open_with: Open) -> None:
    driver = FakeDriver()
    with open_with(trt := FakeTrt(driver)) as engine:
        taken = len([k for k, _ in driver.log if k == "alloc"])
        for seed in range(6):
            for n in (1, 4, 8):
                check(engine, n, seed)
        assert len([k for k, _ in driver.log if k == "alloc"]) == taken == 4
        assert len(trt.contexts) == 3
        assert len({c.scratch for c in trt.contexts}) == 1


def test_the_second_run_of_a_size_is_captured_and_later_ones_launch_the_graph(open_with: Open) -> None:
    driver = FakeDriver()
    with open_with(FakeTrt(driver)) as engine:
        driver.log.clear()
        for seed in range(4):
            check(engine, 4, seed)
        runs = " ".join(kinds(driver)).split("wait")
        assert runs[0].split() == ["htod_async", "execute", "dtoh_async", "dtoh_async"]
        assert runs[1].split() == ["htod_async", "begin_capture", "execute", "dtoh_async", "dtoh_async", "graph_launch"]
        assert runs[2].split() == runs[3].split() == ["htod_async", "graph_launch"]
        check(engine, 2)
        check(engine, 2, 1)
        check(engine, 4, 9)
    assert kinds(driver).count("begin_capture") == kinds(driver).count("graph_destroy") == 2


def test_what_cannot_be_captured_is_queued_each_time(open_with: Open, caplog: pytest.LogCaptureFixture) -> None:
    driver = FakeDriver()
    driver.library.refuses.add("begin")
    with caplog.at_level(logging.INFO, "posepipe.engines.tensorrt"), open_with(FakeTrt(driver)) as engine:
        for seed in range(4):
            check(engine, 4, seed)
    assert [r.message for r in caplog.records if "captured" in r.message] == [
        f"{engine._where}: runs of 4 cannot be captured, they are queued one by one"
    ]
    assert "graph_launch" not in kinds(driver)


def test_a_full_gpu_halves_the_batch_and_says_so_once(open_with: Open, caplog: pytest.LogCaptureFixture) -> None:
    driver = FakeDriver(room=3 * SCRATCH)
    with open_with(FakeTrt(driver), instances=1) as engine:
        check(engine, 8)
        check(engine, 5, 1)
        check(engine, 1, 2)
        assert driver.used() <= driver.room
        executed = [n for kind, n in driver.log if kind == "execute"]
        # 8 runs as 2 2 2 2, of which the second is captured and the others launch it; 5 as 2 2 1.
        assert executed[:2] == [2, 2]
        assert max(executed) == 2
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "the memory of Made Up 9000 is full" in warnings[0]
    assert warnings[0].endswith("batches are run in parts of at most 4")
    assert not driver.live


def test_memory_that_runs_out_later_halves_the_batch_too(open_with: Open) -> None:
    driver = FakeDriver()
    with open_with(trt := FakeTrt(driver)) as engine:
        check(engine, 8)
        trt.errors = ["Error Code 2: OutOfMemory (Requested size was 100 bytes.)"]
        check(engine, 6)
        assert engine._most == 4
        executed = [n for kind, n in driver.log if kind == "execute"]
        assert executed == [8, 4, 2]
    assert not driver.live


def test_a_gpu_without_room_for_one_item_is_an_error_that_leaves_nothing_behind(open_with: Open) -> None:
    driver = FakeDriver(room=SCRATCH + 10)
    with pytest.raises(OutOfDeviceMemory, match="the memory of Made Up 9000 is full") as e:
        open_with(FakeTrt(driver))
    assert "lower max_batch" in e.value.hint
    assert not driver.live
    assert driver.depth == 0


def test_a_driver_that_vanishes_is_an_error_and_closing_after_it_is_none(open_with: Open, caplog: pytest.LogCaptureFixture) -> None:
    driver = FakeDriver()
    engine = open_with(FakeTrt(driver))
    check(engine, 2)
    driver.gone = True
    with pytest.raises(EngineError, match="or its driver stopped working: cuCtxPushCurrent failed: device is lost") as e:
        engine({"x": batch(2)})
    assert "nvidia-smi" in e.value.hint
    engine.close()
    assert "device is lost" in caplog.text


def test_a_graph_that_the_driver_refuses_is_an_error(open_with: Open) -> None:
    driver = FakeDriver()
    with open_with(FakeTrt(driver)) as engine:
        check(engine, 2)
        driver.library.refuses.add("launch")
        with pytest.raises(EngineError, match="cuGraphLaunch gives error 719"):
            engine({"x": batch(2)})
    assert driver.depth == 0


def test_a_run_that_fails_is_told_in_tensorrts_words(open_with: Open) -> None:
    driver = FakeDriver()
    with open_with(trt := FakeTrt(driver)) as engine:
        trt.refuses_to_run = "IExecutionContext::enqueueV3: Error Code 3: Internal Error"
        with pytest.raises(EngineError, match="the network cannot be run: IExecutionContext::enqueueV3: Error Code 3"):
            engine({"x": batch(2)})
        trt.refuses_to_run = ""
        check(engine, 2)


def test_instances_have_memory_of_their_own_and_run_at_once(open_with: Open) -> None:
    driver = FakeDriver()
    with open_with(trt := FakeTrt(driver), instances=3) as engine:
        assert len({c.addresses["x"] for c in trt.contexts}) == 3
        inputs = [batch(4, seed) for seed in range(3)]
        pending = [engine.submit({"x": x}) for x in inputs]
        for x, run in zip(inputs, pending, strict=True):
            np.testing.assert_array_equal(run.result()["double"], 2 * x)
    assert not driver.live


def test_inputs_can_be_written_on_the_device(open_with: Open) -> None:
    driver = FakeDriver(room=3 * SCRATCH)
    with open_with(FakeTrt(driver)) as engine:
        x = batch(5)

        def fill(addresses: Any, stream: Any, part: slice) -> None:
            memory = driver.memory[addresses["x"]].view(np.float32)
            items = x[part]
            memory[: items.size] = items.ravel()

        driver.log.clear()
        found = engine.run_filled(5, fill)
        np.testing.assert_array_equal(found["double"], 2 * x)
        assert "htod_async" not in kinds(driver)


def test_rtx_captures_by_itself_and_its_kernels_are_kept(open_with: Open) -> None:
    driver = FakeDriver()
    with open_with(trt := FakeTrt(driver, rtx=True)) as engine:
        for seed in range(3):
            check(engine, 4, seed)
        assert {c.cuda_graph_strategy for c in trt.configs if c.cache is not None} == {"whole"}
    assert "begin_capture" not in kinds(driver)
    assert trt.kernels == []
    with open_with(trt, precision="fp32") as engine:
        check(engine, 4)
    assert trt.kernels == [b"kernels"]
    assert {k.key.shapes for k in cache.kept() if k.key} == {"kernels of batch 1..8"}


def test_a_kept_plan_that_does_not_load_is_built_again_once(open_with: Open) -> None:
    driver = FakeDriver()
    with open_with(FakeTrt(driver, broken=1)) as engine:
        check(engine, 2)
    with pytest.raises(EngineError, match="tensorrt cannot load its own build: engine is of another version"):
        open_with(FakeTrt(driver, broken=2))


def test_without_a_driver_nothing_of_tensorrt_is_touched(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda.gpu.cache_clear()
    monkeypatch.setattr(device, "driver", lambda: device.Driver(why="no NVIDIA driver (libcuda.so.1)"))
    monkeypatch.setattr(tensorrt, "module_for", lambda options: ("tensorrt", object()))
    with pytest.raises(EngineError, match=r"no GPU can be used: no NVIDIA driver") as e:
        opener("tensorrt")(network, EngineOptions(), "asked for")
    assert "device: cpu" in e.value.hint


def test_a_gpu_that_is_not_there_is_refused() -> None:
    driver = FakeDriver(devices=2)
    with pytest.raises(EngineError, match="there is no GPU cuda:2, the driver gives 2") as e:
        Cuda(2, driver=driver, library=driver.library)
    assert e.value.hint == "write a device from cuda:0 to cuda:1"


def test_a_tensorrt_that_is_not_installed_says_what_to_install(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="tensorrt_rtx is not installed") as e:
        build_plan(network, options=EngineOptions(runtime="tensorrt_rtx"))
    assert e.value.hint == "pip install posepipe[tensorrt-rtx]"


rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed (pip install tensorrt-rtx-cu13, 95 MB to download)",
)
RTX = EngineOptions(runtime="tensorrt_rtx", precision="fp32")


def pulled() -> list[Any]:
    views = [*((name, HEATMAPS) for name in SIZES), (DETECTOR, PEOPLE)]
    return [pytest.param(name, view, id=name) for name, view in views]


def mirrored(name: str) -> Path:
    folder = os.environ.get("POSEPIPE_MIRROR")
    path = Path(folder or "") / name
    if not folder or not path.is_file():
        pytest.skip(f"{name} is not here (set POSEPIPE_MIRROR to a folder that has it)")
    return path


@rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("name", "view"), pulled())
def test_every_pulled_network_becomes_a_plan_with_the_cards_inputs_and_outputs(name: str, view: Any, precision: Any) -> None:
    network = asset(name)
    if not network.present():
        pytest.skip(f"{name} is not here (posepipe pull {name})")
    path = onnx_path(network, view)
    options = EngineOptions(runtime="tensorrt_rtx", precision=precision, max_batch=12)
    plan = build_plan(path, options=options, capability="sm89")
    contract, found = Contract.of(network.inputs, network.outputs), describe(path, options=options)
    assert {s.name: s for s in found.inputs} == {s.name: s for s in contract.inputs}
    assert {s.name: (s.shape, s.dtype) for s in found.outputs} == {s.name: (s.shape, s.dtype) for s in contract.outputs}
    item = contract.inputs[0].shape[1:]
    assert found.profile == {contract.inputs[0].name: ((1, *item), (4, *item), (12, *item))}
    for spec in (*contract.inputs, *contract.outputs):
        assert spec.name.encode() in plan
    (kept,) = (k for k in cache.kept() if k.key)
    assert (kept.key.runtime, kept.key.device, kept.key.precision) == ("tensorrt_rtx", "sm89", precision)
    assert build_plan(path, options=options, capability="sm89") == plan


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
@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("yolox_nano.onnx", {}),
        ("human-pose-estimation-0001.fp32.onnx", {"data": (-1, 3, 256, 456)}),
        ("movenet-lightning-heatmap.onnx", {}),
        ("movenet-thunder-heatmap.onnx", {}),
        ("movenet-multipose.onnx", {"input": (1, 256, 256, 3)}),
    ],
)
def test_networks_of_the_mirror_become_plans(name: str, shapes: dict[str, tuple[int, ...]]) -> None:
    path = mirrored(name)
    assert len(build_plan(path, options=RTX, capability="sm120", shapes=shapes)) > 1_000_000
    found = describe(path, options=RTX, shapes=shapes)
    assert set(found.profile) == set(shapes)
    for input_name, wanted in shapes.items():
        least, usual, most = found.profile[input_name]
        assert least[1:] == usual[1:] == most[1:] == wanted[1:]
        assert (least[0], usual[0], most[0]) == ((1, 4, 16) if wanted[0] < 0 else (1, 1, 1))


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
    path = save(tmp_path / "bytes.onnx", nodes, dtype=onnx.TensorProto.UINT8)
    assert build_plan(path, options=RTX, capability="sm86")
    assert [str(s) for s in describe(path, options=RTX).inputs] == ["x uint8 [any, 2, 3]"]


@rtx
def test_a_size_that_the_file_leaves_open_must_be_named(tmp_path: Path) -> None:
    path = save(tmp_path / "open.onnx", [onnx.helper.make_node("Add", ["x", "x"], ["double"])], shape=("n", "h", 3))
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


@rtx
def test_auto_is_fp16_or_says_why_it_is_not(network: Path, tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.ones(ITEM, np.float32), "w")
    model = onnx.load(network)
    model.graph.initializer.append(weights)
    model.graph.node[0].input[1] = "w"
    onnx.save(model, tmp_path / "weights.onnx")
    auto = EngineOptions(runtime="tensorrt_rtx")
    chosen = tensorrt_build.settle(auto, tmp_path / "weights.onnx")
    assert (chosen.precision, chosen.why) == ("fp16", "precision auto: fp16, which GPUs multiply faster")
    twice = [onnx.helper.make_node("DequantizeLinear", ["x", "w"], ["double"])]
    odd = onnx.load(save(tmp_path / "odd.onnx", twice, dtype=onnx.TensorProto.INT8))
    odd.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.1), "w"))
    onnx.save(odd, tmp_path / "odd.onnx")
    chosen = tensorrt_build.settle(auto, tmp_path / "odd.onnx")
    assert chosen.precision == "fp32"
    assert chosen.why.startswith("precision auto: fp32, since this network cannot be had in fp16: ")
    with pytest.raises(EngineError, match="this network cannot be had in fp16") as e:
        tensorrt_build.settle(EngineOptions(runtime="tensorrt_rtx", precision="fp16"), tmp_path / "odd.onnx")
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
        build_plan(save(tmp_path / "odd.onnx", nodes), options=RTX, capability="sm89")


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
