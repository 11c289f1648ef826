"""Rows of weights times rows of inputs, in vectors that are written out: the heart of a CPU's step.

LLVM's own vectoriser would choose another order of additions for another number of inputs. Here each product of two
rows is summed the same way, in ``LANES`` partial sums and then their halves, whatever is computed beside it: so a
text's numbers do not depend on the texts that it shares a step with. A tile also reads and widens each weight once for
all of its inputs.

Numba keeps what it compiled of ``compiled`` and ``compiled_int`` until those files change: they name this one's hash.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped
from numba.extending import intrinsic

cgutils: Any = untyped
LANES = 16  # of float32: one register of AVX-512, two of AVX2
INDEX, FLOAT = ir.IntType(64), ir.FloatType()
FLOATS = ir.VectorType(FLOAT, LANES)


def number(n: int) -> Any:
    return ir.Constant(INDEX, n)


def widened(builder: Any, raw: Any) -> Any:
    """float32 as it is, the bits of bfloat16 in the upper half of a float32; one value or a vector of them."""
    several = isinstance(raw.type, ir.VectorType)
    if (raw.type.element if several else raw.type) == FLOAT:
        return raw
    whole = ir.VectorType(ir.IntType(32), LANES) if several else ir.IntType(32)
    half = ir.Constant(whole, [16] * LANES if several else 16)
    return builder.bitcast(builder.shl(builder.zext(raw, whole), half), FLOATS if several else FLOAT)


def vector(builder: Any, place: Any) -> Any:
    """``LANES`` values from an address that may lie anywhere."""
    element = place.type.pointee
    size = 4 if element == FLOAT else 2
    return builder.load(builder.bitcast(place, ir.VectorType(element, LANES).as_pointer()), align=size)


def ahead(builder: Any, place: Any) -> None:
    """Ask for what will be read soon, into the nearest cache: processors look ahead in one row at a time, within a
    page.
    """
    byte, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    reading, nearest, data = (ir.Constant(whole, x) for x in (0, 3, 1))
    builder.call(fetch, [builder.bitcast(place, byte), reading, nearest, data])


def total(builder: Any, x: Any) -> Any:
    """The sum of a vector: its halves are added until one is left."""
    count, none = LANES, ir.Constant(FLOATS, ir.Undefined)
    while count > 1:
        count //= 2
        half = ir.VectorType(ir.IntType(32), count)
        parts = [
            builder.shuffle_vector(x, none, ir.Constant(half, list(range(first, first + count))))
            for first in (0, count)
        ]
        x, none = builder.fadd(*parts), ir.Constant(ir.VectorType(FLOAT, count), ir.Undefined)
    return builder.extract_element(x, ir.Constant(ir.IntType(32), 0))


def multiply_add(builder: Any, kind: Any) -> Any:
    """The function a * b + c, rounded once, of floats or vectors of them."""
    name = "llvm.fma.f32" if kind == FLOAT else f"llvm.fma.v{LANES}f32"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)


class Tile:
    """The code of one tile; ``w`` and ``x`` are the addresses of its rows, each of ``n`` values."""

    def __init__(self, builder: Any, w: Sequence[Any], x: Sequence[Any], n: Any) -> None:
        self.b, self.w, self.x, self.n = builder, w, x, n
        self.whole = builder.and_(n, number(-LANES))

    def sums(self) -> list[list[Any]]:
        """Of each row of weights with each row of inputs."""
        zero = ir.Constant(FLOATS, [0.0] * LANES)
        held = [[cgutils.alloca_once_value(self.b, zero) for _ in self.x] for _ in self.w]
        self._loop(held, FLOATS, number(0), self.whole, LANES, lambda place: vector(self.b, place))
        rest = [[cgutils.alloca_once_value(self.b, total(self.b, self.b.load(one))) for one in row] for row in held]
        self._loop(rest, FLOAT, self.whole, self.n, 1, self.b.load)
        return [[self.b.load(one) for one in row] for row in rest]

    def _loop(
        self, held: list[list[Any]], kind: Any, begin: Any, end: Any, step: int, load: Callable[[Any], Any]
    ) -> None:
        b, fma = self.b, multiply_add(self.b, kind)
        with cgutils.for_range_slice(b, begin, end, number(step)) as (at, _):
            inputs = [load(b.gep(row, [at])) for row in self.x]
            for row, sums in zip(self.w, held, strict=True):
                if kind == FLOATS and len(self.x) == 1:  # several inputs take longer than the memory
                    ahead(b, b.gep(row, [b.add(at, b.mul(self.n, number(len(self.w))))]))
                weight = widened(b, load(b.gep(row, [at])))
                for x, place in zip(inputs, sums, strict=True):
                    b.store(b.call(fma, [weight, x, b.load(place)]), place)


def tile(rows: int, inputs: int) -> Any:
    """The function (w, x, y, at, r): y[r : r + inputs, at : at + rows] += x[r : …] @ w[at : …].T.

    w (m, n): float32, or uint16 that are bfloat16's bits; x (R, n) and y (R, m): float32; all contiguous.
    """

    @intrinsic
    def made(typing: Any, w: Any, x: Any, y: Any, at: Any, r: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = [
                context.make_array(t)(context, builder, a) for t, a in zip(signature.args[:3], args[:3], strict=True)
            ]
            n, m = (cgutils.unpack_tuple(builder, arrays[k].shape, 2)[1] for k in (0, 2))
            mine = [builder.add(args[3], number(i)) for i in range(rows)]
            theirs = [builder.add(args[4], number(i)) for i in range(inputs)]
            weights = [builder.gep(arrays[0].data, [builder.mul(i, n)]) for i in mine]
            vectors = [builder.gep(arrays[1].data, [builder.mul(i, n)]) for i in theirs]
            for row, sums in zip(mine, Tile(builder, weights, vectors, n).sums(), strict=True):
                for one, made in zip(theirs, sums, strict=True):
                    place = builder.gep(arrays[2].data, [builder.add(builder.mul(one, m), row)])
                    builder.store(builder.fadd(builder.load(place), made), place)
            return context.get_dummy_value()

        return types.void(w, x, y, types.intp, types.intp), code

    return made
