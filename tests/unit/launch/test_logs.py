"""What is said on standard error: text for people, JSON lines for a log collector."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import studio_kit

from posepipe.launch import logs
from posepipe.launch.screen import LiveScreen
from posepipe.pipeline.errors import SourceError


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """`configure` configures the root log, as a program may; a test gives it back."""
    root, own = logging.getLogger(), logging.getLogger("posepipe.run")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers, root.level, own.level = before
    logging.captureWarnings(False)


def configure(style: logs.Style, *, verbose: bool = False) -> None:
    """As in a process of its own: pytest's handlers are not there."""
    logging.getLogger().handlers = []
    logs.configure(style, verbose=verbose)


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_record_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    before = datetime.now(UTC)
    logging.getLogger("posepipe.heatmaps").warning("two lines\nand %s", "Grüße")
    (line,) = said(capsys)
    time = line.pop("time")
    assert time.endswith("Z")
    assert len(time) == len("2026-01-02T03:04:05.678901Z")
    assert abs((datetime.fromisoformat(time) - before).total_seconds()) < 60
    assert line == {"level": "warning", "logger": "posepipe.heatmaps", "message": "two lines\nand Grüße"}


def test_what_a_worker_said_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    logging.getLogger(logs.of_worker("posepipe.video", "capture/north")).error("gone")
    (line,) = said(capsys)
    assert (line["logger"], line["worker"], line["level"]) == ("posepipe.video", "capture/north", "error")


def test_an_exception_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    try:
        raise ValueError("no such thing")
    except ValueError:
        logging.getLogger("posepipe").exception("failed")
    (line,) = said(capsys)
    assert line["message"] == "failed"
    assert line["exception"].endswith("ValueError: no such thing")


def test_python_warnings_are_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)  # catch_warnings has put the plain way back
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    (line,) = said(capsys)
    assert line["logger"] == "py.warnings"


@pytest.mark.parametrize(("verbose", "lines"), [(False, 1), (True, 3)])
def test_without_verbose_only_warnings(capsys: pytest.CaptureFixture[str], verbose: bool, lines: int) -> None:
    configure("json", verbose=verbose)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.getLogger("posepipe.heatmaps").log(level, "x")
    assert len(said(capsys)) == lines


def test_the_run_itself_speaks_in_both_styles(capsys: pytest.CaptureFixture[str]) -> None:
    error = SourceError("there is no such recording", where="camera north", hint="check the path")
    logs.say("opening the studio")
    logs.say("is it synced?", level=logging.WARNING, prefix="posepipe: warning: ")
    logs.say_error(error)
    assert capsys.readouterr().err.splitlines() == [
        "posepipe: opening the studio",
        "posepipe: warning: is it synced?",
        "posepipe: camera north: there is no such recording",
        "  -> check the path",
    ]
    configure("json")
    logs.say("opening the studio")
    logs.say("is it synced?", level=logging.WARNING, prefix="posepipe: warning: ")
    logs.say_error(error)
    opening, warning, fault = said(capsys)
    assert (opening["level"], opening["message"], opening["logger"]) == ("info", "opening the studio", "posepipe.run")
    assert (warning["level"], warning["message"]) == ("warning", "is it synced?")
    assert (fault["level"], fault["message"], fault["where"]) == ("error", "there is no such recording", "camera north")
    assert (fault["hint"], fault["kind"]) == ("check the path", "SourceError")


def test_the_status_line_carries_its_figures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    configure("json")
    LiveScreen(studio_kit.ran(studio_kit.plan(tmp_path))).refresh()
    captured = capsys.readouterr()
    line = json.loads(captured.err)
    assert captured.out == ""
    assert "12 instants" in line["message"]
    assert (line["instants"], line["captured"], line["published"], line["dropped"], line["balance"]) == (12, 36, 36, 0, 0)
    assert set(line["end_to_end_ms"]) == {"p50", "p95", "p99"}
