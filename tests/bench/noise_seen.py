"""What a heatmap network sees in a recording, with crops as the studio cuts them, and the same crops with something in the way or shifted.

Support of fit_noise.py. The truth that there is: all other cameras' key points, triangulated, smoothed over time without delay, and projected.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posepipe.calib import Rig, facing_of, mirror_of, project, triangulate_sides, undistort
from posepipe.calib.samples import INLIER, MIN_CONF, SIGMA
from posepipe.calib.synthetic_truth import read_truth
from posepipe.engines.crop import Rois, image_from_crop
from posepipe.engines.network import TopDown
from posepipe.pipeline.skeleton import COCO17

CELLS = 64
_REACH = 4  # instants on both sides of the smoother
_MIRROR, _FACING = mirror_of(COCO17), facing_of(COCO17)


@dataclass(slots=True)
class Heard:
    """Heatmaps of T instants in C views. rois [T,C,4] (centre x, y, side, angle; NaN: none); maps [T,C,64,64,17] probabilities; hidden [T,C,17]:
    something was put in front of the joint."""

    rois: np.ndarray
    maps: np.ndarray
    hidden: np.ndarray


@dataclass(slots=True)
class Recording:
    """A recording as it was seen, and in other ways: `covered` (something in the way) and `shifted` (crops that cut the body).

    xyz_m [T,17,3] and hidden [T,C,17] where the recording is synthetic: the truth, and which joints something hides.
    """

    rig: Rig
    fps: float
    plain: Heard
    covered: Heard
    shifted: Heard
    xyz_m: np.ndarray | None = None
    hidden: np.ndarray | None = None


def px_from_cells(rois: np.ndarray) -> np.ndarray:
    """[...,2,3] maps from cells of BlazePose's heatmaps to pixels of the video; rois [...,4]. Cell c is pixel 4c - 0.5 of the crop."""
    flat = rois.reshape(-1, 4)
    crop = image_from_crop(Rois(flat[:, :2], flat[:, 2], flat[:, 3]), size=4 * CELLS)
    crop[:, :, 2] -= 0.5 * crop[:, :, :2].sum(axis=2)
    crop[:, :, :2] *= 4
    return crop.reshape(*rois.shape[:-1], 2, 3)


