"""The compiled part of `crop`: one pass from YUV planes to a crop in the form that a network takes.

A plane is reduced to means of k x k pixels (groups) where the crop sees it, sampled with bilinear weights, and converted row by row. The loops
are kept apart and simple, so that the compiler makes vector instructions of every one; only the look-up of four neighbours by one index (a
quad: four bytes in one number) runs pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., object])

# Pixels are averaged in groups while the crop would still skip more than this many of them at a step.
_KEEP = 1.6
_FAR = 1e9
_MOST = 16  # sums of 16 x 16 pixels still fit 16 bits; a larger step needs a picture of more than 5000 pixels
_f32, _i32, _u64, _u32, _u16, _u8 = np.float32, np.int32, np.uint64, np.uint32, np.uint16, np.uint8


def _kernel(function: F) -> F:
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})(function))


@_kernel
def cut(
    y: Any, u: Any, v: Any, luma: Any, chroma: Any, frame_from_crop: Any, colours: Any, planar: bool, order: Any, scale: Any, out: Any
) -> bool:
    """One crop into `out` [H,W,3], planar: [3,H,W]; False, and nothing written, when the map is not of finite numbers below _FAR.

    y, u, v: flat bytes of the planes; of interleaved chroma, `u` begins with the first value of U and `v` with the first of V.
    luma, chroma: (height, width, bytes from row to row, bytes from pixel to pixel). frame_from_crop float64 [2,3].
    colours float64 [7]: black luma and chroma, the gain of luma, what V adds to red, U and V to green, U to blue.
    order int64 [3]: which of red, green, blue each channel of `out` is. scale float32 [3,2]: a channel is factor x colour 0..255 + summand;
    [0,2]: every channel is the colour itself.
    """
    for i in range(2):
        for j in range(3):
            if not abs(frame_from_crop[i, j]) < _FAR:
                return False
    height, width = (out.shape[1], out.shape[2]) if planar else (out.shape[0], out.shape[1])
    # A chroma pixel j lies over luma pixels 2j and 2j + 1, in the crop as in the frame.
    chroma_from_chroma = frame_from_crop.copy()
    for i in range(2):
        chroma_from_chroma[i, 2] = (frame_from_crop[i, 2] + 0.5 * (frame_from_crop[i, 0] + frame_from_crop[i, 1]) - 0.5) / 2
    part_y, map_y = _part(luma, frame_from_crop, height, width)
    part_c, map_c = _part(chroma, chroma_from_chroma, height // 2, width // 2)
    quads_y = _reduce(y, luma, part_y, map_y, height, width, _u8(colours[0]))
    quads_u = _reduce(u, chroma, part_c, map_c, height // 2, width // 2, _u8(colours[1]))
    quads_v = _reduce(v, chroma, part_c, map_c, height // 2, width // 2, _u8(colours[1]))
    at, quad, ramp = np.empty(width, _i32), np.empty(width, _u32), np.arange(width).astype(_f32)
    share_x, share_y = np.empty(width, _f32), np.empty(width, _f32)
    row_u, row_v, row_y = np.empty(width // 2, _f32), np.empty(width // 2, _f32), np.empty(width, _f32)
    half, tint, rgb = np.empty(width // 2, _f32), np.empty((3, width), _f32), np.empty((3, width), _u8)
    shares = np.array([[0.0, colours[3]], [colours[4], colours[5]], [colours[6], 0.0]]).astype(_f32)
    for r in range(height):
        if r % 2 == 0:
            n = width // 2
            _place(map_c, r // 2, quads_u.shape, ramp, at[:n], share_x, share_y)
            _sample(quads_u, at[:n], quad, share_x, share_y, row_u)
            _sample(quads_v, at[:n], quad, share_x, share_y, row_v)
            for channel in range(3):
                _tint(row_u, row_v, _f32(colours[1]), shares[channel, 0], shares[channel, 1], half, tint[channel])
        _place(map_y, r, quads_y.shape, ramp, at, share_x, share_y)
        _sample(quads_y, at, quad, share_x, share_y, row_y)
        _convert(row_y, tint, colours, rgb)
        if planar:
            for channel in range(3):
                _plane(rgb[order[channel]], scale, channel, out[channel, r])
        elif len(scale):
            for channel in range(3):
                _channel(rgb[order[channel]], scale, channel, out[r])
        else:
            _interleave(rgb[order[0]], rgb[order[1]], rgb[order[2]], out[r])
    return True


@_kernel
def _part(plane: Any, plane_from_out: Any, height: int, width: int) -> Any:
    """The part of a plane that `out` [height,width] sees, as (x0, y0, groups across, groups down, k), and the map from `out` to groups.

    In that map [2,3] group (1, 1) is the first of the part: there is a border before it.
    """
    m = plane_from_out
    step = np.sqrt(abs(m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]))
    k = 1
    while k < _MOST and step > _KEEP * k:
        k *= 2
    begins, counts = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for i in range(2):
        low, high = m[i, 2], m[i, 2]
        for j, n in ((0, width), (1, height)):
            low += min(-0.5 * m[i, j], (n - 0.5) * m[i, j])
            high += max(-0.5 * m[i, j], (n - 0.5) * m[i, j])
        # Groups begin at multiples of k, so that those of the usual sizes end where the plane ends. A sample touches two of them.
        whole = plane[1 - i] // k
        begins[i] = int(min(max(np.floor((low - (k - 1) / 2) / k), 0), whole))
        counts[i] = int(min(max(np.floor((high - (k - 1) / 2) / k) + 2, 0), whole)) - begins[i]
    if counts.min() <= 0:
        counts[:] = 0
    groups_from_out = plane_from_out / k
    for i in range(2):
        groups_from_out[i, 2] += 1 - begins[i] - (k - 1) / (2 * k)
    return (begins[0] * k, begins[1] * k, counts[0], counts[1], k), groups_from_out


@_kernel
def _reduce(flat: Any, plane: Any, part: Any, groups_from_crop: Any, height: int, width: int, black: Any) -> Any:
    """[h+2,w+2] quads of the means of k x k pixels, with a black border; only what the crop sees is filled in."""
    _, _, stride, step = plane
    x0, y0, w, h, k = part
    quads = np.empty((h + 2, w + 2), _u32)
    first, last = np.full(h + 2, w + 1, np.int64), np.zeros(h + 2, np.int64)
    _spans(groups_from_crop, height, width, w + 1, first, last)
    sums, other = np.empty(w * k * step, _u16), np.empty(w * k * step, _u16)
    above, row = np.full(w + 3, black, _u8), np.full(w + 3, black, _u8)
    for r in range(1, h + 2):
        row[:] = black
        a, b = max(first[r], 1), min(last[r], w + 1)
        if r <= h and a < b:
            n = (b - a) * k
            at = (y0 + (r - 1) * k) * stride + (x0 + (a - 1) * k) * step
            _add_rows(flat, at, stride, k, sums[: (n - 1) * step + 1])
            if step == 2:
                _every_second(sums, other[:n])
                sums, other = other, sums
            size = k
            while size > 1:
                n, size = n // 2, size // 2
                _add_pairs(sums, other[:n])
                sums, other = other, sums
            _means(sums, _f32(1 / (k * k)), row[a:b])
        _pack(above, row, quads[r - 1])
        above, row = row, above
    row[:] = black
    _pack(above, row, quads[h + 1])
    return quads


@_kernel
def _spans(groups_from_crop: Any, height: int, width: int, end: int, first: Any, last: Any) -> None:
    """For every row of groups the columns first .. last - 1 that samples of the crop can touch, by the edges of the crop's outline."""
    m = groups_from_crop
    for i in range(4):
        px, py = (width - 0.5 if i in (1, 2) else -0.5), (height - 0.5 if i in (2, 3) else -0.5)
        qx, qy = (width - 0.5 if i in (0, 1) else -0.5), (height - 0.5 if i in (1, 2) else -0.5)
        xa, ya = m[0, 0] * px + m[0, 1] * py + m[0, 2], m[1, 0] * px + m[1, 1] * py + m[1, 2]
        xb, yb = m[0, 0] * qx + m[0, 1] * qy + m[0, 2], m[1, 0] * qx + m[1, 1] * qy + m[1, 2]
        if ya > yb:
            xa, ya, xb, yb = xb, yb, xa, ya
        for r in range(max(0, int(np.floor(ya)) - 1), min(len(first) - 1, int(np.ceil(yb)) + 1) + 1):
            # The part of this edge that is at most one row away.
            s, t = (max(r - 1.0, ya) - ya, min(r + 1.0, yb) - ya) if yb > ya else (0.0, 0.0)
            slope = (xb - xa) / (yb - ya) if yb > ya else 0.0
            low, high = (xa + s * slope, xa + t * slope) if yb > ya else (xa, xb)
            first[r] = min(first[r], max(0, int(np.floor(min(low, high))) - 1))
            last[r] = max(last[r], min(end, int(np.ceil(max(low, high))) + 2))


