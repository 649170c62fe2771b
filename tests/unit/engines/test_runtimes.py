"""Which runtimes are usable, which one auto takes and why; what was measured, kept."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from network_kit import twice
from onnx import TensorProto, helper

from posepipe.engines import cache as builds
from posepipe.engines import runtimes as room
from posepipe.engines import timings
from posepipe.engines.device import Driver, Gpu, driver, processor
from posepipe.engines.engine import EngineOptions, TensorSpec, open_engine
from posepipe.engines.runtimes import choose, runtimes
from posepipe.engines.timings import Timing, fastest, least_ms, random_inputs
from posepipe.pipeline.errors import EngineError

VERSIONS: Any = {"openvino": "2026.4", "onnxruntime": "1.31"}
NO_GPU = Driver(why="no NVIDIA driver (libcuda.so.1)")
ONE_GPU = Driver((Gpu("NVIDIA Some GPU", "sm89"),), "13.0")


SIZED_CARD = """
[mine.net]
kind = "model"
summary = "twice its input"
licence = "mine"
files = [{name = "net.onnx"}]
inputs.a = {shape = [1, -1, -1, 3], dtype = "float32"}
outputs.twice = {shape = [1, -1, -1, 3], dtype = "float32"}
preprocess = {size = [6, 4], dtype = "float32"}
"""


@pytest.fixture(autouse=True)
def builds_of_its_own(cache: Path) -> None:
    """What the tests compile and measure is not kept on this machine."""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return twice(tmp_path / "twice.onnx")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a machine: the versions of the modules that are installed, and what the NVIDIA driver says."""

    def make(found: Driver = NO_GPU, /, **versions: str) -> None:
        def version(package: str) -> str:
            try:
                return versions[package.replace("-", "_").removesuffix("_cu13")]
            except KeyError:
                raise importlib.metadata.PackageNotFoundError(package) from None

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in versions else None)
        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(room, "driver", lambda: found)

    return make


def states() -> dict[str, room.Runtime]:
    return {r.name: r for r in runtimes()}


def test_every_runtime_is_listed_with_its_version_or_why_not(here: Callable[..., None]) -> None:
    here(onnxruntime="1.31", torch="2.13.0+cpu")
    found = states()
    assert list(found) == ["openvino", "onnxruntime", "tensorrt", "tensorrt_rtx", "torch", "stub"]
    assert {n for n, r in found.items() if r.usable} == {"onnxruntime", "torch", "stub"}
    assert found["onnxruntime"].version == "1.31"
    assert found["openvino"].why == "not installed: pip install posepipe[openvino]"
    assert found["tensorrt"].why == "not installed, and no NVIDIA driver (libcuda.so.1)"


def test_tensorrt_needs_a_driver_and_pycuda(here: Callable[..., None]) -> None:
    here(tensorrt_rtx="1.7", pycuda="2026.1")
    assert not states()["tensorrt_rtx"].usable
    assert states()["tensorrt_rtx"].why == "installed, 1.7, but no NVIDIA driver (libcuda.so.1)"
    assert states()["tensorrt_rtx"].version == "1.7", "it can build without a GPU"
    here(ONE_GPU, tensorrt_rtx="1.7")
    assert "pycuda is not: pip install posepipe[tensorrt-rtx]" in states()["tensorrt_rtx"].why
    here(ONE_GPU, tensorrt_rtx="1.7", pycuda="2026.1")
    assert states()["tensorrt_rtx"].usable