def to_px(rois: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Cells [...,J,2] as pixels of the video."""
    m = px_from_cells(rois)
    return np.einsum("...ab,...jb->...ja", m[..., :2], cells) + m[..., None, :, 2]


def to_cells(rois: np.ndarray, px: np.ndarray) -> np.ndarray:
    """Pixels of the video [...,J,2] as cells."""
    m = px_from_cells(rois)
    return np.einsum("...ab,...jb->...ja", np.linalg.inv(np.nan_to_num(m[..., :2], nan=1.0) + 1e-9 * np.eye(2)), px - m[..., None, :, 2])


def listen(path: Path, overrides: tuple[str, ...] = (), *, seed: int = 0) -> Recording:
    """Run a studio offline and look again at every crop that its network saw. The folder of a recording by `posepipe synth render` stands for
    a studio of it; its truth is read too."""
    from posepipe.launch import studio
    from posepipe.pipeline.runner import Runner

    if "POSEPIPE_PORT" not in os.environ:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            os.environ["POSEPIPE_PORT"] = str(s.getsockname()[1])
    whole = studio.complete(studio.load(_studio_of(path), overrides=overrides))
    uses = {node.cls.use: node.name for node in whole.plan.nodes}
    assert whole.rig is not None
    names, seen, rng = list(whole.plan.cameras), [], np.random.default_rng(seed)
    times: list[int] = []
    seqs: list[int] = []
    with contextlib.closing(Runner(whole.plan, rig=whole.rig, resolve=whole.resolve, offline=True)) as runner:
        runner.open()
        topdown: TopDown = runner.slots[uses["heatmap.topdown"]].node._heatmaps
        infer = topdown.infer

        def again(frames: Any, rois: Rois) -> Any:
            answer = infer(frames, rois)
            if rois.there.all():
                at = [names.index(f.camera) for f in frames]
                times.append(frames[0].t_capture_ns)
                seqs.append(frames[0].seq)
                seen.append([_filled(one, at, len(names)) for one in _in_three_ways(topdown, frames, rois, rng)])
            return answer

        topdown.infer = again  # type: ignore[method-assign]
        runner.start()
        runner.finish(timeout_s=600.0)
    ways = [Heard(*(np.stack([t[k][field] for t in seen]) for field in range(3))) for k in range(3)]
    recording = Recording(whole.rig, 1e9 / float(np.median(np.diff(times))), *ways)
    if path.is_dir():
        truth = read_truth(path)
        shown = truth.coco17_visible[:, 0].transpose(1, 0, 2)[seqs]
        recording.xyz_m, recording.hidden = truth.coco17_m[0, seqs].astype(np.float64), ~shown
    return recording


def _studio_of(path: Path) -> Path:
    """A studio file; for the folder of a synthetic recording one is written into a temporary folder."""
    if not path.is_dir():
        return path
    path = path.resolve()
    cameras = [f.stem for f in sorted(path.glob("*.mp4"))]
    nodes = {
        "capture": {"use": "capture.video", "each": {c: f"{path}/{c}.mp4" for c in cameras}, "loop": False},
        "instants": {"use": "sync.instant", "from": "capture", "window_ms": 8, "wait_ms": 33, "min_views": 2},
        "heatmaps": {"use": "heatmap.topdown", "from": "instants", "feedback": "smooth", "engine": "blazepose.full"},
        "pose3d": {"use": "lift.algebraic", "from": "heatmaps"},
        "smooth": {"use": "smooth.one_euro", "from": "pose3d"},
    }
    studio = Path(tempfile.mkdtemp(prefix="posepipe-noise-")) / "studio.yaml"
    studio.write_text(json.dumps({"studio": "synthetic", "rig": f"{path}/rig.toml", "nodes": nodes}))  # JSON is YAML
    return studio


def _in_three_ways(topdown: TopDown, frames: Any, rois: Rois, rng: np.random.Generator) -> Any:
    network, size, joints = topdown._network, CELLS * 4, [topdown.skeleton.index(j) for j in COCO17.joints]
    (entry,) = network.card.inputs

    def look(crops: np.ndarray) -> np.ndarray:
        logits = network.engine({entry: crops})["heatmaps"][:, joints].transpose(0, 2, 3, 1)
        return (1 / (1 + np.exp(-np.clip(logits, -30, 30)))).astype(np.float16)

    def cut(where: Rois) -> np.ndarray:
        network(frames, image_from_crop(where, size=size))
        return network._batch[: len(frames)].copy()

    def heard(where: Rois, maps: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.column_stack([where.centre_px, where.side_px, where.angle_rad]), maps, hidden

    crops, nothing = cut(rois), np.zeros((len(frames), len(joints)), bool)
    plain = look(crops)
    best = plain.reshape(len(frames), -1, len(joints)).argmax(axis=1)
    at = np.stack([best % CELLS, best // CELLS], axis=-1) * 4
    hidden = nothing.copy()
    pixels = crops.transpose(0, 2, 3, 1) if network.card.preprocess.layout == "nchw" else crops
    for crop, points, covered in zip(pixels, at, hidden, strict=True):
        covered |= _cover(crop, points, rng)
    angle = rng.uniform(0, 2 * np.pi, len(frames))
    by = (rng.uniform(0.1, 0.4, len(frames)) * rois.side_px)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    shifted = Rois(rois.centre_px + by, rois.side_px, rois.angle_rad)
    return heard(rois, plain, nothing), heard(rois, look(crops), hidden), heard(shifted, look(cut(shifted)), nothing)


def _cover(crop: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put a piece of the background in front of a joint [rows,columns,3], as a box. Returns which joints [J] are behind it."""
    side = len(crop)
    half = rng.integers(10, 36, 2)
    x, y = np.clip(points[rng.integers(5, 17)] + rng.integers(-8, 9, 2), half, side - half)
    # What it is made of: the corner of the crop that has the fewest joints.
    corners = [(0, 0), (0, side - 2 * half[0]), (side - 2 * half[1], 0), (side - 2 * half[1], side - 2 * half[0])]
    inside = [((points[:, 1] - r) % side < 2 * half[1]) & ((points[:, 0] - c) % side < 2 * half[0]) for r, c in corners]
    r, c = corners[int(np.argmin([i.sum() for i in inside]))]
    piece = crop[r : r + 2 * half[1], c : c + 2 * half[0]].astype(np.float32) * rng.uniform(0.6, 1.2)
    piece += rng.uniform(0, 60) if piece.mean() < 5 else 0.0
    crop[y - half[1] : y + half[1], x - half[0] : x + half[0]] = np.clip(piece, 0, 255).astype(crop.dtype)
    return (np.abs(points[:, 0] - x) < half[0]) & (np.abs(points[:, 1] - y) < half[1])


def _filled(one: Any, at: list[int], count: int) -> Any:
    """Views by their place in the studio's order; what no camera gave is NaN."""
    empty = (np.nan, np.nan, False)
    whole = [np.full((count, *part.shape[1:]), none, part.dtype) for part, none in zip(one, empty, strict=True)]
    for target, part in zip(whole, one, strict=True):
        target[at] = part
    return whole


def points_of(rig: Rig, rois: np.ndarray, cells: np.ndarray, conf: np.ndarray, *, without: int | None = None) -> np.ndarray:
    """Skeletons [T,17,3] from key points in cells [T,C,17,2] by the robust triangulation, `without` one camera, smoothed: local quadratic fits
    over nine instants. NaN where fewer than two views agree."""
    conf = np.nan_to_num(np.where(conf >= MIN_CONF, conf, 0)).astype(np.float64)
    if without is not None:
        conf[:, without] = 0
    side_px = np.maximum(np.nan_to_num(rois[..., 2]), 1)
    rays = undistort(rig, to_px(rois, cells))
    found, _ = triangulate_sides(rig, rays, conf, mirror=_MIRROR, facing=_FACING, inlier_px=INLIER * side_px, sigma_px=SIGMA * side_px)
    return smooth(found.xyz_m)


def smooth(xyz_m: np.ndarray) -> np.ndarray:
    """Local quadratic fits (Savitzky & Golay 1964) over nine instants [T,...]; gaps are filled in for it and stay gaps."""
    t = np.arange(-_REACH, _REACH + 1)
    taps = np.linalg.pinv(np.stack([t**0, t, t**2], axis=1))[0]
    flat = xyz_m.reshape(len(xyz_m), -1)
    out = np.full_like(flat, np.nan)
    for k in range(flat.shape[1]):
        known = np.isfinite(flat[:, k])
        if known.sum() > 2 * _REACH:
            whole = np.interp(np.arange(len(flat)), np.flatnonzero(known), flat[known, k])
            ends = np.concatenate([2 * whole[0] - whole[_REACH:0:-1], whole, 2 * whole[-1] - whole[-2 : -_REACH - 2 : -1]])
            out[:, k] = np.where(known, np.convolve(ends, taps[::-1], mode="valid"), np.nan)
    return out.reshape(xyz_m.shape)


def projected(rig: Rig, xyz_m: np.ndarray) -> np.ndarray:
    """Skeletons [T,17,3] in the videos [T,C,17,2]."""
    count, joints, _ = xyz_m.shape
    uv = project(rig, np.nan_to_num(xyz_m, nan=1e6).reshape(-1, 3)).uv_px.reshape(len(rig), count, joints, 2).transpose(1, 0, 2, 3)
    return np.where(np.isfinite(xyz_m)[:, None, :, :1], uv, np.nan)
