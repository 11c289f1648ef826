"""PURE: what fits into a budget of memory, and in words what does not."""

import math
from dataclasses import dataclass

from coreinfer.errors import CoreInferError
from coreinfer.memory.facts import Facts
from coreinfer.memory.sizes import size_in_words
from coreinfer.settings import HELD

ROOM = 1024  # positions of the decoder's first cache; longer texts get larger ones
BLOCK = 1 << 23  # bytes of neurons that are on their way to the device at a time
SLACK, GPU_SLACK = 1 << 24, 1 << 28  # bytes that allocators and libraries hold beside what is asked of them


@dataclass(frozen=True)
class Plan:
    """What a model takes under a budget of ``limit`` bytes on its device.

    ``streamed``: whether neurons are streamed; else all weights are resident. ``beside``: bytes that something else of
    the project takes there, such as the embedder.
    """

    facts: Facts
    limit: int
    on_gpu: bool
    streamed: bool = True
    beside: int = 0

    def takes(self, kept: int, prompt: int, tokens: int) -> dict[str, int]:
        """Bytes by what takes them, at the most, with ``kept`` neurons resident in all layers together, a prompt of so
        many tokens, and as many tokens in the end.
        """
        f = self.facts
        held = min(f.context, max(ROOM, 2 * tokens))  # the cache doubles when it grows
        passing = prompt * f.token + prompt * prompt * f.pair + f.logits
        return {
            "embeddings": f.embeddings, "attention": f.attention * self._copies, "norms and positions": f.rest,
            "caches": f.position * (held + min(prompt, f.context)), "streaming": self._streaming,
            "the prompt's activations": max(passing, f.once) + (GPU_SLACK + HELD if self.on_gpu else SLACK),
            "neurons": self._neurons(kept),
            **({"the embedder": self.beside} if self.beside else {}),
        }  # fmt: skip

    @property
    def _copies(self) -> int:
        """On a CPU, a whole model's attention lies in its file's pages and in what decoding made of it."""
        return 1 if self.streamed or self.on_gpu else 2

    @property
    def _streaming(self) -> int:
        """A CPU has one layer in memory, a GPU two; one module's gate and up may be put together for a moment."""
        if not self.streamed:
            return self.facts.layer if self.on_gpu else 0
        whole = self.facts.layer * 2 // 3 if self.facts.fused else 0
        return (2 if self.on_gpu else 1) * self.facts.layer + whole + 2 * BLOCK

    def _neurons(self, kept: int) -> int:
        """Those of the set; with all weights resident, a CPU gathers a set that is not all of them beside those."""
        if self.streamed:
            return kept * self.facts.neuron
        beside = kept if kept < self.facts.neurons and not self.on_gpu else 0
        return (self.facts.neurons + beside) * self.facts.neuron

    def needs(self, kept: int, prompt: int, tokens: int) -> int:
        """All of it together."""
        return sum(self.takes(kept, prompt, tokens).values())

    def most(self, prompt: int, tokens: int) -> int:
        """How many neurons fit, in all layers together; below 0: not even what comes before them."""
        left = self.limit - self.needs(0, prompt, tokens)
        return min(self.facts.neurons, left // self.facts.neuron)

    def most_keep(self, prompt: int, tokens: int) -> float:
        """The largest keep that fits, rounded down; layer budgets are rounded, so a neuron of each layer is spared."""
        spared = self.most(prompt, tokens) - self.facts.layers
        return max(0.0, math.floor(spared / self.facts.neurons * 1000) / 1000)

    def check(self, kept: int, keep: float, prompt: int, tokens: int) -> None:
        """
        Raises:
            CoreInferError: the budget is too small; the message says the smallest that works and what takes it, and
                the largest keep that fits into the budget given.
        """
        if self.needs(kept, prompt, tokens) <= self.limit:
            return
        parts = self.takes(kept, prompt, tokens)
        listed = ", ".join(f"{name} {size_in_words(size)}" for name, size in parts.items() if size)
        smaller = self.most_keep(prompt, tokens) if self.streamed else 0.0
        other = f", or --keep {smaller:g} at most" if 0 < smaller < keep else ""
        raise CoreInferError(
            f"the memory is {size_in_words(self.limit)}, and {tokens} tokens at keep {keep:g} need at least "
            f"{size_in_words(sum(parts.values()))} ({listed}): give that much{other}"
        )
