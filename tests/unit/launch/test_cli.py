"""The command line as a function: what is typed, what is printed, and the exit code."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from posepipe import __version__
from posepipe.launch import cli
from posepipe.nodes import Catalogue


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """`main` configures the root log, as a program may; a test gives it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def usage(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(argv))
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"posepipe {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run"], "the following arguments are required: STUDIO"),
        (["run", "a.yaml", "--seconds", "abc"], "argument --seconds: abc is not a number above 0"),
        (["run", "a.yaml", "--seconds", "0"], "argument --seconds: 0 is not a number above 0"),
        (["run", "a.yaml", "--seconds", "inf"], "argument --seconds: inf is not a number above 0"),
        (["run", "a.yaml", "--seconds", "nan"], "argument --seconds: nan is not a number above 0"),
        (["run", "a.yaml", "--await-subscribers", "-1"], "argument --await-subscribers: -1 is not a number of subscribers"),
        (["run", "a.yaml", "--await-subscribers", "two"], "argument --await-subscribers: two is not a number of subscribers"),
        (["graph", "a.yaml", "--dot", "--mermaid"], "argument --mermaid: not allowed with argument --dot"),
        (["rnu", "a.yaml"], "argument COMMAND: invalid choice: 'rnu' (choose from"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    assert message in usage(capsys, *argv)


@pytest.mark.parametrize("command", ["run", "check", "graph", "bench"])
def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert cli.main([command, "none.yaml"]) == 2
    assert capsys.readouterr().err == (
        "posepipe: none.yaml: there is no such studio file\n  -> give the path of a YAML file, e.g. examples/studio.yaml\n"
    )


def test_offline_and_seconds_exclude_each_other_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "none.yaml", "--offline", "--seconds", "3"]) == 2
    assert capsys.readouterr().err == (
        "posepipe: posepipe run: --offline and --seconds exclude each other\n  -> --offline plays each recording once, to its end\n"
    )


def test_a_summary_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hall.yaml").write_text("nodes: {north: {use: capture.video, uri: north.mp4}}\n")
    assert cli.main(["run", str(tmp_path / "hall.yaml"), "--summary", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"posepipe: {tmp_path}: cannot be written: Is a directory\n  -> choose another path\n"


def test_a_refused_run_leaves_no_summary(tmp_path: Path) -> None:
    (tmp_path / "hall.yaml").write_text("nodes: {north: {use: capture.video, uri: north.mp4}}\n")
    assert cli.main(["run", str(tmp_path / "hall.yaml"), "--summary", str(tmp_path / "out" / "s.json")]) == 2
    assert list((tmp_path / "out").iterdir()) == []


def test_inspect_names_every_node_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(Catalogue())
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines), "each with a sentence"
    for use in Catalogue():
        assert cli.main(["inspect", use]) == 0
        assert use in capsys.readouterr().out


def test_inspect_of_a_type_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "sync.instnt"]) == 2
    assert capsys.readouterr().err == "posepipe: there is no node type 'sync.instnt'\n  -> did you mean 'sync.instant'?\n"


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "object"


def test_pull_without_names_lists_and_fetches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["pull"]) == 0
    out = capsys.readouterr().out
    for name in ("blazepose.full", "blazepose.detector", "pose2sim.single"):
        assert any(line.startswith(name) and "no, would fetch" in line for line in out.splitlines())
    assert os.listdir(tmp_path) == []


def test_pull_of_what_nobody_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pull", "blazepose.ful"]) == 2
    assert capsys.readouterr().err == "posepipe: nothing is called 'blazepose.ful' here\n  -> did you mean 'blazepose.full'?\n"


def test_check_says_what_has_to_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "home"))
    file = tmp_path / "hall.yaml"
    file.write_text("nodes: {north: {use: capture.video, uri: 'pull:pose2sim.single/cam01.mp4'}}\n")
    assert cli.main(["check", str(file)]) == 0
    assert capsys.readouterr().out == (
        f"{file}: the graph is right. Not on this machine yet: pose2sim.single (posepipe pull pose2sim.single)\n"
    )


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["doctor"])
    out = capsys.readouterr().out
    assert code == (0 if "posepipe can run here" in out else 1)
    assert "inference" in out
