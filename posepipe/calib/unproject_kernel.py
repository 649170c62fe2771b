"""The loops of `unproject`. A column of voxels (one x and y of the cube, all z) is projected in loops over z that run on whole vectors; then
every voxel's four cells are blended with sixteen joints side by side, all views in one sum; where their softmax joins them, in loops over the column.

Where a cube lies in a camera is one affine map from shares of its side (-0.5..0.5) to the camera frame, so a voxel costs no matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, I64

from .kernel import kernel

I32 = NDArray[np.int32]
F = np.float32

BLOCK = 16
"""Joints that lie side by side in one cache line of a packed map, and in one vector register of AVX-512 (two of AVX2, four of NEON)."""
_STRIP = 8
_LEAST = F(-24.0)
"""A view whose value is this far below the best one has no weight in the softmax (4e-11)."""


def _bilinear(builder: Any, right: Any, lower: Any) -> Any:
    """The weights of the four cells around a place, in one vector: upper left, upper right, lower left, lower right."""
    four, index = ir.VectorType(ir.FloatType(), 4), ir.IntType(32)

    def ramp(share: Any, slope: Sequence[int], at_zero: Sequence[int]) -> Any:
        one = builder.insert_element(ir.Constant(four, ir.Undefined), share, ir.Constant(index, 0))
        every = builder.shuffle_vector(one, ir.Constant(four, ir.Undefined), ir.Constant(ir.VectorType(index, 4), [0] * 4))
        return builder.fadd(builder.fmul(every, _constant(four, slope), flags=_FUSED), _constant(four, at_zero), flags=_FUSED)

    return builder.fmul(ramp(right, (-1, 1, -1, 1), (1, 0, 1, 0)), ramp(lower, (-1, -1, 1, 1), (1, 1, 0, 0)))


def _constant(vector: Any, values: Sequence[int]) -> Any:
    return ir.Constant(vector, [ir.Constant(ir.FloatType(), float(v)) for v in values])


_FUSED = ("contract",)


def _over_views(*, block: bool, quad: bool) -> Any:
    """An intrinsic (blocks, quads, count, row, corner, share, n, i, out, o, p) that blends the four cells around voxel i of a column of n in `count` views, joined
    in registers: of the block of joints at blocks into out[o:o+16], of the single joint at quads into out[p]. Nothing is checked.

    row: cells from one row of a packed map to the next; corner [.,n], share [.,2,n]: as of `_look`. Written as vector operations, because no loop over
    17 joints becomes one: LLVM would want 32 of them, and to know that `out` does not overlap the maps.
    """
    word, four, wide = ir.IntType(64), ir.VectorType(ir.FloatType(), 4), ir.VectorType(ir.FloatType(), BLOCK)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        blocks, quads, corner, share, out = (context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 1, 4, 5, 8))
        count, row, n, i, o, p = (args[k] for k in (2, 3, 6, 7, 9, 10))

        def at(data: Any, index: Any, kind: Any) -> Any:
            return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())

        def plus(total: Any, a: Any, b: Any) -> Any:
            return builder.fadd(total, builder.fmul(a, b, flags=_FUSED), flags=_FUSED)

        totals = {kind: cgutils.alloca_once(builder, kind) for kind, wanted in ((wide, block), (four, quad)) if wanted}
        for kind, total in totals.items():
            builder.store(ir.Constant(kind, None), total)
        with cgutils.for_range(builder, count, intp=word) as views:
            cell = builder.zext(builder.load(builder.gep(corner, [builder.add(builder.mul(views.index, n), i)])), word)
            first = builder.add(builder.mul(builder.shl(views.index, ir.Constant(word, 1)), n), i)
            right, lower = (builder.load(builder.gep(share, [k])) for k in (first, builder.add(first, n)))
            weights = _bilinear(builder, right, lower)
            if block:
                one, so_far = ir.Constant(word, 1), builder.load(totals[wide])
                for k, steps in enumerate((ir.Constant(word, 0), one, row, builder.add(row, one))):
                    each = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), [k] * BLOCK)
                    weight = builder.shuffle_vector(weights, ir.Constant(four, ir.Undefined), each)
                    line = builder.mul(builder.add(cell, steps), ir.Constant(word, BLOCK))
                    so_far = plus(so_far, builder.load(at(blocks, line, wide), align=4), weight)
                builder.store(so_far, totals[wide])
            if quad:
                around = builder.load(at(quads, builder.mul(cell, ir.Constant(word, 4)), four), align=4)
                builder.store(plus(builder.load(totals[four]), around, weights), totals[four])
        if block:
            builder.store(builder.load(totals[wide]), at(out, o, wide), align=4)
        if quad:
            sums = builder.load(totals[four])
            a, b, c, d = (builder.extract_element(sums, ir.Constant(ir.IntType(32), k)) for k in range(4))
            builder.store(builder.fadd(builder.fadd(a, b), builder.fadd(c, d)), builder.gep(out, [p]))
        return context.get_dummy_value()

    @intrinsic  # type: ignore[untyped-decorator]
    def blend(
        context: Any, blocks: Any, quads: Any, count: Any, row: Any, corner: Any, share: Any, n: Any, i: Any, out: Any, o: Any, p: Any
    ) -> Any:
        wanted = (
            (blocks, types.float32, 1),
            (quads, types.float32, 1),
            (corner, types.int32, 2),
            (share, types.float32, 3),
            (out, types.float32, 1),
        )
        if any(not isinstance(t, types.Array) or (t.dtype, t.ndim, t.layout) != (kind, ndim, "C") for t, kind, ndim in wanted):
            return None
        size = types.uintp
        return types.void(blocks, quads, size, size, corner, share, size, size, out, size, size), generate

    return blend


_blend_block, _blend_quad, _blend_both = (_over_views(block=b, quad=q) for b, q in ((True, False), (False, True), (True, True)))


@kernel
def packed_cells(width: int, height: int) -> int:
    """Of a packed map: a column more on both sides, a row more above, two below, and the one cell that is to the lower right of the last."""
    return (width + 2) * (height + 3) + 1


@kernel
def _bare(to: F32, row: int) -> None:
    """Zeros for the border of a packed map: its first row, the first and the last cell of every row, the last two rows and the last cell. A cell with
    weight 0 is read, too, and must hold a number."""
    last = to.size - BLOCK
    to[:row] = 0
    for end in range(row, last - 2 * row, row):
        to[end - BLOCK : end + BLOCK] = 0
    to[last - 2 * row - BLOCK :] = 0


@kernel
def pack(maps: F32, views: I64, share: F32, joints: int, width: int, height: int, first: int, last: int, blocks: F32, quads: F32) -> None:
    """Maps [.,h*w*J] of `views[first:last]`, times share [C,J], with a border of zeros around them (`packed_cells`).

    blocks [B,C*cells*16]: sixteen joints in one cache line; the last block ends with joint J - R - 1. quads [R,C*cells*4]: of the R last joints, every
    cell with those to its right, below, and below to the right: a joint by itself costs one load so.
    """
    wide = width + 2
    cells = packed_cells(width, height)
    rest = quads.shape[0]
    for c in range(first, last):
        one, mine = maps[views[c]], share[c]
        for b in range(blocks.shape[0]):
            to, start = blocks[b], min(b * BLOCK, joints - rest - BLOCK)
            _bare(to[c * cells * BLOCK : (c + 1) * cells * BLOCK], wide * BLOCK)
            for r in range(height):
                for x in range(width):
                    a, o = (r * width + x) * joints + start, (c * cells + (r + 1) * wide + x + 1) * BLOCK
                    for j in range(BLOCK):
                        to[o + j] = one[a + j] * mine[start + j]
        for q in range(rest):
            into, joint = quads[q], joints - rest + q
            into[c * cells * 4 : (c + 1) * cells * 4] = 0
            for r in range(height):
                for x in range(width):
                    value, o = one[(r * width + x) * joints + joint] * mine[joint], c * cells + (r + 1) * wide + x + 1
                    into[o * 4], into[o * 4 - 3] = value, value
                    into[(o - wide) * 4 + 2], into[(o - wide) * 4 - 1] = value, value


@kernel
def _look(
    camera: F32, lens: F32, fold2: F, near: F, cells: F32, columns: F, rows: F, a: F, b: F, first: int, corner: I32, share: F32
) -> bool:
    """Where a view sees the voxels of a column (shares a, b of the side along x and y). corner [n]: the upper left of the four packed cells around the
    place, counted from the first view's; share [2,n]: how far the place is towards the right and the lower ones. False: no place lies in the map, or less
    than a cell beside it. One cell outside of the map nothing is left of it, so everything further out, behind the camera or beyond the lens's fold is
    put there."""
    zero, one, half, two = F(0), F(1), F(0.5), F(2)
    n = corner.size
    step = one / F(n - 1)
    dx, dy, dz = camera[0, 2] * step, camera[1, 2] * step, camera[2, 2] * step
    x0 = camera[0, 0] * a + camera[0, 1] * b + camera[0, 3] - half * camera[0, 2]
    y0 = camera[1, 0] * a + camera[1, 1] * b + camera[1, 3] - half * camera[1, 2]
    z0 = camera[2, 0] * a + camera[2, 1] * b + camera[2, 3] - half * camera[2, 2]
    k1, k2, p1, p2, k3 = lens[0], lens[1], lens[2], lens[3], lens[4]
    bent = k1 != zero or k2 != zero or p1 != zero or p2 != zero or k3 != zero
    uu, uv, u0 = cells[0, 0], cells[0, 1], cells[0, 2] + one  # the border is the first column and row
    vu, vv, v0 = cells[1, 0], cells[1, 1], cells[1, 2] + one
    right, below, wide, inside = columns + one, rows + one, columns + two, zero
    for i in range(n):
        along = F(i)
        z = z0 + dz * along
        iz = one / z
        x, y = (x0 + dx * along) * iz, (y0 + dy * along) * iz
        seen = z > near
        if bent:
            r2 = x * x + y * y
            seen &= r2 < fold2
            s = one + r2 * (k1 + r2 * (k2 + r2 * k3))
            xy2 = two * x * y
            x, y = x * s + p1 * xy2 + p2 * (r2 + two * x * x), y * s + p1 * (r2 + two * y * y) + p2 * xy2
        u, v = uu * x + uv * y + u0, vu * x + vv * y + v0
        seen &= (u == u) & (v == v)  # far out the lens leaves float32; NaN would become an index
        u, v = min(max(u, zero), right) if seen else zero, min(max(v, zero), below) if seen else zero
        c, r = F(np.int32(u)), F(np.int32(v))  # floor; whole numbers as floats keep to one width
        share[0, i], share[1, i] = u - c, v - r
        corner[i] = np.int32(r * wide + c) + first
        inside += min(u, right - u) * min(v, below - v)
    return bool(inside > zero)


@kernel
def _blended(blocks: F32, quads: F32, joints: int, wide: int, count: int, corner: I32, share: F32, out: F32) -> None:
    """out [n*J]: the sum of what a column of n voxels sees in the first `count` views of corner and share."""
    many, rest = blocks.shape[0], quads.shape[0]
    n, row, views, nothing = np.uintp(corner.shape[1]), np.uintp(wide), np.uintp(count), np.uintp(0)
    end = joints - rest - BLOCK
    both = 1 if many and rest else 0
    for i in range(corner.shape[1]):
        o = i * joints
        for b in range(many - both):
            _blend_block(blocks[b], blocks[b], views, row, corner, share, n, np.uintp(i), out, np.uintp(o + min(b * BLOCK, end)), nothing)
        if both:
            _blend_both(
                blocks[many - 1], quads[0], views, row, corner, share, n, np.uintp(i), out, np.uintp(o + end), np.uintp(o + joints - rest)
            )
        for q in range(both, rest):
            _blend_quad(quads[q], quads[q], views, row, corner, share, n, np.uintp(i), out, nothing, np.uintp(o + joints - rest + q))


@kernel
def _exp(x: np.float32) -> np.float32:
    """exp(x) for -24 <= x <= 0, to 2e-6: the power series at x/32 (Horner; 1e-7 there), squared five times. No branch, no library: it
    runs on whole vectors."""
    t = x * F(1 / 32)
    e = t * F(1 / 5040) + F(1 / 720)
    e = t * e + F(1 / 120)
    e = t * e + F(1 / 24)
    e = t * e + F(1 / 6)
    e = t * e + F(1 / 2)
    e = t * (t * e + F(1)) + F(1)
    e = e * e
    e = e * e
    e = e * e
    e = e * e
    return e * e


@kernel
def fill(
    blocks: F32,
    quads: F32,
    softmax: bool,
    camera: F32,
    lens: F32,
    fold2: F32,
    near: F32,
    cells: F32,
    joints: int,
    width: int,
    height: int,
    first: int,
    last: int,
    out: F32,
) -> None:
    """Slabs `first` to `last` of a volume [n,n,n*J] from the packed maps of C views: their sum, or with `softmax` their mean, weighted with the softmax of the
    values over the views.

    camera [C,3,4]: shares of the cube's side to the camera frame; lens [C,5]; fold2 [C]: squared radius where the lens folds; near [C]: least
    depth; cells [C,2,3]: from the distorted plane z = 1 to cells of the map.
    """
    n, count = out.shape[0], camera.shape[0]
    corner, share = np.empty((count, n), np.int32), np.empty((count, 2, n), np.float32)
    seen, best, total = np.empty((count, n * joints), np.float32), np.empty(n * joints, np.float32), np.empty(n * joints, np.float32)
    columns, rows = F(width), F(height)
    step, half = F(1) / F(n - 1), F(0.5)
    wide = width + 2
    size = packed_cells(width, height)
    for start in range(0, n, _STRIP):  # a strip at a time, so that what its columns see stays near the processor
        for x in range(first, last):
            a = F(x) * step - half
            for y in range(start, min(start + _STRIP, n)):
                b = F(y) * step - half
                column = out[x, y]
                found = 0
                for c in range(count):
                    if _look(camera[c], lens[c], fold2[c], near[c], cells[c], columns, rows, a, b, c * size, corner[found], share[found]):
                        if softmax:
                            _blended(blocks, quads, joints, wide, 1, corner[found:], share[found:], seen[c])
                        else:
                            found += 1
                    elif softmax:
                        seen[c] = 0
                if softmax:
                    column[:] = 0
                    _join(seen, best, total, column)
                else:
                    _blended(blocks, quads, joints, wide, found, corner, share, column)


@kernel
def _join(seen: F32, best: F32, total: F32, column: F32) -> None:
    """column [m] = the mean of seen [C,m] over C, weighted with its softmax."""
    for k in range(column.size):
        best[k] = seen[0, k]
        total[k] = F(0)
    for c in range(1, seen.shape[0]):
        one = seen[c]
        for k in range(column.size):
            best[k] = max(best[k], one[k])
    for c in range(seen.shape[0]):
        one = seen[c]
        for k in range(column.size):
            e = _exp(max(one[k] - best[k], _LEAST))
            total[k] += e
            column[k] += e * one[k]
    for k in range(column.size):
        column[k] /= total[k]


@kernel
def first_not_finite(maps: F32, views: I64) -> int:
    """The first of the `views` whose maps [.,m] hold NaN or inf, -1 for none."""
    for view in views:
        one, total = maps[view], F(0)
        for k in range(one.size):
            total += one[k] * F(0)
        if total != 0:
            return int(view)
    return -1
