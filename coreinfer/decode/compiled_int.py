"""The inner loops over quantised weights, compiled by Numba as those of ``compiled`` are.

Sums that begin anew with each group keep a compiler from making vector instructions of a plain loop. So these are
written in LLVM's vectors, sixteen floats long, which it fits to any processor. Integers of 8 bits are converted. Four
bits become the highest of a float's fraction, under the exponent of 1: 1 + q / 16 costs a shift and a mask, where a
conversion would cost two instructions more. With q stored 8 higher, the weight is 16 times (that - 1.5).
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from coreinfer.decode.compiled import EXACT, FAST
from coreinfer.decode.tiles import multiply_add, total
from coreinfer.quantised.packed import DEEP, GROUP, LANES

MADE_OF = "82db6d3b264b"  # as ``compiled``'s
ROWS = 4  # read together, so that what they share is loaded once
FLOAT, BYTE, WORD, WHOLE = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32)


def _vector(kind: Any) -> Any:
    return ir.VectorType(kind, LANES)


def _every(kind: Any, value: float) -> Any:
    return ir.Constant(_vector(kind), [value] * LANES)


def _spread(builder: Any, value: Any) -> Any:
    """A float as a vector."""
    empty, zeros = ir.Constant(_vector(FLOAT), ir.Undefined), ir.Constant(_vector(WHOLE), [0] * LANES)
    return builder.shuffle_vector(builder.insert_element(empty, value, ir.Constant(WHOLE, 0)), empty, zeros)


def _added(builder: Any, a: Any, b: Any, to: Any) -> Any:
    """``to`` + a * b, rounded once."""
    return builder.call(multiply_add(builder, a.type), [a, b, to])


class _Arrays:
    """The arrays of an intrinsic's arguments w (m, n), its scales s, and vectors of floats."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.context, self.builder, self.kinds = context, builder, signature.args
        self.held = [context.make_array(self.kinds[i])(context, builder, value=args[i]) for i in range(4)]
        self.narrow = signature.args[0].dtype != types.int8

    def at(self, which: int, *index: Any) -> Any:
        """The pointer to an element."""
        kind, array = self.kinds[which], self.held[which]
        return cgutils.get_item_pointer(self.context, self.builder, kind, array, list(index))

    def places(self, which: int, *index: Any, kind: Any, size: int, many: int) -> list[Any]:
        """Pointers to the vectors of a group, whose number is the last index; it has ``size`` elements."""
        *row, group = index
        first = self.builder.mul(group, ir.Constant(group.type, size))
        starts = [self.builder.add(first, ir.Constant(group.type, LANES * i)) for i in range(many)]
        return [self.builder.bitcast(self.at(which, *row, x), _vector(kind).as_pointer()) for x in starts]

    def floats(self, which: int, group: Any) -> list[Any]:
        return self.places(which, group, kind=FLOAT, size=GROUP, many=DEEP)

    def weights(self, row: Any, group: Any) -> list[Any]:
        """A group's four vectors: 8 bits as they are, of 4 bits each 1.5 + weight / 16."""
        build = self.builder
        if not self.narrow:
            places = self.places(0, row, group, kind=BYTE, size=GROUP, many=DEEP)
            return [build.sitofp(build.sext(build.load(x, align=1), _vector(WHOLE)), _vector(FLOAT)) for x in places]
        place = self.places(0, row, group, kind=WORD, size=LANES, many=1)[0]
        words = build.zext(build.load(place, align=2), _vector(WHOLE))
        parts = [build.shl(words, _every(WHOLE, 19 - 4 * part)) for part in range(DEEP)]
        held = [build.or_(build.and_(part, _every(WHOLE, 15 << 19)), _every(WHOLE, 127 << 23)) for part in parts]
        return [build.bitcast(part, _vector(FLOAT)) for part in held]

    def scale(self, row: Any, group: Any) -> Any:
        """What a group's vectors are multiplied by."""
        build = self.builder
        if not self.narrow:
            return build.load(self.at(1, row))
        bits = build.shl(build.zext(build.load(self.at(1, row, group)), WHOLE), ir.Constant(WHOLE, 16))
        return build.fmul(build.bitcast(bits, FLOAT), ir.Constant(FLOAT, 16.0))


