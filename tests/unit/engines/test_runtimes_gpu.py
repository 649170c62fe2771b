"""What auto takes on a GPU: the fastest of what builds for it and opens the network, and the next where one refuses. All is made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from network_kit import twice

from posepipe.engines import runtimes as room
from posepipe.engines import tensorrt_build, timings
from posepipe.engines.device import Driver, Gpu
from posepipe.engines.engine import Arrays, Contract, Engine, EngineOptions, TensorSpec, open_engine
from posepipe.engines.runtimes import Runtime
from posepipe.pipeline.errors import EngineError

BATCH_OF_PAIRS = (-1, 2)
CHIPS = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")


@pytest.fixture(autouse=True)
def builds_of_its_own(cache: Path) -> None:
    """What the tests measure is not kept on this machine."""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return twice(tmp_path / "twice.onnx")


class Made(Engine):
    """An engine of a made-up runtime."""

    open: int = 0

    def __init__(self, name: str, ms: float, options: EngineOptions, reason: str) -> None:
        self.inputs = (TensorSpec("a", BATCH_OF_PAIRS, np.dtype(np.float32)),)
        self.outputs = (TensorSpec("twice", BATCH_OF_PAIRS, np.dtype(np.float32)),)
        self.runtime, self.precision, self.device, self.reason = name, "fp16", options.device, reason
        self._broken = ms < 0
        Made.open += 1

    def _run(self, inputs: Arrays, instance: int) -> dict[str, Any]:
        if self._broken:
            raise self._failed("an illegal memory access", "here")
        return {"twice": 2 * inputs["a"]}

    def _close(self) -> None:
        Made.open -= 1


Machine = Callable[..., list[str]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Makes a machine with one GPU and runtimes for it: ms a picture of each (below 0: it opens and fails), or why it refuses the network.
    Gives what is opened, in order."""

    def make(*, chip: str = "sm89", gpu: str = "Made Up 9000", **found: float | str) -> list[str]:
        opened: list[str] = []
        known = [Runtime(n, n in found, "1" if n in found else "", "" if n in found else "not installed") for n in room.ON_GPU]
        on_cpu = [Runtime("openvino", False, "", "not installed"), Runtime("onnxruntime", True, "1", "")]
        real = room.opener

        def opener(name: Any) -> Any:
            def open_made(path: Path, options: EngineOptions, reason: str) -> Engine:
                opened.append(f"{name} {options.device}")
                if isinstance(why := found[name], str):
                    raise EngineError(why, where=str(path), hint="run it with another runtime")
                return Made(name, why, options, reason)

            return open_made if name in found else real(name)

        members = SimpleNamespace(__members__=dict.fromkeys(CHIPS))
        rtx = SimpleNamespace(__version__="1.7.1", ComputeCapability=members)
        monkeypatch.setattr(room, "runtimes", lambda: [*on_cpu, *known])
        monkeypatch.setattr(room, "driver", lambda: Driver((Gpu(gpu, chip),), "13.0"))
        monkeypatch.setattr(room, "opener", opener)
        monkeypatch.setattr(tensorrt_build, "module_for", lambda options: (options.runtime, rtx))
        monkeypatch.setattr(timings, "least_ms", lambda calls: {name: 4 * float(found[name]) for name in calls})
        return opened

    Made.open = 0
    yield make
    assert Made.open == 0, "what was measured is closed"


def reason_of(path: Path, **options: Any) -> tuple[str, str]:
    with open_engine(path, EngineOptions(**options)) as engine:
        np.testing.assert_array_equal(engine({"a": np.ones((3, 2), np.float32)})["twice"], np.full((3, 2), 2))
        return engine.runtime, engine.reason


@pytest.mark.parametrize("chip", ["sm90", "sm100"])
def test_what_builds_no_plan_for_the_gpu_is_left_out_and_not_tried(network: Path, machine: Machine, chip: str) -> None:
    opened = machine(chip=chip, tensorrt_rtx=1.0, torch=2.0)
    name, reason = reason_of(network)
    assert name == "torch"
    assert reason == f"auto: the only one left for Made Up 9000; not tensorrt_rtx: tensorrt_rtx 1.7.1 does not build for {chip}"
    assert opened == ["torch cuda"]


def test_nothing_that_builds_for_the_gpu_leaves_it_idle_with_the_reason(network: Path, machine: Machine) -> None:
    machine(chip="sm90", tensorrt_rtx=1.0)
    name, reason = reason_of(network)
    assert name == "onnxruntime"
    assert reason.endswith("; Made Up 9000 is idle: not tensorrt_rtx: tensorrt_rtx 1.7.1 does not build for sm90")


