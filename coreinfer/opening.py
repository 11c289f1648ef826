"""The language model of an artifact: loaded when first needed, checked, and fitted into the memory that is given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
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
        self.artifact, self.given, self.dtype, self.device = artifact, given, dtype, device
        self.name = given or artifact.manifest.model.id
        self.memory, self.stage, self.beside = None if memory is None else parse_size(memory), stage, beside
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
        if self.budget is None:
            return
        made, kept = self.artifact.manifest, 0
        if prediction is not None:
            every = prediction.source == "dense"
            kept = made.layers * made.width if every else int(self.artifact.budgets(prediction.keep).sum())
        self.budget.plan.check(kept, prediction.keep if prediction else 0.0, prompt, tokens)

    @contextmanager
    def within(self) -> Iterator[None]:
        """A device whose memory ends all the same becomes one line."""
        if self.budget is None:
            yield
            return
        with self.budget.kept():
            yield
