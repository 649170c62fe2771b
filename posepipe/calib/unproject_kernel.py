"""The loops of `unproject`. A column of voxels (one x and y of the cube, all z) is projected in loops over z that run on whole vectors; then
every voxel's four cells are blended with all joints side by side, and the views are joined in loops over the whole column.

Where a cube lies in a camera is one affine map from shares of its side (-0.5..0.5) to the camera frame, so a voxel costs no matrix product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from posepipe.pipeline.packet import F32, I64

from .kernel import kernel

I32 = NDArray[np.int32]
F = np.float32

_LANES = 8
_LEAST = F(-24.0)
"""A view whose value is this far below the best one has no weight in the softmax (4e-11)."""


@intrinsic  # type: ignore[untyped-decorator]
def _blend(context: Any, maps: Any, a: Any, b: Any, c: Any, d: Any, wa: Any, wb: Any, wc: Any, wd: Any, out: Any, o: Any) -> Any:
    """out[o:o+8] = wa maps[a:a+8] + wb maps[b:b+8] + wc maps[c:c+8] + wd maps[d:d+8], nothing checked.

    Written as one vector operation, because no loop over 17 joints becomes one: LLVM would want 32 of them, and to know that `out` does not
    overlap the maps.
    """
    if any(not isinstance(t, types.Array) or (t.dtype, t.ndim, t.layout) != (types.float32, 1, "C") for t in (maps, out)):
        return None
    signature = types.void(maps, *[types.uintp] * 4, *[types.float32] * 4, out, types.uintp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes, index = ir.VectorType(ir.FloatType(), _LANES), ir.VectorType(ir.IntType(32), _LANES)

        def place(array: int, at: Any) -> Any:
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            return builder.bitcast(builder.gep(data, [at]), lanes.as_pointer())

        total = None
        for at, factor in zip(args[1:5], args[5:9], strict=True):
            one = builder.insert_element(ir.Constant(lanes, ir.Undefined), factor, ir.Constant(ir.IntType(32), 0))
            every = builder.shuffle_vector(one, ir.Constant(lanes, ir.Undefined), ir.Constant(index, [0] * _LANES))
            product = builder.fmul(builder.load(place(0, at), align=4), every, flags=("contract",))
            total = product if total is None else builder.fadd(total, product, flags=("contract",))
        builder.store(total, place(9, args[10]), align=4)
        return context.get_dummy_value()

    return signature, generate


@kernel
def _where(camera: F32, lens: F32, fold2: F, near: F, cells: F32, columns: F, rows: F, a: F, b: F, where: F32) -> None:
    """where [2,n]: cell coordinates of the voxels of a column (shares a, b of the side along x and y). One cell outside of the map nothing
    is left of it, so everything further out, behind the camera or beyond the lens's fold is put there."""
    one, half, two = F(1), F(0.5), F(2)
    n = where.shape[1]
    step = one / F(n - 1)
    dx, dy, dz = camera[0, 2] * step, camera[1, 2] * step, camera[2, 2] * step
    x0 = camera[0, 0] * a + camera[0, 1] * b + camera[0, 3] - half * camera[0, 2]
    y0 = camera[1, 0] * a + camera[1, 1] * b + camera[1, 3] - half * camera[1, 2]
    z0 = camera[2, 0] * a + camera[2, 1] * b + camera[2, 3] - half * camera[2, 2]
    k1, k2, p1, p2, k3 = lens[0], lens[1], lens[2], lens[3], lens[4]
    uu, uv, u0, vu, vv, v0 = cells[0, 0], cells[0, 1], cells[0, 2], cells[1, 0], cells[1, 1], cells[1, 2]
    for i in range(n):
        along = F(i)
        z = z0 + dz * along
        iz = one / z
        x, y = (x0 + dx * along) * iz, (y0 + dy * along) * iz
        r2 = x * x + y * y
        s = one + r2 * (k1 + r2 * (k2 + r2 * k3))
        xy2 = two * x * y
        xd = x * s + p1 * xy2 + p2 * (r2 + two * x * x)
        yd = y * s + p1 * (r2 + two * y * y) + p2 * xy2
        u, v = uu * xd + uv * yd + u0, vu * xd + vv * yd + v0
        seen = (z > near) & (r2 < fold2)
        u, v = min(max(u, -one), columns), min(max(v, -one), rows)
        where[0, i] = u if seen else -one
        where[1, i] = v if seen else -one


