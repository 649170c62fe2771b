"""Cameras that are network streams: MPEG-TS over TCP from a server that keeps the pace of a camera, on the loopback interface."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import people
import pytest
from clips import encode
from studio_files import SIZE, Listener, StudioFiles


class Camera(threading.Thread):
    """Serves one clip to one client, `seconds` long, then closes."""

    def __init__(self, clip: Path, seconds: float) -> None:
        super().__init__(daemon=True)
        self._bytes, self._seconds = clip.read_bytes(), seconds
        self._server = socket.create_server(("127.0.0.1", 0))
        self.uri = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self.start()

    def run(self) -> None:
        client, _ = self._server.accept()
        self._server.close()
        begin, sent = time.monotonic(), 0
        with client:
            while sent < len(self._bytes):
                due = min(int(len(self._bytes) * (time.monotonic() - begin) / self._seconds) + 40_000, len(self._bytes))
                try:
                    client.sendall(self._bytes[sent:due])
                except OSError:
                    return
                sent = due
                time.sleep(0.01)


@pytest.fixture
def streams(hall: StudioFiles, tmp_path: Path) -> Iterator[StudioFiles]:
    clip = encode(tmp_path / "camera.ts", 120, size=SIZE, gop=10, b_frames=0, options={"tune": "zerolatency"}, container="mpegts")
    hall.nodes["capture"]["each"] = {name: Camera(clip, 4.0).uri for name in people.NAMES[:3]}
    hall.nodes["instants"]["window_ms"] = 200
    return hall


def test_streams_are_stamped_when_they_arrive_and_are_missed_with_a_word(streams: StudioFiles) -> None:
    listener = Listener(streams.address)
    began_ns = time.time_ns()
    done = streams.run("--seconds", "8", "--summary", "s.json")
    instants = listener.stop()
    assert done.returncode == 0, done.stderr
    figures = json.loads((streams.folder / "s.json").read_text())
    assert figures["balance"] == 0
    assert figures["captured"] >= 3 * 100
    assert done.stderr.count("trying again") == 3, "each is told once, when its server has closed"
    assert sum(bool(m["people"]) for m in instants) > 10
    assert all(began_ns < m["t_capture_ns"] <= m["t_publish_ns"] <= time.time_ns() for m in instants)
    assert max(len(m["sync"]["views"]) for m in instants) == 3


def test_offline_refuses_a_stream(streams: StudioFiles) -> None:
    refused = streams.run("--offline")
    assert refused.returncode == 2
    assert "is a live stream" in refused.stderr


def test_nobody_serves_the_stream_and_the_studio_goes_on_without_it(hall: StudioFiles) -> None:
    hall.nodes["capture"]["each"]["east"] = "tcp://127.0.0.1:9"
    done = hall.run("--seconds", "3", "--summary", "s.json")
    assert done.returncode == 0, done.stderr
    assert "camera east: " in done.stderr
    assert "trying again" in done.stderr
    figures = json.loads((hall.folder / "s.json").read_text())
    assert figures["balance"] == 0
    assert figures["published"] > 0
