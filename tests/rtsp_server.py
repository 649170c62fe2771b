"""A real RTSP server for tests and measurements: GStreamer's, run by the system's Python (`/usr/bin/python3 rtsp_server.py --port 8554 north east`).

Every camera shows the time at which its picture was made as black and white blocks (`rtsp_kit.shown_ns` reads them), so that a
test knows capture times that no protocol told. Needs from Debian: the packages that `rtsp_kit.PACKAGES` names.
"""

from __future__ import annotations

import argparse
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

BLOCK_PX = 16
BITS = 60

LAUNCH = (
    "( appsrc name=camera is-live=true do-timestamp=true format=time caps=video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast threads=1 bitrate=1000 key-int-max={gop} "
    "! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)


def picture(now_us: int, *, width: int, height: int) -> bytes:
    """An I420 picture whose blocks, from the top left, are the bits of `now_us`, lowest first."""
    across = width // BLOCK_PX
    rows = []
    for first in range(0, BITS, across):
        bits = [(now_us >> i) & 1 for i in range(first, min(first + across, BITS))]
        row = b"".join(bytes([235 if bit else 16]) * BLOCK_PX for bit in bits)
        rows.append(row.ljust(width, b"\x80") * BLOCK_PX)
    return b"".join(rows).ljust(width * height, b"\x60") + b"\x80" * (width * height // 2)


class Camera(GstRtspServer.RTSPMediaFactory):
    """One camera; all its viewers see the same encoder."""

    def __init__(self, *, fps: int, gop: int, width: int, height: int, rtcp: bool) -> None:
        super().__init__()
        self._fps, self._width, self._height = fps, width, height
        self.set_launch(LAUNCH.format(fps=fps, gop=gop, width=width, height=height))
        self.set_shared(True)
        self.set_enable_rtcp(rtcp)
        self.connect("media-configure", self._configure)

    def _configure(self, _factory: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
        source = media.get_element().get_by_name_recurse_up("camera")
        seen = {"on": True}
        media.connect("unprepared", lambda _media: seen.update(on=False))
        self._push(source, seen)

    def _push(self, source: Gst.Element, seen: dict[str, bool]) -> bool:
        """A picture at every multiple of the period in Unix time: cameras of several servers are synced."""
        if seen["on"]:
            now_us = time.time_ns() // 1000
            source.emit("push-buffer", Gst.Buffer.new_wrapped(picture(now_us, width=self._width, height=self._height)))
            period_us = 1_000_000 // self._fps
            nth = round(now_us / period_us) + 1  # a timer that is a little early must not give a picture twice
            GLib.timeout_add((nth * period_us - now_us + 999) // 1000, self._push, source, seen)
        return False


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cameras", nargs="+")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--gop", type=int, default=25, help="pictures between two key pictures")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--no-rtcp", action="store_true", help="no sender reports: a camera that does not tell its clock")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(given.port))
    for name in given.cameras:
        camera = Camera(fps=given.fps, gop=given.gop, width=width, height=height, rtcp=not given.no_rtcp)
        server.get_mount_points().add_factory(f"/{name}", camera)
    if server.attach(None) == 0:
        raise SystemExit(f"port {given.port} is in use")
    print("serving", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
