"""Recording with compiled layers, beside recording with layers as they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from recording import recorder, shares, tiny

from coreinfer.models import layers_of
from pipeline.compiled import ENOUGH, NotCompiled, worth_compiling

SIZES = [(5, 48), (1, 32), (7, 16), (2, 64)]


class Graphs:
    """A backend of ``torch.compile`` that runs what it gets as it is, and counts that."""

    def __init__(self) -> None:
        self.run, self.made = 0, 0

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        self.made += 1

        def counted(*args: Any) -> Any:
            self.run += 1
            return graph(*args)

        return counted


def test_layers_are_found_and_left_as_they_were() -> None:
    made = tiny("GPT2")
    layers = layers_of(made)
    before = [dict(vars(layer)) for layer in layers]
    assert len(layers) == made.config.num_hidden_layers
    layers[0].forward = layers[0].forward  # an instance's own, as a library of hooks may have put it
    before[0]["forward"] = layers[0].forward
    shares(recorder(made).compiled("eager"), 3, 32)
    assert [dict(vars(layer)) for layer in layers] == before


def test_batches_of_any_size_run_what_was_compiled() -> None:
    """All but a single text; nothing more is ever compiled; and what is reduced is the same."""
    made, graphs = tiny("Llama"), Graphs()
    plain, ours = recorder(made), recorder(made).compiled(graphs)  # type: ignore[arg-type]
    assert graphs.made == 0
    shares(ours, 3, 32)
    compiled_at_first = graphs.made
    assert compiled_at_first > 0
    for texts, tokens in SIZES:
        for padded in (True, False):
            ran = graphs.run
            assert np.array_equal(shares(ours, texts, tokens, padded), shares(plain, texts, tokens, padded))
            assert (graphs.run > ran) == (texts > 1)
    assert graphs.made == compiled_at_first
    assert ours.reduced_by.startswith(f"{plain.reduced_by}, layers compiled")


def broken(graph: Any, inputs: Any) -> Callable[..., Any]:
    raise RuntimeError("no compiler here")


class Wrong:
    """Adds something, but to the first graphs; ``what``: one, or no number."""

    def __init__(self, what: float, spared: int) -> None:
        self.what, self.spared = what, spared

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        self.spared -= 1
        if self.spared >= 0:
            return graph  # type: ignore[no-any-return]
        return lambda *args: [each + self.what if each.is_floating_point() else each for each in graph(*args)]


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (broken, "cannot be compiled .no compiler here.: give --no-compile"),
        (Wrong(1, 0), "something else .*off by 0"), (Wrong(np.nan, 3), "something else .*off by nan"),
    ],
)  # fmt: skip
def test_what_does_not_compile_is_not_used(backend: Any, words: str) -> None:
    """The padded batch, which comes second, counts as the other does; the model is as it was."""
    made = tiny("Llama")
    with pytest.raises(NotCompiled, match=words):
        shares(recorder(made).compiled(backend), 2, 32)
    assert np.isfinite(shares(recorder(made), 2, 32)).all()


def test_torch_that_compiles_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda forward, **more: forward)
    with pytest.raises(NotCompiled, match="turned off here"):
        shares(recorder(tiny("Llama")).compiled(), 2, 32)


def test_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """From so many passages, where a GPU runs our own kernels; or where it is asked for."""
    made = recorder(tiny("Llama"))
    assert worth_compiling(ENOUGH)
    assert not worth_compiling(ENOUGH - 1)
    assert [made.for_corpus(n, asked).layers is None for n, asked in ((ENOUGH, None), (1, True))] == [True, False]
    monkeypatch.setattr("pipeline.record.reduced_by", lambda *of: "kernels")
    found = [made.for_corpus(n, asked).layers for n, asked in ((ENOUGH, None), (ENOUGH - 1, None), (ENOUGH, False))]
    assert [each is None for each in found] == [False, True, True]