def test_no_runtime_is_imported_to_be_listed() -> None:
    import subprocess
    import sys

    program = "import sys; from posepipe.engines.runtimes import runtimes; runtimes(); print([m for m in ('onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_package_without_a_version_is_usable(here: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    here(openvino="1")

    def unknown(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", unknown)
    assert (states()["openvino"].usable, states()["openvino"].version) == (True, "unknown version")


# choosing ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "wants", "takes"),
    [
        ((ONE_GPU, {"tensorrt": "11", "tensorrt_rtx": "1", "pycuda": "1", "torch": "2", "openvino": "1"}), {}, "tensorrt"),
        ((ONE_GPU, {"tensorrt_rtx": "1", "pycuda": "1", "torch": "2", "openvino": "1"}), {}, "tensorrt_rtx"),
        ((ONE_GPU, {"tensorrt_rtx": "1", "pycuda": "1", "torch": "2"}), {"precision": "bf16"}, "torch"),
        ((ONE_GPU, {"torch": "2", "openvino": "1"}), {"device": "cuda:0"}, "torch"),
        ((ONE_GPU, {"torch": "2+cpu", "openvino": "1"}), {}, "openvino"),
        ((ONE_GPU, {"torch": "2", "openvino": "1"}), {"device": "cpu"}, "openvino"),
        ((ONE_GPU, {"onnxruntime": "1"}), {}, "onnxruntime"),
        ((ONE_GPU, {"torch": "2", "openvino": "1"}), {"precision": "int8"}, "openvino"),
        ((NO_GPU, {"torch": "2", "tensorrt": "1", "pycuda": "1", "onnxruntime": "1"}), {}, "onnxruntime"),
        ((NO_GPU, {"onnxruntime": "1", "openvino": "1"}), {"precision": "bf16"}, "openvino"),
    ],
)
def test_auto_takes_a_gpu_first_and_of_runtimes_the_one_that_can(
    here: Any, monkeypatch: pytest.MonkeyPatch, machine: Any, wants: Any, takes: str
) -> None:
    found, versions = machine
    here(found, **versions)
    monkeypatch.setattr(room, "_no_plan", lambda name, gpu: "")
    monkeypatch.setattr(timings, "fastest", lambda path, options, versions, gpu: (next(iter(versions)), "auto: measured"))
    name, why = choose(EngineOptions(**wants), Path("none.onnx"))
    assert name == takes
    assert why.startswith("auto: ")
    assert ("is idle" in why) == (takes in ("openvino", "onnxruntime") and found is ONE_GPU and wants.get("device") != "cpu")


@pytest.mark.parametrize(
    ("versions", "precision", "says"),
    [
        ({"openvino": "1"}, "auto", "no runtime for the GPU is installed"),
        ({"openvino": "1", "torch": "2+cpu"}, "auto", "no runtime for the GPU is installed"),
        ({"openvino": "1", "tensorrt": "11"}, "auto", "tensorrt is installed, 11, but pycuda is not"),
        ({"openvino": "1", "torch": "2"}, "int8", "torch has no int8"),
    ],
)
def test_a_gpu_that_is_left_idle_is_said_with_the_reason(here: Any, versions: Any, precision: Any, says: str) -> None:
    here(ONE_GPU, **versions)
    assert f"; NVIDIA Some GPU is idle: {says}" in choose(EngineOptions(precision=precision), Path("none.onnx"))[1]


