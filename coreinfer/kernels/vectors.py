"""What several kernels do to a vector before they multiply it by their weights."""

import triton
import triton.language as tl


@triton.jit
def wait(PDL: tl.constexpr):
    """Let the next kernel begin to load, then wait until the one before this has finished."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def part_of(n):
    """Where this program's share of n rows begins and ends: as many as any other's, or one more or less."""
    program, programs = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    return (program * n // programs).to(tl.int32), ((program + 1) * n // programs).to(tl.int32)


@triton.jit
def scaled(x, weight, bias, inside, eps, n, CENTER: tl.constexpr):
    """RMS norm of x, 0 outside of its n elements; with CENTER a layer norm. Weight and bias were loaded before."""
    if CENTER:
        x = tl.where(inside, x - tl.sum(x) / n, 0.0)
    y = x * tl.rsqrt(tl.sum(x * x) / n + eps) * weight
    return y + bias if CENTER else y


@triton.jit
def stream(before, added, i, inside, after, eps, n, AFTER: tl.constexpr):
    """The residual stream: what it was, and what was added to it, normed where the model does so (Gemma)."""
    x = tl.load(before + i, mask=inside, other=0.0, cache_modifier=".cg")
    more = tl.load(added + i, mask=inside, other=0.0, cache_modifier=".cg")
    return x + (scaled(more, after, 0.0, inside, eps, n, False) if AFTER else more)


@triton.jit
def put(at, y, there, LOW: tl.constexpr):
    """y, rounded to what lies there; with LOW also, so many elements later, what that leaves of it."""
    tl.store(at, y, mask=there)
    if LOW:
        tl.store(at + LOW, y - y.to(at.dtype.element_ty).to(tl.float32), mask=there)


@triton.jit
def is_last(count, programs):
    """Whether all other ``programs`` that count here have stored their part; the count begins anew for a next step."""
    tl.debug_barrier()
    last = tl.atomic_add(count, 1) == programs - 1
    if last:
        tl.store(count, 0)
    tl.debug_barrier()
    return last
