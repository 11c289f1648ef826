"""Prefill by Transformers, then tokens by steps of the project's own; sets change between two steps at no cost."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.decode.ahead import tokens_ahead
from coreinfer.decode.compiling import PATIENCE, faults_named
from coreinfer.decode.cpu import cpu_step
from coreinfer.decode.families import read_network, unsupported
from coreinfer.decode.kept import Kept, Runs
from coreinfer.decode.lossless import Looks, Lossless, rows_needed
from coreinfer.decode.network import Network
from coreinfer.decode.state import Feed, State
from coreinfer.errors import CoreInferError
from coreinfer.launching import launching_on
from coreinfer.memory.held import Held
from coreinfer.memory.linear import StreamedLinear
from coreinfer.models import find_mlps
from coreinfer.neurons import NeuronSet, every
from coreinfer.quantised.packed import Packed
from coreinfer.waiting import said_if_long

GRAPHS = 8  # layer budgets whose steps stay captured
SETS = 1  # whose gathered weights a CPU keeps, as slim does


class Decoder:
    """Decodes one sequence at a time.

    ``begin`` takes a prompt's caches over, ``keep`` says on which neurons the next steps run, ``tokens`` makes them.

    Raises:
        CoreInferError: an architecture that the steps do not know; the message names it.
    """

    def __init__(self, model: PreTrainedModel, context: int | None = None) -> None:
        if why := unsupported(model):
            raise CoreInferError(f"{why} is not decoded by coreinfer's own steps: use Transformers' generate")
        self.on_gpu = model.device.type == "cuda"
        self.mlps, self.model = find_mlps(model), model
        with torch.inference_mode(False):  # weights laid out inside of it could never be trained again
            self.network = read_network(model, bundle=self.on_gpu)
        down = self.mlps[0].down
        self.held = Held(self.network, down.stream, self.on_gpu) if isinstance(down, StreamedLinear) else None
        self._steps = Kept()
        self._step: Runs | None = None
        self._dense: Looks | None = None
        self._warm = False  # whether the compiled loops are there
        self.sets, self.gathers = SETS, 0  # how many a CPU keeps; how many were made
        self._new_state(min(context or self.network.context, self.network.context))

    @property
    def context(self) -> int:
        """Positions that the cache holds."""
        return self.state.context

    def make_room(self, tokens: int, slots: int = 1) -> None:
        """Let the cache hold so many positions of so many texts; one that grows in length doubles, and forgets what it
        held.

        Raises:
            CoreInferError: more positions than the steps know.
        """
        held, most = self.context, self.network.context
        if tokens > most:
            raise CoreInferError(f"prompt and continuation have {tokens} tokens, coreinfer's own steps hold {most}")
        if tokens > held or slots > self.state.slots:
            self._steps.clear()
            self._step = self._dense = None
            slots = slots if tokens > held else max(slots, self.state.slots)
            del self.state
            self._new_state(min(most, max(tokens, 2 * held)) if tokens > held else held, slots)

    def _new_state(self, context: int, slots: int = 1) -> None:
        with torch.inference_mode(False):
            self.state = State(self.network, context, slots)

    def keep(self, neurons: NeuronSet, texts: int = 1) -> None:
        """Run the next steps on these neurons, of so many texts at a time. On a GPU, the first set of other layer
        budgets captures a step; on a CPU each set's weights are gathered, unless they are still there.

        Raises:
            NotCompiled: a GPU for which the kernels cannot be made.
        """
        if texts > 1:
            self._check_several("a batch")
        key: Hashable = (tuple(neurons.per_layer), texts > 1) if self.on_gpu else neurons
        if key not in self._steps:
            self._step = None  # what leaves now shall leave memory before the next takes its own
            self._steps.make_room(1 if self.held else GRAPHS if self.on_gpu else self.sets)
        network = self.network
        if self.held is not None:
            network, neurons = self.held.hold(neurons)
        self.state.keep(neurons)
        if key not in self._steps:
            made = self._gpu_step(network, neurons, texts) if self.on_gpu else self._on_cpu(network, neurons)
            self._steps.put(key, made)
            self.gathers += 1
        self._step = self._steps.take(key)

    @property
    def several(self) -> bool:
        """Whether a step may have several rows; kernels for those read no quantised weights."""
        return not (self.on_gpu and isinstance(self.network.head, Packed))

    def lossless(self) -> Lossless:
        """The kept neurons, set by ``keep``, draft for the dense model.

        Raises:
            CoreInferError: a step cannot have several rows here.
        """
        assert self._step is not None, "keep comes first"
        self._check_several("lossless decoding")
        self._dense = self._dense or self._looking()
        return Lossless(self.state, self._step.run, self._dense)

    def _check_several(self, what: str) -> None:
        if not self.several:
            raise CoreInferError(f"{what} on a GPU reads plain weights, these are quantised: give --dtype bfloat16")

    def _looking(self) -> Looks:
        """A step on all neurons that looks at drafts."""
        net = self.network
        with torch.inference_mode(False):
            feed = Feed(net, rows_needed())
        feed.position.fill_(self.context - 2)  # where a capture may write
        if not self.on_gpu:
            return cpu_step(net, self.state, every(len(net.layers), net.width), feed)
        all_of = torch.arange(net.width, dtype=torch.int32, device=self.model.device).expand(len(net.layers), -1)

        def made() -> Any:
            from coreinfer.decode.rows import RowsStep

            return RowsStep(net, self.state, [net.width] * len(net.layers), feed, all_of, looking=True)

        return cast(Looks, self._captured(made))

    def _on_cpu(self, network: Network, neurons: NeuronSet) -> Runs:
        """The first of a process compiles its loops, or loads what was compiled."""
        step = cpu_step(network, self.state, neurons, must=self.held is not None, spare=self._steps.spare)
        if not self._warm:
            said = said_if_long("compiling the loops of this processor's steps, once on a machine", PATIENCE)
            with said, self._aside():
                step.run()
        self._warm = True
        return step

    def _gpu_step(self, network: Network, neurons: NeuronSet, texts: int) -> Runs:
        def made() -> Any:
            from coreinfer.decode.rows import RowsStep
            from coreinfer.decode.whole import one_text

            return (RowsStep if texts > 1 else one_text)(network, self.state, neurons.per_layer)

        return cast(Runs, self._captured(made))

    def _captured(self, make: Callable[[], Any]) -> Any:
        """A step of kernels, compiled and captured."""
        said = said_if_long("compiling kernels for this GPU, once on a machine", PATIENCE)
        with faults_named(str(self.model.device)), said, self._aside():
            step = make()  # imports Triton
            step.capture()
            return step

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Let steps run that nobody asked for, at the cache's last two places; then all is as it was."""
        s = self.state
        moved = s.feed.token, s.feed.position, s.history, s.keys[:, :, -2:], s.values[:, :, -2:]
        before = [place.clone() for place in moved]
        s.feed.position.fill_(self.context - 2)
        try:
            yield
        finally:
            for place, value in zip(moved, before, strict=True):
                place.copy_(value)

    @torch.no_grad()
    def begin(self, ids: Tensor, cache: Any, first: int, slot: int = 0) -> None:
        """Take over a prefill: ``ids`` (1, P), its cache as Transformers keeps it, and the token that follows.

        Texts of several slots begin in their order, slot 0 first: then there is no other.

        Raises:
            CoreInferError: a prompt that leaves no room in the context.
        """
        known = ids.shape[1]
        if known >= self.context:
            raise CoreInferError(f"the prompt has {known} tokens, the decoder's context holds {self.context}")
        caches = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
        tokens = torch.cat([ids[0], ids.new_tensor([first])])
        self.state.begin(tokens, caches, known, slot)
        self.state.feed.count = slot + 1

    def sample(self, temperature: float, seed: int, slot: int = 0) -> None:
        """How a text's next tokens are picked: the likeliest at temperature 0, else drawn."""
        self.state.feed.temperature[slot], self.state.feed.seed[slot] = temperature, seed

    def here(self) -> AbstractContextManager[Any]:
        """Steps run where the model is."""
        return launching_on(self.model.device)

    def rounds(self) -> Iterator[dict[int, int]]:
        """The next token of each slot that is in use, again and again until none is; ``leave`` ends a slot's text."""
        feed = self.state.feed
        while feed.count:
            made = self.once()
            yield dict(zip(feed.slot[: feed.count].tolist(), made, strict=True))

    def once(self) -> list[int]:
        """The next token of each row in use."""
        step, feed = self._step, self.state.feed
        assert step is not None, "keep comes first"
        step.run()
        made: list[int] = feed.token[: feed.count].tolist()
        return made

    def only(self, sets: Sequence[NeuronSet]) -> None:
        """From now on each row in use has neurons of its own, a part of those kept; on a CPU, until another set is."""
        cast(Any, self._step).only(sets)

    def leave(self, slot: int) -> None:
        """This slot's text is done."""
        feed = self.state.feed
        feed.drop(feed.slot[: feed.count].tolist().index(slot))

    def tokens(self, count: int) -> Iterator[int]:
        """The next ``count`` tokens, as they are made.

        The caller may stop early. Positions beyond the context are the caller's to avoid.
        """
        step, feed = self._step, self.state.feed
        assert step is not None, "keep comes first"
        if self.on_gpu:
            yield from tokens_ahead(step.run, feed.token[:1], count)
        else:
            yield from (self.once()[0] for _ in range(count))
