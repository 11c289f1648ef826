"""A CPU's forward whose last bits do not depend on the number of threads, so that workers who share a machine's threads
record what one process does with all of them.

Libraries split a product among their threads as it is fastest, also along its sum, whose parts are then added in
another order: of bfloat16 products by 1,536 or 1,024 weights a row, every other one differed between 1 and 2 threads
(oneDNN 3.12), and small float32 ones by 320 (MKL 2024.2). Of a function like SiLU each thread computes a part, at whose
end what fills no vector is computed another way. So both are made by blocks of rows, each by one thread, and angles by
one. What else a forward does (attention, norms, sums) did not differ on 1, 2, 3, 4 and 8 threads.

With as many blocks as threads this costs nothing: recording took 0.85 to 1.04 times as long with blocks of 512 rows,
embedding 1.0 to 1.1; with blocks of 256 rows 1.2.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2CLS
from transformers.pytorch_utils import Conv1D

from coreinfer.threads import running_on

ROWS = 512
PRODUCTS = (nn.Linear, Conv1D)
FUNCTIONS = tuple({each[0] if isinstance(each, tuple) else each for each in ACT2CLS.values()})


@contextmanager
def by_rows(model: nn.Module) -> Iterator[None]:
    """Inside, ``model`` runs so where its weights are on a CPU; on a GPU nothing changes."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        changed = dict(_changed(model, pool))
        for module, forward in changed.items():
            module.forward = forward
        try:
            yield
        finally:
            for module in changed:
                del module.forward
            torch.set_num_threads(threads)  # MKL's, which is the whole process's


def _changed(model: nn.Module, pool: ThreadPoolExecutor) -> Iterator[tuple[nn.Module, Callable[..., Any]]]:
    if next(model.parameters()).device.type != "cpu":
        return
    for module in model.modules():
        if type(module) in PRODUCTS:
            yield module, partial(_product, pool, module)
        elif type(module) in FUNCTIONS:
            yield module, partial(_function, pool, module.forward)
        elif type(module).__name__.endswith("RotaryEmbedding"):
            yield module, partial(_by_one, module.forward)


def _product(pool: ThreadPoolExecutor, module: Any, x: Tensor) -> Tensor:
    """``x`` (..., K) -> (..., N)."""
    weight, bias = module.weight if isinstance(module, Conv1D) else module.weight.t(), module.bias

    def make(x: Tensor, out: Tensor) -> None:
        if bias is None:
            torch.mm(x, weight, out=out)
        else:
            torch.addmm(bias, x, weight, out=out)

    return _blocks(pool, make, x, weight.shape[1])


def _function(pool: ThreadPoolExecutor, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Of each element of ``x`` (..., K) by itself."""
    return _blocks(pool, lambda x, out: out.copy_(forward(x)), x, x.shape[-1])


def _blocks(pool: ThreadPoolExecutor, make: Callable[[Tensor, Tensor], Any], x: Tensor, width: int) -> Tensor:
    """(..., K) -> (..., width), ``ROWS`` rows at a time, each block by one of the pool's threads."""
    flat = x.reshape(-1, x.shape[-1])
    out, inference = flat.new_empty(len(flat), width), torch.is_inference_mode_enabled()

    def block(begin: int) -> None:
        torch.set_num_threads(1)  # this thread's, and MKL's
        rows = slice(begin, begin + ROWS)
        with torch.inference_mode(inference), torch.no_grad():
            make(flat[rows], out[rows])

    for _ in pool.map(block, range(0, len(flat), ROWS)):
        pass
    return out.view(*x.shape[:-1], width)


def _by_one(forward: Callable[..., Any], *given: Any, **more: Any) -> Any:
    with running_on(1):
        return forward(*given, **more)
