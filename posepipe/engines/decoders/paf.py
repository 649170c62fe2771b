"""People out of part heatmaps and part affinity fields, at the resolution of the network.

Cao et al., OpenPose: Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields (2019), sections 3.3 and 3.4, with the
assembly of the published GPU build: the pairs of all limbs together, the surest first, and persons that a limb joins become one.
Not as published: peaks are found on the network's own cells and refined by a parabola, fields are read between four cells; both instead
of pictures enlarged eight times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

import msgspec
import numba
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...pipeline.errors import EngineError
from ...pipeline.skeleton import skeleton
from ..assets import Asset
from ..models.openpose.layout import Parts, parts_of
from ..models.openpose.paint import paint, upright
from . import fills, must_be, output_of, refused, size_of, sizes_of

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
K = TypeVar("K", bound=Callable[..., object])

_MOST = 64
"""Peaks of one part that are looked at, the highest ones."""
_HUGE = 1e6
_f32, _u64 = np.float32, np.uint64
_NOT_FINITE, _NOT_FINITE_FIELD = -1, -2


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The outputs, pixels of the input per cell of them, and what counts as seen: as published with CMU's networks, but for `min_share`.

    min_peak: of a part's heatmap. min_field: of the field along a limb. min_share: of the samples along a limb that must reach it
    (published for enlarged fields: 0.95). min_parts: of a person. min_score: of a person's parts and limbs together, per part.
    """

    heatmaps: str = "heatmaps"
    fields: str = "fields"
    stride: Annotated[int, Meta(ge=1, le=256)] = 8
    min_peak: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    min_field: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    min_share: Annotated[float, Meta(gt=0, le=1)] = 0.8
    min_parts: Annotated[int, Meta(ge=1, le=25)] = 3
    min_score: Annotated[float, Meta(ge=0, le=2)] = 0.4


def must_fit(options: Options, card: Asset) -> None:
    """Refuse outputs that are not the skeleton's parts and fields, or are not `stride` times smaller than the picture."""
    parts, size = parts_of(card.skeleton), size_of(card)
    heatmaps, fields = output_of(card, options.heatmaps), output_of(card, options.fields)
    if heatmaps == fields:
        raise refused(card, f"heatmaps and fields are one output, {fields!r}", "name the heatmaps of the parts and the fields of the limbs")
    for name, maps in ((heatmaps, parts.count), (fields, int(parts.fields.max()) + 2)):
        shape = card.outputs[name].shape
        must_be(card, name, shape, f"[N,{maps} or more,h,w] for {card.skeleton}", len(shape) == 4 and not 0 <= shape[1] < maps)
        if not fills((shape[3], shape[2]), size, options.stride):
            what = f"the output {name!r} is {list(shape)}, which is not a picture of {size[0]} x {size[1]} by stride = {options.stride}"
            fit = round(size[0] / abs(shape[3]))
            good = fit and fills((shape[3], shape[2]), size, fit)
            raise refused(card, what, f"write stride = {fit}" if good else "correct size in [preprocess], or the shape of the output")


@dataclass(frozen=True, slots=True)
class Bodies:
    """P people of one picture, the surest first. points [P,J,3]: x, y in cells of the network, confidence; NaN, NaN, 0 where a part was not
    seen. score [P]: mean of parts and limbs."""

    points: F32
    score: F32


def decoder(options: Options, card: Asset) -> Callable[[Mapping[str, NDArray[Any]]], list[Bodies]]:
    """The people of every picture of a batch from a network's outputs, in pixels of its input. EngineError, see `PafDecoder.decode`."""
    reader = PafDecoder(parts_of(card.skeleton), options)

    def decode(outputs: Mapping[str, NDArray[Any]]) -> list[Bodies]:
        maps = zip(outputs[options.heatmaps], outputs[options.fields], strict=True)
        return [in_pixels(reader.decode(heatmaps, fields, where=card.name), options.stride) for heatmaps, fields in maps]

    return decode


