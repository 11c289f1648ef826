"""All subjects side by side in one run, so that a machine's moods reach all of them alike."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.bench.limits import bandwidth, seconds
from coreinfer.bench.lossless import LosslessSpeed, examples, measure_lossless
from coreinfer.bench.plan import PROMPT, Plan
from coreinfer.bench.shapes import random_model, random_prompt
from coreinfer.bench.subjects import (
    COMPILED,
    Own,
    Subject,
    does_not_compile,
    llama_cpp,
    no_llama_cpp,
    random_set,
    transformers_compiled,
    transformers_eager,
)
from coreinfer.capture import Reducer
from coreinfer.decode.families import unsupported
from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError
from coreinfer.models import context_length, default_dtype, find_mlps, load_model, quantise
from coreinfer.progress import Stage, unseen
from coreinfer.quantised.linear import named_dtype
from coreinfer.settings import QUANTISED, StatisticSettings

ROUNDS = 3  # each subject in turn, so often; the median counts


@dataclass(frozen=True)
class Speed:
    """A subject's tokens a second, of all its texts, the limit by the bytes that it must read, and the share of it
    reached. ``dtype``: of its weights.
    """

    engine: str
    keep: float
    texts: int
    dtype: str
    tokens_per_second: float
    limit: float
    share_of_limit: float

    def over(self, peer: "Speed") -> float | None:
        """How many times as fast as a peer; None beside one that makes another number of texts at a time."""
        return self.tokens_per_second / peer.tokens_per_second if self.texts == peer.texts else None


@dataclass(frozen=True)
class Measured:
    """A run: all speeds, seconds of prefill without and with the statistic, and of another set being put in place;
    lossless decoding where there is an artifact to draft by.
    """

    shape: str
    dtype: str
    device: str
    bandwidth: float
    speeds: tuple[Speed, ...]
    prefill_s: float
    prefill_with_statistic_s: float
    switch_s: float
    left_out: dict[str, str]
    lossless: LosslessSpeed | None = None
    prompt_tokens: int = PROMPT

    @property
    def own(self) -> Speed:
        """The leanest of the project's own, one text at a time."""
        return min((s for s in self.speeds if s.engine == "coreinfer" and s.texts == 1), key=lambda s: s.keep)

    @property
    def dense_peers(self) -> list[Speed]:
        return [s for s in self.speeds if s.engine != "coreinfer" and s.keep == 1.0]

    @property
    def statistic_adds(self) -> float:
        """To the seconds of a prefill, as a share of them."""
        return self.prefill_with_statistic_s / self.prefill_s - 1

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def opened(model: str | None, shape: str | None, dtype: str, device: str) -> tuple[PreTrainedModel, str]:
    """The model to measure, and what to call it; where ``measure`` is to quantise it, in what its peers run in."""
    dtype = "auto" if dtype in QUANTISED else dtype
    if shape is None:
        return load_model(model or "demo", dtype, device)[0], Path(model or "demo").name
    return random_model(shape, default_dtype(device) if dtype == "auto" else getattr(torch, dtype), device), shape


def measure(model: PreTrainedModel, shape: str, plan: Plan, stage: Stage = unseen, dtype: str = "auto") -> Measured:
    """Everything of one model; its weights are laid out anew, in place. What peers read lies on disk meanwhile.

    With int8 or int4 the weights are quantised after the peers have run: theirs are as they were, which is how their
    users run them.

    Raises:
        CoreInferError: a model that the project's own steps do not decode, or whose context is too short.
    """
    if why := unsupported(model):
        raise CoreInferError(f"nothing to measure: coreinfer's own steps do not decode {why}")
    context = plan.positions(context_length(model), shape)
    with torch.inference_mode(), TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return _measured(model, shape, plan, context, stage, Path(folder), dtype)


def _measured(
    model: PreTrainedModel, shape: str, plan: Plan, context: int, stage: Stage, folder: Path, dtype: str
) -> Measured:
    device = str(model.device)
    ids = random_prompt(model, plan.prompt_tokens)
    stage("memory", None)(0)
    speed_of_memory = bandwidth(device)
    # Before peers: once torch.compile has run in a process, each call of a module takes longer, with hooks the more so.
    prefills = None if dtype in QUANTISED else _prefills(model, ids, device)
    peers, left_out = _peers(model, ids, plan, context, folder)
    # On a GPU our steps lay the weights out anew, which peers must not run on; a CPU's stay as they were.
    first = _race(peers, plan, stage) if device.startswith("cuda") or dtype in QUANTISED else []
    theirs = named_dtype(model)
    if dtype in QUANTISED:
        with torch.inference_mode(False):
            quantise(model, dtype, device)
    dense, watched = prefills or _prefills(model, ids, device)
    own = Own(model, ids, context)
    together = sorted({keep for keep in plan.keeps if keep < 1} or {1.0}, reverse=True)
    many = [own.batch(keep, plan.texts) for keep in together if plan.texts > 1 and own.decoder.several]
    rest = [*([] if first else peers), *(own.subject(keep) for keep in plan.keeps), *many]
    speeds = _speeds([*first, *_race(rest, plan, stage)], own, plan, speed_of_memory, theirs)
    others = [own.set_of(min(plan.keeps), seed) for seed in range(1, 4)]
    switch = min(seconds(lambda one=one: own.decoder.keep(one), device) for one in others)  # type: ignore[misc]
    return Measured(
        shape, named_dtype(model), device, speed_of_memory, speeds, dense, watched, switch, left_out,
        prompt_tokens=plan.prompt_tokens,
    )  # fmt: skip


