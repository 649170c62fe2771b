"""Files that are no ONNX network are refused before a runtime sees them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from posepipe.engines.engine import EngineOptions, open_engine
from posepipe.engines.protobuf import Broken, Field, fields, must_be_onnx
from posepipe.pipeline.errors import EngineError


def whole() -> bytes:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3]) for n in ("x", "y"))
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]))
    found: bytes = model.SerializeToString()
    return found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"<html>not found</html>", r"byte \d+ begins nothing that could be there"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"byte \d+ begins nothing|it ends in the middle"),
        (whole()[:-20], r"it ends in the middle: \d+ bytes should follow"),
        (b"\x08\x0a", "it has no graph"),
        (b"  " * 200_000, "it has more than 100000 parts"),
    ],
)
@pytest.mark.parametrize("runtime", ["auto", "onnxruntime", "openvino", "torch"])
def test_what_is_no_network_is_told_in_one_message(tmp_path: Path, content: bytes, said: str, runtime: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=rf"net.onnx: not a whole ONNX network: {said}(.*)\n  -> name the .onnx file itself"):
        open_engine(path, EngineOptions(runtime=runtime))  # type: ignore[arg-type]


def test_a_folder_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot read the network: Is a directory"):
        must_be_onnx(tmp_path)


def test_a_whole_one_passes(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(whole())
    must_be_onnx(path)


@given(st.integers(1, len(whole()) - 1))
def test_no_beginning_of_a_network_is_a_network(size: int) -> None:
    content = whole()[:size]
    try:
        found = [f.number for f in fields(content, 0, size)]
    except Broken:
        return
    assert 7 not in found or onnx.load_from_string(content).graph.node, "cut between fields, behind the graph"


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    found: list[Field] = []
    with contextlib.suppress(Broken):
        found.extend(fields(content, 0, len(content)))
    assert all(f.begin <= f.end <= len(content) for f in found)