def _dots(rows: int) -> Any:
    """y[row : row + rows] += w[row : row + rows] @ x, in so many groups."""

    @intrinsic
    def dots(typingctx: Any, w: Any, s: Any, x: Any, y: Any, row: Any, groups: Any) -> Any:
        def emit(context: Any, build: Any, signature: Any, args: Any) -> Any:
            some, row, groups = _Arrays(context, build, signature, args), args[4], args[5]
            mine = [build.add(row, ir.Constant(row.type, i)) for i in range(rows)]
            sums = [cgutils.alloca_once_value(build, _every(FLOAT, 0.0)) for _ in mine]
            with cgutils.for_range(build, groups) as loop:
                xs = [build.load(place, align=4) for place in some.floats(2, loop.index)]
                start = _every(FLOAT, 0.0)
                for v in xs if some.narrow else ():
                    start = _added(build, v, _every(FLOAT, -1.5), start)
                for this, held in zip(mine, sums, strict=True):
                    part = start
                    for weight, v in zip(some.weights(this, loop.index), xs, strict=True):
                        part = _added(build, weight, v, part)
                    scale = _spread(build, some.scale(this, loop.index))
                    build.store(_added(build, part, scale, build.load(held)), held)
            for this, held in zip(mine, sums, strict=True):
                place = some.at(3, this)
                build.store(build.fadd(build.load(place), total(build, build.load(held))), place)
            return context.get_dummy_value()

        return types.void(w, s, x, y, row, groups), emit

    return dots


def _columns(rows: int) -> Any:
    """y += x[row : row + rows] @ w[row : row + rows], in the columns of groups ``first`` to ``end``."""

    @intrinsic
    def columns(typingctx: Any, w: Any, s: Any, x: Any, y: Any, row: Any, first: Any, end: Any) -> Any:
        def emit(context: Any, build: Any, signature: Any, args: Any) -> Any:
            some, (row, first, end) = _Arrays(context, build, signature, args), args[4:]
            mine = [build.add(row, ir.Constant(row.type, i)) for i in range(rows)]
            by = [build.load(some.at(2, this)) for this in mine]
            with cgutils.for_range(build, end, start=first) as loop:
                places = some.floats(3, loop.index)
                sums = [build.load(place, align=4) for place in places]
                for this, factor in zip(mine, by, strict=True):
                    scale = _spread(build, build.fmul(factor, some.scale(this, loop.index)))
                    for part, weight in enumerate(some.weights(this, loop.index)):
                        sums[part] = _added(build, weight, scale, sums[part])
                    if some.narrow:
                        sums = [_added(build, scale, _every(FLOAT, -1.5), value) for value in sums]
                for place, value in zip(places, sums, strict=True):
                    build.store(value, place, align=4)
            return context.get_dummy_value()

        return types.void(w, s, x, y, row, first, end), emit

    return columns


_dots_of_4, _dots_of_1 = _dots(ROWS), _dots(1)
_columns_of_4, _columns_of_1 = _columns(ROWS), _columns(1)


@njit(**EXACT)
def _rest_of_rows(w: Any, s: Any, x: Any, y: Any, first: int, end: int, since: int) -> None:
    """The columns from ``since`` on, which fill no group."""
    for row in range(first, end):
        for j in range(since, len(x)):
            y[row] += s[row] * np.float32(w[row, j]) * x[j]


@njit(**EXACT)
def _rest_of_columns(w: Any, s: Any, x: Any, y: Any, first: int, end: int) -> None:
    for row in range(len(w)):
        for j in range(first, end):
            y[j] += s[row] * np.float32(w[row, j]) * x[row]


@njit(**FAST)
def rows(w: Any, s: Any, x: Any, y: Any, first: int, end: int) -> None:
    """y[:, first:end] += x @ w[first:end].T; a block of weights comes from memory once for all rows of x."""
    at, groups = first, x.shape[1] // GROUP
    while at + ROWS <= end:
        for r in range(len(x)):
            _dots_of_4(w, s, x[r], y[r], at, groups)
        at += ROWS
    for row in range(at, end):
        for r in range(len(x)):
            _dots_of_1(w, s, x[r], y[r], row, groups)
    if s.ndim == 1:  # 4 bits have whole groups alone; Numba drops the branch by the number of axes
        for r in range(len(x)):
            _rest_of_rows(w, s, x[r], y[r], first, end, groups * GROUP)


@njit(**FAST)
def across_rows(w: Any, s: Any, x: Any, y: Any, first: int, end: int) -> None:
    """y[:, first:end] += x @ w[:, first:end]; ``first`` is where a group begins."""
    at, groups = 0, end // GROUP
    while at + ROWS <= len(w):
        for r in range(len(x)):
            _columns_of_4(w, s, x[r], y[r], at, first // GROUP, groups)
        at += ROWS
    for row in range(at, len(w)):
        for r in range(len(x)):
            _columns_of_1(w, s, x[r], y[r], row, first // GROUP, groups)
    if s.ndim == 1:
        for r in range(len(x)):
            _rest_of_columns(w, s, x[r], y[r], max(first, groups * GROUP), end)


@njit(**FAST)
def product(w: Any, s: Any, x: Any, bias: Any, y: Any, across: bool) -> None:
    """y (R, m) = x (R, n) @ w (m, n).T + bias (m,); ``across``: y (R, n) = x (R, m) @ w (m, n) + bias (n,).

    ``w``, ``s``: what ``Packed`` holds, contiguous, 16 bits as unsigned ones.
    """
    y[:] = bias
    if across:
        across_rows(w, s, x, y, 0, y.shape[1])
    else:
        rows(w, s, x, y, 0, y.shape[1])
