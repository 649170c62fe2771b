"""TensorRT: running plans on a made-up GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_gpu import FakeDriver
from fake_trt import ITEM, SCRATCH, FakeTrt, save_network
from numpy.typing import NDArray

from posepipe.engines import cache, convert, cuda, device, tensorrt, tensorrt_build
from posepipe.engines.cuda import Cuda, OutOfDeviceMemory
from posepipe.engines.engine import EngineOptions
from posepipe.engines.runtimes import opener
from posepipe.engines.tensorrt import TensorrtEngine
from posepipe.pipeline.errors import EngineError

Open = Callable[..., TensorrtEngine]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of a test stay in its folder; what was pulled is read where it is."""
    monkeypatch.setattr(cache, "home", lambda: tmp_path)
    monkeypatch.setattr(convert, "home", lambda: tmp_path)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return save_network(tmp_path / "double.onnx", [onnx.helper.make_node("Add", ["x", "x"], ["double"])])


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


def test_a_full_gpu_halves_the_batch_and_says_so_each_time(open_with: Open, caplog: pytest.LogCaptureFixture) -> None:
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
    assert all("the memory of Made Up 9000 is full" in line for line in warnings)
    assert [line.partition("; ")[2] for line in warnings] == [f"batches are run in parts of at most {n}" for n in (4, 2)]
    assert not driver.live


def test_a_batch_that_two_instances_halve_is_said_once(open_with: Open, caplog: pytest.LogCaptureFixture) -> None:
    with open_with(trt := FakeTrt(FakeDriver()), instances=2) as engine:
        for seed in range(2):
            trt.errors = ["Error Code 2: OutOfMemory (Requested size was 100 bytes.)"]
            x = batch(6, seed)
            np.testing.assert_array_equal(engine.submit({"x": x}).result()["double"], 2 * x)
            assert engine._most == 4
    assert sum(r.levelno == logging.WARNING for r in caplog.records) == 1


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


def test_an_old_error_is_not_blamed_for_a_new_one(open_with: Open) -> None:
    """A run that fails without a word must not be taken for the full memory of an hour ago, and halve the batch again."""
    with open_with(FakeTrt(FakeDriver())) as engine:
        engine._told.logger.log(1, "Out of memory")
        assert isinstance(engine.failed("cannot be run"), OutOfDeviceMemory)
        assert not isinstance(later := engine.failed("cannot be run"), OutOfDeviceMemory)
        assert later.what == "the network cannot be run: it gives no reason"


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
