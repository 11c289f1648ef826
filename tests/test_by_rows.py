"""A forward by blocks of rows: the same bits on any number of threads, and the numbers of the plain one."""

from typing import Any

import pytest
import torch
from families import FAMILIES
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.activations import GELUActivation
from transformers.pytorch_utils import Conv1D

from coreinfer.threads import running_on
from pipeline import by_rows as by
from pipeline.by_rows import by_rows


def hashed(made: Tensor) -> bytes:
    return made.float().numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_and_functions_do_not_depend_on_threads(dtype: torch.dtype) -> None:
    """Sizes at which libraries split sums, and parts that fill no vector."""
    torch.manual_seed(0)
    last = Conv1D(320, 384)  # type: ignore[no-untyped-call]
    layers = nn.Linear(384, 1536), nn.SiLU(), nn.Linear(1536, 384, bias=False), GELUActivation(), last
    model = nn.Sequential(*layers).to(dtype)
    x, found = torch.randn(3, 423, 384, dtype=dtype), set[bytes]()
    for threads in (1, 2, 3, 5):
        with running_on(threads), torch.inference_mode(), by_rows(model):
            found.add(hashed(model(x)))
    assert len(found) == 1
    made = torch.frombuffer(bytearray(found.pop()), dtype=torch.float32).view(3, 423, 320)
    with torch.inference_mode():
        torch.testing.assert_close(made, model(x).float(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_what_it_is_without(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by, "ROWS", 16)
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(FAMILIES[family]).eval()  # type: ignore[no-untyped-call]
    ids, found = torch.randint(2, 90, (3, 33)), list[Tensor]()
    with torch.inference_mode():
        wanted = model(ids, use_cache=False).logits
        for threads in (1, 3):
            with running_on(threads), by_rows(model):
                found.append(model(ids, use_cache=False).logits)
        assert torch.equal(model(ids, use_cache=False).logits, wanted)
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-5)


def test_a_model_is_as_it_was_after_an_error() -> None:
    model, threads = nn.Sequential(nn.Linear(4, 4)), torch.get_num_threads()
    with pytest.raises(RuntimeError, match="shapes"), by_rows(model):
        model(torch.ones(2, 5))
    assert "forward" not in vars(model[0])
    assert torch.get_num_threads() == threads
    with by_rows(model):
        assert model(torch.ones(0, 4)).shape == (0, 4)
