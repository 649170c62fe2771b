"""The loops of `unproject`. A column of voxels (one x and y of the cube, all z) is projected in loops over z that run on whole vectors; then
every voxel's four cells are blended with sixteen joints side by side, all views in one sum; where their softmax joins them, in loops over the column.

Where a cube lies in a camera is one affine map from shares of its side (-0.5..0.5) to the camera frame, so a voxel costs no matrix product.

The vector operations are in this file because numba looks at no other when it decides whether what it compiled before still holds.
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
_FUSED = ("contract",)
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


def _over_views(*, block: bool, quad: bool) -> Any:
    """An intrinsic (blocks, b, quads, q, count, row, corner, share, n, i, out, o, p) that blends the four cells around a voxel in `count` views, joined in
    registers: of the block of joints that begins at float b of `blocks` into the floats o to o + 16 of `out`, of the single joint at q of `quads`
    into p. Nothing is checked.

    row: cells from one row of a packed map to the next; corner, share: as of `_look`, where the first view has the voxel at i, the next at i + n.
    Written as vector operations, because no loop over 17 joints becomes one: LLVM would want 32 of them, and to know that `out` does not overlap the
    maps. Whole arrays and places in them, because a slice is an object: counting who holds it takes longer than a voxel.
    """
    word, four, wide = ir.IntType(64), ir.VectorType(ir.FloatType(), 4), ir.VectorType(ir.FloatType(), BLOCK)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [context.make_array(signature.args[k])(context, builder, args[k]) for k in (0, 2, 6, 7, 10)]
        blocks, quads, corner, share, out = (array.data for array in arrays)
        apart = arrays[2].nitems
        b, q, count, row, n, i, o, p = (args[k] for k in (1, 3, 4, 5, 8, 9, 11, 12))

        def at(data: Any, index: Any, kind: Any) -> Any:
            return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())

        def plus(total: Any, a: Any, b: Any) -> Any:
            return builder.fadd(total, builder.fmul(a, b, flags=_FUSED), flags=_FUSED)

        # two sums of a block, of upper and of lower cells: a sum waits for the one before it
        upper, lower, single = (cgutils.alloca_once(builder, kind) for kind in (wide, wide, four))
        for kind, total in ((wide, upper), (wide, lower), (four, single)):
            builder.store(ir.Constant(kind, None), total)
        with cgutils.for_range(builder, count, intp=word) as views:
            here = builder.add(builder.mul(views.index, n), i)
            cell = builder.zext(builder.load(builder.gep(corner, [here])), word)
            weights = _bilinear(builder, *(builder.load(builder.gep(share, [k])) for k in (here, builder.add(here, apart))))
            if block:
                one = ir.Constant(word, 1)
                for k, steps in enumerate((ir.Constant(word, 0), one, row, builder.add(row, one))):
                    each = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), [k] * BLOCK)
                    weight = builder.shuffle_vector(weights, ir.Constant(four, ir.Undefined), each)
                    line = builder.add(b, builder.mul(builder.add(cell, steps), ir.Constant(word, BLOCK)))
                    total = upper if k < 2 else lower
                    builder.store(plus(builder.load(total), builder.load(at(blocks, line, wide), align=4), weight), total)
            if quad:
                around = builder.load(at(quads, builder.add(q, builder.mul(cell, ir.Constant(word, 4))), four), align=4)
                builder.store(plus(builder.load(single), around, weights), single)
        if block:
            builder.store(builder.fadd(builder.load(upper), builder.load(lower)), at(out, o, wide), align=4)
        if quad:
            sums = builder.load(single)
            one, two, three, last = (builder.extract_element(sums, ir.Constant(ir.IntType(32), k)) for k in range(4))
            builder.store(builder.fadd(builder.fadd(one, two), builder.fadd(three, last)), builder.gep(out, [p]))
        return context.get_dummy_value()

    @intrinsic  # type: ignore[untyped-decorator]
    def blend(
        context: Any, blocks: Any, b: Any, quads: Any, q: Any, count: Any, row: Any, corner: Any, share: Any,
        n: Any, i: Any, out: Any, o: Any, p: Any,
    ) -> Any:  # fmt: skip
        of = ((blocks, types.float32), (quads, types.float32), (corner, types.int32), (share, types.float32), (out, types.float32))
        if any(not isinstance(t, types.Array) or (t.dtype, t.layout) != (kind, "C") for t, kind in of):
            return None
        size = types.uintp
        return types.void(blocks, size, quads, size, size, size, corner, share, size, size, out, size, size), generate

    return blend


_blend_block, _blend_quad, _blend_both = (_over_views(block=b, quad=q) for b, q in ((True, False), (False, True), (True, True)))


@intrinsic  # type: ignore[untyped-decorator]
def _scaled(context: Any, out: Any, o: Any, maps: Any, m: Any, share: Any, s: Any) -> Any:
    """out[o:o+16] = maps[m:m+16] * share[s:s+16], floats of contiguous arrays: one vector operation, where a loop of sixteen asks every time whether the
    arrays overlap. Nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.VectorType(ir.FloatType(), BLOCK).as_pointer()
        to, a, b = (
            builder.bitcast(builder.gep(context.make_array(signature.args[k])(context, builder, args[k]).data, [args[k + 1]]), wide)
            for k in (0, 2, 4)
        )
        builder.store(builder.fmul(builder.load(a, align=4), builder.load(b, align=4)), to, align=4)
        return context.get_dummy_value()

    if any(not isinstance(t, types.Array) or (t.dtype, t.layout) != (types.float32, "C") for t in (out, maps, share)):
        return None
    return types.void(out, types.uintp, maps, types.uintp, share, types.uintp), generate


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
                    o = (c * cells + (r + 1) * wide + x + 1) * BLOCK
                    _scaled(to, np.uintp(o), one, np.uintp((r * width + x) * joints + start), mine, np.uintp(start))
        for q in range(rest):
            into, joint = quads[q], joints - rest + q
            into[c * cells * 4 : (c + 1) * cells * 4] = 0
            for r in range(height):
                for x in range(width):
                    value, o = one[(r * width + x) * joints + joint] * mine[joint], c * cells + (r + 1) * wide + x + 1
                    into[o * 4], into[o * 4 - 3] = value, value
                    into[(o - wide) * 4 + 2], into[(o - wide) * 4 - 1] = value, value


