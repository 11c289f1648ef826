"""Lossless beside dense decoding by the same steps, on real prompts: drafts of random neurons would say nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coreinfer.engine import Engine
from coreinfer.generation import Generation
from coreinfer.progress import Stage, unseen

PROMPTS = 6  # the largest clusters, an example each


@dataclass(frozen=True)
class LosslessSpeed:
    """``keep`` of the drafts, share of them accepted, tokens a second, and over dense; whether all texts are equal."""

    keep: float
    accepted: float
    tokens_per_second: float
    over_dense: float
    identical: bool


def examples(engine: Engine) -> list[str]:
    """The first words of a passage of each of the largest clusters, or its terms where the artifact has no passages."""
    made, largest = engine.artifact, engine.artifact.sizes.argsort()[::-1][:PROMPTS]
    words = (made.examples[int(c)][0].split() if made.examples[int(c)] else made.terms[int(c)] for c in largest)
    return [" ".join(some[:24]) for some in words]


def measure_lossless(engine: Engine, prompts: Sequence[str], new_tokens: int, stage: Stage = unseen) -> LosslessSpeed:
    """Each prompt dense and lossless in turn, twice; the second time counts."""
    made: dict[str, list[Generation]] = {"dense": [], "lossless": []}
    tick = stage("dense and lossless", 2 * len(prompts) * len(made))
    tick(0)
    for number in range(2):
        for prompt in prompts:
            for way, counted in made.items():
                options: dict[str, Any] = {"lossless": True} if way == "lossless" else {"policy": "dense"}
                one = engine.generate(prompt, max_new_tokens=new_tokens, runtime="coreinfer", **options)
                counted += [one] if number else []
                tick(1)
    dense, quick = made["dense"], made["lossless"]
    drafts = [one.drafts for one in quick if one.drafts is not None]
    drafted, accepted = sum(d.drafted for d in drafts), sum(d.accepted for d in drafts)
    same = [one.text for one in dense] == [one.text for one in quick]
    keep, share = quick[0].prediction.keep, accepted / max(drafted, 1)
    return LosslessSpeed(keep, share, _rate(quick), _rate(quick) / _rate(dense), same)


def _rate(made: Sequence[Generation]) -> float:
    """Tokens a second, the first of each text aside."""
    return sum(one.new_tokens - 1 for one in made) / sum(one.decode_s for one in made)
