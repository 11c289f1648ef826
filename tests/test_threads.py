"""Short prompts are read by one thread, longer ones by all, and what is read is the same."""

import pytest
import torch
from families import FAMILIES, build
from quantising import both, narrow
from torch import nn

from coreinfer.threads import LITTLE, enough_for, multiplications_of


@pytest.fixture(autouse=True)
def three_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("work", "threads"), [(0, 1), (LITTLE, 1), (LITTLE + 1, 3)])
def test_what_is_little_has_one_thread(work: float, threads: int) -> None:
    with enough_for(work):
        assert torch.get_num_threads() == threads
        with enough_for(work):
            assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 3


def test_an_error_leaves_as_many_as_there_were() -> None:
    with pytest.raises(ZeroDivisionError), enough_for(0):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("name", FAMILIES)
def test_multiplications_are_counted(name: str) -> None:
    """By what its linear modules are given and make in a forward of one token."""
    model, seen = build(name), list[int]()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, x, y: seen.append(x[0].shape[-1] * y.shape[-1]))
    model(input_ids=torch.tensor([[3]]))
    assert sum(seen) == multiplications_of(model)


@both
def test_quantised_weights_count_as_well(dtype: str) -> None:
    model = narrow("Llama", dtype)
    quantised = multiplications_of(model)
    assert quantised > 0.5 * sum(p.numel() for p in build("Llama", model.config).parameters())
