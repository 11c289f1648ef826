"""How much the loss minds each neuron: gradients against finite differences, and the model left as it was."""

import numpy as np
import pytest
import torch
from families import LAYERS, WIDTH, build, down_modules, tokens
from families import one_thread as one_thread
from torch import Tensor
from torch.nn.functional import cross_entropy

from coreinfer.mlp import down_rows
from coreinfer.models import find_mlps
from pipeline.calibration.sensitivity import sensitivity, weights

TEXTS, LENGTH = 2, 5
STEP = 3e-3  # even float64 models of Llama and Gemma normalise in float32: a smaller step drowns in it


@torch.no_grad()
def slow_squares(name: str, ids: Tensor) -> np.ndarray:
    """Sum of g^2 over texts and tokens but the first, each g from two forwards, (L, F)."""
    model, out = build(name).double(), np.zeros((LAYERS, WIDTH))
    for layer, module in enumerate(down_modules(model, name)):
        for token in range(1, LENGTH):
            losses = []
            for step in (STEP, -STEP):
                moved = torch.eye(WIDTH, dtype=torch.float64)[:, None] * step  # one neuron in each copy of a text
                for text in ids:
                    copies = text.expand(WIDTH, -1)

                    def move(_: object, args: tuple[Tensor], moved: Tensor = moved, at: int = token) -> tuple[Tensor]:
                        a = args[0].reshape(WIDTH, LENGTH, WIDTH).clone()
                        a[:, at : at + 1] += moved
                        return (a.reshape(args[0].shape),)

                    hook = module.register_forward_pre_hook(move)
                    logits = model(input_ids=copies).logits[:, :-1]
                    hook.remove()
                    each = cross_entropy(logits.transpose(1, 2), copies[:, 1:], reduction="none").sum(1)
                    losses.append(each.numpy())
            up, down = np.split(np.array(losses), 2)
            out[layer] += (((up - down) / (2 * STEP)) ** 2).sum(0)
    return out


@pytest.mark.parametrize("name", ["Llama", "OPT", "GPT2", "Gemma3"])
def test_it_is_the_squared_gradient_over_the_columns(name: str) -> None:
    model, ids = build(name), tokens(TEXTS, LENGTH)
    columns = np.stack([down_rows(mlp).detach().square().sum(1).numpy() for mlp in find_mlps(model)])
    wanted = slow_squares(name, ids) / columns
    found = sensitivity(model, ids)
    np.testing.assert_allclose(found, wanted / wanted.mean(1, keepdims=True), rtol=0.01, atol=1e-3)


def test_without_columns_it_is_the_squared_gradient() -> None:
    wanted = slow_squares("Llama", tokens(TEXTS, LENGTH))
    found = sensitivity(build("Llama"), tokens(TEXTS, LENGTH), columns=False)
    np.testing.assert_allclose(found, wanted / wanted.mean(1, keepdims=True), rtol=0.01, atol=1e-3)


def test_the_model_is_left_as_it_was() -> None:
    model, ids = build("Llama"), tokens(TEXTS, LENGTH)
    model.lm_head.weight.requires_grad_(False)
    before = model(input_ids=ids).logits.detach()
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    sensitivity(model, ids)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(model(input_ids=ids).logits, before)


def test_powers_run_from_even_weights_to_the_ratio() -> None:
    ratio = np.array([[0.25, 1.0, 4.0]])
    assert weights(ratio, 0.0).tolist() == [[1, 1, 1]]
    assert weights(ratio, 0.5).tolist() == [[0.5, 1, 2]]
    assert weights(ratio, 1.0).tolist() == ratio.tolist()