def test_what_opens_the_network_is_measured_on_the_gpu_once(network: Path, machine: Machine) -> None:
    opened = machine(tensorrt=2.0, tensorrt_rtx=1.5, torch=3.0)
    expected = ("tensorrt_rtx", "auto: tensorrt_rtx fp16 1.5 ms a picture, tensorrt fp16 2.0, torch fp16 3.0 on Made Up 9000")
    assert reason_of(network) == expected
    assert opened == ["tensorrt cuda", "tensorrt_rtx cuda", "torch cuda", "tensorrt_rtx cuda"]
    assert reason_of(network) == expected
    assert len(opened) == 5
    opened = machine(gpu="Made Up 9001", tensorrt=1.0, torch=3.0)
    assert reason_of(network)[1] == "auto: tensorrt fp16 1.0 ms a picture, torch fp16 3.0 on Made Up 9001"


def test_the_first_stays_where_another_is_hardly_faster(network: Path, machine: Machine) -> None:
    machine(tensorrt=2.0, torch=1.9)
    assert reason_of(network)[0] == "tensorrt"


def test_one_of_three_that_refuses_the_network_is_said_beside_the_times(network: Path, machine: Machine) -> None:
    machine(tensorrt=2.0, tensorrt_rtx="no such operator: Odd", torch=3.0)
    name, reason = reason_of(network)
    assert name == "tensorrt"
    assert reason.endswith("torch fp16 3.0 on Made Up 9000; tensorrt_rtx refuses it: no such operator: Odd")


def test_the_only_one_that_opens_the_network_is_taken(network: Path, machine: Machine) -> None:
    machine(tensorrt_rtx="TensorRT does not take this network: Odd", torch=3.0)
    expected = "auto: torch is the only one that runs it (tensorrt_rtx refuses it: TensorRT does not take this network: Odd)"
    assert reason_of(network) == ("torch", expected)


def test_one_that_opens_the_network_and_cannot_run_it_is_left_out(network: Path, machine: Machine) -> None:
    machine(tensorrt=-1.0, torch=3.0)
    name, reason = reason_of(network)
    assert name == "torch"
    assert "tensorrt refuses it: the network cannot be run: an illegal memory access" in reason


@pytest.mark.parametrize("refusing", [{"torch": "Odd is not known"}, {"torch": "Odd is not known", "tensorrt": "does not take Odd"}])
def test_where_all_for_the_gpu_refuse_the_processor_runs_it_and_the_reason_says_why(
    network: Path, machine: Machine, refusing: dict[str, str]
) -> None:
    machine(**refusing)
    name, reason = reason_of(network)
    assert name == "onnxruntime"
    said = "; ".join(f"not {n}: {refusing[n]}" for n in room.ON_GPU if n in refusing)
    assert reason.endswith(f"; Made Up 9000 is idle: {said}")


def test_one_that_was_the_faster_and_refuses_by_now_is_replaced_by_the_next(network: Path, machine: Machine) -> None:
    machine(tensorrt=1.0, torch=3.0)
    assert reason_of(network)[0] == "tensorrt"
    machine(tensorrt="the memory of Made Up 9000 is full", torch=3.0)
    assert reason_of(network) == ("torch", "auto: the only one left for Made Up 9000; not tensorrt: the memory of Made Up 9000 is full")


@pytest.mark.parametrize("refusing", [{"torch": "Odd is not known"}, {"tensorrt": "does not take Odd", "torch": "Odd is not known"}])
def test_a_gpu_that_was_asked_for_is_not_replaced_by_the_processor(network: Path, machine: Machine, refusing: dict[str, str]) -> None:
    machine(**refusing)
    with pytest.raises(EngineError) as e:
        open_engine(network, EngineOptions(device="cuda"))
    assert e.value.what == "device is cuda: " + "; ".join(f"not {name}: {why}" for name, why in refusing.items())
    assert e.value.where == str(network)
    assert "device: auto" in e.value.hint


def test_a_runtime_that_was_named_is_never_replaced(network: Path, machine: Machine) -> None:
    opened = machine(tensorrt="does not take Odd", torch=1.0)
    with pytest.raises(EngineError, match="does not take Odd"):
        open_engine(network, EngineOptions(runtime="tensorrt"))
    assert opened == ["tensorrt auto"]


def test_another_network_than_the_cards_is_no_reason_for_another_runtime(network: Path, machine: Machine) -> None:
    machine(tensorrt=1.0, torch=2.0)
    with pytest.raises(EngineError, match="the network has no output 'thrice'"):
        open_engine(network, EngineOptions(), contract=Contract((), (TensorSpec("thrice", BATCH_OF_PAIRS, np.dtype(np.float32)),)))