@kernel
def _corners(where: F32, columns: F, rows: F, corner: I32, weight: F32) -> bool:
    """corner [3,n]: flat index of the upper left of the four cells around a place, and the steps to the right and down; weight [4,n]: their
    bilinear weights. A cell that the map lacks has weight 0, and its index is that of one that it has. False: all weights are 0."""
    one, zero = F(1), F(0)
    inside = zero
    for i in range(where.shape[1]):
        u, v = where[0, i], where[1, i]
        c, r = F(np.int32(u + one)) - one, F(np.int32(v + one)) - one  # floor; whole numbers as floats keep to one width
        right, lower = u - c, v - r
        left = one - right if (c >= zero) & (c < columns) else zero
        right = right if c < columns - one else zero
        upper = one - lower if (r >= zero) & (r < rows) else zero
        lower = lower if r < rows - one else zero
        weight[0, i], weight[1, i], weight[2, i], weight[3, i] = left * upper, right * upper, left * lower, right * lower
        c0, c1 = min(max(c, zero), columns - one), min(c + one, columns - one)
        r0, r1 = min(max(r, zero), rows - one), min(r + one, rows - one)
        corner[0, i] = np.int32(r0 * columns + c0)
        corner[1, i] = np.int32(c1 - c0)
        corner[2, i] = np.int32((r1 - r0) * columns)
        inside += (left + right) * (upper + lower)
    return bool(inside > zero)


@kernel
def _sample(maps: F32, joints: int, corner: I32, weight: F32, out: F32) -> None:
    """out [n*J]: what a column sees in one view's maps [h*w*J]. The last block of joints ends with the last joint, whatever it does twice."""
    wide, lanes = np.uintp(joints), np.uintp(_LANES)
    for i in range(weight.shape[1]):
        wa, wb, wc, wd = weight[0, i], weight[1, i], weight[2, i], weight[3, i]
        a, o = np.uintp(corner[0, i]) * wide, np.uintp(i) * wide
        right, down = np.uintp(corner[1, i]) * wide, np.uintp(corner[2, i]) * wide
        if wide < lanes:
            for j in range(wide):
                k = a + j
                out[o + j] = wa * maps[k] + wb * maps[k + right] + wc * maps[k + down] + wd * maps[k + right + down]
            continue
        for s in range(np.uintp(0), wide, lanes):
            done = wide - lanes if s > wide - lanes else s
            k = a + done
            _blend(maps, k, k + right, k + down, k + right + down, wa, wb, wc, wd, out, o + done)


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
    maps: F32,
    views: I64,
    share: F32,
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
    """Slabs `first` to `last` of a volume [n,n,n*J] from the maps [.,h*w*J] of the C `views`.

    share [C,n*J]: weight of every view for every joint, once per voxel of a column; with `softmax` the softmax of the values over the views is
    their weight. camera [C,3,4]: shares of the cube's side to the camera frame; lens [C,5]; fold2 [C]: squared radius where the lens
    folds; near [C]: least depth; cells [C,2,3]: from the distorted plane z = 1 to cells of the map.
    """
    n, count = out.shape[0], views.shape[0]
    where, corner, weight = np.empty((2, n), np.float32), np.empty((3, n), np.int32), np.empty((4, n), np.float32)
    seen, best, total = np.empty((count, n * joints), np.float32), np.empty(n * joints, np.float32), np.empty(n * joints, np.float32)
    columns, rows = F(width), F(height)
    step, half = F(1) / F(n - 1), F(0.5)
    for x in range(first, last):
        a = F(x) * step - half
        for y in range(n):
            b = F(y) * step - half
            column = out[x, y]
            column[:] = 0
            found = False
            for c in range(count):
                _where(camera[c], lens[c], fold2[c], near[c], cells[c], columns, rows, a, b, where)
                into = seen[c if softmax else 0]
                if _corners(where, columns, rows, corner, weight):
                    _sample(maps[views[c]], joints, corner, weight, into)
                    if not softmax:
                        mine = share[c]
                        for k in range(column.size):
                            column[k] += mine[k] * into[k]
                    found = True
                elif softmax:
                    into[:] = 0
            if softmax and found:
                _join(seen, best, total, column)


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