@_kernel
def _add_rows(flat: Any, at: int, stride: int, k: int, sums: Any) -> None:
    """Row after row: the processor fetches a single stream of a cold frame ahead, two rows at once cost twice the time."""
    n = len(sums)
    row = flat[at : at + n]
    for i in range(n):
        sums[i] = row[i]
    for q in range(1, k):
        row = flat[at + q * stride : at + q * stride + n]
        for i in range(n):
            sums[i] = sums[i] + _u16(row[i])


@_kernel
def _every_second(sums: Any, out: Any) -> None:
    pairs = sums.view(_u32)
    for i in range(len(out)):
        out[i] = _u16(pairs[i] & _u32(0xFFFF))


@_kernel
def _add_pairs(sums: Any, out: Any) -> None:
    for i in range(len(out)):
        out[i] = sums[2 * i] + sums[2 * i + 1]


@_kernel
def _means(sums: Any, share: Any, out: Any) -> None:
    for i in range(len(out)):
        out[i] = _u8(_i32(_f32(sums[i]) * share + _f32(0.5)))


@_kernel
def _pack(above: Any, below: Any, out: Any) -> None:
    """Every pixel with its right, lower and lower right neighbour in one number."""
    for i in range(len(out)):
        upper = _u32(above[i]) | (_u32(above[i + 1]) << _u32(8))
        out[i] = upper | (_u32(below[i]) << _u32(16)) | (_u32(below[i + 1]) << _u32(24))


