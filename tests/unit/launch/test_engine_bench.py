"""posepipe bench --engine: what is refused, what a line holds, and that our part of the time is told apart from the runtime's."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from rich.console import Console

from posepipe.engines.bare import bare
from posepipe.engines.engine import EngineOptions, open_engine
from posepipe.launch import cli, engine_bench, engine_row
from posepipe.launch.engine_row import Task, in_turns, measure
from posepipe.pipeline.errors import EngineError

KEYS = {"runtime", "precision", "batch", "ms", "cpu_ms", "fps", "peak_mb", "overhead"}


def network(path: Path, dims: list[Any]) -> Path:
    a, b = (helper.make_tensor_value_info(n, TensorProto.FLOAT, dims) for n in ("a", "twice"))
    graph = helper.make_graph([helper.make_node("Add", ["a", "a"], ["twice"])], "g", [a], [b])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def any_batch(tmp_path: Path) -> Path:
    return network(tmp_path / "any.onnx", ["N", 3])


def task(path: Path, **more: Any) -> Task:
    facts = {"path": str(path), "runtime": "onnxruntime", "precision": "auto", "batch": 2, "threads": 1, "seconds": 0.01, "shapes": {}}
    return Task(**{**facts, **more})


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert cli.main(["bench", *argv]) == 2
    return capsys.readouterr().err


def misused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(["bench", *argv])
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--engine", "blazepose.ful"], "there is no network 'blazepose.ful'\n  -> did you mean 'blazepose.full'?"),
        (["--engine", "pose2sim.single"], "there is no network 'pose2sim.single'"),
        (["--engine", "none.onnx"], "none.onnx: there is no such network file"),
        (["--engine", "blazepose.full", "--runtime", "openvno"], "there is no runtime 'openvno'\n  -> did you mean 'openvino'?"),
        (["--engine", "blazepose.full", "--precision", "fp61"], "there is no precision 'fp61'"),
        (["--engine", "blazepose.full", "--set", "a=1"], "--set and --trace are for studios"),
        ([], "either a studio file or --engine NAME"),
        (["a.yaml", "--engine", "blazepose.full"], "either a studio file or --engine NAME"),
    ],
)
def test_what_cannot_be_measured_is_refused(capsys: pytest.CaptureFixture[str], any_batch: Path, argv: list[str], says: str) -> None:
    argv = [str(any_batch) if a == "blazepose.full" else a for a in argv]
    assert says in refused(capsys, *argv)


def test_what_is_no_network_is_refused_before_anything_is_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("weights")
    figures = tmp_path / "figures.json"
    said = refused(capsys, "--engine", str(tmp_path / "text.onnx"), "--runtime", "onnxruntime,torch", "--json", str(figures))
    assert said.startswith(f"posepipe: {tmp_path / 'text.onnx'}: not a whole ONNX network: ")
    assert not figures.exists()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--batch", "four"], "four is not a number of pictures from 1 to 1024"),
        (["--batch", "1,0"], "0 is not a number of pictures"),
        (["--batch", "1,,4"], "is not a number of pictures"),
        (["--batch", "2000"], "2000 is not a number of pictures"),
        (["--threads", "-1"], "-1 is not a number of threads"),
    ],
)
def test_wrong_numbers(capsys: pytest.CaptureFixture[str], argv: list[str], says: str) -> None:
    assert says in misused(capsys, "--engine", "x", *argv)


def test_a_runtime_that_is_not_here_is_refused_with_what_to_do(
    capsys: pytest.CaptureFixture[str], any_batch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posepipe.engines.runtimes import Runtime

    monkeypatch.setattr(engine_bench, "runtimes", lambda: [Runtime("openvino", False, "", "not installed: pip install posepipe[openvino]")])
    text = refused(capsys, "--engine", str(any_batch), "--runtime", "openvino")
    assert "the runtime openvino cannot be used here: not installed: pip install posepipe[openvino]" in text


def test_a_folder_that_is_not_there_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], any_batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_bench, "_measured", lambda task: pytest.fail("measured"))
    assert "there is no such folder" in refused(capsys, "--engine", str(any_batch), "--json", str(tmp_path / "none" / "x.json"))


def test_a_fixed_batch_is_refused_with_the_one_that_can_be(tmp_path: Path) -> None:
    fixed = network(tmp_path / "fixed.onnx", [1, 3])
    with pytest.raises(EngineError, match="batch of this network is always 1") as e:
        measure(task(fixed, batch=4))
    assert "--batch 1" in str(e.value)
    assert measure(task(fixed, batch=1))["batch"] == 1


def test_sizes_come_from_the_card_where_the_file_leaves_them_open(tmp_path: Path) -> None:
    path = network(tmp_path / "open.onnx", ["N", "M"])
    with pytest.raises(EngineError, match="may have any size"):
        measure(task(path))
    assert measure(task(path, shapes={"a": (-1, 5)}))["batch"] == 2


def test_a_picture_whose_size_file_and_card_leave_open_is_as_large_as_it_is_cut(tmp_path: Path) -> None:
    """As MoveNet multipose: whole pictures of any size, its card says which size they are made."""
    path = network(tmp_path / "net.onnx", [1, "H", "W", 3])
    (tmp_path / "card.toml").write_text(
        '[mine.net]\nkind = "model"\nsummary = "s"\nlicence = "MIT"\nfiles = [{name = "net.onnx"}]\n'
        'inputs.a = {shape = [1, -1, -1, 3], dtype = "float32"}\noutputs.twice = {shape = [1, -1, -1, 3], dtype = "float32"}\n'
        'preprocess = {size = [6, 4], dtype = "float32"}\n'
    )
    found, shapes = engine_bench._network(str(tmp_path / "card.toml"))
    assert (found, shapes) == (path, {"a": (1, 4, 6, 3)})
    assert measure(task(found, batch=1, shapes=shapes))["batch"] == 1


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_line_has_every_figure(any_batch: Path, runtime: str) -> None:
    pytest.importorskip(runtime, reason=f"pip install {runtime}")
    row = measure(task(any_batch, runtime=runtime, precision="fp32", threads=2, batch=4))
    assert set(row) >= KEYS
    assert (row["runtime"], row["precision"], row["batch"]) == (runtime, "fp32", 4)
    assert row["fps"] == pytest.approx(4e3 / row["ms"], rel=0.05)
    assert row["plain_ms"]
    assert row["overhead"] is not None


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_the_bare_runtime_gives_the_same_answers(any_batch: Path, runtime: str, threads: int, batch: int) -> None:
    pytest.importorskip(runtime, reason=f"pip install {runtime}")
    given = {"a": np.arange(3 * batch, dtype=np.float32).reshape(batch, 3)}
    ways = bare(runtime, any_batch, precision="fp32", threads=threads, batch=batch)
    assert ways
    with open_engine(any_batch, EngineOptions(runtime=runtime, precision="fp32", threads=threads)) as engine:  # type: ignore[arg-type]
        ours = engine(given)["twice"].copy()
    for call in ways.values():
        found: Any = call(given)
        parts = found if isinstance(found, list) else [found]
        arrays = [part if isinstance(part, np.ndarray) else next(iter(part.values())) for part in parts]
        np.testing.assert_array_equal(np.concatenate(arrays), ours)


def clocked(monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], Callable[[float], Callable[[], object]]]:
    """A clock that only calls move: the calls that were made, and a maker of calls that take so many seconds."""
    now = [0.0]
    made: list[float] = []

    def taking(seconds: float) -> Callable[[], object]:
        def call() -> None:
            made.append(seconds)
            now[0] += seconds

        return call

    monkeypatch.setattr(engine_row.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(engine_row.time, "process_time", lambda: now[0] * 2)
    return made, taking


def test_our_part_is_told_apart_from_the_best_bare_way(monkeypatch: pytest.MonkeyPatch) -> None:
    made, taking = clocked(monkeypatch)
    figures = in_turns(taking(0.0103), {"slow": taking(0.02), "fast": taking(0.01)}, 1.0)
    assert figures["ms"] == pytest.approx(10.3)
    assert figures["cpu_ms"] == pytest.approx(20.6)
    assert figures["overhead"] == pytest.approx(0.03)
    assert figures["plain_ms"] == {"slow": 20.0, "fast": 10.0}
    assert made[6:15] == [0.0103, 0.02, 0.01, 0.02, 0.01, 0.0103, 0.01, 0.0103, 0.02], "each comes first equally often"


def test_without_a_bare_way_there_is_no_overhead(monkeypatch: pytest.MonkeyPatch) -> None:
    _, taking = clocked(monkeypatch)
    assert in_turns(taking(0.01), {}, 0.1)["overhead"] is None


def test_a_bench_has_a_table_a_file_and_the_reasons(tmp_path: Path, any_batch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Task] = []

    def measured(task: Task) -> dict[str, Any]:
        asked.append(task)
        if task.runtime != "onnxruntime":
            return {"error": "no such luck" if task.batch == 1 else "none here either", "hint": ""}
        figures = {"ms": 2.0, "cpu_ms": 3.0, "fps": 500.0, "peak_mb": 40.0, "overhead": 0.012, "plain_ms": {"session.run": 1.98}}
        return {"runtime": "onnxruntime", "precision": "fp32", "batch": task.batch, **figures}

    monkeypatch.setattr(engine_bench, "_measured", measured)
    out = io.StringIO()
    file = tmp_path / "bench.json"
    code = engine_bench.bench(
        str(any_batch), only_runtimes=("onnxruntime", "openvino"), batches=(1, 4), file=file, out=Console(file=out, width=120)
    )
    assert code == 0
    assert [(t.runtime, t.precision, t.batch) for t in asked] == [(r, "auto", b) for r in ("onnxruntime", "openvino") for b in (1, 4)]
    lines = out.getvalue().splitlines()
    assert any(line.split() == ["onnxruntime", "fp32", "4", "2.00", "3.00", "500", "40", "1.98", "+1.2%"] for line in lines)
    assert "openvino auto, batch 1: no such luck" in lines
    assert "openvino auto, batch 4: none here either" in lines
    found = json.loads(file.read_text())
    assert [set(run) >= KEYS for run in found["runs"]] == [True, True]
    assert {"cpu", "cores", "load_start"} <= set(found["machine"])


def test_when_nothing_can_be_measured_that_is_an_error(any_batch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_bench, "_measured", lambda task: {"error": "no such luck", "hint": "try"})
    with pytest.raises(EngineError, match="nothing could be measured"):
        engine_bench.bench(str(any_batch), only_runtimes=("onnxruntime", "openvino"), out=Console(file=io.StringIO()))
    with pytest.raises(EngineError, match="no such luck"):
        engine_bench.bench(str(any_batch), only_runtimes=("onnxruntime",), out=Console(file=io.StringIO()))


def test_a_line_is_measured_in_a_process_of_its_own(any_batch: Path, tmp_path: Path) -> None:
    row = engine_bench._measured(task(any_batch))
    assert set(row) >= KEYS
    assert row["peak_mb"] > 5, "the runtime itself is counted"
    assert "batch of this network" in engine_bench._measured(task(network(tmp_path / "fixed.onnx", [1, 3])))["error"]


def test_a_process_that_dies_is_a_reason_not_a_traceback(any_batch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_bench.sys, "executable", "/bin/false")
    assert "the process ended with 1" in engine_bench._measured(task(any_batch))["error"]
