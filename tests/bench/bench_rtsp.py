"""What a real RTSP server's cameras cost, and how long their loss and return take (`tests/rtsp_server.py`; needs its Debian packages).

    python tests/bench/bench_rtsp.py --seconds 10
    python tests/bench/bench_rtsp.py --seconds 10 --size 1920x1080

Three parts: the age of a picture when it is handed on, and the error of its capture time, against the time that the picture shows;
the same without sender reports; a studio of three cameras of which one is killed or silenced, and its server started again.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1] / p) for p in ("", "e2e", "unit/nodes")]

from node_kit import Studio  # noqa: E402
from rtsp_kit import PACKAGES, RtspServer, missing, shown_ns  # noqa: E402
from studio_files import SIZE, Listener, StudioFiles, free_port  # noqa: E402

from posepipe.nodes.capture_video import CaptureVideo  # noqa: E402
from posepipe.pipeline.clock import StudioClock  # noqa: E402
from posepipe.pipeline.node import FrameLost  # noqa: E402


def pictures(seconds: float, *, size: str, fps: int, transport: str, reports: bool, options: dict[str, str]) -> str:
    """One row: opening, age and stamp errors of one camera's pictures."""
    clock = StudioClock()
    arguments = ("--size", size, "--fps", str(fps), *(() if reports else ("--no-rtcp",)))
    with RtspServer(free_port(), "north", arguments=arguments) as server:
        node = CaptureVideo(CaptureVideo.Settings(uri=server.uri("north"), transport=transport, options=options))  # type: ignore[arg-type]
        begin = time.monotonic()
        node.open(Studio().context(key="north", now_ns=clock.now_ns))
        rows: list[tuple[float, float]] = []
        first_s, lost = 0.0, 0
        try:
            while time.monotonic() - begin < seconds:
                try:
                    frame = node.step()
                except FrameLost:
                    lost += 1
                    continue
                assert frame is not None
                first_s = first_s or time.monotonic() - begin
                shown = shown_ns(frame)
                rows.append(((clock.now_ns() - shown) / 1e6, (frame.t_capture_ns - shown) / 1e6))
        finally:
            node.close()
    age, error = np.array(rows[len(rows) // 2 :]).T
    return (
        f"first picture {first_s:5.2f} s   age ms p50 {np.median(age):6.1f} p95 {np.percentile(age, 95):6.1f}   "
        f"stamp error ms p50 {np.median(error):6.2f} p95 {np.percentile(error, 95):6.2f} max {np.abs(error).max():6.2f}   lost {lost}"
    )


class _Hall:
    """A studio that runs: north on a server of its own, two cameras on another."""

    def __init__(self, folder: Path, transport: str) -> None:
        arguments = ("--size", f"{SIZE[0]}x{SIZE[1]}")
        self.north = RtspServer(free_port(), "north", arguments=arguments).start()
        self._others = RtspServer(free_port(), "east", "south", arguments=arguments).start()
        files = StudioFiles(folder)
        files.nodes["capture"]["transport"] = transport
        uris = {"north": self.north.uri("north"), "east": self._others.uri("east"), "south": self._others.uri("south")}
        files.nodes["capture"]["each"] = uris
        self._listener = Listener(files.address)
        self._studio = files.start()
        self.lines: list[tuple[float, str]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._studio.stderr is not None
        for line in self._studio.stderr:
            self.lines.append((time.monotonic(), line))

    def count(self) -> int:
        return len(self._listener.said)

    def seen(self, after: int) -> bool:
        return any(topic.startswith("skeleton/") and 0 in m["sync"]["views"] for topic, m in self._listener.said[after:])

    def end(self) -> None:
        self._studio.send_signal(signal.SIGTERM)
        self._studio.wait(20)
        self._listener.stop()
        self.north.kill()
        self._others.kill()


def _until(true: Callable[[], bool]) -> float:
    """The time at which it came true."""
    end = time.monotonic() + 90
    while not true():
        if time.monotonic() > end:
            raise SystemExit("it never happened")
        time.sleep(0.005)
    return time.monotonic()


def outage(seconds: float, *, transport: str, how: str) -> str:
    """One row: how long until the loss is reported, and from the server's return until north is in a published instant.

    how: killed; silenced (stopped, then killed and started again); hung (stopped, then going on where it was).
    """
    with tempfile.TemporaryDirectory() as folder:
        hall = _Hall(Path(folder), transport)
        try:
            _until(lambda: hall.seen(0))
            time.sleep(6.0)
            assert hall.north.process is not None
            gone_s = time.monotonic()
            hall.north.process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
            _until(lambda: any("trying again" in line for _, line in hall.lines))
            told_s = next(t for t, line in hall.lines if "trying again" in line)
            time.sleep(seconds)
            if how == "hung":
                hall.north.process.send_signal(signal.SIGCONT)
            else:
                hall.north.kill()
                hall.north.start()
            there_s, after = time.monotonic(), hall.count()
            back_s = _until(lambda: hall.seen(after))
        finally:
            hall.end()
    return f"loss reported after {told_s - gone_s:5.2f} s   back {back_s - there_s:5.2f} s after the server"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--outages", type=float, nargs="*", default=[0.0, 3.0, 40.0], metavar="S")
    given = parser.parse_args()
    if why := missing():
        raise SystemExit(f"no RTSP server: {why}\n  -> Debian: apt-get install {PACKAGES}")
    usual: dict[str, str] = {}
    for name, transport, reports, options in (
        ("tcp, reports", "tcp", True, usual),
        ("udp, reports", "udp", True, usual),
        ("tcp, none", "tcp", False, usual),
        ("FFmpeg's probing", "tcp", True, {"fpsprobesize": "-1"}),
        ("nobuffer", "tcp", True, {"fflags": "nobuffer"}),
        ("low_delay", "tcp", True, {"flags": "low_delay"}),
    ):
        row = pictures(given.seconds, size=given.size, fps=given.fps, transport=transport, reports=reports, options=options)
        print(f"{name:18} {row}", flush=True)
    for transport in ("tcp", "udp"):
        for how in ("killed", "silenced", "hung"):
            for seconds in given.outages:
                print(f"{f'{transport} {how} {seconds:.0f} s':18} {outage(seconds, transport=transport, how=how)}", flush=True)


if __name__ == "__main__":
    main()
