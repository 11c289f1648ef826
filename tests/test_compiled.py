"""Recording with compiled layers, beside recording with layers as they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from recording import recorder, shares, tiny

from coreinfer import CoreInferError
from coreinfer.models import layers_of
from pipeline.compiled import ENOUGH, NotCompiled, wants_compiling
from pipeline.corpus import compiled
from pipeline.record import Recorder

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


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["Llama", "GPT2"])
def test_layers_are_found_and_left_as_they_were(name: str) -> None:
    made = tiny(name)
    layers = layers_of(made)
    before = [dict(vars(layer)) for layer in layers]
    assert len(layers) == made.config.num_hidden_layers
    shares(recorder(made).compiled("eager"), 3, 32)
    assert [dict(vars(layer)) for layer in layers] == before


def test_batches_of_any_size_run_what_was_compiled() -> None:
    """All but a single text; nothing more is ever compiled; and what is reduced is the same."""
    made, graphs = tiny("Llama"), Graphs()
    plain, ours = recorder(made), recorder(made).compiled(graphs)  # type: ignore[arg-type]
    compiled_at_first = graphs.made
    assert compiled_at_first > 0
    for texts, tokens in SIZES:
        for padded in (True, False):
            ran = graphs.run
            assert np.array_equal(shares(ours, texts, tokens, padded), shares(plain, texts, tokens, padded))
            assert (graphs.run > ran) == (texts > 1)
    assert graphs.made == compiled_at_first
    assert (ours.reduced_by, plain.reduced_by) == (f"{plain.reduced_by}, compiled layers", plain.reduced_by)


def broken(graph: Any, inputs: Any) -> Callable[..., Any]:
    raise RuntimeError("no compiler here")


def wrong(graph: Any, inputs: Any) -> Callable[..., Any]:
    return lambda *args: [each + 1 if each.is_floating_point() else each for each in graph(*args)]


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (broken, "the model's layers cannot be compiled .*no compiler here"),
        (wrong, "compute something else when they are compiled .off by "),
    ],
)
def test_what_does_not_compile_is_not_used(backend: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asked for it hears that; who did not, that it is done without."""
    made, said = recorder(tiny("Llama")), list[str]()
    with pytest.raises(NotCompiled, match=words):
        made.compiled(backend)
    through = Recorder.compiled
    monkeypatch.setattr(Recorder, "compiled", lambda self: through(self, backend))
    assert compiled(made, None, said.append) is made
    assert said[0].endswith("): recording does without")
    with pytest.raises(CoreInferError, match="leave out --compile"):
        compiled(made, True, said.append)
    assert np.isfinite(shares(made, 2, 32)).all()


def test_where_it_pays() -> None:
    assert wants_compiling(None, "cuda:1", ENOUGH)
    assert not wants_compiling(None, "cuda", ENOUGH - 1)
    assert not wants_compiling(None, "cpu", ENOUGH)
    assert [wants_compiling(asked, "cpu", 1) for asked in (True, False)] == [True, False]
