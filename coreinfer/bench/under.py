"""What a model costs under a memory budget: its first token, its speed after it, and what it took at the most."""

import gc
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from coreinfer.bench.offload import Offloaded, offloaded
from coreinfer.bench.plan import Plan
from coreinfer.bench.shapes import random_prompt
from coreinfer.bench.subjects import random_set
from coreinfer.clock import Clock
from coreinfer.memory.budget import Budget
from coreinfer.memory.peak import Peak
from coreinfer.memory.sizes import size_in_words
from coreinfer.progress import Stage, unseen
from coreinfer.runtime import Runtimes
from coreinfer.settings import StatisticSettings
from coreinfer.streaming import GREEDY


@dataclass(frozen=True)
class Fitted:
    """A keep: seconds to the first token (the prompt's prefill, then the set's neurons), to that of another prompt with
    another set, and tokens a second after it; ``peak``: bytes beyond what was there before the model was loaded, of
    which ``planned`` were foreseen.
    """

    keep: float
    first_token_s: float
    next_first_token_s: float
    tokens_per_second: float
    peak: int
    planned: int


@dataclass(frozen=True)
class Under:
    """All of a model's; ``weights`` and ``memory`` in bytes; ``streamed``: whether they did not fit; then ``peer`` is
    Transformers with Accelerate in the same memory, or why there is none.
    """

    model: str
    dtype: str
    device: str
    weights: int
    memory: int
    streamed: bool
    rows: tuple[Fitted, ...]
    peer: Offloaded | str | None = None


def measure_under(budget: Budget, plan: Plan, stage: Stage = unseen) -> Under:
    """
    Raises:
        CoreInferError: a keep that does not fit; the message says which does.
    """
    f, tokens = budget.facts, plan.prompt_tokens + plan.new_tokens
    kept = [sum(random_set(f.layers, f.width, keep).per_layer) for keep in plan.keeps]
    for count, keep in zip(kept, plan.keeps, strict=True):
        budget.plan.check(count, keep, plan.prompt_tokens, tokens)
    stage("warming up", None)(0)
    _generate(_tiny(budget), plan, 0.5, 0)  # libraries take memory once, which is not the model's
    rows = list[Fitted]()
    peak = Peak(budget.device)
    model = budget.load(stage)
    runtimes = Runtimes(model, StatisticSettings(), 0)
    for count, keep in zip(kept, plan.keeps, strict=True):
        stage(f"keep {keep:g}", None)(0)
        runtimes.forget()  # of the keep before
        peak.restart()
        first, later = (_generate(runtimes, plan, keep, seed) for seed in range(2))
        speed = (plan.new_tokens - 1) / later.rest_s
        planned = budget.plan.needs(count, plan.prompt_tokens, tokens)
        rows.append(Fitted(keep, first.first_s, later.first_s, speed, peak.bytes, planned))
    weights = f.embeddings + f.attention + f.layers * f.layer
    name, dtype = Path(budget.name).name, str(budget.dtype).removeprefix("torch.")
    made = Under(name, dtype, str(budget.device), weights, budget.plan.limit, budget.plan.streamed, tuple(rows))
    if not made.streamed:
        return made
    del model, runtimes
    gc.collect()  # what is left of ours is no memory of the peer's
    if budget.device.type == "cuda":
        torch.cuda.empty_cache()
    stage("transformers with accelerate, offloaded", None)(0)
    return replace(made, peer=offloaded(budget, plan))


def _tiny(budget: Budget) -> Runtimes:
    config = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, vocab_size=1000
    )
    made: Any = AutoModelForCausalLM.from_config(config, dtype=budget.dtype)  # type: ignore[no-untyped-call]
    return Runtimes(made.to(budget.device).train(False), StatisticSettings(), 0)


def _generate(runtimes: Runtimes, plan: Plan, keep: float, seed: int) -> Clock:
    """A random prompt's continuation on a random set, decided in prefill as a prompt's own is."""
    ids, clock = random_prompt(runtimes.model, plan.prompt_tokens), Clock(None)

    def decide(shares: Any, count: int) -> Any:
        return random_set(len(shares), shares.shape[1], keep, seed)

    runtimes.run("coreinfer", ids, decide, plan.new_tokens, clock, lambda token: False, GREEDY)
    return clock


def table(made: Under) -> list[str]:
    """Lines for people."""
    how = "streamed" if made.streamed else "all of it fits"
    lines = [
        f"{made.model}, {made.dtype}, {made.device}: {size_in_words(made.weights)} of weights in "
        f"{size_in_words(made.memory)} of memory ({how})",
        "keep   first token   another set     tok/s        peak     planned",
    ]
    lines += [
        f"{row.keep:4g}   {row.first_token_s:9.3f} s   {row.next_first_token_s:9.3f} s  {row.tokens_per_second:8.1f}  "
        f"{size_in_words(row.peak):>10}  {size_in_words(row.planned):>10}"
        for row in made.rows
    ]
    return lines + _peer(made)


def _peer(made: Under) -> list[str]:
    if made.peer is None:
        return []
    if isinstance(made.peer, str):
        return [f"left out: transformers with accelerate, offloaded: {made.peer}"]
    first, rate = made.peer.first_token_s, made.peer.tokens_per_second
    peak = "" if made.peer.peak is None else f", {size_in_words(made.peer.peak)} at the most"
    said = f"transformers with accelerate, offloaded: first token {first:.3f} s, {rate:.3g} tok/s{peak}"
    return [
        f"{said}; coreinfer at keep {row.keep:g} is {row.tokens_per_second / rate:,.0f} times as fast"
        for row in made.rows
    ]


def last_line(made: Under) -> str:
    """The JSON that a program reads."""
    return json.dumps(asdict(made), ensure_ascii=False)
