"""The statistic that is recorded is the one that costs least: against a slow truth, text by text."""

import numpy as np
import pytest
import torch
from families import CONTEXT, LAYERS, VOCAB, WIDTH, build, down_modules
from families import one_thread as one_thread
from slow_truths import logits, naive

from coreinfer.capture import Capture
from coreinfer.neurons import blend, top, uniform_budgets
from coreinfer.settings import PolicySettings
from pipeline.calibration import statistic
from pipeline.calibration.statistic import LEAST, TRIED, choose_statistic

PROMPT, TEXTS = 20, 9


@pytest.fixture(autouse=True)
def short_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny models' context is 64."""
    monkeypatch.setattr(statistic, "PROMPT", PROMPT)


def ids(texts: int = TEXTS) -> torch.Tensor:
    return torch.randint(2, VOCAB, (texts, CONTEXT - 10), generator=torch.Generator().manual_seed(1))


def share_of(model: torch.nn.Module, part: torch.Tensor, kind: object) -> np.ndarray:
    with Capture(model, kind) as capture, torch.no_grad():  # type: ignore[arg-type]
        capture.expect(torch.ones_like(part, dtype=torch.bool))
        model(input_ids=part, use_cache=False)
        return np.asarray(capture.shares()[0])


def slow_rise(name: str, texts: torch.Tensor, kind: object, keep: float) -> float:
    """Mean NLL rise of the tokens after the prompt: prompt's statistic, the other texts' mean as the prior."""
    model, rises = build(name), list[float]()
    prompts = [share_of(model, text[None, :PROMPT], kind) for text in texts]
    # The truth's continuation statistic is of the tokens that run sparse, in the context of the prompt.
    wholes = []
    for text, prompt in zip(texts, prompts, strict=True):
        fed = text[None, :-1]
        with Capture(model, kind) as capture, torch.no_grad():  # type: ignore[arg-type]
            capture.expect(torch.arange(fed.shape[1])[None] >= PROMPT)
            model(input_ids=fed, use_cache=False)
            wholes.append((prompt + np.asarray(capture.shares()[0])) / 2)
    for i, text in enumerate(texts):
        prior = np.mean([w for j, w in enumerate(wholes) if j != i], 0)
        neurons = top(blend(prompts[i], prior, PROMPT, PolicySettings().n0), uniform_budgets(keep, LAYERS, WIDTH))
        dense, sparse = logits(model, text[None]), naive(model, down_modules(model, name), neurons, text[None], PROMPT)
        nll = [-x.log_softmax(-1)[0, PROMPT - 1 : -1].gather(-1, text[PROMPT:, None]) for x in (dense, sparse)]
        rises.append(float((nll[1] - nll[0]).mean()))
    return float(np.mean(rises))


@pytest.mark.parametrize("name", ["Llama", "Gemma3", "OPT"])
def test_the_table_is_what_each_statistic_costs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistic, "batch_size", lambda model, tokens: 4)  # so that there are three
    chosen, table = choose_statistic(build(name), ids(), 0.5)
    assert [row["statistic"] for row in table] == [tried.kind for tried in TRIED]
    for row, tried in zip(table, TRIED, strict=True):
        assert row["keeps"] == [0.25, 0.5]
        wanted = [slow_rise(name, ids(), tried, keep) for keep in row["keeps"]]
        assert row["rise"] == pytest.approx(wanted, abs=2e-4)
    least = min(table, key=lambda row: sum(row["rise"]))
    assert chosen.kind in (least["statistic"], "energy")
    ahead = (sum(table[0]["rise"]) - sum(least["rise"])) / 2
    assert (chosen.kind == "energy") == (ahead <= 0.002)


def test_too_few_texts_choose_nothing() -> None:
    assert choose_statistic(build("Llama"), ids(LEAST - 1), 0.5) == (TRIED[0], [])
