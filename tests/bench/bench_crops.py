"""Crops of people out of 1080p YUV frames: posepipe's kernel beside OpenCV's functions, in turns, in one process.

    python tests/bench/bench_crops.py [--rounds 30]

The regions are those of the performer in the recording (four views, ten instants, so that frames come from memory and not from the cache).
Prints CPU ms for the four crops of an instant, and how far the pictures are from ones with 64 samples a pixel in floating point; then what
it costs to write them in the form that other networks take, in the same pass and by numpy afterwards. Needs
`posepipe pull pose2sim.single blazepose.full blazepose.detector`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import av
import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from posepipe.engines.assets import asset
from posepipe.engines.crop import RGB8, Pixels, crop_rgb, image_from_crop
from posepipe.engines.engine import EngineOptions
from posepipe.engines.models.blazepose.regions import rois_from_detections, rois_from_joints
from posepipe.engines.network import PersonDetector, TopDown
from posepipe.pipeline.packet import Frame

SIZE, INSTANTS, EVERY = 256, 10, 10
Cut = Callable[[Frame, Any, Any], None]


def instants(form: str) -> list[list[Frame]]:
    """[instant][camera] frames in memory, as a decoder hands them on."""
    views = []
    for video in sorted(asset("pose2sim.single").path().glob("*.mp4")):
        with av.open(str(video)) as container:
            pictures = [p for i, p in enumerate(container.decode(video=0)) if i % EVERY == 0][:INSTANTS]
        frames = []
        for i, p in enumerate(pictures):
            y, u, v = (np.frombuffer(x, np.uint8).reshape(-1, x.line_size)[:, : x.width].copy() for x in p.planes)
            planes = (y, u, v) if form == "i420" else (y, np.stack([u, v], -1))
            frames.append(Frame(video.stem, i * EVERY, 0, form, p.width, p.height, planes))  # type: ignore[arg-type]
        views.append(frames)
    return [list(views_of_one) for views_of_one in zip(*views, strict=True)]


def regions(frames: list[list[Frame]]) -> list[Any]:
    """[instant] maps [4,2,3] from the crops to the frames."""
    detector, top = PersonDetector("blazepose.detector", EngineOptions()), TopDown("blazepose.full", EngineOptions())
    found = []
    for views in frames:
        px, conf = top.infer(views, rois_from_detections([people[0] for people in detector.detect(views)]))
        found.append(image_from_crop(rois_from_joints(px, conf), size=SIZE))
    detector.close()
    top.close()
    return found


def opencv(frame: Frame, frame_from_crop: Any, out: Any) -> None:
    """The same crop by OpenCV: 2 x 2 means, warpAffine for every plane, conversion."""
    n = SIZE
    stacked = np.empty((n * 3 // 2, n), np.uint8)
    in_chroma = frame_from_crop.copy()
    in_chroma[:, 2] = (frame_from_crop @ [0.5, 0.5, 1.0] - 0.5) / 2
    chroma = frame.planes[1:] if frame.format == "i420" else [cv2.extractChannel(frame.planes[1], c) for c in range(2)]
    halves = stacked[n:].reshape(2, n // 2, n // 2)
    for plane, to_plane, border, to in (
        (frame.planes[0], frame_from_crop, 16, stacked[:n]),
        *((c, in_chroma, 128, h) for c, h in zip(chroma, halves, strict=True)),
    ):
        times = max(0, math.ceil(math.log2(math.sqrt(abs(np.linalg.det(to_plane[:, :2]))) / 1.6)))
        by = 2**times
        corners = to_plane @ np.array([[-1.0, len(to), -1.0, len(to)], [-1.0, -1.0, len(to), len(to)], [1.0, 1.0, 1.0, 1.0]])
        low = np.clip(np.floor(corners.min(axis=1)), 0, None).astype(int) // by * by
        high = np.minimum(np.ceil(corners.max(axis=1)).astype(int) + by, np.array(plane.shape[1::-1])) // by * by
        part = plane[low[1] : high[1], low[0] : high[0]]
        for _ in range(times):
            part = cv2.resize(part, (part.shape[1] // 2, part.shape[0] // 2), interpolation=cv2.INTER_AREA)
        to_part = to_plane / by
        to_part[:, 2] -= (low + (by - 1) / 2) / by
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(part, to_part, to.shape[::-1], dst=to, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=border)
    cv2.cvtColor(stacked, cv2.COLOR_YUV2RGB_I420, dst=out)


def many_samples(frame: Frame, frame_from_crop: Any) -> Any:
    """[SIZE,SIZE,3] in floating point: every pixel the mean of 8 x 8 bilinear samples of the planes (i420, video range)."""
    at = (np.arange(SIZE * 8) + 0.5) / 8 - 0.5
    spots = np.stack(np.meshgrid(at, at), -1)
    seen = []
    in_chroma = np.column_stack([frame_from_crop[:, :2] / 2, (frame_from_crop[:, 2] - 0.5) / 2])
    for plane, to_plane, black in zip(frame.planes, (frame_from_crop, in_chroma, in_chroma), (16, 128, 128), strict=True):
        xy = (spots @ to_plane[:, :2].T + to_plane[:, 2]).astype(np.float32)
        looked = cv2.remap(plane.astype(np.float32), xy[..., 0], xy[..., 1], cv2.INTER_LINEAR, borderValue=black)
        seen.append(looked.reshape(SIZE, 8, SIZE, 8).mean(axis=(1, 3)) - black)
    y, u, v = 255 / 219 * seen[0], 255 / 224 * seen[1], 255 / 224 * seen[2]
    return np.clip(np.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], -1), 0, 255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    ways: dict[str, Cut] = {"OpenCV": opencv, "posepipe": crop_rgb}
    out = np.empty((4, SIZE, SIZE, 3), np.uint8)
    table = Table("planes", "by", "CPU ms for four crops: median", "p90", "of OpenCV", "mean error, grey levels", "PSNR dB")
    for form in ("i420", "nv12"):
        frames = instants(form)
        maps = regions(frames)
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, cut in ways.items():
                for views, to_frame in zip(frames, maps, strict=True):
                    cpu = time.process_time()
                    for view, m, o in zip(views, to_frame, out, strict=True):
                        cut(view, m, o)
                    spent[name].append((time.process_time() - cpu) * 1e3)
        for name, cut in ways.items():
            error = ("", "")
            if form == "i420":
                off = []
                for view, m in zip(frames[0], maps[0], strict=True):
                    cut(view, m, out[0])
                    off.append(out[0] - many_samples(view, m))
                error = f"{np.abs(off).mean():.2f}", f"{20 * math.log10(255 / math.sqrt(np.square(off).mean())):.2f}"
            p50, p90 = np.percentile(spent[name], [50, 90])
            table.add_row(form, name, f"{p50:.2f}", f"{p90:.2f}", f"{p50 / np.median(spent['OpenCV']):.2f}", *error)
    Console(width=140).print(table)
    Console(width=140).print(forms(instants("i420"), rounds))


def forms(frames: list[list[Frame]], rounds: int) -> Table:
    """CPU ms for four crops in the forms that networks take."""
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    square = (SIZE, SIZE)
    ways: dict[str, tuple[Any, Pixels]] = {
        "uint8, 3 x height x width (BlazePose)": (np.empty((4, 3, *square), np.uint8), Pixels(planar=True)),
        "uint8, height x width x 3": (np.empty((4, *square, 3), np.uint8), RGB8),
        "int32, height x width x 3 (MoveNet)": (np.empty((4, *square, 3), np.int32), RGB8),
        "float32, 3 x height x width, BGR (YOLOX)": (np.empty((4, 3, *square), np.float32), Pixels(bgr=True, planar=True)),
        "float32, 3 x height x width, normalised (RTMPose)": (np.empty((4, 3, *square), np.float32), Pixels(False, True, mean, std)),
    }
    by_numpy = "the same by numpy from the uint8 crops"
    spent: dict[str, list[float]] = {name: [] for name in (*ways, by_numpy)}
    plain = np.empty((4, *square, 3), np.uint8)
    m, s = np.array(mean, np.float32), np.array(std, np.float32)
    maps = regions(frames)
    for _ in range(rounds):
        for views, to_frame in zip(frames, maps, strict=True):
            for name, (out, pixels) in ways.items():
                cpu = time.process_time()
                for view, map_, one in zip(views, to_frame, out, strict=True):
                    crop_rgb(view, map_, one, pixels)
                spent[name].append((time.process_time() - cpu) * 1e3)
            cpu = time.process_time()
            for view, map_, one in zip(views, to_frame, plain, strict=True):
                crop_rgb(view, map_, one)
            np.ascontiguousarray(((plain - m) / s).transpose(0, 3, 1, 2))
            spent[by_numpy].append((time.process_time() - cpu) * 1e3)
    table = Table("i420, as", "CPU ms for four crops: best", "median", "p90")
    for name, ms in spent.items():
        table.add_row(name, *(f"{n:.2f}" for n in np.percentile(ms, [0, 50, 90])))
    return table


if __name__ == "__main__":
    main()
