"""The language model of an artifact: loaded when first needed, checked, and fitted into the memory that is given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coreinfer.artifact import Artifact
from coreinfer.belonging import check_identity, named_by_artifact
from coreinfer.errors import CoreInferError
from coreinfer.identity import identity
from coreinfer.memory.sizes import parse_size
from coreinfer.models import find_mlps, load_model
from coreinfer.policy import Prediction
from coreinfer.progress import Stage
from coreinfer.settings import QUANTISED

if TYPE_CHECKING:
    from coreinfer.memory.budget import Budget


class Opening:
    """A model by the name ``given``, or by the artifact's; ``beside``: bytes that the embedder takes on the device."""

    def __init__(
        self, artifact: Artifact, given: str | None, dtype: str, device: str, memory: str | None,
        bundles: str | Path | None, stage: Stage, beside: Callable[[], int],
    ) -> None:  # fmt: skip
        """
        Raises:
            CoreInferError: a memory that is no size.
        """
        if memory is not None and dtype in QUANTISED:
            raise CoreInferError(f"a memory budget is for plain weights, not {dtype}: leave out --memory or --dtype")
        self.artifact, self.given, self.dtype, self.device = artifact, given, dtype, device
        self.name = given or artifact.manifest.model.id
        self.memory, self.stage, self.beside = None if memory is None else parse_size(memory), stage, beside
        self._one, self._left = RLock(), (0, 0)  # neurons and tokens that are in memory at the most
        self.bundles = None if bundles is None else Path(bundles).expanduser()

    @cached_property
    def budget(self) -> "Budget | None":
        """What fits into the memory given; known before a weight is read."""
        if self.memory is None:
            return None
        from coreinfer.memory.budget import Budget

        with named_by_artifact(self.artifact.root, "model", self.given):
            return Budget(self.name, self.dtype, self.device, self.memory, self.bundles, self.beside())

    @property
    def early_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """Under a budget it is there before the model: what does not fit is refused before anything large is read."""
        if self.budget is None:
            return None
        with named_by_artifact(self.artifact.root, "model", self.given):
            return self.budget.tokenizer

    def load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """
        Raises:
            CoreInferError: it cannot be loaded, does not fit, or is another than the artifact's.
        """
        self.check_fits(None, 1, 1)
        with named_by_artifact(self.artifact.root, "model", self.given):
            if self.budget is None:
                model, tokenizer = load_model(self.name, self.dtype, self.device)
            else:
                model, tokenizer = self.budget.load(self.stage), self.budget.tokenizer
        wanted, found = self.artifact.manifest, find_mlps(model)
        if (len(found), found[0].width) != (wanted.layers, wanted.width):
            raise CoreInferError(
                f"the artifact is for {wanted.model.id!r} with {wanted.layers} layers of {wanted.width} neurons, "
                f"{self.name!r} has {len(found)} of {found[0].width}: give that model or rebuild the artifact"
            )
        check_identity("model", identity(self.name, model, tokenizer, wanted.model.max_tokens), wanted.model)
        return model, tokenizer

    def check_fits(self, prediction: Prediction | None, prompt: int, tokens: int) -> None:
        """
        Raises:
            CoreInferError: a prompt of so many tokens, so many in the end, and the prediction's set, if there is one,
                take more than the memory given.
        """
        if self.budget is not None:
            keep = prediction.keep if prediction else 0.0
            self.budget.plan.check(self._kept(prediction), keep, prompt, tokens)

    def check_whole(self, what: str) -> None:
        """
        Raises:
            CoreInferError: a memory is given, which ``what`` has no part in.
        """
        if self.memory is not None:
            raise CoreInferError(f"{what} needs more than a memory budget reckons with: leave out --memory")

    def _kept(self, prediction: Prediction | None) -> int:
        """How many neurons the prediction's set has, or will have when it is decided."""
        if prediction is None:
            return 0
        made = self.artifact.manifest
        every = prediction.source == "dense"
        return made.layers * made.width if every else int(self.artifact.budgets(prediction.keep).sum())

    @contextmanager
    def within(self, prediction: Prediction, prompt: int, tokens: int, forget: Callable[[], None]) -> Iterator[None]:
        """Generate so inside, one at a time. What generations before this left in memory, a larger set's neurons or a
        longer text's caches, is forgotten first if there is no room for both.

        Raises:
            CoreInferError: the device's memory ends all the same.
        """
        if self.budget is None:
            yield
            return
        with self._one, self.budget.kept():
            wanted = self._kept(prediction), tokens
            both = max(self._left[0], wanted[0]), max(self._left[1], wanted[1])
            fits = self.budget.plan.needs(both[0], prompt, both[1]) <= self.budget.plan.limit
            if not fits:
                forget()
            self._left = both if fits else wanted
            yield
