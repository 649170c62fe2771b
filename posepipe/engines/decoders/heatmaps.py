"""Heatmaps: one map per joint, its peak found and refined. BlazePose, SimpleBaseline, HRNet and their like.

Refinements: `argmax`, the peak's cell; `quarter`, a quarter cell towards the higher neighbour (Newell et al. 2016, as mmpose has it);
`dark`, Newton's step on the logarithm of the smoothed map (Zhang et al. 2020, eq. 3-9); `centroid`, the mean of the cells around the peak,
weighted by their probabilities (MediaPipe's refine_landmarks_from_heatmap_calculator).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec
import numba
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...pipeline.errors import PullError
from ...pipeline.skeleton import COCO17, skeleton
from ..assets import Asset
from . import Decoder, Joints, MapLayout, Outputs, figure, fills, must_be, must_be_finite, output_of, refused, size_of, sizes_of

F32 = NDArray[np.float32]
_REFINE = {"argmax": 0, "quarter": 1, "dark": 2, "centroid": 3}


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """output: its name; empty: the only one. channel of joint j: j, or channels[j]. values: of a cell. cell_px: pixels of the input from
    cell to cell (0: as many as the sizes say), such that the maps cover the picture to within a cell; cell 0 lies at offset_px.
    radius: of the window of `centroid`, cells. sigma: of the Gaussian that smooths for `dark`, cells.
    """

    output: str = ""
    layout: Literal["nchw", "nhwc"] = "nchw"
    values: Literal["logits", "probabilities"] = "probabilities"
    refine: Literal["argmax", "quarter", "dark", "centroid"] = "dark"
    channels: tuple[Annotated[int, Meta(ge=0, le=65535)], ...] = ()
    cell_px: Annotated[float, Meta(ge=0, le=256)] = 0.0
    offset_px: Annotated[float, Meta(ge=-256, le=256)] = 0.0
    radius: Annotated[int, Meta(ge=1, le=16)] = 3
    sigma: Annotated[float, Meta(ge=0.1, le=8)] = 2.0


def must_fit(options: Options, card: Asset) -> None:
    """Refuse channels that are not one for every joint, and maps that are too few or have not the shape of the picture."""
    name, joints = output_of(card, options.output), len(skeleton(card.skeleton).joints)
    if options.channels and len(options.channels) != joints:
        what = f"channels names {len(options.channels)} maps, the skeleton {card.skeleton} has {joints} joints"
        raise refused(card, what, "write the map of every joint, in the order of the skeleton, or leave channels out: joint j is map j")
    _must_be_maps(options, card, name, card.outputs[name].shape)


def _must_be_maps(options: Options, card: Asset, name: str, shape: Sequence[int]) -> None:
    joints, size = len(skeleton(card.skeleton).joints), size_of(card)
    most = max(options.channels or range(joints))
    wanted = f"at least {most + 1} maps for the {joints} joints of {card.skeleton}"
    must_be(card, name, shape, wanted, len(shape) == 4 and not 0 <= _split(shape, options.layout)[0] <= most)
    cells = _split(shape, options.layout)[1]
    if fills(cells, size, options.cell_px):
        return
    other: Literal["nchw", "nhwc"] = "nhwc" if options.layout == "nchw" else "nchw"
    maps, hint = f"heatmaps of {cells[0]} x {cells[1]} cells", "give the size in the card that the network was made for"
    if fills(_split(shape, other)[1], size, options.cell_px):
        hint = f'write layout = "{other}" in [decoder]'
    elif fills(cells, size):
        maps, hint = f"{maps} of {options.cell_px:g} px", f"leave cell_px out: it is {size[0] / cells[0]:g} by the sizes"
    raise refused(card, f"the output {name!r} is {list(shape)}: as {options.layout}, {maps} for a picture of {size[0]} x {size[1]}", hint)


def _split(shape: Sequence[int], layout: Literal["nchw", "nhwc"]) -> tuple[int, tuple[int, int]]:
    """How many maps an output [N,K,h,w] or [N,h,w,K] has, and their width and height."""
    return (shape[1], (shape[3], shape[2])) if layout == "nchw" else (shape[3], (shape[2], shape[1]))


def decoder(options: Options, card: Asset) -> Decoder:
    """Outputs [N,K,h,w] -> `Joints`."""
    name, joints = output_of(card, options.output), len(skeleton(card.skeleton).joints)
    wide, high = size_of(card)
    channels = np.array(options.channels or range(joints), np.int64)

    def decode(outputs: Outputs) -> Joints:
        _must_be_maps(options, card, name, outputs[name].shape)
        maps = outputs[name] if options.layout == "nchw" else np.moveaxis(outputs[name], -1, 1)
        cell = (options.cell_px or wide / maps.shape[3], options.cell_px or high / maps.shape[2])
        uv_px, conf = decode_maps(
            maps, channels=channels, refine=options.refine, logits=options.values == "logits", cell_px=cell,
            offset_px=options.offset_px, radius=options.radius, sigma=options.sigma,
        )  # fmt: skip
        must_be_finite(card, {name: outputs[name]}, uv_px, conf)
        return Joints(uv_px, conf)

    return decode


def maps_decoder(options: Options, card: Asset) -> tuple[Decoder, MapLayout]:
    """As `decoder`, with the maps of coco17's joints as probabilities, channel last; and where their cells lie.

    PullError for a network whose maps cannot be told apart from its card: no fixed size, cells that are not square, a layout without
    coco17's joints.
    """
    name, joints, here = output_of(card, options.output), skeleton(card.skeleton).joints, f"[{card.name}.outputs]"
    if absent := [j for j in COCO17.joints if j not in joints]:
        raise PullError(f"its skeleton {card.skeleton} has no {absent[0]}, so it has no heatmaps of coco17", where=here)
    shape = card.outputs[name].shape
    high, wide = (shape[2], shape[3]) if options.layout == "nchw" else (shape[1], shape[2])
    across, down = size_of(card)
    cell_px = options.cell_px or across / wide
    if min(high, wide) < 2 or (not options.cell_px and across * high != down * wide):
        raise PullError(
            f"heatmaps of {wide} x {high} cells for a picture of {across} x {down}", where=here, hint="give the size in the card"
        )
    own = options.channels or range(len(joints))
    channels = np.array([own[joints.index(j)] for j in COCO17.joints], np.int64)
    decode = decoder(options, card)

    def decode_with_maps(outputs: Outputs) -> Joints:
        found: Joints = decode(outputs)
        maps = outputs[name] if options.layout == "nchw" else np.moveaxis(outputs[name], -1, 1)
        return replace(found, maps=probabilities(maps, channels=channels, logits=options.values == "logits"))

    return decode_with_maps, MapLayout((wide, high), cell_px, options.offset_px)


def probabilities(maps: F32, *, channels: NDArray[np.int64], logits: bool) -> F32:
    """Some channels of maps [N,K,h,w] as probabilities 0..1, channel last [N,h,w,len(channels)]."""
    picked = np.empty((len(maps), *maps.shape[2:], len(channels)), np.float32)
    if not logits:
        _pick(maps, channels, np.float32(1), np.float32(1), picked)
        return np.clip(picked, 0, 1, out=picked)
    _pick(maps, channels, np.float32(-1), np.float32(80), picked)
    np.exp(picked, out=picked)  # numpy's exponential runs on whole vectors, numba's does not
    picked += np.float32(1)
    return np.reciprocal(picked, out=picked)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _pick(maps: Any, channels: Any, factor: Any, most: Any, out: Any) -> None:
    for n in range(out.shape[0]):
        for r in range(out.shape[1]):
            for j in range(out.shape[3]):
                row = maps[n, channels[j], r]
                for c in range(out.shape[2]):
                    value = factor * row[c]
                    out[n, r, c, j] = most if value > most else value


def answers(options: Options, card: Asset) -> dict[str, NDArray[Any]]:
    """One item of every output: one peak (0.98) per joint of an upright person."""
    name = output_of(card, options.output)
    shape = sizes_of(card, name)
    k, high, wide = shape if options.layout == "nchw" else (shape[2], *shape[:2])
    layout = skeleton(card.skeleton).joints
    maps: F32 = np.full((k, high, wide), -10.0, np.float32)
    r, c = np.mgrid[:high, :wide]
    for channel, (x, y) in zip(options.channels or range(len(layout)), figure(layout), strict=False):
        maps[channel] = np.maximum(4.0 - ((c - wide * x) ** 2 + (r - high * y) ** 2), -10.0)
    if options.values == "probabilities":
        maps = (1 / (1 + np.exp(-maps))).astype(np.float32)
    return {name: maps if options.layout == "nchw" else np.ascontiguousarray(maps.transpose(1, 2, 0))}


def decode_maps(
    maps: F32,
    *,
    channels: NDArray[np.int64],
    refine: Literal["argmax", "quarter", "dark", "centroid"],
    logits: bool,
    cell_px: tuple[float, float],
    offset_px: float,
    radius: int = 3,
    sigma: float = 2.0,
) -> tuple[F32, F32]:
    """Key points uv_px [N,J,2] and conf [N,J] of maps [N,K,h,w]; a map without a finite number gives NaN and 0. Options as of `Options`."""
    n, joints = len(maps), len(channels)
    uv_px, conf = np.empty((n, joints, 2), np.float32), np.empty((n, joints), np.float32)
    reach = math.ceil(2.5 * sigma)
    taps = np.exp(-((np.arange(2 * reach + 1) - reach) ** 2) / (2 * sigma**2))
    _decode(maps, channels, _REFINE[refine], logits, radius, taps, cell_px, offset_px, uv_px, conf)
    return uv_px, conf


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _decode(
    maps: Any,
    channels: Any,
    refine: int,
    logits: bool,
    radius: int,
    taps: Any,
    cell: tuple[float, float],
    offset: float,
    uv: Any,
    conf: Any,
) -> None:
    _, _, height, width = maps.shape
    column_max = np.empty(width, np.float32)
    near = np.empty((5, 5))
    for n in range(conf.shape[0]):
        for j in range(conf.shape[1]):
            one = maps[n, channels[j]]
            # Maximum of every column first: that loop runs on whole vectors, and finding the peak then takes one column.
            column_max[:] = -np.inf
            for r in range(height):
                row = one[r]
                for c in range(width):
                    column_max[c] = row[c] if row[c] > column_max[c] else column_max[c]
            peak_c = 0
            for c in range(1, width):
                if column_max[c] > column_max[peak_c]:
                    peak_c = c
            peak = column_max[peak_c]
            if not math.isfinite(peak):
                uv[n, j, 0] = uv[n, j, 1] = np.nan
                conf[n, j] = 0.0
                continue
            peak_r = 0
            while one[peak_r, peak_c] != peak:
                peak_r += 1
            conf[n, j] = _probability(peak, logits)
            x, y = float(peak_c), float(peak_r)
            if refine == 1:
                if 0 < peak_c < width - 1:
                    x += 0.25 * np.sign(one[peak_r, peak_c + 1] - one[peak_r, peak_c - 1])
                if 0 < peak_r < height - 1:
                    y += 0.25 * np.sign(one[peak_r + 1, peak_c] - one[peak_r - 1, peak_c])
            elif refine == 2 and 1 < peak_c < width - 2 and 1 < peak_r < height - 2:
                _smooth(one, peak_r, peak_c, logits, taps, near)
                dx, dy = _newton(near)
                x, y = x + dx, y + dy
            elif refine == 3:
                total, sum_r, sum_c = 0.0, 0.0, 0.0
                for r in range(max(0, peak_r - radius), min(height, peak_r + radius + 1)):
                    for c in range(max(0, peak_c - radius), min(width, peak_c + radius + 1)):
                        w = _probability(one[r, c], logits)
                        if w == w:
                            total += w
                            sum_r += w * r
                            sum_c += w * c
                if total > 0:
                    x, y = sum_c / total, sum_r / total
            uv[n, j, 0], uv[n, j, 1] = x * cell[0] + offset, y * cell[1] + offset


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _probability(value: float, logits: bool) -> float:
    return 1.0 / (1.0 + math.exp(-value)) if logits else min(max(value, 0.0), 1.0)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _smooth(one: Any, peak_r: int, peak_c: int, logits: bool, taps: Any, near: Any) -> None:
    """The 5 x 5 cells around the peak of the map after a Gaussian, as logarithms; what lies outside the map is 0."""
    height, width = one.shape
    reach = len(taps) // 2
    rows = np.zeros((5 + 2 * reach, 5))
    for i in range(5 + 2 * reach):
        r = peak_r - 2 - reach + i
        if 0 <= r < height:
            for k in range(5):
                for t in range(len(taps)):
                    c = peak_c - 2 + k - reach + t
                    if 0 <= c < width:
                        rows[i, k] += taps[t] * _probability(one[r, c], logits)
    for i in range(5):
        for k in range(5):
            total = 0.0
            for t in range(len(taps)):
                total += taps[t] * rows[i + t, k]
            near[i, k] = math.log(max(total, 1e-10))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _newton(v: Any) -> tuple[float, float]:
    """From the middle of 5 x 5 values to the maximum of the parabola through them; a step beyond the next cell is none."""
    dx, dy = 0.5 * (v[2, 3] - v[2, 1]), 0.5 * (v[3, 2] - v[1, 2])
    dxx, dyy = 0.25 * (v[2, 4] - 2 * v[2, 2] + v[2, 0]), 0.25 * (v[4, 2] - 2 * v[2, 2] + v[0, 2])
    dxy = 0.25 * (v[3, 3] - v[1, 3] - v[3, 1] + v[1, 1])
    det = dxx * dyy - dxy * dxy
    if det <= 0 or dxx >= 0:
        return 0.0, 0.0
    x, y = (dxy * dy - dyy * dx) / det, (dxy * dx - dxx * dy) / det
    return (x, y) if abs(x) <= 1.5 and abs(y) <= 1.5 else (0.0, 0.0)
