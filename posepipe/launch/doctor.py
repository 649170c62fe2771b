"""`posepipe doctor`: what this machine can run, why not the rest, and what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Console
from rich.text import Text

from posepipe import __version__
from posepipe.engines.assets import catalogue, home
from posepipe.engines.card import Packaged
from posepipe.engines.device import Driver, cores, cpu_model, driver
from posepipe.engines.runtimes import ON_CPU, Runtime, runtimes

State = Literal["ok", "missing", "broken"]
_STYLES: dict[State, str] = {"ok": "green", "missing": "yellow", "broken": "bold red"}

BASE = {
    "av": "av",
    "msgpack": "msgpack",
    "msgspec": "msgspec",
    "numba": "numba",
    "numpy": "numpy",
    "onnx": "",
    "onnxruntime": "",
    "opencv-python-headless": "cv2",
    "prometheus_client": "prometheus_client",
    "psutil": "psutil",
    "pyyaml": "yaml",
    "pyzmq": "zmq",
    "rich": "rich",
    "tflite": "tflite",
}
"""Packages of the base install -> the module that is imported to see whether it works; empty: only its version is looked at."""
_SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies")
_PORT = 5570


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `missing` is something that posepipe does without; `broken` something that the base install needs."""

    about: str
    state: State
    text: str
    todo: str = ""


def doctor(console: Console | None = None) -> int:
    """Print what was found; 1 when something that the base install needs is broken, else 0."""
    console = console or Console()
    broken = 0
    for section, findings in examine():
        console.print(Text(section, style="bold"))
        for finding in findings:
            broken += finding.state == "broken"
            line = Text.assemble("  ", (f"{finding.state:8}", _STYLES[finding.state]), f"{finding.about:24}", finding.text)
            console.print(line, soft_wrap=True)
            if finding.todo:
                console.print(Text(f"          -> {finding.todo}", style="dim"), soft_wrap=True)
    console.print()
    verdict = f"{broken} broken: see above what to do" if broken else "posepipe can run here"
    console.print(Text(verdict, style=_STYLES["broken" if broken else "ok"]))
    return 1 if broken else 0


def examine() -> Iterator[tuple[str, Iterator[Finding]]]:
    """Everything, section by section; looked at while it is printed."""
    yield "machine", machine()
    yield f"posepipe {__version__}", packages()
    yield "inference", inference(runtimes())
    yield "video", video()
    yield "cameras", cameras()
    yield "network", network()
    yield "models and recordings", assets()
    yield "terminal", terminal()


# machine ------------------------------------------------------------------------------------------------------------------