def in_pixels(bodies: Bodies, cell_px: float) -> Bodies:
    """The same with points in pixels of a picture whose upper left corner is that of the maps, `cell_px` of them being a cell's side."""
    # Cell c stands for the pixels from c to c + 1 cell sides, and the centre of a pixel is at an integer.
    bodies.points[..., :2] = (bodies.points[..., :2] + np.float32(0.5)) * np.float32(cell_px) - np.float32(0.5)
    return bodies


def answers(options: Options, card: Asset) -> dict[str, F32]:
    """Outputs (one item) that show one upright person in a picture of the card's size."""
    parts = parts_of(card.skeleton)
    _, rows, columns = sizes_of(card, options.heatmaps)
    heatmaps, fields = paint(parts, upright(skeleton(card.skeleton).joints, rows=rows, columns=columns), rows=rows, columns=columns)
    return {options.heatmaps: heatmaps, options.fields: fields}


def _kernel(function: K) -> K:
    return cast(K, numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})(function))


class PafDecoder:
    """Decodes pictures one by one; keeps its scratch memory. Not for several threads at once."""

    def __init__(self, parts: Parts, options: Options) -> None:
        self.parts, self.options = parts, options
        self._channels = int(parts.fields.max()) + 2
        pairs = len(parts.limbs) * _MOST * _MOST
        self._peaks = np.zeros((parts.count, _MOST, 3), np.float32)
        self._count = np.zeros(parts.count, np.int64)
        self._pairs = np.zeros((pairs, 3), np.int32)
        self._pair_score, self._rank = np.zeros(pairs, np.float32), np.zeros(pairs, np.float32)

    def decode(self, heatmaps: F32, fields: F32, *, where: str = "") -> Bodies:
        """The people of one picture: heatmaps [>=J,h,w] float32, fields [2L,h,w] float32.

        Raises EngineError (naming `where`, the network) for other shapes and for numbers that are not finite.
        """
        if heatmaps.ndim != 3 or fields.ndim != 3 or len(heatmaps) < self.parts.count or len(fields) < self._channels:
            raise self._refused(
                f"heatmaps {list(heatmaps.shape)} and fields {list(fields.shape)} do not fit {self.parts.count} parts", where
            )
        if heatmaps.shape[1:] != fields.shape[1:]:
            raise self._refused(f"heatmaps {list(heatmaps.shape)} and fields {list(fields.shape)} differ in size", where)
        o, p = self.options, self.parts
        status = _find_peaks(np.ascontiguousarray(heatmaps), o.min_peak, self._peaks, self._count)
        if status == _NOT_FINITE:
            raise self._refused("the heatmaps have numbers that are not finite", where)
        n = _score_pairs(
            fields, p.limbs, p.fields, self._peaks, self._count, o.stride, o.min_peak, o.min_field, o.min_share,
            self._pairs, self._pair_score, self._rank,
        )  # fmt: skip
        if n == _NOT_FINITE_FIELD:
            raise self._refused("the affinity fields have numbers that are not finite", where)
        found = self._pairs[:n], self._pair_score[:n], self._rank[:n]
        points, score = _assemble(p.limbs, p.feet, self._peaks, self._count, *found, o.min_parts, o.min_score)
        return Bodies(points, score)

    @staticmethod
    def _refused(what: str, where: str) -> EngineError:
        hint = (
            "try another precision or runtime: `engines: {precision: fp32}`"
            if "finite" in what
            else "the card's skeleton is another network's"
        )
        return EngineError(what, where=where, hint=hint)


@_kernel
def _find_peaks(heat: Any, threshold: float, peaks: Any, count: Any) -> int:
    """Cells above the threshold and their eight neighbours, refined: peaks [J,K,3] x, y, value; the highest K when there are more."""
    height, width = heat.shape[1], heat.shape[2]
    floor = _f32(threshold)
    cells = heat.reshape(heat.size)
    for j in range(len(count)):
        n = 0
        for y in range(height):
            begin = (j * height + y) * width
            high = 0
            for x in range(width):  # one pass that becomes vector instructions; few rows have anything
                high += 0 if cells[_u64(begin + x)] <= floor else 1
            if high == 0:
                continue
            for x in range(width):
                v = cells[_u64(begin + x)]
                if v <= floor:
                    continue
                if not v < _HUGE:  # also true of NaN, which is above no floor and below none
                    return _NOT_FINITE
                if not _is_peak(cells, begin, y, x, height, width):
                    continue
                at = n
                if n == _MOST:
                    at = 0
                    for k in range(1, _MOST):
                        if peaks[j, k, 2] < peaks[j, at, 2]:
                            at = k
                    if peaks[j, at, 2] >= v:
                        continue
                else:
                    n += 1
                peaks[j, at, 0] = x + (_shift(heat[j, y, x - 1], v, heat[j, y, x + 1]) if 0 < x < width - 1 else 0.0)
                peaks[j, at, 1] = y + (_shift(heat[j, y - 1, x], v, heat[j, y + 1, x]) if 0 < y < height - 1 else 0.0)
                peaks[j, at, 2] = v
        count[j] = n
    return 0


