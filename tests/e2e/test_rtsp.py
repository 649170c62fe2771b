"""Cameras on a real RTSP server (GStreamer's, `rtsp_server.py`): killed, silent, late, and what the others notice of it: nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from rtsp_kit import RtspServer, needed
from studio_files import SIZE, Listener, StudioFiles, free_port

NORTH, EAST, SOUTH = 0, 1, 2
WITHIN_S = 40.0
SERVED = ("--size", f"{SIZE[0]}x{SIZE[1]}")


@dataclass
class Hall:
    """A studio of three RTSP cameras: north on a server of its own, east and south on another."""

    files: StudioFiles
    north: RtspServer
    others: RtspServer
    studio: subprocess.Popen[str] | None = None
    said: list[str] = field(default_factory=list)

    def begin(self) -> None:
        uris = {"north": self.north.uri("north"), "east": self.others.uri("east"), "south": self.others.uri("south")}
        nodes = self.files.nodes
        nodes["capture"]["each"] = uris
        for node in ("instants", "heatmaps", "pose3d", "smooth", "publish"):
            nodes[node]["queue"] = {"size": 64}  # what a busy machine delays is not lost
        self.listener = Listener(self.files.address)
        self.studio = self.files.start("--summary", "s.json")
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.studio is not None
        assert self.studio.stderr is not None
        self.said.extend(self.studio.stderr)

    @property
    def instants(self) -> list[dict[str, Any]]:
        return [m for topic, m in list(self.listener.said) if topic.startswith("skeleton/")]

    def until(self, true: Callable[[], object], what: str) -> None:
        assert self.studio is not None
        end = time.monotonic() + WITHIN_S
        while not true():
            assert self.studio.poll() is None, "".join(self.said)
            assert time.monotonic() < end, f"{what} never happened; the studio said:\n{''.join(self.said)}"
            time.sleep(0.02)

    def until_said(self, text: str) -> None:
        self.until(lambda: any(text in line for line in self.said), repr(text))

    def until_seen(self, *views: int, after: int = 0) -> None:
        """Until instants with exactly these cameras are published, behind the first `after` ones."""
        self.until(lambda: [m for m in self.instants[after:] if m["sync"]["views"] == list(views)], f"an instant of {views}")

    def end(self) -> dict[str, Any]:
        """The summary."""
        assert self.studio is not None
        self.studio.send_signal(signal.SIGTERM)
        self.studio.wait(timeout=WITHIN_S)
        self.listener.stop()
        figures: dict[str, Any] = json.loads((self.files.folder / "s.json").read_text())
        return figures


@pytest.fixture
def rtsp(hall: StudioFiles) -> Iterator[Hall]:
    needed()
    made = Hall(hall, RtspServer(free_port(), "north", arguments=SERVED), RtspServer(free_port(), "east", "south", arguments=SERVED))
    with made.others:
        yield made
        if made.studio is not None and made.studio.poll() is None:
            made.studio.kill()
            made.studio.wait()
        made.north.kill()


def unbroken(instants: list[dict[str, Any]]) -> bool:
    """No instant is missing, and each has east and south."""
    seqs = [m["seq"] for m in instants]
    return seqs == list(range(seqs[0], seqs[0] + len(seqs))) and all({EAST, SOUTH} <= set(m["sync"]["views"]) for m in instants)


def test_a_server_is_killed_and_comes_back_and_the_other_cameras_lose_nothing(rtsp: Hall) -> None:
    rtsp.north.start()
    rtsp.begin()
    rtsp.until_seen(NORTH, EAST, SOUTH)
    rtsp.until(lambda: len(rtsp.instants) > 150, "six seconds: the sender reports of all cameras have come")
    before = len(rtsp.instants)
    rtsp.north.kill()
    rtsp.until_said("camera north: the stream has ended; trying again")
    rtsp.until_seen(EAST, SOUTH, after=before)
    away = len(rtsp.instants)
    time.sleep(2.0)  # so long an outage that the camera is looked for
    rtsp.north.start()
    rtsp.until_said("camera north is back after")
    rtsp.until_seen(NORTH, EAST, SOUTH, after=away)
    figures = rtsp.end()
    assert rtsp.studio is not None
    assert rtsp.studio.returncode == 130, "".join(rtsp.said)
    assert unbroken(rtsp.instants[before:-5])
    lost = [d for d in figures["dropped"] if d["node"] in ("capture/east", "capture/south")]
    assert {d["reason"] for d in lost} <= {"stamped before an earlier frame"}, "when the camera's clock comes into use"
    assert figures["balance"] == 0
    assert sum("trying again" in line for line in rtsp.said) == 1
    assert sum("is back after" in line for line in rtsp.said) == 1


def test_a_camera_that_is_late_joins_and_one_that_falls_silent_is_noticed(rtsp: Hall) -> None:
    rtsp.begin()
    rtsp.until_said(f"camera north: {rtsp.north.uri('north')} cannot be reached; trying again")
    rtsp.until_seen(EAST, SOUTH)
    rtsp.north.start()
    rtsp.until_said("camera north has come after")
    rtsp.until_seen(NORTH, EAST, SOUTH)
    assert rtsp.north.process is not None
    rtsp.north.process.send_signal(signal.SIGSTOP)
    rtsp.until_said("camera north: nothing for 2.")
    rtsp.north.process.send_signal(signal.SIGCONT)
    rtsp.until_said("camera north is back after")
    assert rtsp.end()["balance"] == 0