@pytest.mark.parametrize(
    ("machine", "wants", "says"),
    [
        ((NO_GPU, {"openvino": "1"}), {"device": "cuda"}, ["device is cuda: no NVIDIA driver", "device: auto"]),
        ((ONE_GPU, {"torch": "2"}), {"device": "cuda:1"}, ["device is cuda:1: this machine has 1 GPU", "the last cuda:0"]),
        ((ONE_GPU, {"torch": "2"}), {"device": "cuda", "precision": "int8"}, ["device is cuda: torch has no int8", "device: auto"]),
        ((ONE_GPU, {"openvino": "1"}), {"device": "cuda"}, ["no runtime for the GPU is installed", "posepipe[tensorrt]"]),
        ((NO_GPU, {}), {}, ["no inference runtime is installed", "posepipe[openvino]"]),
        ((NO_GPU, {"onnxruntime": "1"}), {"precision": "bf16"}, ["no inference runtime that can do bf16"]),
        ((NO_GPU, {"onnxruntime": "1"}), {"runtime": "openvino"}, ["openvino cannot be used here: not installed", "pip install"]),
        ((NO_GPU, {"tensorrt": "11"}), {"runtime": "tensorrt"}, ["tensorrt cannot be used here", "11", "no NVIDIA driver"]),
        ((NO_GPU, {"openvino": "1"}), {"runtime": "openvino", "device": "cuda"}, ["openvino runs networks on the processor"]),
        (
            (ONE_GPU, {"onnxruntime": "1"}),
            {"runtime": "onnxruntime", "device": "cuda:1"},
            ["device is cuda:1", "tensorrt, tensorrt_rtx, torch"],
        ),
        ((ONE_GPU, {"tensorrt": "1", "pycuda": "1"}), {"runtime": "tensorrt", "device": "cpu"}, ["tensorrt needs a GPU"]),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(here: Any, machine: Any, wants: Any, says: list[str]) -> None:
    found, versions = machine
    here(found, **versions)
    with pytest.raises(EngineError) as e:
        choose(EngineOptions(**wants), Path("none.onnx"))
    assert all(part in str(e.value) for part in says), str(e.value)
    assert e.value.hint


def test_without_openvino_auto_says_what_is_missed(here: Callable[..., None]) -> None:
    here(onnxruntime="1")
    assert "pip install posepipe[openvino]" in choose(EngineOptions(), Path("none.onnx"))[1]


# measuring -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Makes the times that would be measured; gives how often they were."""

    def make(**ms: float) -> list[int]:
        asked: list[int] = []

        def measure(path: Path, options: EngineOptions, names: Any) -> Any:
            asked.append(1)
            return timings._Times({n: Timing("bf16" if n == "openvino" else "fp32", ms[n]) for n in names}), True

        monkeypatch.setattr(timings, "_measure", measure)
        return asked

    return make


@pytest.mark.parametrize(
    ("openvino", "onnxruntime", "takes"),
    [(4.9, 8.2, "openvino"), (8.2, 4.9, "onnxruntime"), (5.0, 4.6, "openvino"), (5.0, 4.54, "onnxruntime"), (5.0, 5.0, "openvino")],
)
def test_auto_takes_the_faster_and_a_near_tie_changes_nothing(
    network: Path, times: Any, openvino: float, onnxruntime: float, takes: str
) -> None:
    times(openvino=openvino, onnxruntime=onnxruntime)
    assert fastest(network, EngineOptions(), VERSIONS)[0] == takes


def test_the_reason_has_the_figures(network: Path, times: Any) -> None:
    times(openvino=4.9, onnxruntime=8.2)
    assert fastest(network, EngineOptions(), VERSIONS)[1] == "auto: openvino bf16 4.9 ms a picture, onnxruntime fp32 8.2 here"
    times(openvino=9.9, onnxruntime=1.2)
    other = EngineOptions(precision="fp16")
    assert fastest(network, other, VERSIONS)[1] == "auto: onnxruntime fp32 1.2 ms a picture, openvino bf16 9.9 here"


def test_it_is_measured_once(network: Path, times: Any) -> None:
    asked = times(openvino=4.9, onnxruntime=8.2)
    for _ in range(3):
        assert fastest(network, EngineOptions(), VERSIONS)[0] == "openvino"
    assert len(asked) == 1


def test_what_the_times_depend_on_is_measured_anew(network: Path, times: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = times(openvino=4.9, onnxruntime=8.2)
    fastest(network, EngineOptions(), VERSIONS)
    fastest(network, EngineOptions(precision="fp32"), VERSIONS)
    fastest(network, EngineOptions(threads=1), VERSIONS)
    fastest(network, EngineOptions(), {**VERSIONS, "onnxruntime": "1.32"})
    monkeypatch.setattr(timings, "processor", lambda: "Another CPU x 8")
    fastest(network, EngineOptions(), VERSIONS)
    network.write_bytes(network.read_bytes() + b"\0")
    fastest(network, EngineOptions(), VERSIONS)
    assert len(asked) == 6
    fastest(network, EngineOptions(), VERSIONS)
    assert len(asked) == 6


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b'{"a": {"openvino": {"precision": "bf16", "ms": "fast"}}}', b"\xff"])
def test_damaged_times_are_measured_anew_and_kept_again(network: Path, times: Any, content: bytes) -> None:
    asked = times(openvino=4.9, onnxruntime=8.2)
    fastest(network, EngineOptions(), VERSIONS)
    file = builds.folder() / "timings.json"
    file.write_bytes(content)
    fastest(network, EngineOptions(), VERSIONS)
    fastest(network, EngineOptions(), VERSIONS)
    assert len(asked) == 2
    assert len(json.loads(file.read_text())) == 1


def test_times_that_cannot_be_kept_are_used_and_said(network: Path, times: Any, tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    times(openvino=4.9, onnxruntime=8.2)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "file" / "home"))
    assert fastest(network, EngineOptions(), VERSIONS)[0] == "openvino"
    assert "measured at every start" in caplog.text