@_kernel
def _is_peak(cells: Any, begin: int, y: int, x: int, height: int, width: int) -> bool:
    """Above all neighbours; of equal ones the last is it. The picture's edge is no neighbour. begin: of row y in `cells`."""
    at = begin + x
    v = cells[_u64(at)]
    if (x > 0 and cells[_u64(at - 1)] > v) or (x < width - 1 and cells[_u64(at + 1)] >= v):
        return False
    for dx in range(-1 if x > 0 else 0, 2 if x < width - 1 else 1):
        if (y > 0 and cells[_u64(at - width + dx)] > v) or (y < height - 1 and cells[_u64(at + width + dx)] >= v):
            return False
    return True


@_kernel
def _shift(before: float, value: float, after: float) -> float:
    """Where the parabola through three neighbours is highest; through their logarithms where all are above zero (exact for a Gaussian)."""
    if before > 0 and after > 0:
        before, value, after = np.log(before), np.log(value), np.log(after)
    bend = before + after - 2 * value
    if bend >= 0:
        return 0.0
    return min(max(0.5 * (before - after) / bend, -0.5), 0.5)


@_kernel
def _score_pairs(
    paf: Any, limbs: Any, fields: Any, peaks: Any, count: Any, stride: int, min_peak: float, min_field: float, min_share: float,
    pairs: Any, score: Any, rank: Any,
) -> int:  # fmt: skip
    """Pairs of peaks that a limb's field joins: pairs [n] (limb, peak of A, peak of B), their score, and what they are sorted by."""
    height, width = paf.shape[1], paf.shape[2]
    near = np.sqrt(height * width * 1.0) * stride / 150  # so short a limb has no field to speak of
    floor = _f32(min_field)
    n = 0
    for limb in range(len(limbs)):
        a, b = limbs[limb, 0], limbs[limb, 1]
        along_x, along_y = paf[fields[limb]], paf[fields[limb] + 1]
        for i in range(count[a]):
            for k in range(count[b]):
                x, y = peaks[a, i, 0], peaks[a, i, 1]
                dx, dy = peaks[b, k, 0] - x, peaks[b, k, 1] - y
                length = np.sqrt(dx * dx + dy * dy)
                if length <= 1e-6:
                    continue
                samples = int(min(max(np.rint(np.sqrt(5 * stride * max(abs(dx), abs(dy)))), 5), 25))
                may_miss = int(samples * (1 - min_share) + 1e-6)
                step_x, step_y, ux, uy = dx / _f32(samples), dy / _f32(samples), dx / length, dy / length
                missed, total = 0, _f32(0)
                s = samples // 2  # from the middle on: of a wrong pair, that is where nothing is
                for _ in range(samples):
                    px, py = x + _f32(s) * step_x, y + _f32(s) * step_y
                    x0, y0 = min(max(int(px), 0), width - 2), min(max(int(py), 0), height - 2)
                    wx, wy = min(max(px - _f32(x0), _f32(0)), _f32(1)), min(max(py - _f32(y0), _f32(0)), _f32(1))
                    above = ux * along_x[y0, x0] + uy * along_y[y0, x0]
                    above += wx * (ux * along_x[y0, x0 + 1] + uy * along_y[y0, x0 + 1] - above)
                    below = ux * along_x[y0 + 1, x0] + uy * along_y[y0 + 1, x0]
                    below += wx * (ux * along_x[y0 + 1, x0 + 1] + uy * along_y[y0 + 1, x0 + 1] - below)
                    along = above + wy * (below - above)
                    if along <= floor:
                        missed += 1
                        if missed > may_miss:
                            break
                    elif along < _HUGE:
                        total += along
                    else:
                        return _NOT_FINITE_FIELD
                    s += 1
                    if s == samples:
                        s = 0
                if missed <= may_miss and missed < samples:
                    value = total / _f32(samples - missed)
                elif length * stride < near:
                    value = _f32(min_peak + 1e-6)
                else:
                    continue
                pairs[n, 0], pairs[n, 1], pairs[n, 2] = limb, i, k
                score[n] = value
                rank[n] = -(value + 0.1 * (peaks[a, i, 2] + peaks[b, k, 2]))
                n += 1
    return n


