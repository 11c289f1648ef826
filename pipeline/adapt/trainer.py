"""The steps: a model under masks, its optimizer and the priors move together, and so they are stored."""

from contextlib import nullcontext
from copy import deepcopy

import torch
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.models import bos_of, default_dtype, find_mlps
from coreinfer.statistic import column_energy
from pipeline.adapt.draws import Batches
from pipeline.adapt.lora import Adapters, rows_now
from pipeline.adapt.masks import Masks
from pipeline.adapt.objective import logits_of, make_loss
from pipeline.adapt.optimizer import make_optimizer, moments, rate_at, restore_moments, trained
from pipeline.adapt.packing import Row
from pipeline.adapt.priors import Priors
from pipeline.adapt.settings import AdaptSettings
from pipeline.adapt.topics import Topics


def compute_dtype(settings: AdaptSettings) -> torch.dtype:
    """What forwards compute in; weights that train are float32 all the same."""
    choices = {"auto": default_dtype(settings.device), "float32": torch.float32, "bfloat16": torch.bfloat16}
    return choices[settings.dtype]


class Trainer:
    """Trains ``model`` in place. Dropout stays off: masks and weight decay do its work, and its chances would have to
    be stored as well.

    Attributes:
        step: how many steps are done.
    """

    def __init__(self, model: PreTrainedModel, row: Row, topics: Topics, settings: AdaptSettings) -> None:
        model.train(False)
        self.model, self.settings, self.step = model, settings, 0
        self.dtype, train, mlps = compute_dtype(settings), settings.train, find_mlps(model)
        full_copy = train.distill > 0 and not train.lora
        self._teacher = deepcopy(model).requires_grad_(False).to(self.dtype) if full_copy else None  # type: ignore[arg-type]
        self.adapters = Adapters(model, train.lora, train.seed) if train.lora else None
        self.masks, self._mlps = Masks(mlps, settings.masks.statistic), mlps
        self.priors = Priors(len(mlps), topics.count, mlps[0].width, settings.priors.rate, settings.device)
        self.bos = bos_of(model)
        self.batches = Batches(row.to(settings.device), topics.to(settings.device), settings, mlps[0].width, self.bos)
        self._trained = trained(model)
        self.optimizer = make_optimizer(list(self._trained.values()), train)
        plain = make_loss(model, self.masks if settings.masks.share else None, self.dtype, train.distill)
        self._loss = plain if settings.device == "cpu" else torch.compile(plain)

    def advance(self) -> Tensor:
        """One step -> its loss and its gradients' norm, float32 (2,), still on the device."""
        train = self.settings.train
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, train)
        columns, losses = self.columns(), list[Tensor]()
        for part in self.batches.at(self.step).parts(min(train.micro, train.batch)):
            teacher = self._dense_logits(part.ids) if train.distill else None
            loss, shares = self._loss(part.ids, part.plan, self.priors.shares, columns, teacher)
            (loss * (len(part.ids) / train.batch)).backward()  # type: ignore[no-untyped-call]
            if shares:
                self.priors.learn(shares, part.mixture, part.learned)
            losses.append(loss.detach() * (len(part.ids) / train.batch))
        norm = torch.nn.utils.clip_grad_norm_(self._trained.values(), train.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return torch.stack([torch.stack(losses).sum(), norm.detach()])

    @torch.no_grad()
    def columns(self) -> Tensor:
        """Every layer's column energies as its weights are now, (L, F)."""
        return torch.stack([column_energy(rows_now(mlp)) for mlp in self._mlps])

    @torch.no_grad()
    def _dense_logits(self, ids: Tensor) -> Tensor:
        """What the frozen original says of windows (B, T + 1): (B, T, V)."""
        with self.adapters.off() if self.adapters else nullcontext():
            return logits_of(self.model if self._teacher is None else self._teacher, ids, self.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """All that a later run needs to go on: parameters and moments by name, the priors."""
        parameters = {f"parameter.{name}": p.detach() for name, p in self._trained.items()}
        return {**parameters, **moments(self.optimizer, self._trained), "priors": self.priors.shares}

    @torch.no_grad()
    def restore(self, step: int, stored: dict[str, Tensor]) -> None:
        """Go on after ``step`` steps from what ``tensors`` gave then."""
        for name, parameter in self._trained.items():
            parameter.copy_(stored[f"parameter.{name}"])
        restore_moments(self.optimizer, self._trained, stored, step)
        self.priors.shares.copy_(stored["priors"])
        self.step = step

    def finish(self) -> PreTrainedModel:
        """The trained model, adapters merged, as any other model once the masks are removed."""
        return self.adapters.merge() if self.adapters else self.model
