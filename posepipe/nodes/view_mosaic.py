"""`view.mosaic`: all cameras with the skeletons drawn back into them, beside the same people in space, as a picture or a video."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from msgspec import Meta

from posepipe.calib.project import project
from posepipe.calib.rig import Rig
from posepipe.pipeline.errors import GraphError, RecordError
from posepipe.pipeline.node import Caps, Context, Node, NodeSettings
from posepipe.pipeline.packet import U8, Actions, FrameSet, Packet, Poses
from posepipe.pipeline.skeleton import skeleton

from ._actions import Acts, check_actions
from ._canvas import AMBER, BRIGHT, DIM, PANEL, Rect, above, blank, caption, greyed, paint_skeleton, tag, text, thumbnail
from ._film import Film
from ._scene import Scene

_GAP = 6
_WORDS_STAY = 15
_ROUNDED_NS = 1_000_000  # recorded times are given in milliseconds by many files
_SCENE_SHARE = 0.4
"""Wanted share of the width for the view in space."""


class ViewMosaic(Node):
    """Every camera with its name and the skeletons drawn back into it; beside them the people in space and a map of the studio.

    Lines are solid where the network is sure and translucent where it is not; discs in space are one standard deviation of a joint.
    A camera that an instant lacks stays grey, with its last picture. `file` ending in .png is a snapshot, in .mp4 a video. The node
    draws in a worker of its own and only what it has time for, so the studio never waits for it; a picture of four 1080p cameras
    costs about 15 ms of one core. Without a rig, skeletons are drawn in space only. With `actions` in `from:`, what somebody does stands over his head.
    """

    use = "view.mosaic"
    own_process = True
    default_queue = (1, "drop_oldest")

    class Settings(NodeSettings, frozen=True, kw_only=True):
        file: Annotated[
            str, Meta(description="NAME.png (a snapshot) or NAME.mp4 (a video), relative to the current directory; replaced", min_length=5)
        ]
        width_px: Annotated[int, Meta(description="width of the picture; the height follows from the cameras", ge=480, le=3840)] = 1280
        fps: Annotated[float, Meta(description="videos: most pictures drawn a second", gt=0, le=60)] = 15.0
        at_seq: Annotated[int, Meta(description="snapshots: take this instant, or the next one there is", ge=0)] | None = None
        every_s: Annotated[float, Meta(description="snapshots: take one this often, each replaces the one before", gt=0)] | None = None

    settings: Settings
    _mosaic: Mosaic | None = None
    _film: Film | None = None
    _newest: tuple[FrameSet, Packet[Poses], list[str]] | None = None
    _said: tuple[int, Actions | None] = (0, None)
    _due_ns: int | None = None
    _finished = False
    _made = False

    @classmethod
    def check(cls, settings: Settings, inputs: Mapping[str, Caps]) -> None:
        check_actions(inputs)
        kind = Path(settings.file).suffix.lower()
        if kind not in (".png", ".mp4"):
            raise GraphError(
                f"file is {settings.file!r}: a view is written as .png or .mp4", hint="file: view.png for a snapshot, view.mp4 for a video"
            )
        only_png = [k for k in ("at_seq", "every_s") if getattr(settings, k) is not None]
        if kind == ".mp4" and only_png:
            raise GraphError(
                f"{only_png[0]} is for snapshots, but file is {settings.file!r}", hint=f"leave {only_png[0]} out, or write to a .png"
            )
        if len(only_png) == 2:
            raise GraphError("at_seq and every_s exclude each other", hint="leave one of them out")

    def open(self, ctx: Context) -> None:
        self._ctx = ctx
        self.path = Path(self.settings.file).expanduser()
        self._made = not self.path.exists()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
        except OSError as e:
            raise RecordError(
                f"cannot be written: {e.strerror}", where=str(self.path), hint="choose a folder that you may write to"
            ) from None
        self._rig = ctx.rig if isinstance(ctx.rig, Rig) else None
        self._acts = Acts(ctx)
        self._is_film = self.path.suffix.lower() == ".mp4"

    def step(self, frames: FrameSet, poses: Packet[Poses], actions: Actions | None = None) -> None:
        if self._finished:
            return
        if self._mosaic is None:
            self._mosaic = Mosaic(frames, self._rig, studio=self._ctx.studio, width_px=self.settings.width_px, offline=self._ctx.offline)
        self._mosaic.remember(poses.body)
        words = self._words(poses, actions)
        self._newest = (frames, poses, words)
        if self._due(poses):
            self._write(self._mosaic.paint(frames, poses, words), poses.t_capture_ns)
            self._newest = None

    def _words(self, poses: Packet[Poses], actions: Actions | None) -> list[str]:
        """What everybody does. This node's queues lose what it has no time for: the words of a moment ago do for an instant that comes without."""
        if actions is not None:
            self._said = poses.seq, actions
        seq, said = self._said
        acts = self._acts.of(poses.body.ids, said if 0 <= poses.seq - seq < _WORDS_STAY else None)
        return [self._acts.names[act.label] if act is not None and act.label < len(self._acts.labels) else "" for act in acts]

    def _due(self, poses: Packet[Poses]) -> bool:
        """Whether this instant is to be drawn. Drawing goes by capture time, so that a view of an offline run is the same."""
        s = self.settings
        if s.at_seq is not None:
            return poses.seq >= s.at_seq
        period_s = 1 / s.fps if self._is_film else s.every_s
        if period_s is None:
            return False
        t, period_ns = poses.t_capture_ns, round(period_s * 1e9)
        if self._due_ns is None:
            self._due_ns = t
        if t < self._due_ns - _ROUNDED_NS:
            return False
        self._due_ns = max(self._due_ns + period_ns, t)
        return True

    def _write(self, picture: U8, t_capture_ns: int) -> None:
        try:
            if self._is_film:
                self._film = self._film or Film(self.path, fps=self.settings.fps)
                self._film.add(picture, t_capture_ns)
            else:
                _write_png(self.path, picture)
                self._finished = self.settings.at_seq is not None
        except OSError as e:
            self._give_up(e)

    def _give_up(self, error: OSError) -> None:
        """The studio goes on without its picture."""
        self._finished = True
        self._ctx.warn(
            f"{self._ctx.name}: {self.path}: {error.strerror or error}; the view has stopped, the studio goes on\n"
            "  -> free space on that disk, then start again to see the view"
        )
        if self._film is not None:
            film, self._film = self._film, None
            with contextlib.suppress(OSError):  # said just now
                film.close()

    def close(self) -> None:
        if not self._finished:
            if self._mosaic is not None and self._newest is not None and not self._is_film:
                frames, poses, words = self._newest
                self._write(self._mosaic.paint(frames, poses, words), poses.t_capture_ns)
            if self._film is not None:
                film, self._film = self._film, None
                try:
                    film.close()
                except OSError as e:
                    self._give_up(e)
        if self._made and self.path.exists() and self.path.stat().st_size == 0:
            self.path.unlink()  # nothing was drawn


