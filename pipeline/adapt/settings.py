"""Everything that decides what is trained, as frozen records that check themselves; stored with every checkpoint."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from coreinfer.errors import CoreInferError
from coreinfer.settings import TrainDtype, at_least, check_device, check_keep, check_seed, one_of
from pipeline.folder import check_output
from pipeline.sources import SourceSettings


def check_share(what: str, value: float) -> None:
    """Refuse what is no share from 0 to 1; NaN is none."""
    if not 0.0 <= value <= 1.0:
        raise CoreInferError(f"{what} is {value:g}: give a share from 0 to 1")


def check_range(what: str, least: float, most: float, above: float) -> None:
    """Refuse ``least`` to ``most`` unless it rises and starts above ``above``."""
    if not above < least <= most:
        raise CoreInferError(f"{what} go from {least:g} to {most:g}: give a range that rises, above {above:g}")


def check_new(output: Path) -> None:
    """Refuse an output that is there already, or cannot be made; a trained model is never overwritten."""
    if output.exists():
        raise CoreInferError(f"{output} exists already: choose another --output")
    check_output(output, overwrite=False)


@dataclass(frozen=True)
class MaskSettings:
    """Which part of a batch runs on core neurons, and on which.

    Attributes:
        share: of the sequences, how many are masked; the others run dense.
        least, most: keep is uniform between these, a number per sequence.
        shortest, longest: tokens of a segment's prompt, log-uniform.
        stability, hybrid: shares of the sequences with n0 = 0 and with n0 log-uniform from ``n0_least`` to
            ``n0_most``; the others have n0 = infinity (similarity).
        at_text: share of the windows that start at a text's first token, the others anywhere.
        unmasked: share of the steps, the first ones, without masks: the priors fill before they are used.
        statistic: that neurons are ranked by, energy or griffin (``coreinfer.statistic``).
    """

    share: float = 0.8
    least: float = 0.08
    most: float = 0.55
    shortest: int = 8
    longest: int = 200
    stability: float = 0.1
    hybrid: float = 0.45
    n0_least: float = 32.0
    n0_most: float = 1024.0
    at_text: float = 0.5
    unmasked: float = 0.05
    statistic: str = "energy"

    def __post_init__(self) -> None:
        one_of("the masks' statistic", self.statistic, ("energy", "griffin"))
        check_keep(self.least)
        check_keep(self.most)
        check_range("the keeps", self.least, self.most, 0)
        check_range("the prompt lengths", self.shortest, self.longest, 0)
        check_range("the values of n0", self.n0_least, self.n0_most, 0)
        for name in ("share", "stability", "hybrid", "at_text", "unmasked"):
            check_share(f"the mask setting {name!r}", getattr(self, name))
        check_share("stability and hybrid together", self.stability + self.hybrid)


@dataclass(frozen=True)
class PriorSettings:
    """How clusters are made, and how their mean shares are learned and mixed.

    Attributes:
        clusters: K; None: 128, or one for 16 texts if that is fewer.
        mixture, sharpness: the prior is the mean of the ``mixture`` nearest clusters' shares, weighted by exp(sharpness
            * similarity).
        rate: of the exponential moving average, for a segment of weight 1.
        tokens: segments of fewer counted tokens teach the priors nothing.
        prefix, short: the mixture comes from the embedding of a text's first ``prefix`` tokens; of its first ``short``
            ones where the prompt has fewer than ``long_from``.
        whole: share of the other segments whose mixture comes from the whole text's embedding.
    """

    clusters: int | None = None
    mixture: int = 4
    sharpness: float = 12.0
    rate: float = 0.02
    tokens: int = 32
    prefix: int = 64
    short: int = 16
    long_from: int = 32
    whole: float = 0.3

    def __post_init__(self) -> None:
        check_share("the priors' rate", self.rate)
        check_share("the share of whole texts", self.whole)
        for name in ("mixture", "tokens", "prefix", "short"):
            at_least(f"the prior setting {name!r}", getattr(self, name), 1)
        if self.clusters is not None:
            at_least("--clusters", self.clusters, 1)


@dataclass(frozen=True)
class TrainSettings:
    """Length, size and rate of the training; the defaults adapt a pretrained model.

    Attributes:
        batch, micro: sequences of a step, and of one forward: fewer need less memory.
        context: tokens of a window; None: 512, or the model's context if that is less.
        segments: the most in one window; what is beyond the last but one runs dense.
        rate: None: 2e-5, or 2e-4 with LoRA. ``weight_decay`` is for matrices.
        warmup, flat, last: steps up (a tenth of all steps at most), share of the steps at the full rate, then straight
            down to this share of it.
        lora: rank of the adapters; 0 trains all weights.
        distill: weight of the KL divergence from the frozen dense model; cross-entropy weighs the rest.
    """

    steps: int = 1000
    batch: int = 64
    micro: int = 8
    context: int | None = None
    segments: int = 10
    rate: float | None = None
    weight_decay: float = 0.1
    warmup: int = 200
    flat: float = 0.3
    last: float = 0.02
    clip: float = 1.0
    lora: int = 0
    distill: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("micro", 1), ("segments", 2), ("warmup", 1), ("lora", 0)):
            at_least(f"--{name}", getattr(self, name), least)
        if self.context is not None:
            at_least("--context", self.context, 16)
        if self.batch % min(self.micro, self.batch):
            raise CoreInferError(f"--batch is {self.batch} and --micro {self.micro}: give one that divides the batch")
        if not 0.0 < self.full_rate < 1.0:
            raise CoreInferError(f"--rate is {self.full_rate:g}: give a learning rate above 0 and below 1")
        if not 0.0 <= self.weight_decay < 100.0:
            raise CoreInferError(f"--weight-decay is {self.weight_decay:g}: give 0 or more, such as 0.1")
        check_share("--distill", self.distill)
        check_share("the flat part", self.flat)
        check_share("the last rate", self.last)
        check_seed(self.seed)

    @property
    def full_rate(self) -> float:
        """The learning rate after the warm-up."""
        return (2e-4 if self.lora else 2e-5) if self.rate is None else self.rate


@dataclass(frozen=True)
class AdaptSettings:
    """What ``coreinfer adapt`` is asked for.

    Attributes:
        held_out: texts to report on, as ``source``; None: 2% of the records, by hash.
        artifact: whose centroids are the clusters; None: k-means over the corpus.
        embedder: None: the artifact's, or the project's default.
        report_every, checkpoint_every: steps.
    """

    source: SourceSettings
    model: str
    held_out: str | None = None
    artifact: Path | None = None
    embedder: str | None = None
    masks: MaskSettings = field(default_factory=MaskSettings)
    priors: PriorSettings = field(default_factory=PriorSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    report_every: int = 100
    checkpoint_every: int = 100
    device: str = "cpu"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        at_least("--report-every", self.report_every, 1)
        at_least("--checkpoint-every", self.checkpoint_every, 1)
        one_of("the dtype", self.dtype, get_args(TrainDtype))
        check_device(self.device)

    def with_context(self, most: int) -> "AdaptSettings":
        """The same with a window that a model of ``most`` tokens of context can read.

        Raises:
            CoreInferError: the context asked for is longer than that.
        """
        asked = self.train.context
        if asked is not None and asked > most:
            raise CoreInferError(f"--context is {asked}, {self.model!r} has a context of {most}: give at most that")
        return replace(self, train=replace(self.train, context=asked or min(512, most)))

    @property
    def context(self) -> int:
        """Tokens of a window, once a model is known."""
        assert self.train.context is not None, "with_context comes first"
        return self.train.context
