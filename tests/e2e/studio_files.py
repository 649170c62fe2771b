"""A studio on disk for tests that run posepipe as a user does: small clips, a rig in a ring, a stub network, a free port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import people
import yaml
import zmq
from clips import encode

from posepipe.calib import save_rig

SIZE = (320, 240)
TIMEOUT_S = 60


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@dataclass
class StudioFiles:
    """A folder with clips, rig and studio file; `graph` is what will be written."""

    folder: Path
    cameras: int = 3
    frames: int = 30
    port: int = field(default_factory=free_port)
    graph: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = people.NAMES[: self.cameras]
        for name in names:
            encode(self.folder / f"{name}.mp4", self.frames, size=SIZE)
        save_rig(people.ring(self.cameras, width=SIZE[0], height=SIZE[1]), self.folder / "hall.rig.toml")
        self.graph = {
            "studio": "hall",
            "rig": "hall.rig.toml",
            "nodes": {
                "capture": {"use": "capture.video", "each": {n: f"{n}.mp4" for n in names}},
                "instants": {"use": "sync.instant", "from": "capture", "wait_ms": 200},
                "heatmaps": {"use": "heatmap.topdown", "from": "instants", "feedback": "smooth", "engine": "stub"},
                "pose3d": {"use": "lift.algebraic", "from": "heatmaps"},
                "smooth": {"use": "smooth.one_euro", "from": "pose3d"},
                "publish": {"use": "publish.zmq", "from": "smooth", "bind": self.address},
            },
        }

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def nodes(self) -> dict[str, Any]:
        nodes: dict[str, Any] = self.graph["nodes"]
        return nodes

    def write(self) -> Path:
        path = self.folder / "studio.yaml"
        path.write_text(yaml.safe_dump(self.graph, sort_keys=False))
        return path

    def run(self, *arguments: str, command: str = "run", **environment: str) -> subprocess.CompletedProcess[str]:
        """`posepipe run studio.yaml ...` to its end, in the studio's folder."""
        line = [sys.executable, "-m", "posepipe", command, str(self.write()), *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=self.folder, env={**os.environ, **environment})

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "posepipe", "run", str(self.write()), *arguments]
        env = {**os.environ, **environment}
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder, env=env)


class Listener(threading.Thread):
    """A downstream application: everything that the stream said, as (topic, message)."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.said: list[tuple[str, dict[str, Any]]] = []
        self._done = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.subscribe(b"")
        self._socket.connect(address)
        self.start()

    def run(self) -> None:
        while not self._done.is_set():
            if self._socket.poll(50):
                topic, raw = self._socket.recv_multipart()
                self.said.append((topic.decode(), msgpack.unpackb(raw)))
        self._socket.close(0)
        self._context.term()

    def stop(self) -> list[dict[str, Any]]:
        """The skeleton messages."""
        time.sleep(0.3)  # the last messages are on their way
        self._done.set()
        self.join(5)
        return [m for topic, m in self.said if topic.startswith("skeleton/")]

    @property
    def hello(self) -> list[dict[str, Any]]:
        return [m for topic, m in self.said if topic.startswith("hello/")]