@kernel
def _rays(camera: F32, lens: F32, cells: F32, rays: F32, bent: NDArray[np.bool_]) -> None:
    """rays [C,3,4]: shares of the cube's side to the camera frame where a view's lens bends its rays (bent [C]); otherwise straight on to the cells of a
    packed map, times the depth: without a lens that is one map."""
    for c in range(camera.shape[0]):
        bent[c] = False
        for k in range(lens.shape[1]):
            bent[c] |= lens[c, k] != F(0)
        for k in range(4):
            x, y, z = camera[c, 0, k], camera[c, 1, k], camera[c, 2, k]
            rays[c, 0, k] = x if bent[c] else cells[c, 0, 0] * x + cells[c, 0, 1] * y + (cells[c, 0, 2] + F(1)) * z
            rays[c, 1, k] = y if bent[c] else cells[c, 1, 0] * x + cells[c, 1, 1] * y + (cells[c, 1, 2] + F(1)) * z
            rays[c, 2, k] = z


@kernel
def _note(seen: bool, u: F, v: F, right: F, below: F, wide: np.int32, start: np.int32, corner: I32, share: F32, k: int, i: int) -> F:
    """Write down a place in a packed map, as `_look` says. How far inside of it the place is: 0 on its edge, where everything goes that is not seen."""
    zero = F(0)
    seen &= (u == u) & (v == v)  # far out a lens leaves float32, 1 / z does for the least z; NaN would become an index
    u, v = min(max(u, zero), right) if seen else zero, min(max(v, zero), below) if seen else zero
    cell, row = np.int32(u), np.int32(v)
    share[0, k, i], share[1, k, i] = u - F(cell), v - F(row)
    corner[k, i] = np.int32(row * wide) + cell + start
    return F(min(u, right - u) * min(v, below - v))


@kernel
def _look(
    rays: F32,
    bent: bool,
    lens: F32,
    fold2: F,
    near: F,
    cells: F32,
    c: int,
    columns: F,
    rows: F,
    a: F,
    b: F,
    ramp: F32,
    first: int,
    corner: I32,
    share: F32,
    k: int,
) -> bool:
    """Where view c sees the voxels of a column (shares a, b of the side along x and y; ramp: 0, 1, 2 ...). corner[k] [n]: the upper left of the four
    packed cells around the place, counted from the first view's; share[:,k] [2,n]: how far the place is towards the right and the lower ones.
    False: no place lies in the map, or less than a cell beside it; row k may be written over. One cell outside of the map nothing is left of it, so everything further out, behind
    the camera or beyond the lens's fold is put there."""
    zero, one, half, two = F(0), F(1), F(0.5), F(2)
    n = ramp.size
    step = one / F(n - 1)
    dx, dy, dz = rays[c, 0, 2] * step, rays[c, 1, 2] * step, rays[c, 2, 2] * step
    x0 = rays[c, 0, 0] * a + rays[c, 0, 1] * b + rays[c, 0, 3] - half * rays[c, 0, 2]
    y0 = rays[c, 1, 0] * a + rays[c, 1, 1] * b + rays[c, 1, 3] - half * rays[c, 1, 2]
    z0 = rays[c, 2, 0] * a + rays[c, 2, 1] * b + rays[c, 2, 3] - half * rays[c, 2, 2]
    right, below, start, wide, inside = columns + one, rows + one, np.int32(first), np.int32(columns) + np.int32(2), zero
    if not bent:
        for i in range(n):
            z = z0 + dz * ramp[i]
            iz = one / z
            u, v = (x0 + dx * ramp[i]) * iz, (y0 + dy * ramp[i]) * iz
            inside += _note(z > near, u, v, right, below, wide, start, corner, share, k, i)
        return bool(inside > zero)
    k1, k2, p1, p2, k3 = lens[c, 0], lens[c, 1], lens[c, 2], lens[c, 3], lens[c, 4]
    uu, uv, u0 = cells[c, 0, 0], cells[c, 0, 1], cells[c, 0, 2] + one  # the border is the first column and row
    vu, vv, v0 = cells[c, 1, 0], cells[c, 1, 1], cells[c, 1, 2] + one
    for i in range(n):
        z = z0 + dz * ramp[i]
        iz = one / z
        x, y = (x0 + dx * ramp[i]) * iz, (y0 + dy * ramp[i]) * iz
        r2 = x * x + y * y
        s = one + r2 * (k1 + r2 * (k2 + r2 * k3))
        xy2 = two * x * y
        x, y = x * s + p1 * xy2 + p2 * (r2 + two * x * x), y * s + p1 * (r2 + two * y * y) + p2 * xy2
        u, v = uu * x + uv * y + u0, vu * x + vv * y + v0
        inside += _note((z > near) & (r2 < fold2), u, v, right, below, wide, start, corner, share, k, i)
    return bool(inside > zero)


