"""What each policy knows when it chooses: nothing of the continuation, but for the oracle."""

from typing import Any

import numpy as np
import pytest
import torch
from evaluating import KEEP, PROMPT, REST
from evaluating import texts as texts
from numpy.typing import NDArray

from coreinfer import Engine
from coreinfer.capture import Capture, valid_tokens
from coreinfer.evaluate import LADDER, Plan, Rungs, Text, measure
from coreinfer.evaluate.policies import Known
from coreinfer.models import bos_of


def scores(engine: Engine, ids: NDArray[np.int32], policy: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each text's neurons are ranked by."""
    seen, rungs, real = list[Any](), Rungs(engine, (policy,)), Rungs.scores

    def spy(self: Rungs, asked: str, known: Known, i: int) -> NDArray[np.float64]:
        made = real(self, asked, known, i)
        seen.extend([made] if asked == policy else [])
        return made

    with monkeypatch.context() as patch:
        patch.setattr(Rungs, "scores", spy)
        texts = [Text(f"text {i}", row) for i, row in enumerate(ids)]
        measure(engine, texts, Plan((KEEP,), (PROMPT,), REST, (policy,)), rungs)
    return seen[-len(ids) :]


def test_the_prompt_knows_nothing_of_its_continuation(
    engine: Engine, texts: list[Text], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.stack([text.ids for text in texts])
    changed = ids.copy()
    changed[:, PROMPT:] = ids[::-1, PROMPT:]
    for policy in LADDER:
        pairs = zip(*(scores(engine, rows, policy, monkeypatch) for rows in (ids, changed)), strict=True)
        same = all(np.allclose(x, y, rtol=1e-4, atol=1e-8) for x, y in pairs)
        assert same == (policy != "oracle"), policy


def test_stability_is_what_a_prefill_of_the_prompt_sees(
    engine: Engine, texts: list[Text], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.stack([text.ids for text in texts])
    prompts = torch.from_numpy(ids[:, :PROMPT].astype(np.int64))
    with torch.inference_mode(), Capture(engine.model, engine.artifact.manifest.statistic) as capture:
        capture.expect(valid_tokens(prompts, None, bos_of(engine.model)))
        engine.model(input_ids=prompts)
        alone = capture.shares()
    assert np.stack(scores(engine, ids, "stability", monkeypatch)) == pytest.approx(alone, rel=1e-3, abs=1e-7)
