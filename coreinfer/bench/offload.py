"""The peer under a memory budget: Transformers with Accelerate, which leaves the layers that do not fit in host memory,
or on a disk, and fetches them for every token.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from coreinfer.bench.limits import seconds
from coreinfer.bench.plan import Plan
from coreinfer.bench.shapes import random_prompt
from coreinfer.errors import in_words
from coreinfer.memory.budget import Budget

TOKENS = 4  # after the first; each takes as long as the next
WEIGHTS = 0.9  # of the memory: the rest is for the cache and what passes through


@dataclass(frozen=True)
class Offloaded:
    """Seconds to the first token, tokens a second after it, and bytes of the device taken at most, where it counts."""

    first_token_s: float
    tokens_per_second: float
    peak: int | None


def offloaded(budget: Budget, plan: Plan) -> Offloaded | str:
    """The model as Accelerate's ``device_map="auto"`` lays it out in the budget's memory; or why there is nothing."""
    if find_spec("accelerate") is None:
        return "pip install accelerate"
    try:
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder, torch.inference_mode():
            return _measured(_loaded(budget, folder), plan, str(budget.device))
    except (OSError, RuntimeError, ValueError, NotImplementedError) as error:
        return in_words(error)


def _loaded(budget: Budget, folder: str) -> Any:
    room = int(WEIGHTS * budget.plan.limit)
    on_gpu = budget.device.type == "cuda"
    where: dict[Any, int] = {budget.device.index or 0: room, "cpu": 1 << 50} if on_gpu else {"cpu": room}
    return AutoModelForCausalLM.from_pretrained(
        budget.where, dtype=budget.dtype, device_map="auto", max_memory=where, offload_folder=folder
    ).train(False)


def _measured(model: Any, plan: Plan, device: str) -> Offloaded:
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    ids = random_prompt(model, plan.prompt_tokens)

    def took(count: int) -> float:
        return seconds(lambda: _generate(model, ids, count), device)

    took(1)  # libraries warm up
    first = took(1)
    rest = max(took(1 + TOKENS) - first, 1e-9)  # a tiny model's is within the clock's noise
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else None
    return Offloaded(first, TOKENS / rest, peak)


def _generate(model: Any, ids: torch.Tensor, count: int) -> None:
    model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count,
        do_sample=False, pad_token_id=0,
    )  # fmt: skip
