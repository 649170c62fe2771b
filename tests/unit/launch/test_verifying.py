"""posepipe engines verify and quantize: what is printed, the exit code, and what is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from posepipe.engines.quantize import Quantised
from posepipe.engines.verdicts import Verdict
from posepipe.engines.verify import Finding, Shift
from posepipe.launch import cli, verifying


def finding(precision: Any, px: float, *, within: bool) -> Finding:
    shift = Shift(np.full(7, px), 2 * px, px, 0.0)
    verdict = Verdict("a.b", "0" * 64, "openvino", "1", precision, "cpu", "px", px, px, 0.0, 0.3, 1.5, within)
    return Finding("openvino", "1", precision, "", shift, verdict)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the room was asked for; it answers with what `found` holds."""
    calls: list[dict[str, Any]] = []

    def verify(name: str, *, say: Any, **more: Any) -> list[Finding]:
        say("looking")
        calls.append({"name": name, **more})
        return found

    found = [finding("bf16", 0.25, within=True), Finding("onnxruntime", "1", "bf16", cannot="has no bf16")]
    calls.append({"found": found})
    monkeypatch.setattr(verifying.room, "verify", verify)
    monkeypatch.setattr(verifying.room, "Subject", lambda name: SimpleNamespace(gives="joints", unit="px", limit_median=0.3, limit_p95=1.5))
    return calls


def test_all_within_ends_with_0_and_says_what_cannot_be_run(asked: list[dict[str, Any]]) -> None:
    out = io.StringIO()
    assert verifying.verify("a.b", out=Console(file=out, width=100)) == 0
    lines = out.getvalue().splitlines()
    assert any(line.split() == ["openvino", "bf16", "7", "0.250", "0.250", "0.5", "0.25", "0%", "within"] for line in lines)
    assert "onnxruntime bf16: has no bf16" in lines
    assert "Allowed: 0.3 median, 1.5 p95." in " ".join(out.getvalue().split())
    assert "Exceeded" not in out.getvalue()


def test_one_that_exceeds_ends_with_1(asked: list[dict[str, Any]]) -> None:
    asked[0]["found"].append(finding("int8", 1.1, within=False))
    out = io.StringIO()
    assert verifying.verify("a.b", out=Console(file=out, width=100)) == 1
    assert "Exceeded: openvino int8. A studio that asks for it is refused" in out.getvalue()


def test_what_no_runtime_does_is_shown_and_changes_nothing(asked: list[dict[str, Any]]) -> None:
    asked[0]["found"].append(replace(finding("bf16", 1.1, within=False), runtime="rounded"))
    out = io.StringIO()
    assert verifying.verify("a.b", out=Console(file=out, width=100)) == 0
    assert "rounded" in out.getvalue()
    assert "Exceeded" not in out.getvalue()


def test_the_command_line_hands_on_what_was_typed(asked: list[dict[str, Any]]) -> None:
    argv = ["engines", "verify", "a.b", "--runtime", "openvino", "--precision", "bf16,int8", "--recording", "pose2sim.multi"]
    assert cli.main(argv) == 0
    assert asked[1] == {
        "name": "a.b",
        "recording": "pose2sim.multi",
        "only_runtimes": ("openvino",),
        "only_precisions": ("bf16", "int8"),
        "cut": None,
    }
    assert cli.main(["engines", "verify", "a.b", "--runtime", "all", "--precision", "all"]) == 0
    assert (asked[2]["only_runtimes"], asked[2]["only_precisions"]) == ((), ())


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--runtime", "openvno"], "there is no runtime 'openvno'\n  -> did you mean 'openvino'?"),
        (["--precision", "bf61"], "there is no precision 'bf61'"),
    ],
)
def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str], argv: list[str], says: str) -> None:
    assert cli.main(["engines", "verify", "blazepose.full", *argv]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "quantize"])
def test_an_unknown_network_is_refused(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert cli.main(["engines", command, "blazepose.ful"]) == 2
    assert "nothing is called 'blazepose.ful' here\n  -> did you mean 'blazepose.full'?" in capsys.readouterr().err


def test_quantize_says_what_stayed_float_and_verifies(
    asked: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.onnx"
    file.write_bytes(bytes(2_000_000))
    monkeypatch.setattr(verifying.integers, "quantize", lambda name, **more: Quantised(file, 56, 12, True))
    assert cli.main(["engines", "quantize", "a.b"]) == 0
    assert "a.b: int8 with 12 of 56 layers in float32, 2.0 MB" in capsys.readouterr().out
    assert asked[1]["only_precisions"] == ("int8",)