def measure_with_drafts(engine: Engine, plan: Plan, stage: Stage = unseen) -> Measured:
    """The same of an engine's model, and lossless decoding by its artifact."""
    made = measure(engine.model, Path(engine.artifact.manifest.model.id).name, plan, stage)
    return replace(made, lossless=measure_lossless(engine, examples(engine), plan.new_tokens, stage))


def _peers(
    model: PreTrainedModel, ids: Tensor, plan: Plan, context: int, folder: Path
) -> tuple[list[Subject], dict[str, str]]:
    """What else decodes here, and what does not and why."""
    mlps, least, left_out = find_mlps(model), min(plan.keeps), dict[str, str]()
    sets = {keep: random_set(len(mlps), mlps[0].width, keep) for keep in sorted({1.0, least}, reverse=True)}
    subjects = [transformers_eager(model, ids, None if keep == 1 else some, keep) for keep, some in sets.items()]
    if model.device.type != "cuda":
        left_out[COMPILED] = "measured on GPUs only: it needs a C++ compiler here"
    elif why := does_not_compile(compiled := transformers_compiled(model, ids, context)):
        left_out[COMPILED] = why
    else:
        subjects.append(compiled)
    if why := no_llama_cpp(model):
        left_out["llama.cpp"] = why
    else:
        subjects += [llama_cpp(model, ids, some, keep, context, folder) for keep, some in sets.items()]
    return subjects, left_out


def _race(subjects: Sequence[Subject], plan: Plan, stage: Stage) -> list[tuple[Subject, float]]:
    """Each in turn, ``ROUNDS`` times, after a round that warms up and does not count -> tokens a second, the median."""
    times: list[list[float]] = [[] for _ in subjects]
    tick = stage("rounds of decoding", (ROUNDS + 1) * len(subjects))
    tick(0)
    for number in range(ROUNDS + 1):
        for subject, mine in zip(subjects, times, strict=True):
            took = subject.decode(plan.new_tokens)
            tick(1)
            if number:
                mine.append(took)
    pairs = zip(subjects, times, strict=True)
    return [(subject, plan.new_tokens * subject.texts / median(mine)) for subject, mine in pairs]


def named(engine: str, keep: float, texts: int) -> str:
    """A subject in words."""
    return f"{engine}, keep {keep:g}" + (f", {texts} texts" if texts > 1 else "")


def _speeds(
    raced: Sequence[tuple[Subject, float]], own: Own, plan: Plan, memory: float, theirs: str
) -> tuple[Speed, ...]:
    """With the limit of each: the memory's bandwidth over the bytes that a step in the middle reads."""
    net, at, out = own.decoder.network, plan.prompt_tokens + plan.new_tokens // 2, list[Speed]()
    for subject, rate in raced:
        ours, kept = subject.name == "coreinfer", own.set_of(subject.keep).per_layer
        limit = subject.texts * memory / net.bytes_read(kept, at, subject.texts, dense=not ours)
        dtype = named_dtype(own.decoder.model) if ours else theirs
        out.append(Speed(subject.name, subject.keep, subject.texts, dtype, rate, limit, rate / limit))
    return tuple(out)


def _prefills(model: PreTrainedModel, ids: Tensor, device: str) -> tuple[float, float]:
    """Seconds of the prompt's forward, without and with the statistic taken in it."""
    reducer, valid = Reducer(find_mlps(model), StatisticSettings()), torch.ones_like(ids, dtype=torch.bool)
    some: Any = model

    def run() -> None:
        some(input_ids=ids, use_cache=True, logits_to_keep=1)

    def watched() -> None:
        with reducer.watching(valid):
            run()
            reducer.shares()

    count = 7 * ROUNDS if device.startswith("cuda") else 2 * ROUNDS  # a GPU's are short, and wait for a shared CPU
    pairs = [(seconds(run, device), seconds(watched, device)) for _ in range(count + 1)][1:]
    return median(a for a, _ in pairs), median(b for _, b in pairs)
