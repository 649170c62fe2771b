"""Figures of heatmaps and their errors, the same for what a network gave and for what was generated. Support of fit_noise.py."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from noise_seen import CELLS, Heard, Recording, points_of, projected, to_cells, to_px

from posepipe.calib import mirror_of
from posepipe.calib.samples import behind_itself
from posepipe.calib.synthetic_noise_stats import GROUP_OF, GROUPS
from posepipe.engines.decoders.heatmaps import decode_maps
from posepipe.pipeline.skeleton import COCO17

_MIRROR = mirror_of(COCO17)
_SHOULDERS_ON = np.arange(5, 17)
_APART, _HALFWAY = 0.04, 0.5
KINDS = ("seen", "behind itself", "covered", "outside")


@dataclass(slots=True)
class Figures:
    """Of M joints in views. kind [M] index into KINDS; joint [M]; error [M] shares of the side, offset [M,2] too; logit [M] of the peak;
    radius [M] cells, of the disc as large as what is above half of the peak; second [M] logits by which the next peak is lower (inf: no other);
    swapped [M]: nearer to the other side's joint, these being apart. at [M,3]: recording, instant, view."""

    kind: np.ndarray
    joint: np.ndarray
    error: np.ndarray
    offset: np.ndarray
    logit: np.ndarray
    radius: np.ndarray
    second: np.ndarray
    swapped: np.ndarray
    at: np.ndarray

    def of(self, group: str | None, *kinds: str) -> np.ndarray:
        """Which joints are of a group and of these kinds [M]."""
        chosen = np.isin(self.kind, [KINDS.index(k) for k in kinds])
        return chosen if group is None else chosen & (GROUP_OF[self.joint] == GROUPS.index(group))


def joined(parts: list[Figures]) -> Figures:
    return Figures(*(np.concatenate([getattr(p, f) for p in parts]) for f in Figures.__slots__))


def logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-4, 1 - 1e-4)
    return np.log(p / (1 - p))


def read(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Peaks [T,C,17,2] in cells, and confidences [T,C,17], of maps [T,C,64,64,17], by the decoder of the network."""
    flat = np.ascontiguousarray(maps.reshape(-1, CELLS, CELLS, 17).transpose(0, 3, 1, 2), np.float32)
    cells, conf = decode_maps(flat, channels=np.arange(17), refine="centroid", logits=False, cell_px=(1.0, 1.0), offset_px=0.0)
    nothing = ~(conf > 0)
    cells[nothing] = np.nan
    return cells.reshape(*maps.shape[:2], 17, 2).astype(np.float64), np.nan_to_num(conf).reshape(*maps.shape[:2], 17).astype(np.float64)


def shape_of(maps: np.ndarray, conf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radius and second [T,C,17] as of `Figures`."""
    flat = np.nan_to_num(maps.reshape(-1, CELLS, CELLS, 17)).astype(np.float32)
    peak = conf.reshape(-1, 17)
    radius, second = np.empty(peak.shape), np.full(peak.shape, np.inf)
    for n, view in enumerate(flat):
        radius[n] = np.sqrt((view > 0.5 * peak[n]).sum(axis=(0, 1)) / np.pi)
        tops = (view == cv2.dilate(view, np.ones((7, 7), np.uint8))) & (view > 0.02)
        for j in range(17):
            heights = np.sort(view[:, :, j][tops[:, :, j]])
            if len(heights) > 1 and heights[-2] < peak[n, j]:
                second[n, j] = logit(peak[n, j]) - logit(heights[-2])
    return radius.reshape(conf.shape), second.reshape(conf.shape)


def skeletons(recording: Recording) -> np.ndarray:
    """[T,17,3]: the truth, else from all cameras."""
    if recording.xyz_m is not None:
        return recording.xyz_m
    return points_of(recording.rig, recording.plain.rois, *read(recording.plain.maps))


def hidden_by_itself(recording: Recording, xyz_m: np.ndarray) -> np.ndarray:
    """[T,C,17] what a body itself hides; with a truth, what anything does."""
    if recording.hidden is not None:
        return recording.hidden
    return np.stack([behind_itself(recording.rig, np.nan_to_num(one)) for one in xyz_m])


def figures(recording: Recording, number: int = 0) -> Figures:
    """Errors against the truth, or against the other cameras, less the median offset of the camera's body joints (its calibration's error)."""
    cells, conf = read(recording.plain.maps)
    truth = np.full(cells.shape, np.nan)
    if recording.xyz_m is not None:
        truth = projected(recording.rig, recording.xyz_m)
    for c in range(len(recording.rig)) if recording.xyz_m is None else ():
        uv = projected(recording.rig, points_of(recording.rig, recording.plain.rois, cells, conf, without=c))[:, c]
        off = to_px(recording.plain.rois[:, c], cells[:, c]) - uv
        truth[:, c] = uv + np.nanmedian(off[:, _SHOULDERS_ON], axis=(0, 1))
    behind = hidden_by_itself(recording, skeletons(recording))
    parts = []
    for name in ("plain", "covered", "shifted"):
        way: Heard = getattr(recording, name)
        found, height = (cells, conf) if name == "plain" else read(way.maps)
        at = to_cells(way.rois, truth)
        outside = ((at < -0.5) | (at > CELLS - 0.5)).any(axis=-1)
        kind = np.where(outside, 3, np.where(way.hidden, 2, np.where(behind, 1, 0)))
        wanted = (
            np.isfinite(at).all(-1) & np.isfinite(found).all(-1) & {"plain": kind < 2, "covered": kind == 2, "shifted": kind == 3}[name]
        )
        offset = (found - at) / CELLS
        error, other = np.linalg.norm(offset, axis=-1), np.linalg.norm(found - at[:, :, _MIRROR], axis=-1) / CELLS
        apart = np.linalg.norm(at - at[:, :, _MIRROR], axis=-1) / CELLS
        swapped = (other < _HALFWAY * error) & (apart > _APART)
        radius, second = shape_of(way.maps, height)
        t, c, j = np.nonzero(wanted)
        parts.append(
            Figures(
                kind[wanted],
                j,
                error[wanted],
                offset[wanted],
                logit(height[wanted]),
                radius[wanted],
                second[wanted],
                swapped[wanted],
                np.column_stack([np.full(len(t), number), t, c]),
            )
        )
    return joined(parts)
