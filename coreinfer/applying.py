"""One line for a Transformers model: after ``apply``, ``generate`` decodes each prompt on the neurons that it needs.

Pipelines and PEFT's wrappers call ``generate``, so they do too. What a prompt means is read from its tokens, without
the special ones; markup that a chat template writes as plain words is read as words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from threading import RLock, get_ident
from typing import Any

from torch import Tensor, nn

from coreinfer.artifact import Artifact
from coreinfer.belonging import check_identity
from coreinfer.capture import prompt_shares
from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError
from coreinfer.grouping import joined
from coreinfer.identity import identity
from coreinfer.models import find_mlps, fingerprint
from coreinfer.planning import Planned
from coreinfer.policy import Prediction
from coreinfer.prompts import words_of_tokens
from coreinfer.settings import Policy, check_keep
from coreinfer.slimming import slim

NAME = "coreinfer"  # where an applied model keeps what was applied


@dataclass
class Applied:
    """What an applied model decodes by. ``last``: the predictions of the last call, one a prompt."""

    model: Any
    engine: Engine
    policy: Policy
    keep: float | None
    last: list[Prediction] = field(default_factory=list)
    lock: Any = field(default_factory=RLock)
    thread: int = 0  # in which a call runs now

    def remove(self) -> None:
        """Let ``generate`` be the dense one again."""
        self.model.__dict__.pop("generate", None)
        self.model.__dict__.pop(NAME, None)

    def generate(self, ids: Tensor, mask: Tensor | None, run: Any) -> Any:
        """``run()`` calls the model's ``generate`` for prompts (B, P), inside ``slim``."""
        rows = list(ids) if mask is None else [row[kept.bool()] for row, kept in zip(ids, mask, strict=True)]
        texts = words_of_tokens(self.engine.tokenizer, [row.tolist() for row in rows])
        matches = self.engine.match(texts)
        planned = [self.engine.planned(t, self.policy, self.keep, m) for t, m in zip(texts, matches, strict=True)]
        if len(planned) == 1:
            wanted = planned[0].wanted
        else:  # on the union: a step reads its weights once for all of them
            wanted = joined([self._neurons(one, row) for one, row in zip(planned, rows, strict=True)])
        with slim(self.model, wanted, statistic=self.engine.artifact.manifest.statistic, ends=True):
            made = run()
        self.last = [one.prediction for one in planned]
        return made

    def _neurons(self, planned: Planned, row: Tensor) -> Any:
        """A prompt's set; a prefill of its own where its statistic decides."""
        if (known := planned.prediction.neurons) is not None:
            return known
        return planned.finish(*prompt_shares(self.model, self.engine.artifact.manifest.statistic, row[None]))


def apply(
    model: Any, artifact: str | Path | Artifact, tokenizer: Any = None, policy: Policy = "auto",
    keep: float | None = None, embedder: str | None = None, tuned: bool = False,
) -> Any:  # fmt: skip
    """Let ``model.generate`` decode each prompt on the neurons that it needs; returns the model.

    Args:
        model: a causal LM of Transformers, or PEFT's wrapper of one whose MLPs have no adapters.
        artifact: a folder, or one that is open.
        tokenizer: the model's; loaded by the model's name unless given.
        policy, keep: as ``Engine.generate`` has them.
        tuned: the model is a fine-tune of the artifact's (merged adapters, for one): its weights may be others.

    Raises:
        CoreInferError: the model is not the artifact's, or its MLPs are not understood.
    """
    opened = artifact if isinstance(artifact, Artifact) else Artifact.load(artifact)
    if keep is not None:
        check_keep(keep)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    _refuse_adapters(inner)
    if (before := inner.__dict__.get(NAME)) is not None:
        before.remove()
    tokenizer = _tokenizer(inner) if tokenizer is None else tokenizer
    _check(opened, inner, tokenizer, tuned)
    engine = Engine.around(opened, inner, tokenizer, embedder)
    applied = Applied(inner, engine, policy, keep)
    inner.__dict__[NAME], inner.__dict__["generate"] = applied, _wrapped(applied)
    return model


def _wrapped(applied: Applied) -> Any:
    """``generate`` that finds the neurons first, and then, by way of ``slim``, calls itself for the model's own."""
    model, own = applied.model, type(applied.model).generate

    @wraps(own)
    def generate(inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        if applied.thread == get_ident():  # from inside: slim has put the neurons in place
            return own(model, inputs, *args, **kwargs)
        ids = inputs if inputs is not None else kwargs.get("input_ids")
        if ids is None or kwargs.get("inputs_embeds") is not None:
            raise CoreInferError("the neurons are chosen by a prompt's tokens, and generate got none: give input_ids")
        with applied.lock:
            applied.thread = get_ident()
            try:
                return applied.generate(
                    ids, kwargs.get("attention_mask"), lambda: model.generate(inputs, *args, **kwargs)
                )
            finally:
                applied.thread = 0

    return generate


def _tokenizer(model: Any) -> Any:
    from transformers import AutoTokenizer

    if not (name := model.name_or_path):
        raise CoreInferError("the model has no name to load its tokenizer by: give tokenizer=")
    return AutoTokenizer.from_pretrained(name)


def _refuse_adapters(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if hasattr(module, "adapter_layer_names") and any(part in path for part in (".mlp.", ".fc1", ".fc2")):
            raise CoreInferError(
                f"there is an adapter on the MLP ({path}), whose neurons cannot be picked apart from it: call "
                "model.merge_and_unload() first, and give tuned=True"
            )


class _Base(nn.Module):
    """The parameters that a model had before adapters were put around some of them, by the names of then."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        for name, weight in self.model.named_parameters():
            if not _is_adapters(name):
                yield name.replace(".base_layer.", "."), weight


def _is_adapters(name: str) -> bool:
    return any(part.startswith(("lora_", "ia3_", "prompt_")) for part in name.split("."))


def _check(artifact: Artifact, model: Any, tokenizer: Any, tuned: bool) -> None:
    wanted, mlps = artifact.manifest, find_mlps(model)
    if (len(mlps), mlps[0].width) != (wanted.layers, wanted.width):
        raise CoreInferError(
            f"the artifact is for {wanted.layers} layers of {wanted.width} neurons, the model has {len(mlps)} of "
            f"{mlps[0].width}: give the model that it was built with"
        )
    found = identity(str(model.name_or_path), model, tokenizer, wanted.model.max_tokens)
    if _has_adapters(model):
        found = replace(found, weights=fingerprint(_Base(model)))
    if tuned:
        found = replace(found, weights=wanted.model.weights)
    check_identity("model", found, wanted.model)


def _has_adapters(model: nn.Module) -> bool:
    return any(_is_adapters(name) for name, _ in model.named_parameters())


def last(model: Any) -> Sequence[Prediction]:
    """The predictions of an applied model's last call, one a prompt."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    applied: Applied = inner.__dict__[NAME]
    return applied.last