@kernel
def _blended(blocks: F32, quads: F32, joints: int, wide: int, corner: I32, share: F32, k: int, count: int, out: F32, o: int) -> None:
    """The floats of `out` from o on, n*J of them: the sum of what a column of n voxels sees in views k to k + count of corner and share."""
    n, row, views, nothing, first = np.uintp(corner.shape[1]), np.uintp(wide), np.uintp(count), np.uintp(0), k * corner.shape[1]
    many, rest = blocks.shape[0], quads.shape[0]
    end = joints - rest - BLOCK
    both = 1 if many and rest else 0
    for b in range(many - both):
        block, to = np.uintp(b * blocks.shape[1]), o + min(b * BLOCK, end)
        for i in range(corner.shape[1]):
            at, into = np.uintp(first + i), np.uintp(to + i * joints)
            _blend_block(blocks, block, quads, nothing, views, row, corner, share, n, at, out, into, nothing)
    if both:
        block = np.uintp((many - 1) * blocks.shape[1])
        for i in range(corner.shape[1]):
            at, into, alone = np.uintp(first + i), np.uintp(o + i * joints + end), np.uintp(o + i * joints + end + BLOCK)
            _blend_both(blocks, block, quads, nothing, views, row, corner, share, n, at, out, into, alone)
    for q in range(both, rest):
        quad, to = np.uintp(q * quads.shape[1]), o + joints - rest + q
        for i in range(corner.shape[1]):
            at, into = np.uintp(first + i), np.uintp(to + i * joints)
            _blend_quad(blocks, nothing, quads, quad, views, row, corner, share, n, at, out, nothing, into)


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
    corner, share, ramp = np.empty((_STRIP * count, n), np.int32), np.empty((2, _STRIP * count, n), np.float32), np.empty(n, np.float32)
    seen, best, total = np.empty((count, n * joints), np.float32), np.empty(n * joints, np.float32), np.empty(n * joints, np.float32)
    rays, bent, found = np.empty(camera.shape, np.float32), np.empty(count, np.bool_), np.empty(_STRIP, np.int64)
    columns, rows = F(width), F(height)
    step, half = F(1) / F(n - 1), F(0.5)
    wide = width + 2
    size = packed_cells(width, height)
    _rays(camera, lens, cells, rays, bent)
    for i in range(n):
        ramp[i] = i
    for start in range(0, n, _STRIP):  # a strip at a time, so that what its columns see stays near the processor
        for x in range(first, last):
            a = F(x) * step - half
            many = min(_STRIP, n - start)
            for y in range(many):  # all places first: a place that was just written in vectors is slow to read one by one
                b = F(start + y) * step - half
                k = y * count
                for c in range(count):
                    if _look(rays, bent[c], lens, fold2[c], near[c], cells, c, columns, rows, a, b, ramp, c * size, corner, share, k):
                        k += 1
                found[y] = k - y * count
            for y in range(many):
                k = y * count
                if softmax:
                    for c in range(found[y]):
                        _blended(blocks, quads, joints, wide, corner, share, k + c, 1, seen, c * n * joints)
                    for c in range(found[y], count):
                        seen[c] = 0
                    _join(seen, best, total, out, x, start + y)
                else:
                    _blended(blocks, quads, joints, wide, corner, share, k, found[y], out, (x * n + start + y) * n * joints)


@kernel
def _join(seen: F32, best: F32, total: F32, out: F32, x: int, y: int) -> None:
    """out[x,y] [m] = the mean of seen [C,m] over C, weighted with its softmax."""
    for k in range(best.size):
        best[k] = seen[0, k]
        total[k] = F(0)
        out[x, y, k] = F(0)
    for c in range(1, seen.shape[0]):
        for k in range(best.size):
            best[k] = max(best[k], seen[c, k])
    for c in range(seen.shape[0]):
        for k in range(best.size):
            e = _exp(max(seen[c, k] - best[k], _LEAST))
            total[k] += e
            out[x, y, k] += e * seen[c, k]
    for k in range(best.size):
        out[x, y, k] /= total[k]


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