def test_the_least_of_calls_in_turns_counts() -> None:
    """One runtime is disturbed in one turn, the other in another: neither shows."""
    order: list[str] = []
    ms = {"a": iter([99, 5, 70, 5, 6, 7, 5]), "b": iter([99, 60, 4, 4, 4, 9, 4])}
    clock = [0.0]

    def call(name: str) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            clock[0] += next(ms[name]) / 1e3

        return run

    found = least_ms({"a": call("a"), "b": call("b")}, now_s=lambda: clock[0])
    assert found == {"a": pytest.approx(5), "b": pytest.approx(4)}
    assert order[2:] == ["a", "b"] * 6, "after one of each to warm up"


def test_slow_networks_are_run_less_often() -> None:
    clock = itertools.count()
    count = 0

    def call() -> None:
        nonlocal count
        count += 1

    least_ms({"a": call, "b": call}, now_s=lambda: float(next(clock)))
    assert count == 2 + 2 * timings._FEWEST


def test_random_pictures_have_the_shape_and_type_that_the_network_takes() -> None:
    specs = [TensorSpec("image", (-1, 8, 8, 3), np.dtype(np.uint8)), TensorSpec("x", (2, 3), np.dtype(np.float32))]
    made = random_inputs(specs, 4)
    assert made is not None
    assert all(s.admits(made[s.name]) for s in specs)
    assert made["image"].shape == (4, 8, 8, 3)
    assert made["x"].shape == (2, 3)
    assert made["image"].std() > 30
    assert random_inputs([TensorSpec("image", (-1, 3, -1, -1), np.dtype(np.float32))], 4) is None


def test_here_the_runtimes_are_measured_and_the_next_start_knows(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="pip install openvino")
    with open_engine(network, EngineOptions(threads=1, device="cpu")) as e:
        assert e.runtime in ("openvino", "onnxruntime")
        assert "ms a picture" in e.reason
        assert "openvino" in e.reason
        assert "onnxruntime" in e.reason
        first = e.reason
    monkeypatch.setattr(timings, "_measure", None)
    with open_engine(network, EngineOptions(threads=1, device="cpu")) as e:
        assert e.reason == first


def test_a_network_of_free_size_is_measured_with_the_size_that_its_card_states_only(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install openvino")
    a, b = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, "H", "W", 3]) for n in ("a", "twice"))
    graph = helper.make_graph([helper.make_node("Add", ["a", "a"], ["twice"])], "g", [a], [b])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    name, why = fastest(path, EngineOptions(device="cpu"), VERSIONS)
    assert name == "openvino"
    assert "usually the faster (its inputs have no fixed size" in why
    (tmp_path / "card.toml").write_text(SIZED_CARD)
    assert "ms a picture" in fastest(path, EngineOptions(device="cpu"), VERSIONS)[1]


def test_what_one_runtime_cannot_open_is_left_to_the_other(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_openvino = room.opener

    def opener(name: Any) -> Any:
        if name == "openvino":
            raise EngineError("no such operator")
        return with_openvino(name)

    monkeypatch.setattr(room, "opener", opener)
    name, why = fastest(network, EngineOptions(), VERSIONS)
    assert name == "onnxruntime"
    assert "no such operator" in why


def test_a_file_that_nothing_opens_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install openvino")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"\x08\x0a:\x03abc")
    with pytest.raises(EngineError, match="not a network that"):
        open_engine(bad, EngineOptions(device="cpu"))


# the machine ---------------------------------------------------------------------------------------------------------------------


def test_no_driver_is_said_by_the_library_that_is_missing() -> None:
    found = driver("libposepipe-no-such-driver.so.1")
    assert found.gpus == ()
    assert found.why == "no NVIDIA driver (libposepipe-no-such-driver.so.1)"


def test_the_processor_has_a_name_and_a_number_of_cores() -> None:
    name, _, cores = processor().rpartition(" x ")
    assert name
    assert int(cores) >= 1
