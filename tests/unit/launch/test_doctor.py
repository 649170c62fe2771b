"""posepipe doctor: every line says ok, missing or broken, why, and what to do."""

from __future__ import annotations

import importlib.metadata
import io
import re
import socket
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from posepipe.engines.device import Driver, Gpu
from posepipe.engines.runtimes import Runtime
from posepipe.launch import doctor
from posepipe.launch.doctor import Finding


def printed(monkeypatch: pytest.MonkeyPatch, findings: list[Finding]) -> tuple[int, str]:
    def examine() -> Iterator[tuple[str, Iterator[Finding]]]:
        yield "things", iter(findings)

    monkeypatch.setattr(doctor, "examine", examine)
    out = io.StringIO()
    return doctor.doctor(Console(file=out, width=80)), out.getvalue()


def test_here_everything_that_the_base_install_needs_works() -> None:
    out = io.StringIO()
    code = doctor.doctor(Console(file=out, width=80))
    text = out.getvalue()
    assert code == 0, text
    assert "posepipe can run here" in text
    lines = [line for line in text.splitlines() if line.startswith("  ") and "->" not in line]
    assert len(lines) > 25
    assert all(re.match(r"  (ok|missing|broken) +\S", line) for line in lines)
    for section in ("machine", "inference", "video", "cameras", "network", "models and recordings", "terminal"):
        assert f"\n{section}\n" in "\n" + text


def test_only_what_is_broken_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = printed(monkeypatch, [Finding("a", "ok", "here"), Finding("b", "missing", "not here", "get it")])
    assert code == 0
    assert "-> get it" in text
    code, text = printed(monkeypatch, [Finding("a", "broken", "torn", "mend it"), Finding("b", "missing", "not here")])
    assert code == 1
    assert "1 broken" in text
    assert "-> mend it" in text


def test_the_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=!~ ;\[]", d)[0] for d in project["dependencies"]]
    assert list(doctor.BASE) == names


def test_a_package_that_is_not_there() -> None:
    finding = doctor.package("posepipe-no-such-package", "posepipe_no_such_package")
    assert (finding.state, finding.text) == ("broken", "not installed")
    assert "pip install posepipe-no-such-package" in finding.todo


def test_a_package_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> Any:
        raise OSError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.2.3")
    monkeypatch.setattr(doctor.importlib, "import_module", fails)
    finding = doctor.package("opencv-python-headless", "cv2")
    assert finding.state == "broken"
    assert "libGL.so.1" in finding.text
    assert "1.2.3" in finding.text
    assert "--force-reinstall" in finding.todo


def test_runtimes_are_not_imported_to_be_looked_at() -> None:
    assert [module for name, module in doctor.BASE.items() if name in ("onnx", "onnxruntime")] == ["", ""]


def test_no_usable_runtime_is_broken() -> None:
    none = [Runtime("openvino", False, "", "not installed: pip install it"), Runtime("stub", True, "", "")]
    states = {f.about: f for f in doctor.inference(none)}
    assert states["openvino"].state == "missing"
    assert states["openvino"].text == "not installed: pip install it"
    assert states["runtimes"].state == "broken"
    one = [*none, Runtime("onnxruntime", True, "1.20", "")]
    assert {f.about: f.state for f in doctor.inference(one)}["onnxruntime"] == "ok"
    assert "runtimes" not in {f.about for f in doctor.inference(one)}


def test_a_runtime_for_gpus_alone_is_not_enough() -> None:
    found = [Runtime("onnxruntime", False, "", "not installed"), Runtime("tensorrt", True, "11.4", "")]
    assert {f.about: f.state for f in doctor.inference(found)}["runtimes"] == "broken"


def test_no_driver_is_no_fault() -> None:
    finding = doctor.gpu(Driver(why="no NVIDIA driver (libcuda.so.1)"))
    assert finding.state == "missing"
    assert "no NVIDIA driver" in finding.text
    assert "on the processor" in finding.text


