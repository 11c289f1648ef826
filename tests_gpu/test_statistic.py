"""On a GPU: the statistic's kernels as they compile there, beside torch."""

import math
from typing import get_args

import pytest
import torch

from coreinfer.fused import reduce
from coreinfer.settings import StatisticKind, StatisticSettings
from coreinfer.statistic import reduce_tokens

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("kind", get_args(StatisticKind))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 300, 14336), (1, 1, 64), (3, 17, 1000), (1, 40, 2)])
def test_kernels_equal_torch(kind: StatisticKind, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    a, valid = torch.randn(shape).mul(8).round().div(8).to(dtype), torch.rand(shape[:2]) > 0.2
    core = max(1, math.ceil((chosen := StatisticSettings(kind)).token_fraction * shape[2]))
    layers = [a, a.square(), a.flip(2)]
    for layer, found in zip(layers, reduce([x.cuda() for x in layers], valid.cuda(), kind, core), strict=True):
        torch.testing.assert_close(found.cpu(), reduce_tokens(layer, valid, chosen), rtol=2e-5, atol=1e-6)
