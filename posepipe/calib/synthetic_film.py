"""The rendering of a studio into a folder: one H.264 film a camera, the rig, the truth, and maps of parts on request."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from av.video.stream import VideoStream

from posepipe.pipeline.errors import RecordError
from posepipe.pipeline.packet import U8

from . import toml
from .synthetic import Studio
from .synthetic_gl import Renderer
from .synthetic_lens import lens_of
from .synthetic_maps import MapWriter, maps_file
from .synthetic_rig import middle
from .synthetic_sight import Sight, truth_without_sight
from .synthetic_truth import RIG, Truth, write_truth

_CODEC, _QUALITY = "libx264", "24"
_ON_FLOOR_M = 0.05
_FULL = "free some space, or write elsewhere; nothing of the recording was kept"


def render(studio: Studio, folder: Path, *, maps: bool = False, progress: Callable[[int], None] = lambda frames: None) -> Truth:
    """Draw every picture of a studio into `folder`, which must not be there yet or be empty; it appears whole or not at all.

    progress is called with the number of instants that are done. RecordError: the folder is taken, the disk is full, there is no OpenGL or no
    encoder.
    """
    if _CODEC not in av.codecs_available:
        raise RecordError(f"this FFmpeg has no encoder {_CODEC} for H.264", hint="install the package av from PyPI, whose FFmpeg has it")
    with _appearing(folder) as part, ExitStack() as stack:
        cameras = studio.rig.cameras
        lenses = [lens_of(camera) for camera in cameras]
        renderer = Renderer(studio.room, [actor.mesh for actor in studio.actors], sun=studio.sun, middle_m=middle(studio.rig))
        stack.callback(renderer.close)
        films = [stack.enter_context(closing(_Film(part / f"{c.name}.mp4", studio.options.fps))) for c in cameras]
        writers = [stack.enter_context(closing(MapWriter(maps_file(part, c.name)))) for c in cameras] if maps else []
        truth = truth_without_sight(studio)
        visible, sight, grain = truth.coco17_visible.copy(), Sight(studio), _Grain(studio.options.seed, studio.options.noise)
        for k in range(studio.options.frames):
            posed_at = None
            for c, lens in enumerate(lenses):
                t_s, pose = float(studio.capture_t_s[c, k]), studio.camera_from_world[c, k]
                if t_s != posed_at:
                    posed_at = t_s
                    _pose(renderer, studio, t_s)
                shot = renderer.shoot(lens.flat, pose, exposure=float(studio.exposure[c]))
                films[c].add(grain.over(lens.picture(shot.rgb)))
                visible[c, :, k] &= sight.of(t_s, lens.flat, pose, shot)
                if writers:
                    writers[c].add(lens.nearest(shot.surface), lens.nearest(shot.depth_m))
            progress(k + 1)
        for film in films:
            film.finish()
        truth = replace(truth, coco17_visible=visible)
        (part / RIG).write_text(toml.render(studio.rig), encoding="utf-8")
        write_truth(part, truth)
    return replace(truth, where=str(folder))


def _pose(renderer: Renderer, studio: Studio, t_s: float) -> None:
    skins = [actor.skin(t_s) for actor in studio.actors]
    feet = [points[points[:, 2] < _ON_FLOOR_M, :2] for points, _ in filter(None, skins)]
    renderer.pose(skins, np.concatenate([_spots(f) for f in feet] or [np.empty((0, 2))]))


def _spots(feet_m: Any) -> Any:
    """The middles [K,2] of a person's soles: points on the floor, split in two where they lie apart."""
    if not len(feet_m):
        return np.empty((0, 2))
    centre = feet_m.mean(axis=0)
    _, _, axes = np.linalg.svd(feet_m - centre, full_matrices=False)
    along = (feet_m - centre) @ axes[0]
    return np.stack([feet_m[side].mean(axis=0) for side in (along < 0, along >= 0) if side.any()])


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place when everything went well, and is removed otherwise."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecordError(f"{folder} is there already", where="--out", hint="name a folder that does not exist yet, or is empty")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        try:
            yield part
            os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except (OSError, av.error.FFmpegError) as error:
        raise RecordError(f"the recording cannot be written ({error.strerror})", where=str(folder), hint=_FULL) from None


class _Film:
    """An H.264 film. OSError or FFmpegError when the disk does not take it."""

    def __init__(self, path: Path, fps: float) -> None:
        self._container: Any = av.open(str(path), "w", format="mp4")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._stream: VideoStream | None = None
        self._frames = 0

    def add(self, picture: U8) -> None:
        """Append a picture [h,w,3] RGB."""
        if self._stream is None:
            stream: VideoStream = self._container.add_stream(_CODEC, rate=self._rate)
            stream.height, stream.width = picture.shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.options = {"preset": "medium", "crf": _QUALITY}
            stream.codec_context.gop_size = max(1, round(2 * float(self._rate)))
            stream.codec_context.thread_count = 1  # with more the bytes depend on how many cores there are
            self._stream = stream
        frame = av.VideoFrame.from_ndarray(np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), np.uint8), format="yuv420p")
        frame.pts, frame.time_base = self._frames, 1 / self._rate
        self._frames += 1
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def close(self) -> None:
        """Let go of the file; a film that was not finished is thrown away with its folder."""
        self._container.close()


class _Grain:
    """A sensor's noise: normal, `sigma` grey values, never the same twice. One large field, read from another place for each picture."""

    def __init__(self, seed: int, sigma: float) -> None:
        self._rng = np.random.default_rng([seed, 77])
        self._sigma = sigma
        self._field = np.empty((0, 0, 3), np.int16)

    def over(self, picture: U8) -> U8:
        if self._sigma <= 0:
            return picture
        h, w = picture.shape[:2]
        if self._field.shape[0] < h + 64 or self._field.shape[1] < w + 64:
            self._field = np.round(self._rng.normal(0, self._sigma, (h + 64, w + 64, 3))).astype(np.int16)
        y, x = self._rng.integers(0, 64, 2)
        return np.asarray(np.clip(picture + self._field[y : y + h, x : x + w], 0, 255), np.uint8)