def test_gpus_are_named_with_what_they_are_built_for() -> None:
    finding = doctor.gpu(Driver((Gpu("Some GPU", "sm89"), Gpu("Other GPU", "sm120")), "13.0"))
    assert (finding.state, finding.text) == ("ok", "Some GPU (sm89), Other GPU (sm120), driver for CUDA 13.0")


def test_a_driver_without_a_device_sends_to_its_own_tool() -> None:
    finding = doctor.gpu(Driver(why="the NVIDIA driver is there but gives no device (error 100)"))
    assert (finding.state, finding.todo) == ("missing", "look at nvidia-smi")


@pytest.mark.parametrize(
    ("flags", "text", "todo"),
    [("fpu avx2 avx512f avx512_bf16", "avx512_bf16", ""), ("fpu avx2", "avx2", "half the speed"), ("", "unknown", "fp32")],
)
def test_processor(flags: str, text: str, todo: str) -> None:
    finding = doctor.processor("Some CPU", 8, f"flags : {flags}\n")
    assert finding.text.startswith("Some CPU, 8 cores")
    assert text in finding.text
    assert todo in finding.todo
    assert bool(finding.todo) == bool(todo)


def test_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (none,) = doctor.cameras(tmp_path, tmp_path)
    assert none.state == "missing"
    assert "recordings and network streams need none" in none.text
    for name in ("video0", "video1"):
        (tmp_path / name).touch()
    (tmp_path / "names" / "video0").mkdir(parents=True)
    (tmp_path / "names" / "video0" / "name").write_text("Good Webcam\n")
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: not str(path).endswith("1"))
    first, second = doctor.cameras(tmp_path, tmp_path / "names")
    assert (first.about, first.state, first.text) == (str(tmp_path / "video0"), "ok", "Good Webcam")
    assert second.state == "missing"
    assert "usermod -aG video" in second.todo


def test_a_port_in_use_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        finding = doctor.port(taken.getsockname()[1])
    assert finding.state == "missing"
    assert "another studio runs" in finding.todo


def test_a_cache_that_cannot_be_written_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = doctor.cache(tmp_path / "file" / "cache")
    assert finding.state == "broken"
    assert "POSEPIPE_HOME" in finding.todo
    fine = doctor.cache(tmp_path / "not" / "yet" / "there")
    assert fine.state == "ok"
    assert "GB free" in fine.text


def test_models_that_are_not_here_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path))
    cache, *models = doctor.assets()
    assert str(tmp_path) in cache.text
    come_along = {m.about for m in models if m.text.endswith("that come with posepipe")}
    assert come_along >= {"triangulation.confidence", "triangulation.slim"}
    others = [m for m in models if m.about not in come_along]
    assert others
    assert all(m.state == "missing" and m.todo == f"posepipe pull {m.about}" for m in others)


@pytest.mark.parametrize(("name", "todo"), [("tsc", False), ("hpet", True)])
def test_clock(tmp_path: Path, name: str, todo: bool) -> None:
    (tmp_path / "source").write_text(name + "\n")
    finding = doctor.clock(tmp_path / "source")
    assert finding.text.startswith(name)
    assert bool(finding.todo) == todo
    assert doctor.clock(tmp_path / "none").state == "ok"


def test_shared_memory(tmp_path: Path) -> None:
    assert doctor.shared_memory(tmp_path).state == "ok"
    assert doctor.shared_memory(tmp_path / "none").state == "missing"


def test_an_ffmpeg_without_h264_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    monkeypatch.setattr(av, "codecs_available", {"mjpeg"})
    states = {f.about: f.state for f in doctor.video()}
    assert states == {"ffmpeg": "ok", "h264 decoder": "broken", "hevc decoder": "missing", "mjpeg decoder": "ok", "h264 encoder": "missing"}


def test_a_terminal_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    (plain,) = doctor.terminal()
    assert "not a terminal" in plain.text
    monkeypatch.setattr(doctor, "Console", lambda: Console(file=sys.stdout, force_terminal=True, width=60, height=20))
    (narrow,) = doctor.terminal()
    assert "60 x 20" in narrow.text
    assert "80 columns" in narrow.todo
