"""``coreinfer adapt``: corpus, topics, training, reports and the finished folder, in this order."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from coreinfer.embedder import Embedder
from coreinfer.errors import CoreInferError
from coreinfer.hub import model_place
from coreinfer.models import context_length, find_mlps, fingerprint, load_model
from coreinfer.quantised.linear import bits_of, named_dtype
from pipeline.adapt.card import card
from pipeline.adapt.checkpoints import Checkpoints
from pipeline.adapt.corpus import Corpus, read_corpus
from pipeline.adapt.lora import check_peft
from pipeline.adapt.report import HeldOut, prompt_tokens
from pipeline.adapt.settings import AdaptSettings, check_new
from pipeline.adapt.steps import Say, run_steps
from pipeline.adapt.topics import Topics, Vectors, make_topics, open_embedder, view
from pipeline.adapt.trainer import Trainer, compute_dtype
from pipeline.folder import appearing


@dataclass(frozen=True)
class Base:
    """What is trained: ``name`` is None for a fresh model; the result is stored in ``dtype``."""

    name: str | None
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dtype: torch.dtype


@dataclass(frozen=True)
class Report:
    """What a training did: its reports in order (``report.Losses`` as rows), seconds, parameters that trained."""

    reports: list[dict[str, Any]]
    seconds: float
    parameters: int


def adapt(settings: AdaptSettings, output: Path, say: Say = lambda text: None) -> Report:
    """Train ``settings.model`` and write it to ``output``, which appears whole at the end, or not at all. A run that
    was stopped goes on when the same is asked for again.

    Raises:
        CoreInferError: bad settings, too little text, an unusable model, a loss that is no number, or a stopped
            training of other settings.
    """
    check_new(output)
    if settings.train.lora:
        check_peft()
    stored = stored_dtype(settings.model)
    # Frozen weights may be 16 bits wide, if that is all they have; weights that train must not.
    narrow = bool(settings.train.lora) and stored is compute_dtype(settings) is torch.bfloat16
    model, tokenizer = load_model(settings.model, "bfloat16" if narrow else "float32", settings.device)
    return train(settings, Base(settings.model, model, tokenizer, stored), output, say)


def stored_dtype(name: str) -> torch.dtype:
    """What a model's weights are stored in, and the trained ones will be; a model that is not there stops later."""
    if model_place(name).endswith(".gguf"):
        return torch.bfloat16
    try:
        found = AutoConfig.from_pretrained(model_place(name)).dtype
    except (OSError, ValueError):
        return torch.float32
    return found if isinstance(found, torch.dtype) else torch.float32


def train(settings: AdaptSettings, base: Base, output: Path, say: Say = lambda text: None) -> Report:
    """``adapt`` for a model that is loaded; it is changed in place."""
    check_new(output)
    if bits_of(base.model) is not None:
        raise CoreInferError(f"a model in {named_dtype(base.model)} cannot be trained: load it in float32 or bfloat16")
    begun, layers = time.perf_counter(), len(find_mlps(base.model))
    settings = settings.with_context(context_length(base.model))
    corpus = read_corpus(settings.source, settings.held_out, base.tokenizer, settings.context, settings.train.seed)
    say(_described(corpus, layers))
    checkpoints = Checkpoints(output)
    checkpoints.open(facts(settings, base, corpus))
    topics, held = _topics(settings, base, corpus, checkpoints, say)
    trainer = Trainer(base.model, corpus.row, topics, settings)
    parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    try:
        reports = run_steps(trainer, held.to(settings.device), checkpoints, say)
    finally:
        trainer.masks.remove()
    _write(trainer.finish(), base, settings, output, reports)
    checkpoints.remove()
    return Report(reports, time.perf_counter() - begun, parameters)


def _described(corpus: Corpus, layers: int) -> str:
    left = f"; {corpus.duplicates:,} equal to held-out ones left out" if corpus.duplicates else ""
    return (
        f"{corpus.row.texts:,} texts of {len(corpus.row.ids):,} tokens to train on, {corpus.held.texts:,} of "
        f"{len(corpus.held.ids):,} held out{left}; {layers} layers"
    )


def facts(settings: AdaptSettings, base: Base, corpus: Corpus) -> dict[str, Any]:
    """All that decides the outcome, flat, by names that a refusal can show; what was asked for comes first."""
    groups = {"train": asdict(settings.train), "masks": asdict(settings.masks), "priors": asdict(settings.priors)}
    asked = {f"{group} {name}": x for group, record in groups.items() for name, x in record.items()}
    named = {"model": base.name or "fresh", "embedder": settings.embedder, "artifact": settings.artifact}
    dtype, weights, data = compute_dtype(settings), fingerprint(base.model)[:16], corpus.row.digest()[:16]
    return {**named, **asked, "dtype": dtype, "weights": weights, "data": data}


def _topics(
    settings: AdaptSettings, base: Base, corpus: Corpus, checkpoints: Checkpoints, say: Say
) -> tuple[Topics, HeldOut]:
    """The corpus's topics, stored or made now, and the held-out texts under the same clusters."""
    prompt = prompt_tokens(corpus.held, settings.context)
    if not settings.masks.share:
        none, alone = (Topics.none(row.texts) for row in (corpus.row, corpus.held))
        return none, HeldOut(corpus.held, prompt, (alone.clusters[0], alone.weights[0]), 1, settings.context)
    embedder, known = open_embedder(settings.embedder, settings.artifact, settings.device)
    stored = checkpoints.topics()
    if stored is None:
        say(f"embedding {corpus.row.texts:,} texts, whole and their beginnings")
        made, centroids = _make(settings, base, corpus, embedder, known)
        stored = {"clusters": made.clusters, "weights": made.weights, "centroids": torch.tensor(centroids)}
        checkpoints.save_topics(stored)
    centroids = stored["centroids"].numpy()
    topics = Topics(stored["clusters"], stored["weights"], len(centroids))
    near = view(corpus.held, prompt, embedder.embed, centroids, settings.priors, base.tokenizer)
    return topics, HeldOut(corpus.held, prompt, near, topics.count, settings.context)


def _make(
    settings: AdaptSettings, base: Base, corpus: Corpus, embedder: Embedder, known: Vectors | None
) -> tuple[Topics, Vectors]:
    return make_topics(
        corpus.texts, corpus.row, base.tokenizer, embedder.embed, known, settings.priors, settings.train.seed
    )


def _write(
    model: PreTrainedModel, base: Base, settings: AdaptSettings, output: Path, reports: list[dict[str, Any]]
) -> None:
    """A Hugging Face folder, whole or not at all."""
    model.to(base.dtype)  # type: ignore[arg-type]
    with appearing(output, overwrite=False) as (made, _):
        model.save_pretrained(made)
        base.tokenizer.save_pretrained(made)
        (made / "README.md").write_text(card(output.name, base.name, settings, reports), "utf-8")