@_kernel
def _place(groups_from_crop: Any, r: int, shape: Any, ramp: Any, at: Any, share_x: Any, share_y: Any) -> None:
    """Which quad every pixel of a row of the crop lies in, and how far from its first pixel."""
    m = groups_from_crop
    x, y = _f32(m[0, 1] * r + m[0, 2]), _f32(m[1, 1] * r + m[1, 2])
    dx, dy = _f32(m[0, 0]), _f32(m[1, 0])
    end_x, end_y, width = _f32(shape[1] - 1), _f32(shape[0] - 1), _i32(shape[1])
    for i in range(len(at)):
        here_x = min(max(x + dx * ramp[i], _f32(0)), end_x)
        here_y = min(max(y + dy * ramp[i], _f32(0)), end_y)
        column, row = _i32(here_x), _i32(here_y)
        share_x[i], share_y[i] = here_x - _f32(column), here_y - _f32(row)
        at[i] = _i32(row * width + column)


@_kernel
def _sample(quads: Any, at: Any, quad: Any, share_x: Any, share_y: Any, out: Any) -> None:
    flat = quads.ravel()
    for i in range(len(at)):
        quad[i] = flat[_u32(at[i])]
    for i in range(len(at)):
        q = quad[i]
        a, b = _f32(_i32(q & _u32(255))), _f32(_i32((q >> _u32(8)) & _u32(255)))
        c, d = _f32(_i32((q >> _u32(16)) & _u32(255))), _f32(_i32(q >> _u32(24)))
        upper, lower = a + (b - a) * share_x[i], c + (d - c) * share_x[i]
        out[i] = upper + (lower - upper) * share_y[i]


@_kernel
def _tint(row_u: Any, row_v: Any, grey: Any, share_u: Any, share_v: Any, half: Any, tint: Any) -> None:
    """What the chroma of a row adds to a colour, for both luma pixels of every chroma pixel."""
    for i in range(len(half)):
        half[i] = share_u * (row_u[i] - grey) + share_v * (row_v[i] - grey)
    bits, pairs = half.view(_u32), tint.view(_u64)
    for i in range(len(half)):
        pairs[i] = _u64(bits[i]) | (_u64(bits[i]) << _u64(32))


@_kernel
def _convert(row_y: Any, tint: Any, colours: Any, rgb: Any) -> None:
    black, gain = _f32(colours[0]), _f32(colours[2])
    for channel in range(3):
        add, to = tint[channel], rgb[channel]
        for i in range(len(row_y)):
            value = (row_y[i] - black) * gain + add[i] + _f32(0.5)
            to[i] = _u8(_i32(min(max(value, _f32(0)), _f32(255))))


@_kernel
def _interleave(a: Any, b: Any, c: Any, out: Any) -> None:
    flat = out.ravel()
    for i in range(len(a)):
        flat[3 * i] = a[i]
        flat[3 * i + 1] = b[i]
        flat[3 * i + 2] = c[i]


@_kernel
def _plane(colour: Any, scale: Any, channel: int, out: Any) -> None:
    factor, summand = (scale[channel, 0], scale[channel, 1]) if len(scale) else (_f32(1), _f32(0))
    for i in range(len(colour)):
        out[i] = _f32(colour[i]) * factor + summand


@_kernel
def _channel(colour: Any, scale: Any, channel: int, out: Any) -> None:
    flat, factor, summand = out.ravel(), scale[channel, 0], scale[channel, 1]
    for i in range(len(colour)):
        flat[3 * i + channel] = _f32(colour[i]) * factor + summand
