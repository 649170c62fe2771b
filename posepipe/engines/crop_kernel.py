"""The compiled part of `crop`: one pass from YUV planes to a crop in the form that a network takes.

A plane is reduced to means of k x k pixels (groups) where the crop sees it, sampled with bilinear weights, and converted row by row. The loops
are kept apart and simple, so that the compiler makes vector instructions of every one; only the look-up of four neighbours by one index (a
quad: four bytes that lie side by side) runs pixel by pixel.

The loops take whole arrays and where to begin in them: a slice counts references with atomic instructions, which at every row cost as much as
the loop. Their indices are unsigned: one that could be negative is looked at in every turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.lib.stride_tricks import as_strided

F = TypeVar("F", bound=Callable[..., object])

# Pixels are averaged in groups while the crop would still skip more than this many of them at a step.
_KEEP = 1.6
_FAR = 1e9
_MOST = 16  # sums of 16 x 16 pixels still fit 16 bits; a larger step needs a picture of more than 5000 pixels
# Luma and what chroma adds to it are added as 64ths of a level, less half of all levels: -405 to 406 levels, which 16 bits hold.
_SHIFT, _MIDDLE = 6, 128
# Counts are rounded up to whole vectors: what is left over of a loop runs number by number, for longer than all the rest of it.
_GROUPS, _BYTES = 32, 128
_f32, _i32, _i16, _u64, _u32, _u16, _u8 = np.float32, np.int32, np.int16, np.uint64, np.uint32, np.uint16, np.uint8


def _kernel(function: F) -> F:
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})(function))


@_kernel
def cut(
    y: Any, u: Any, v: Any, luma: Any, chroma: Any, frame_from_crop: Any, colours: Any, planar: bool, order: Any, scale: Any, out: Any
) -> bool:
    """One crop into `out` [H,W,3], planar: [3,H,W]; False, and nothing written, when the map is not of finite numbers below _FAR.

    y, u, v: flat bytes of the planes; interleaved chroma is `u`, and `v` is not looked at. `out` is contiguous.
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
    across_y, down_y, across_c, down_c = part_y[2] + 2, part_y[3] + 2, part_c[2] + 2, part_c[3] + 2
    size_y, size_c = across_y * down_y, across_c * down_c
    pairs_y, pairs_c = np.empty(size_y // 2 + 1, _u32), np.empty(size_c + 1, _u32)
    _reduce(y, luma, part_y, map_y, height, width, _u8(colours[0]), pairs_y.view(_u16), 0)
    _reduce(u, chroma, part_c, map_c, height // 2, width // 2, _u8(colours[1]), pairs_c.view(_u16), 0)
    if chroma[3] == 1:
        _reduce(v, chroma, part_c, map_c, height // 2, width // 2, _u8(colours[1]), pairs_c.view(_u16), size_c)
    # Four bytes from every second one on: a pair and the next one, which are a quad.
    quads_y, quads_c = as_strided(pairs_y, (size_y,), (2,)), as_strided(pairs_c, (2 * size_c,), (2,))
    at, quad, ramp = np.empty(width, _i32), np.empty(width, _u32), np.arange(width).astype(_f32)
    share_x, share_y, row = np.empty(width, _f32), np.empty(width, _f32), np.empty(width, _f32)
    light, half, tint, rgb = np.empty(width, _i16), np.empty(3 * width // 2, _u16), np.empty(3 * width // 2, _u32), np.empty(3 * width, _u8)
    tint_of_pixels, row_v, flat, n = tint.view(_i16), np.empty(width // 2, _f32), out.reshape(out.size), width // 2
    shares = (colours * (1 << _SHIFT)).astype(_f32)
    for r in range(height):
        if r % 2 == 0:
            _place(map_c, r // 2, down_c, across_c, n, ramp, at, share_x, share_y)
            _sample(quads_c, 0, n, at, quad, share_x, share_y, row)
            _sample(quads_c, size_c, n, at, quad, share_x, share_y, row_v)
            _tint(row, row_v, _f32(colours[1]), shares, n, half)
            _double(half, 3 * n, tint)
        _place(map_y, r, down_y, across_y, width, ramp, at, share_x, share_y)
        _sample(quads_y, 0, width, at, quad, share_x, share_y, row)
        _lighten(row, _f32(colours[0]), shares[2], width, light)
        _convert(light, tint_of_pixels, width, rgb)
        if planar and len(scale):
            for channel in range(3):
                _plane(rgb, order[channel] * width, scale, channel, width, flat, (channel * height + r) * width)
        elif planar:
            for channel in range(3):
                _copy(rgb, order[channel] * width, width, flat, (channel * height + r) * width)
        elif len(scale):
            for channel in range(3):
                _channel(rgb, order[channel] * width, scale, channel, width, flat, 3 * r * width)
        else:
            _interleave(rgb, order[0] * width, order[1] * width, order[2] * width, width, flat, 3 * r * width)
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
def _reduce(flat: Any, plane: Any, part: Any, groups_from_crop: Any, height: int, width: int, black: Any, pairs: Any, to: int) -> None:
    """[h+2,w+2] pairs (a byte above another) of the means of k x k pixels, with a black border, into `pairs` from `to` on; of an interleaved
    plane those of V behind those of U. Only what the crop sees is filled in."""
    _, _, stride, step = plane
    x0, y0, w, h, k = part
    across = w + 2
    first, last = np.full(h + 2, w + 1, np.int64), np.zeros(h + 2, np.int64)
    _spans(groups_from_crop, height, width, w + 1, first, last)
    room = (max(stride, w * k * step) + _BYTES * k * step) // 4
    sums, one, other = np.empty(room, _u64), np.empty(room, _u64), np.empty(room, _u64)
    wide = across + _GROUPS
    rows = np.full(2 * step * wide, black, _u8)
    row, above = 0, step * wide
    for r in range(1, h + 2):
        a, b = max(first[r], 1), min(last[r], w + 1)
        if r <= h and a < b:
            n = (b - a) * k * step
            at = (y0 + (r - 1) * k) * stride + (x0 + (a - 1) * k) * step
            # What lies between the rows is read too, unless it is three times as much: a stream without gaps is fetched ahead, and the four
            # crops of 1080p pictures then take up to 40 % less time.
            whole = stride if n < stride < 4 * n else (n + _BYTES - 1) // _BYTES * _BYTES
            _add_rows(flat, at, stride, k, n if at + (k - 1) * stride + whole > len(flat) else whole, sums.view(_u16))
            n = (b - a + _GROUPS - 1) // _GROUPS * _GROUPS
            for channel in range(step):
                if step == 2:
                    _every_second(sums.view(_u32), _u32(16 * channel), n * k, one.view(_u16))
                _means(one if step == 2 else sums, other, k, n, rows, row + channel * wide + a)
                for i in range(w + 1, across):
                    rows[_u64(row + channel * wide + i)] = black
        else:
            for i in range(step * wide):
                rows[_u64(row + i)] = black
        for channel in range(step):
            _pair(rows, above + channel * wide, row + channel * wide, across, pairs, to + (channel * (h + 2) + r - 1) * across)
        above, row = row, above
    for channel in range(step):
        for i in range(across):
            pairs[_u64(to + (channel * (h + 2) + h + 1) * across + i)] = _u16(black) | _u16(_u16(black) << _u16(8))


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
def _add_rows(flat: Any, at: int, stride: int, k: int, n: int, sums: Any) -> None:
    """Row after row: the processor fetches a single stream of a cold frame ahead, two rows at once cost twice the time."""
    for i in range(n):
        sums[_u64(i)] = flat[_u64(at + i)]
    for q in range(1, k):
        begin = at + q * stride
        for i in range(n):
            sums[_u64(i)] = sums[_u64(i)] + _u16(flat[_u64(begin + i)])


@_kernel
def _every_second(sums: Any, shift: Any, n: int, out: Any) -> None:
    for i in range(n):
        out[_u64(i)] = _u16(sums[_u64(i)] >> shift)


@_kernel
def _means(sums: Any, other: Any, k: int, n: int, out: Any, to: int) -> None:
    """Of k sums of 16 bits each, rounded. Two or four of them are added where they lie in one number; what is then left above is cut off."""
    shift = 0
    while 1 << shift < k * k:
        shift += 1
    if k > 4:
        fours = other.view(_u16)
        for i in range(n * k // 4):
            x = sums[_u64(i)]
            x += x >> _u64(32)
            fours[_u64(i)] = _u16(x + (x >> _u64(16)))
        _last_means(other, k // 4, shift, n, out, to)
    else:
        _last_means(sums, k, shift, n, out, to)


@_kernel
def _last_means(sums: Any, left: int, shift: int, n: int, out: Any, to: int) -> None:
    by, half = _u64(shift), _u64((1 << shift) // 2)
    if left == 4:
        for i in range(n):
            x = sums[_u64(i)]
            x += x >> _u64(32)
            out[_u64(to + i)] = _u8((x + (x >> _u64(16)) + half) >> by)
    elif left == 2:
        twos = sums.view(_u32)
        for i in range(n):
            x = twos[_u64(i)]
            out[_u64(to + i)] = _u8(_u32(_u32(x + _u32(x >> _u32(16))) + _u32(half)) >> _u32(by))
    else:
        ones = sums.view(_u16)
        for i in range(n):
            out[_u64(to + i)] = _u8(ones[_u64(i)])


@_kernel
def _pair(rows: Any, above: int, below: int, n: int, out: Any, to: int) -> None:
    for i in range(n):
        out[_u64(to + i)] = _u16(rows[_u64(above + i)]) | _u16(_u16(rows[_u64(below + i)]) << _u16(8))


@_kernel
def _place(groups_from_crop: Any, r: int, down: int, across: int, n: int, ramp: Any, at: Any, share_x: Any, share_y: Any) -> None:
    """Which quad every pixel of a row of the crop lies in, and how far from its first pixel."""
    m = groups_from_crop
    x, y = _f32(m[0, 1] * r + m[0, 2]), _f32(m[1, 1] * r + m[1, 2])
    dx, dy = _f32(m[0, 0]), _f32(m[1, 0])
    end_x, end_y, width = _f32(across - 1), _f32(down - 1), _i32(across)
    for i in range(n):
        here_x = min(max(x + dx * ramp[_u64(i)], _f32(0)), end_x)
        here_y = min(max(y + dy * ramp[_u64(i)], _f32(0)), end_y)
        column, row = _i32(here_x), _i32(here_y)
        share_x[_u64(i)], share_y[_u64(i)] = here_x - _f32(column), here_y - _f32(row)
        at[_u64(i)] = _i32(row * width + column)


@_kernel
def _sample(quads: Any, begin: int, n: int, at: Any, quad: Any, share_x: Any, share_y: Any, out: Any) -> None:
    for i in range(n):
        quad[_u64(i)] = quads[_u64(begin + at[_u64(i)])]
    for i in range(n):
        q = quad[_u64(i)]
        a, c = _f32(_i32(q & _u32(255))), _f32(_i32((q >> _u32(8)) & _u32(255)))
        b, d = _f32(_i32((q >> _u32(16)) & _u32(255))), _f32(_i32(q >> _u32(24)))
        upper, lower = a + (b - a) * share_x[_u64(i)], c + (d - c) * share_x[_u64(i)]
        out[_u64(i)] = upper + (lower - upper) * share_y[_u64(i)]


@_kernel
def _tint(row_u: Any, row_v: Any, grey: Any, shares: Any, n: int, half: Any) -> None:
    """What the chroma of a row adds to red, green and blue, in shares of a level, as the 16 bits of a signed number."""
    red_v, green_u, green_v, blue_u = shares[3], shares[4], shares[5], shares[6]
    for i in range(n):
        u, v = row_u[_u64(i)] - grey, row_v[_u64(i)] - grey
        half[_u64(i)] = _u16(_i32(np.rint(red_v * v)))
        half[_u64(n + i)] = _u16(_i32(np.rint(green_u * u + green_v * v)))
        half[_u64(2 * n + i)] = _u16(_i32(np.rint(blue_u * u)))


@_kernel
def _double(half: Any, n: int, tint: Any) -> None:
    """For both luma pixels of every chroma pixel."""
    for i in range(n):
        tint[_u64(i)] = _u32(half[_u64(i)]) | _u32(_u32(half[_u64(i)]) << _u32(16))


@_kernel
def _lighten(row_y: Any, black: Any, gain: Any, n: int, light: Any) -> None:
    """Luma in shares of a level, less _MIDDLE, and half a level for what is cut off later."""
    # So far up cutting off is rounding down.
    far = 32 << _SHIFT
    half = _f32(far + (1 << _SHIFT) // 2 + 0.5)
    for i in range(n):
        light[_u64(i)] = _i16(_i32((row_y[_u64(i)] - black) * gain + half) - (far + (_MIDDLE << _SHIFT)))


@_kernel
def _convert(light: Any, tint: Any, n: int, rgb: Any) -> None:
    for channel in range(3):
        for i in range(n):
            value = _i16(_i16(light[_u64(i)] + tint[_u64(channel * n + i)]) >> _i16(_SHIFT))
            rgb[_u64(channel * n + i)] = _u8(min(max(value, _i16(-_MIDDLE)), _i16(255 - _MIDDLE)) + _i16(_MIDDLE))


@_kernel
def _interleave(rgb: Any, a: int, b: int, c: int, n: int, out: Any, to: int) -> None:
    for i in range(n):
        out[_u64(to + 3 * i)] = rgb[_u64(a + i)]
        out[_u64(to + 3 * i + 1)] = rgb[_u64(b + i)]
        out[_u64(to + 3 * i + 2)] = rgb[_u64(c + i)]


@_kernel
def _copy(rgb: Any, begin: int, n: int, out: Any, to: int) -> None:
    for i in range(n):
        out[_u64(to + i)] = rgb[_u64(begin + i)]


@_kernel
def _plane(rgb: Any, begin: int, scale: Any, channel: int, n: int, out: Any, to: int) -> None:
    factor, summand = scale[channel, 0], scale[channel, 1]
    for i in range(n):
        out[_u64(to + i)] = _f32(rgb[_u64(begin + i)]) * factor + summand


@_kernel
def _channel(rgb: Any, begin: int, scale: Any, channel: int, n: int, out: Any, to: int) -> None:
    factor, summand = scale[channel, 0], scale[channel, 1]
    for i in range(n):
        out[_u64(to + 3 * i + channel)] = _f32(rgb[_u64(begin + i)]) * factor + summand
