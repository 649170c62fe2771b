"""SimCC: every joint as two distributions, one along x and one along y, finer than pixels (Li et al. 2022; RTMPose, Jiang et al. 2023).

Confidence is the lower of the two peaks, as mmpose's get_simcc_maximum takes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numba
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...pipeline.skeleton import skeleton
from ..assets import Asset
from . import Decoder, Joints, Outputs, figure, must_be, must_be_finite, output_of, refused, size_of, sizes_of

F32 = NDArray[np.float32]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """x, y: outputs [N,J,bins]. split: bins a pixel. refine: `argmax`, or `soft`, the mean of the bins within `split` pixels of the peak
    weighted by exp(sharpness x value), which RTMPose's loss makes the probability with its sharpness of 10.
    """

    x: str = "simcc_x"
    y: str = "simcc_y"
    split: Annotated[float, Meta(ge=0.25, le=64)] = 2.0
    refine: Literal["argmax", "soft"] = "argmax"
    sharpness: Annotated[float, Meta(gt=0, le=1000)] = 10.0


def must_fit(options: Options, card: Asset) -> None:
    """Refuse outputs that are not two, or have not `split` bins for every pixel."""
    x, y = output_of(card, options.x), output_of(card, options.y)
    if x == y:
        raise refused(card, f"x and y are one output, {x!r}", "name the distributions along x and those along y")
    _must_be_bins(options, card, (x, y), (card.outputs[x].shape, card.outputs[y].shape))


def _must_be_bins(options: Options, card: Asset, names: tuple[str, str], shapes: tuple[Sequence[int], Sequence[int]]) -> None:
    joints, size = len(skeleton(card.skeleton).joints), size_of(card)
    for name, shape in zip(names, shapes, strict=True):
        must_be(card, name, shape, f"[N,{joints},bins] for {card.skeleton}", len(shape) == 3 and shape[1] in (-1, joints))
    bins = [shape[2] for shape in shapes]
    if all(n < 0 or abs(n - pixels * options.split) < 1 for n, pixels in zip(bins, size, strict=True)):
        return
    hint = "correct split in [decoder], size in [preprocess], or the shape of the outputs"
    if all(n < 0 or abs(n - pixels * options.split) < 1 for n, pixels in zip(bins, reversed(size), strict=True)):
        hint = "x and y are each other's in [decoder]"
    elif min(bins) > 0 and bins[0] * size[1] == bins[1] * size[0]:
        hint = f"write split = {bins[0] / size[0]:g}"
    given = f"{names[0]!r} and {names[1]!r} have {bins[0]} and {bins[1]} bins"
    raise refused(card, f"{given}, not {options.split:g} for every pixel of a picture of {size[0]} x {size[1]}", hint)


def decoder(options: Options, card: Asset) -> Decoder:
    """Outputs [N,J,Wx] and [N,J,Wy] -> `Joints`."""
    x, y = output_of(card, options.x), output_of(card, options.y)
    reach = max(1, round(2 * options.split)) if options.refine == "soft" else 0

    def decode(outputs: Outputs) -> Joints:
        bins = outputs[x], outputs[y]
        _must_be_bins(options, card, (x, y), (bins[0].shape, bins[1].shape))
        best = [line.argmax(axis=2) for line in bins]  # NaN is the largest for argmax, so that it is seen below
        peaks = [np.take_along_axis(line, i[..., None], axis=2)[..., 0] for line, i in zip(bins, best, strict=True)]
        conf = np.minimum(*peaks).astype(np.float32)
        must_be_finite(card, {x: bins[0], y: bins[1]}, conf)
        places = [_means(line, i, reach, options.sharpness) for line, i in zip(bins, best, strict=True)] if reach else best
        uv_px = np.stack(places, axis=-1).astype(np.float32) / np.float32(options.split)
        return Joints(uv_px, np.clip(conf, 0, 1))

    return decode


def answers(options: Options, card: Asset) -> dict[str, NDArray[Any]]:
    """One item of every output: peaks of 0.98 for an upright person."""
    at = figure(skeleton(card.skeleton).joints)
    found = {}
    for axis, name in enumerate((options.x, options.y)):
        bins = sizes_of(card, name)[1]
        found[name] = (0.98 * np.exp(-((np.arange(bins) - np.round(at[:, axis, None] * bins)) ** 2) / 18)).astype(np.float32)
    return found


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _means(line: Any, best: Any, reach: int, sharpness: float) -> Any:
    """[N,J] the mean place of the bins around the highest one."""
    at = np.empty(best.shape, np.float32)
    for n in range(line.shape[0]):
        for j in range(line.shape[1]):
            bins, peak = line[n, j], best[n, j]
            weights, places = 0.0, 0.0
            for i in range(max(0, peak - reach), min(len(bins), peak + reach + 1)):
                w = math.exp(sharpness * (bins[i] - bins[peak]))
                weights += w
                places += w * i
            at[n, j] = places / weights
    return at
