"""Vector operations of `unproject_kernel` that numba does not find in loops. Arrays and places in them; nothing is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic

BLOCK = 16
"""Joints that lie side by side in one cache line of a packed map, and in one vector register of AVX-512 (two of AVX2, four of NEON)."""
_FUSED = ("contract",)


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
            a, b, c, d = (builder.extract_element(sums, ir.Constant(ir.IntType(32), k)) for k in range(4))
            builder.store(builder.fadd(builder.fadd(a, b), builder.fadd(c, d)), builder.gep(out, [p]))
        return context.get_dummy_value()

    @intrinsic  # type: ignore[untyped-decorator]
    def blend(
        context: Any,
        blocks: Any,
        b: Any,
        quads: Any,
        q: Any,
        count: Any,
        row: Any,
        corner: Any,
        share: Any,
        n: Any,
        i: Any,
        out: Any,
        o: Any,
        p: Any,
    ) -> Any:
        of = ((blocks, types.float32), (quads, types.float32), (corner, types.int32), (share, types.float32), (out, types.float32))
        if any(not isinstance(t, types.Array) or (t.dtype, t.layout) != (kind, "C") for t, kind in of):
            return None
        size = types.uintp
        return types.void(blocks, size, quads, size, size, size, corner, share, size, size, out, size, size), generate

    return blend


blend_block, blend_quad, blend_both = (_over_views(block=b, quad=q) for b, q in ((True, False), (False, True), (True, True)))


@intrinsic  # type: ignore[untyped-decorator]
def scaled(context: Any, out: Any, o: Any, maps: Any, m: Any, share: Any, s: Any) -> Any:
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
