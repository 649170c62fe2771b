"""What was found of a precision is kept, and opening a network heeds it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from posepipe.engines import cache as room
from posepipe.engines import verdicts
from posepipe.engines.cache import sha256_of
from posepipe.engines.engine import EngineOptions, open_engine
from posepipe.engines.runtimes import runtimes
from posepipe.engines.verdicts import Verdict
from posepipe.pipeline.errors import EngineError


@pytest.fixture
def network(tmp_path: Path, cache: Path) -> Path:
    """Twice the input, through a convolution."""
    a, b = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 1, 4, 4]) for n in ("a", "b"))
    graph = helper.make_graph(
        [helper.make_node("Conv", ["a", "w"], ["b"])], "g", [a], [b], [numpy_helper.from_array(np.full((1, 1, 1, 1), 2, np.float32), "w")]
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def version(runtime: str) -> str:
    return next(r.version for r in runtimes() if r.name == runtime)


def verdict(path: Path, runtime: str, precision: str, **more: Any) -> Verdict:
    facts = {
        "network": "my.network",
        "sha256": sha256_of(path),
        "runtime": runtime,
        "version": version(runtime),
        "precision": precision,
        "cpu": verdicts.cpu(),
        "unit": "px",
        "median": 0.41,
        "p95": 1.6,
        "nan_share": 0.0,
        "limit_median": 0.3,
        "limit_p95": 1.5,
        "within": False,
    }
    return Verdict(**{**facts, **more})


def test_a_precision_that_moves_too_far_is_refused_with_the_figures(network: Path) -> None:
    options = EngineOptions(runtime="onnxruntime", precision="fp16")
    open_engine(network, options).close()
    verdicts.keep([verdict(network, "onnxruntime", "fp16")])
    with pytest.raises(EngineError) as e:
        open_engine(network, options)
    text = str(e.value)
    assert "my.network: fp16 with onnxruntime moves key points by 0.41 px (median) and 1.60 px (p95)" in text
    assert "0.3 and 1.5 px are allowed" in text
    assert "precision: auto" in text
    open_engine(network, EngineOptions(runtime="onnxruntime", precision="fp32")).close()


def test_auto_takes_fp32_in_the_place_of_bf16_that_moves_too_far(network: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="pip install openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no native bf16: auto takes fp32 anyway")
    with open_engine(network, EngineOptions(runtime="openvino")) as engine:
        assert engine.precision == "bf16"
    verdicts.keep([verdict(network, "openvino", "bf16")])
    with open_engine(network, EngineOptions(runtime="openvino")) as engine:
        assert engine.precision == "fp32"
        assert "fp32 because bf16 moves key points by 0.41 px" in engine.reason


@pytest.mark.parametrize(
    ("runtime", "too_far", "takes"),
    [
        ("openvino", "int8", "auto"),
        ("openvino", "fp16", "auto"),
        ("openvino", "bf16", "fp32"),
        ("torch", "bf16", "auto"),
        ("torch", "fp16", "fp32"),
        ("tensorrt", "fp16", "fp32"),
        ("onnxruntime", "fp16", "auto"),
    ],
)
def test_auto_is_left_alone_by_what_it_would_not_take(network: Path, runtime: Any, too_far: str, takes: str) -> None:
    """MoveNet in bf16 exceeds with torch on a processor: no reason to leave fp16 on a GPU."""
    verdicts.keep([verdict(network, runtime, too_far, version="1")])
    options, why = verdicts.heed(network, EngineOptions(runtime=runtime), runtime=runtime, version="1", reason="r")
    assert options.precision == takes
    assert why == "r" if takes == "auto" else why.startswith(f"r; fp32 because {too_far} moves key points")


@pytest.mark.parametrize(
    "other",
    [{"version": "0.1"}, {"cpu": "another"}, {"sha256": "0" * 64}, {"within": True}, {"precision": "int8"}, {"runtime": "openvino"}],
)
def test_a_verdict_holds_only_for_what_was_measured(network: Path, other: dict[str, Any]) -> None:
    verdicts.keep([msgspec.structs.replace(verdict(network, "onnxruntime", "fp16"), **other)])
    open_engine(network, EngineOptions(runtime="onnxruntime", precision="fp16")).close()


def test_a_new_verdict_takes_the_place_of_the_old(network: Path) -> None:
    old, other = verdict(network, "onnxruntime", "fp16"), verdict(network, "onnxruntime", "int8")
    verdicts.keep([old, other])
    new = verdict(network, "onnxruntime", "fp16", within=True, median=0.1)
    verdicts.keep([new])
    assert verdicts.kept() == [other, new]


def test_a_verdict_without_key_points_can_be_kept_and_said(network: Path) -> None:
    lost = verdict(network, "onnxruntime", "fp16", median=None, p95=None, nan_share=0.5)
    verdicts.keep([lost])
    assert verdicts.kept() == [lost]
    assert "by out of sight" not in str(lost)
    assert "loses key points" in str(lost)
    assert "gave 50% of the crops no numbers" in str(lost)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[{"network": "x"}]', b"\xff\xfe"])
def test_a_damaged_file_counts_as_none_and_is_said(network: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    verdicts.keep([verdict(network, "onnxruntime", "fp16")])
    verdicts._file().write_bytes(content)
    assert verdicts.kept() == []
    assert "so nothing is refused for it; verify again" in caplog.text
    open_engine(network, EngineOptions(runtime="onnxruntime", precision="fp16")).close()
    verdicts.keep([verdict(network, "onnxruntime", "fp16")])
    assert len(msgspec.json.decode(verdicts._file().read_bytes())) == 1


def test_two_who_keep_verdicts_at_once_lose_none_although_locks_are_swept(network: Path) -> None:
    """The one who waits for a lock that is swept away takes a new one, which newcomers see."""
    inside, done = threading.Event(), []

    def waits() -> None:
        inside.set()
        verdicts.keep([verdict(network, "onnxruntime", "int8")])
        done.append(room.folder() / ".verified.lock")

    waiter = threading.Thread(target=waits)
    with room.alone("verified"):
        waiter.start()
        assert inside.wait(30)
        (room.folder() / ".verified.lock").unlink()
    waiter.join(30)
    assert done[0].exists()
    verdicts.keep([verdict(network, "onnxruntime", "fp16")])
    assert {v.precision for v in verdicts.kept()} == {"int8", "fp16"}


def test_verdicts_that_cannot_be_kept_are_said(network: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(EngineError, match="cannot keep what was found"):
        verdicts.keep([verdict(network, "onnxruntime", "fp16")])
