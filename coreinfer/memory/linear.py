"""Linear modules whose weights are not theirs: views of a layer's neurons, wherever those are at the moment."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class Stream(Protocol):
    """Layers of neurons (F, P, H), one after another on the device that computes."""

    def layer(self, number: int) -> Tensor:
        """That layer; it is there until another is asked for."""
        ...


class StreamedLinear(nn.Linear):
    """Computes with parts of each neuron of a layer: input rows, one part or, fused, two; or the down columns."""

    def __init__(self, like: nn.Linear, stream: Stream, number: int, parts: tuple[int, ...]) -> None:
        nn.Module.__init__(self)  # no weight of its own is made
        self.in_features, self.out_features = like.in_features, like.out_features
        self.bias = like.bias
        self.stream, self.number, self.parts = stream, number, parts
        self.train(like.training)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """(outputs, inputs), as of any linear module; a copy where two parts are one matrix."""
        rows = self._rows()
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _rows(self) -> list[Tensor]:
        """A matrix (outputs, inputs) for each part."""
        neurons = self.stream.layer(self.number)
        if self.parts == (-1,):
            return [neurons[:, -1].T]
        return [neurons[:, part] for part in self.parts]

    def forward(self, input: Tensor) -> Tensor:
        rows = self._rows()
        if len(rows) == 1:
            return linear(input, rows[0], self.bias)
        made = torch.cat([linear(input, part) for part in rows], -1)
        return made if self.bias is None else made + self.bias


def weights_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a model by name, sorted, streamed weights among them; each is looked at before the next."""
    own: dict[str, Any] = dict(model.named_parameters())
    streamed = {f"{path}.weight": m for path, m in model.named_modules() if isinstance(m, StreamedLinear)}
    for name in sorted({*own, *streamed}):
        yield name, (own[name].detach() if name in own else streamed[name].weight)


def is_streamed(model: nn.Module) -> bool:
    """Whether any weight of the model is streamed."""
    return any(isinstance(module, StreamedLinear) for module in model.modules())