@_kernel
def _assemble(
    limbs: Any, feet: Any, peaks: Any, count: Any, pairs: Any, pair_score: Any, rank: Any, min_parts: int, min_score: float
) -> Any:
    """Persons from pairs, the surest pair first: points [P,J,3] and score [P], the surest person first."""
    joints = len(feet)
    most = min(len(pairs), joints * _MOST) + 1
    owner = np.full((joints, _MOST), -1, np.int32)
    part = np.full((most, joints), -1, np.int32)
    score, number = np.zeros(most, np.float32), np.zeros(most, np.int32)
    people = 0
    for at in np.argsort(rank, kind="mergesort"):
        limb, i, k = pairs[at, 0], pairs[at, 1], pairs[at, 2]
        a, b = limbs[limb, 0], limbs[limb, 1]
        of_a, of_b = owner[a, i], owner[b, k]
        if of_a < 0 and of_b < 0:
            owner[a, i] = owner[b, k] = people
            part[people, a], part[people, b] = i, k
            score[people] = peaks[a, i, 2] + peaks[b, k, 2] + pair_score[at]
            number[people] = 2
            people += 1
        elif of_a < 0 or of_b < 0:
            one, joint, peak = (of_b, a, i) if of_a < 0 else (of_a, b, k)
            if part[one, joint] < 0:
                part[one, joint] = peak
                owner[joint, peak] = one
                score[one] += peaks[joint, peak, 2] + pair_score[at]
                number[one] += 1
        elif of_a == of_b:
            score[of_a] += pair_score[at]
        else:
            apart = True
            for j in range(joints):
                apart = apart and (part[of_a, j] < 0 or part[of_b, j] < 0)
            if apart:
                for j in range(joints):
                    if part[of_b, j] >= 0:
                        part[of_a, j] = part[of_b, j]
                        owner[j, part[of_b, j]] = of_a
                score[of_a] += score[of_b] + pair_score[at]
                number[of_a] += number[of_b]
                number[of_b] = 0
    kept = _kept(part, number, score, feet, people, min_parts, min_score, True)
    if not len(kept):
        kept = _kept(part, number, score, feet, people, min_parts, min_score, False)
    points, mean = np.full((len(kept), joints, 3), np.nan, np.float32), np.empty(len(kept), np.float32)
    for p in range(len(kept)):
        mean[p] = score[kept[p]] / number[kept[p]]
        for j in range(joints):
            points[p, j, 2] = 0.0
            if part[kept[p], j] >= 0:
                points[p, j] = peaks[j, part[kept[p], j]]
    order = np.argsort(-mean, kind="mergesort")
    return points[order], mean[order]


@_kernel
def _kept(part: Any, number: Any, score: Any, feet: Any, people: int, min_parts: int, min_score: float, strict: bool) -> Any:
    """Who has enough parts, surely enough seen. strict: feet do not count, and with hardly a body they are nobody."""
    found = np.empty(people, np.int64)
    n = 0
    for p in range(people):
        foot = 0
        for j in range(len(feet)):
            if feet[j] and part[p, j] >= 0:
                foot += 1
        body = number[p] - (foot if strict else 0)
        if number[p] == 0 or body < min_parts or score[p] < min_score * number[p]:
            continue
        if strict and foot > 0 and body <= 4:
            continue
        found[n] = p
        n += 1
    return found[:n]