def _write_png(path: Path, picture: U8) -> None:
    """The whole picture or the one before: whoever looks at the file never sees half of one."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


class Mosaic:
    """Paints instants of one studio. The arrangement follows from the first frames."""

    def __init__(self, frames: FrameSet, rig: Rig | None, *, studio: str, width_px: int, offline: bool) -> None:
        self._rig, self._studio, self._offline = rig, studio, offline
        sizes = [(f.width, f.height) for f in frames.frames.values()]
        self._head_px = max(2 * round(width_px * 0.017), 28)
        self.cells, self.scene_at, self.size_px = arrange(
            len(frames.cameras), float(np.median([w / h for w, h in sizes])), width_px, self._head_px
        )
        side = round(0.33 * min(self.scene_at.width, self.scene_at.height))
        self._map_at = Rect(self.scene_at.x + _GAP, self.scene_at.y + self.scene_at.height - side - _GAP, side, side)
        self._scene = Scene(rig)
        self._paper = blank(*self.size_px)
        for cell in self.cells:
            cell.of(self._paper)[:] = PANEL
        self._scene.backdrop(self.scene_at.of(self._paper))
        self._last: dict[str, U8] = {}
        self._first_ns = frames.t_capture_ns

    def remember(self, poses: Poses) -> None:
        """Take in an instant, also one that is not painted."""
        self._scene.remember(poses, skeleton(poses.skeleton))

    def paint(self, frames: FrameSet, packet: Packet[Poses], words: Sequence[str]) -> U8:
        """The picture [h,w,3] BGR of one instant. words [P]: said over everybody's head, if any."""
        poses = packet.body
        layout = skeleton(poses.skeleton)
        picture = self._paper.copy()
        uv_px = self._reprojected(poses)
        for camera, (name, cell) in enumerate(zip(frames.cameras, self.cells, strict=True)):
            view = cell.of(picture)
            frame = frames.frames.get(name)
            if frame is None:
                self._absent(view, name)
                continue
            scale = min(cell.width / frame.width, cell.height / frame.height)
            width, height = (max(2, 2 * round(n * scale / 2)) for n in (frame.width, frame.height))
            shrunk = thumbnail(frame, min(width, cell.width & ~1), min(height, cell.height & ~1))
            height, width = shrunk.shape[:2]
            if uv_px is not None:
                ratio = np.array([width / frame.width, height / frame.height])
                for uv, conf, said in zip((uv_px[camera] + 0.5) * ratio - 0.5, poses.conf, words, strict=True):
                    paint_skeleton(shrunk, uv, conf, layout, thickness=max(1, round(cell.height / 240)))
                    if said:
                        u, v = above(uv, conf)
                        caption(shrunk, said, u, v - self._label_px, height_px=self._label_px)
            x, y = (cell.width - width) // 2, (cell.height - height) // 2
            view[y : y + height, x : x + width] = shrunk
            self._last[name] = view.copy()
            tag(view, name, height_px=self._label_px)
        seconds = (packet.t_capture_ns - self._first_ns) / 1e9
        self._scene.paint(self.scene_at.of(picture), poses, layout, words, t_s=seconds)
        self._scene.paint_map(picture, self._map_at, poses)
        self._head(picture, packet)
        return picture

    @property
    def _label_px(self) -> float:
        return max(self._head_px * 0.27, 8.0)

    def _reprojected(self, poses: Poses) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        """[C,P,J,2] pixels of the videos; None without a rig."""
        if self._rig is None:
            return None
        people, joints = poses.conf.shape
        return project(self._rig, poses.xyz_m.reshape(-1, 3)).uv_px.reshape(len(self._rig), people, joints, 2)

    def _absent(self, view: U8, name: str) -> None:
        """A camera that this instant lacks."""
        if name in self._last:
            view[:] = greyed(self._last[name])
        height, width = view.shape[:2]
        tag(view, name, height_px=self._label_px, colour=AMBER)
        text(view, "missing", width / 2, height / 2, height_px=1.4 * self._label_px, colour=AMBER, align=0.5)

    def _head(self, picture: U8, packet: Packet[Poses]) -> None:
        poses, height_px = packet.body, self._label_px
        y, gap = (self._head_px + height_px) / 2, 2.5 * height_px
        latency = (
            "" if self._offline or not packet.trace else f"{(packet.trace[-1].t_out_ns - packet.t_capture_ns) / 1e6:.0f} ms after capture"
        )
        people = f"{len(poses.ids)} {'person' if len(poses.ids) == 1 else 'people'}"
        error = f"reprojection {float(np.median(poses.reproj_px)):.1f} px" if len(poses.ids) else ""
        x = _GAP + height_px / 2
        x += text(picture, self._studio, x, y, height_px=height_px * 1.15) + gap
        for words in filter(None, (people, error, latency)):
            x += text(picture, words, x, y, height_px=height_px, colour=BRIGHT if words == people else DIM) + gap
        text(picture, f"instant {packet.seq}", picture.shape[1] - _GAP - height_px / 2, y, height_px=height_px, colour=DIM, align=1.0)


