"""What every pass of a build begins with: models loaded, a dataset read into passages, some of them held out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coreinfer.embedder import Embedder
from coreinfer.errors import CoreInferError
from coreinfer.identity import identity
from coreinfer.manifest import ModelIdentity
from coreinfer.models import load_model
from coreinfer.settings import StatisticSettings
from pipeline import calibrate
from pipeline.calibration.run import usable
from pipeline.calibration.statistic import choose_statistic
from pipeline.cluster import check_clusters
from pipeline.data import Remember, forget
from pipeline.holdout import ENOUGH, Split, hold_out
from pipeline.passages import texts_at, write_passages
from pipeline.record import Recorder, longest_passage
from pipeline.settings import BuildSettings
from pipeline.shards.gpus import gpus_here
from pipeline.sources import Counts, look_at, read_passages
from pipeline.stopwatch import Stopwatch


@dataclass(frozen=True)
class Corpus:
    """Passages on disk, and what reads them, for the ``settings`` of a build.

    Attributes:
        ks: numbers of clusters to try, rising.
        texts: the held-out passages.
        ids: of those long enough to measure losses on (``usable``).
        tried: what the recorder's statistic was chosen from.
    """

    settings: BuildSettings
    passages: Path
    total: int
    counts: Counts
    parts: Split
    ks: list[int]
    texts: list[str]
    ids: Tensor
    recorder: Recorder
    embedder: Embedder
    tried: list[dict[str, Any]]

    @cached_property
    def model_identity(self) -> ModelIdentity:
        """What the language model is; its vocabulary is tokenized for that."""
        recorder = self.recorder
        return identity(self.settings.model, recorder.model, recorder.tokenizer, recorder.max_tokens)

    @cached_property
    def embedder_identity(self) -> ModelIdentity:
        """What the embedder is."""
        return self.embedder.identity

    def without(self, rows: NDArray[np.int64]) -> "Corpus":
        """The same corpus; nothing is built from these passages, nor held out of it."""
        stays = ~np.isin(self.parts.held, rows)
        parts = replace(self.parts, held=self.parts.held[stays], kept=np.setdiff1d(self.parts.kept, rows))
        return replace(self, parts=parts, texts=[text for text, stay in zip(self.texts, stays, strict=True) if stay])

    @property
    def none_spared(self) -> bool:
        """Whether nothing is held out of what is a corpus by its size."""
        return not len(self.parts.held) and self.total >= ENOUGH


def read_corpus(settings: BuildSettings, passages: Path, watch: Stopwatch, bad_files: int | None = 0) -> Corpus:
    """Read the dataset into ``passages``; so many of its files may be unreadable, and count as dropped.

    Raises:
        CoreInferError: an unusable dataset, model or embedder, or too few passages for the clusters.
    """
    recorder, embedder = load_models(settings, watch, bad_files)
    tick, counts = watch.start("read passages", settings.source.limit), Counts(most_bad=bad_files)
    total = write_passages(read_passages(settings.source, recorder.lengths, counts), passages, tick)
    watch.show("hold out")
    parts = hold_out(passages, settings.seed)
    ks, texts = _numbers(settings.clusters, parts), texts_at(passages, parts.held)
    ids = usable(recorder.tokenizer, texts)
    return Corpus(settings, passages, total, counts, parts, ks, texts, ids, recorder, embedder, [])


def load_models(settings: BuildSettings, watch: Stopwatch, bad_files: int | None = 0) -> tuple[Recorder, Embedder]:
    """Both models; a dataset that is missing or has no text is found before minutes go into that."""
    look_at(settings.source, bad_files)
    watch.show("load models")
    if settings.device == "cuda":
        torch.cuda.set_device(gpus_here()[0])
    return _recorder(settings), Embedder(settings.embedder, settings.device)


def _recorder(settings: BuildSettings) -> Recorder:
    """The language model, if it can record passages of the wanted length whole: else their ends would be lost."""
    model, tokenizer = load_model(settings.model, settings.dtype, settings.device)
    if (wanted := settings.source.max_tokens) > (most := longest_passage(model)):
        raise CoreInferError(
            f"--passage-tokens is {wanted}, but {most} tokens are the most that {settings.model!r} can record of a "
            f"passage: give at most {most}"
        )
    return Recorder(model, tokenizer, settings.statistic or StatisticSettings(), most)


def with_statistic(
    corpus: Corpus, start: Callable[[str], Any], remember: Callable[[], Remember] = lambda: forget
) -> Corpus:
    """With the statistic to record, and what it was chosen from; one that was asked for stays."""
    settings = corpus.settings
    if settings.statistic is not None or not settings.calibrate:
        return corpus
    recorder = corpus.recorder
    found, tried = choose_statistic(recorder.model, corpus.ids, settings.keep, start("choose statistic"), remember())
    return replace(corpus, recorder=replace(recorder, settings=found), tried=tried)


def _numbers(asked: int | None, parts: Split) -> list[int]:
    """The numbers of clusters to try, rising. Without held-out passages nothing can choose: the finest alone."""
    tried = calibrate.numbers(len(parts.kept))
    ks = [asked] if asked is not None else tried if len(parts.held) else tried[-1:]
    check_clusters(ks[-1], len(parts.kept))
    return ks