def machine() -> Iterator[Finding]:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        flags = ""
    yield processor(cpu_model(), cores(), flags)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = load > 0.5 * cores()
    yield Finding(
        "load", "ok", f"{load:.2f}" + (", busy" if busy else ""), "figures measured now are not those of a quiet machine" if busy else ""
    )
    memory = psutil.virtual_memory()
    yield Finding("memory", "ok", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free")
    yield shared_memory(Path("/dev/shm"))
    yield clock(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource"))
    yield Finding("system", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}")


def processor(model: str, count: int, cpuinfo: str) -> Finding:
    words = set(cpuinfo.split())
    fast = [name for name in ("amx_bf16", "avx512_bf16") if name in words]
    known = [name for name in ("avx512f", "avx2", "asimd") if name in words][:1]
    text = f"{model}, {count} core{'s' if count != 1 else ''}, {', '.join(fast or known) or 'instruction sets unknown'}"
    return Finding("processor", "ok", text, "" if fast else "without bf16 instructions the networks run in fp32, at about half the speed")


def shared_memory(folder: Path) -> Finding:
    if not folder.is_dir():
        return Finding("shared memory", "missing", f"no {folder}", "not needed by this release")
    return Finding("shared memory", "ok", f"{shutil.disk_usage(folder).total / 1e6:.0f} MB")


def clock(source: Path) -> Finding:
    try:
        name = source.read_text().strip()
    except OSError:
        return Finding("clock", "ok", "source unknown")
    if name in _SLOW_CLOCKS:
        return Finding("clock", "ok", f"{name}: slow to read", "enable the TSC in the firmware or the hypervisor")
    return Finding("clock", "ok", name)


# packages -----------------------------------------------------------------------------------------------------------------


def packages() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")
    for name, module in BASE.items():
        yield package(name, module)


def package(name: str, module: str) -> Finding:
    """A package of the base install: is it there, and does it load?"""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "broken", "not installed", f"pip install {name}, or install posepipe again")
    if module:
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as e:  # OSError: a shared library that it needs does not load
            return Finding(name, "broken", f"{version}: import {module} fails: {e}", f"pip install --force-reinstall {name}")
    return Finding(name, "ok", version)


# inference ----------------------------------------------------------------------------------------------------------------


def inference(known: list[Runtime]) -> Iterator[Finding]:
    real = [r for r in known if r.name != "stub"]
    for runtime in real:
        yield Finding(runtime.name, "ok", runtime.version) if runtime.usable else Finding(runtime.name, "missing", runtime.why)
    if not any(r.usable and r.name in ON_CPU for r in real):
        yield Finding(
            "runtimes", "broken", "no inference runtime for a processor can be used", "pip install onnxruntime, or posepipe[openvino]"
        )
    yield gpu(driver())


def gpu(found: Driver) -> Finding:
    if found.gpus:
        names = ", ".join(f"{g.name} ({g.capability})" for g in found.gpus)
        return Finding("gpu", "ok", f"{names}, driver for CUDA {found.version}")
    return Finding("gpu", "missing", f"{found.why}; networks run on the processor", "look at nvidia-smi" if "error" in found.why else "")


# video and cameras ----------------------------------------------------------------------------------------------------------


def video() -> Iterator[Finding]:
    try:
        av = importlib.import_module("av")
    except (ImportError, OSError):
        return  # said in the packages
    library = ".".join(map(str, av.library_versions["libavcodec"]))
    yield Finding("ffmpeg", "ok", f"libavcodec {library} in PyAV {av.__version__}")
    for codec in ("h264", "hevc", "mjpeg"):
        if codec in av.codecs_available:
            yield Finding(f"{codec} decoder", "ok", "on the processor, one thread a camera")
        else:
            yield Finding(
                f"{codec} decoder", "broken" if codec == "h264" else "missing", "this FFmpeg has none", "pip install --force-reinstall av"
            )
    if "libx264" in av.codecs_available:
        yield Finding("h264 encoder", "ok", "libx264, for view.mosaic")
    else:
        yield Finding("h264 encoder", "missing", "this FFmpeg has no libx264: view.mosaic writes MPEG-4 films, which are larger")


def cameras(devices: Path = Path("/dev"), names: Path = Path("/sys/class/video4linux")) -> Iterator[Finding]:
    found = sorted(devices.glob("video*"))
    if not found:
        yield Finding("v4l2", "missing", f"no {devices}/video*: no camera is attached here; recordings and network streams need none")
    for device in found:
        try:
            name = (names / device.name / "name").read_text().strip()
        except OSError:
            name = "a camera"
        if os.access(device, os.R_OK | os.W_OK):
            yield Finding(str(device), "ok", name)
        else:
            yield Finding(str(device), "missing", f"{name}: you may not open it", "sudo usermod -aG video $USER, then log in again")


# network, assets, terminal --------------------------------------------------------------------------------------------------


def network() -> Iterator[Finding]:
    try:
        zmq = importlib.import_module("zmq")
    except (ImportError, OSError):
        return  # said in the packages
    for name, use in (("ipc", "streams between processes of this machine"), ("curve", "encrypted streams between machines")):
        there = bool(zmq.has(name))
        yield Finding(
            f"zeromq {name}",
            "ok" if there else "missing",
            f"libzmq {zmq.zmq_version()}" if there else f"libzmq was built without it: no {use}",
        )
    yield port(_PORT)


def port(number: int) -> Finding:
    """Whether the default address of publish.zmq can be bound."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", number))
        except OSError as e:
            todo = "another studio runs, or set bind: of publish.zmq to another port"
            return Finding(f"port {number}", "missing", f"cannot be bound now: {e.strerror}", todo)
    return Finding(f"port {number}", "ok", "free, the default of publish.zmq")


def assets() -> Iterator[Finding]:
    yield cache(home())
    for name, one in catalogue().items():
        if one.present():
            where = "that come with posepipe" if isinstance(one.source, Packaged) else f"in {one.folder}"
            yield Finding(name, "ok", f"{one.size_bytes / 1e6:.1f} MB {where}", one.not_run)
        else:
            size = f"{one.download}; {one.not_run}" if one.not_run else one.download
            yield Finding(name, "missing", f"not fetched, {size}", f"posepipe pull {name}")


def cache(folder: Path) -> Finding:
    """The folder for what is fetched: can it be written, is there room?"""
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Finding("cache", "broken", f"{folder} cannot be written", "set POSEPIPE_HOME to a folder that you may write to")
    free_gb = shutil.disk_usage(there).free / 1e9
    return Finding("cache", "ok", f"{folder}, {free_gb:.1f} GB free", "free some space: a model needs up to 1 GB" if free_gb < 1 else "")


def terminal() -> Iterator[Finding]:
    console = Console()
    if not console.is_terminal:
        yield Finding("output", "ok", "not a terminal: studios print a line every 5 s instead of a table")
        return
    narrow = console.width < 80
    yield Finding(
        "output",
        "ok",
        f"{console.width} x {console.height}, {console.color_system or 'no'} colours",
        "80 columns show the whole table" if narrow else "",
    )
