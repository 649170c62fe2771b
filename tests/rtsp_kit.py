"""Starts and kills the RTSP server of the tests (`rtsp_server.py`), and reads the time that its pictures show."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from posepipe.pipeline.packet import Frame

PYTHON = "/usr/bin/python3"
PACKAGES = "gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly python3-gi"
_BLOCK_PX = 16
_BITS = 60
_NEEDS = """
import gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
print(*[name for name in ("appsrc", "x264enc", "rtph264pay") if Gst.ElementFactory.find(name) is None])
"""


def missing() -> str:
    """Why no server can be started here, empty when one can."""
    try:
        done = subprocess.run([PYTHON, "-c", _NEEDS], capture_output=True, text=True, timeout=60)
    except OSError as e:
        return f"{PYTHON}: {e.strerror}"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return f"GStreamer lacks {done.stdout.strip()}" if done.stdout.strip() else ""


def needed() -> None:
    """Skip the test, with what to do, where there is no server."""
    if why := missing():
        pytest.skip(f"no RTSP server: {why}. Debian: apt-get install {PACKAGES}")


class RtspServer:
    """Cameras at `rtsp://127.0.0.1:PORT/NAME`, while it runs."""

    def __init__(self, port: int, *cameras: str, arguments: tuple[str, ...] = ()) -> None:
        self.port, self._cameras, self._arguments = port, cameras, arguments
        self.process: subprocess.Popen[str] | None = None

    def uri(self, camera: str) -> str:
        return f"rtsp://127.0.0.1:{self.port}/{camera}"

    def start(self) -> Self:
        line = [PYTHON, str(Path(__file__).with_name("rtsp_server.py")), "--port", str(self.port), *self._arguments, *self._cameras]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "serving\n", "the RTSP server did not start"
        return self

    def kill(self) -> None:
        """SIGKILL: nothing is said to those who watch."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def shown_ns(frame: Frame) -> int:
    """The Unix time at which a picture says that it was made (to the microsecond)."""
    across = frame.width // _BLOCK_PX
    value = 0
    for i in range(_BITS):
        row, column = (n * _BLOCK_PX + _BLOCK_PX // 4 for n in divmod(i, across))
        if np.mean(frame.planes[0][row : row + _BLOCK_PX // 2, column : column + _BLOCK_PX // 2]) > 128:
            value |= 1 << i
    return value * 1000