def arrange(cameras: int, aspect: float, width_px: int, head_px: int) -> tuple[list[Rect], Rect, tuple[int, int]]:
    """Cells of the cameras, place of the scene, (width, height) of the picture.

    aspect: width / height of the videos. The scene is about square and beside the cameras; the number of rows is the one that gives
    it the share of the width nearest to 0.4.
    """

    def share(rows: int) -> float:
        tall = rows / (math.ceil(cameras / rows) * aspect)
        return tall / (1 + tall)

    rows = min(range(1, cameras + 1), key=lambda r: abs(share(r) - _SCENE_SHARE))
    columns = math.ceil(cameras / rows)
    scene_px = round(width_px * min(max(share(rows), 0.25), 0.6))
    cell_px = (width_px - scene_px - _GAP * (columns + 2)) // columns
    cell_height = round(cell_px / aspect)
    body = max(rows * cell_height + (rows - 1) * _GAP, round(0.2 * width_px))
    height = head_px + body + _GAP
    height += height % 2
    cells = [
        Rect(_GAP + (i % columns) * (cell_px + _GAP), head_px + (i // columns) * (cell_height + _GAP), cell_px, cell_height)
        for i in range(cameras)
    ]
    left = _GAP + columns * (cell_px + _GAP)
    return cells, Rect(left, head_px, width_px - _GAP - left, body), (width_px, height)
