"""Recorded statistics against brute force, text by text in float64; what recording leaves alone."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import BOS, CONTEXT, FAMILIES, LAYERS, PAD, VOCAB, WIDTH, build, down_modules
from families import one_thread as one_thread
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from one_pass import record
from test_statistic import slow_core
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

from coreinfer.neurons import FIXED_POINT
from coreinfer.settings import StatisticSettings
from pipeline import passages
from pipeline.behind import Behind
from pipeline.passages import Passage, write_passages
from pipeline.record import BATCH, LONGEST, USUAL, Recorder, longest_passage, pad
from pipeline.shards.careful import BadShard, Careful

Floats = NDArray[np.float64]
KINDS = [StatisticSettings(), StatisticSettings("count", 0.3), StatisticSettings("count", 0.5, "positive")]


def tokenizer() -> PreTrainedTokenizerFast:
    """A word each: `w7` is 7; beginning-of-text first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {"<pad>": PAD, "<bos>": BOS, **{f"w{i}": i for i in range(2, VOCAB)}}
    made: Any = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made, bos_token="<bos>", pad_token="<pad>"
    )


def some_ids(count: int) -> list[list[int]]:
    """Texts of 1 to 36 words, each behind a beginning-of-text."""
    rng = np.random.default_rng(0)
    return [[BOS, *rng.integers(2, VOCAB, rng.integers(1, 37)).tolist()] for _ in range(count)]


def as_text(ids: list[int]) -> str:
    return " ".join(f"w{i}" for i in ids[1:])


def slow_shares(model: PreTrainedModel, name: str, ids: list[int], chosen: StatisticSettings) -> Floats:
    """One text alone, unpadded, its first token left out: (L, F) in float64."""
    seen: dict[int, Floats] = {}

    def keeper(layer: int) -> Any:
        return lambda module, args: seen.__setitem__(layer, args[0].detach().reshape(len(ids), -1).double().numpy())

    downs = down_modules(model, name)
    hooks = [down.register_forward_pre_hook(keeper(i)) for i, down in enumerate(downs)]
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    out = np.empty((len(downs), seen[0].shape[1]))
    for layer, down in enumerate(downs):
        a, weight = seen[layer][1:], down.weight.detach().double().numpy()  # type: ignore[operator]
        if chosen.kind == "energy":
            out[layer] = (a**2).mean(0) * (weight**2).sum(1 if isinstance(down, Conv1D) else 0)
        else:
            out[layer] = np.mean([slow_core(row, chosen.token_fraction, chosen.mode) for row in a.tolist()], 0)
        out[layer] /= out[layer].sum()
    return out


def recorder(name: str, chosen: StatisticSettings = KINDS[0], longest: int = 40) -> Recorder:
    return Recorder(build(name), tokenizer(), chosen, longest)


def all_shares(runs: Recorder, texts: list[str]) -> tuple[Floats, NDArray[np.int64]]:
    """Shares (n, L, F) and tokens (n,) in the order of the texts."""
    shares, tokens = np.full((len(texts), LAYERS, WIDTH), np.nan), np.zeros(len(texts), np.int64)
    for picked, some, counts in runs.shares(texts):
        shares[picked], tokens[picked] = some, counts
    return shares, tokens


def write(path: Path, texts: list[str]) -> Path:
    write_passages((Passage(i, text, "here") for i, text in enumerate(texts)), path)
    return path


@pytest.mark.parametrize("chosen", KINDS, ids=["energy", "magnitude", "positive"])
@pytest.mark.parametrize("name", ["Llama", "OPT", "GPT2"])
def test_record_is_brute_force_text_by_text(
    name: str, chosen: StatisticSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passages, "WINDOW", 9)  # several windows, none of them whole batches
    ids, runs, ticks = some_ids(BATCH + 8), recorder(name, chosen), list[int]()
    labels = np.arange(len(ids)) % 4 - 1  # -1 is held out
    labels[9:18] = -1  # a window without any
    both = np.stack([labels, np.where(labels < 0, -1, 4 + labels // 2)])  # beside it, a clustering of two
    got = record(write(tmp_path / "p.parquet", [as_text(row) for row in ids]), both, 6, runs, ticks.append)
    for cluster in range(4):
        mine = [row for row, label in zip(ids, labels, strict=True) if label == cluster]
        assert got.passages[cluster] == len(mine)
        assert got.tokens[cluster] == sum(map(len, mine))
        slow = sum((slow_shares(runs.model, name, row, chosen) for row in mine), np.zeros((LAYERS, WIDTH)))
        assert got.sums[cluster] / FIXED_POINT == pytest.approx(slow, rel=1e-3, abs=1e-6)
    assert got.sums.dtype == np.int64
    assert not got.sums[3].any()  # no passage has that label
    for coarse, fine in ((4, (0, 1)), (5, (2, 3))):
        assert (got.sums[coarse] == sum(got.sums[c] for c in fine)).all()
        assert got.passages[coarse] == sum(got.passages[c] for c in fine)
        assert got.tokens[coarse] == sum(got.tokens[c] for c in fine)
    assert sum(ticks) == (labels >= 0).sum()


def test_sums_that_are_added_up_behind_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, which computes the next batch meanwhile."""
    ids, runs = some_ids(3 * BATCH), recorder("Llama")
    made, labels = write(tmp_path / "p.parquet", [as_text(row) for row in ids]), np.arange(len(ids))[None] % 3
    wanted = record(made, labels, 3, runs)
    monkeypatch.setattr("pipeline.record.AtOnce", Behind)
    got = record(made, labels, 3, runs)
    for name, array in vars(wanted).items():
        assert np.array_equal(array, vars(got)[name])


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_and_batches_do_not_change_shares(name: str) -> None:
    texts, runs = [as_text(row) for row in some_ids(BATCH + 5)], recorder(name)
    together, tokens = all_shares(runs, texts)
    assert np.isfinite(together).all()
    assert together.sum(-1) == pytest.approx(1)
    assert tokens.tolist() == [1 + len(text.split()) for text in texts]
    for text, mine in list(zip(texts, together, strict=True))[:6]:
        assert mine == pytest.approx(all_shares(runs, [text])[0][0], rel=1e-3, abs=1e-6)
    turned, _ = all_shares(runs, texts[::-1])
    assert turned[::-1] == pytest.approx(together, rel=1e-3, abs=1e-6)


def test_long_texts_are_cut() -> None:
    ids = [BOS, *range(2, 32)]
    shares, tokens = all_shares(recorder("Llama", longest=12), [as_text(ids)])
    assert tokens.tolist() == [12]
    assert shares[0] == pytest.approx(slow_shares(build("Llama"), "Llama", ids[:12], KINDS[0]), rel=1e-3, abs=1e-6)


def test_recording_leaves_the_model_as_it_was() -> None:
    runs = recorder("Llama")
    all_shares(runs, ["w4 w5"])
    assert not any(module._forward_pre_hooks for module in runs.model.modules())


def test_the_consumer_runs_as_if_nothing_were_recorded() -> None:
    """Between two batches: with gradients, and with a model that nobody hooks."""
    runs = recorder("Llama")
    weight = next(runs.model.parameters())
    for _ in runs.shares([as_text(row) for row in some_ids(2 * BATCH)]):
        assert not torch.is_inference_mode_enabled()
        assert not any(module._forward_pre_hooks for module in runs.model.modules())
        assert (weight * 2).requires_grad
        runs.model(input_ids=torch.tensor([[BOS, 5, 6]])).logits.sum().backward()
    assert all_shares(runs, ["w4 w5"])[1].tolist() == [3]


def gpt2_of_50() -> Recorder:
    config = copy.deepcopy(FAMILIES["GPT2"])
    config.n_positions = 50
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return Recorder(model.eval(), tokenizer(), KINDS[0], 512)


@pytest.mark.parametrize("words", [48, 49, 60])
def test_padding_stays_within_the_context(words: int) -> None:
    """49 tokens pad to 64, of which the model has no more than 50."""
    runs = gpt2_of_50()
    ids = [BOS, *range(2, 2 + words)]
    shares, tokens = all_shares(runs, [as_text(ids), "w4"])
    assert tokens.tolist() == [min(words + 1, 50), 2]
    slow = slow_shares(runs.model, "GPT2", ids[:50], KINDS[0])
    assert shares[0] == pytest.approx(slow, rel=1e-3, abs=1e-6)


def test_how_long_a_passage_may_be() -> None:
    assert longest_passage(build("Llama")) == CONTEXT
    model = build("Llama")
    model.config.max_position_embeddings = 131_072
    assert longest_passage(model) == LONGEST
    assert recorder("Llama").lengths(["w4", "w4 " * 99]) == [2, 100]


@settings(deadline=None)
@given(st.lists(st.integers(1, 4096), min_size=1, max_size=100))
def test_batches_hold_so_many_texts_and_so_many_tokens(sizes: list[int]) -> None:
    batches = recorder("Llama")._batches(np.array(sizes))
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(sizes)))
    ordered = [sizes[i] for batch in batches[::-1] for i in batch]
    assert ordered == sorted(sizes)  # the longest batch first, which no later one outgrows
    for batch in batches:
        padded = len(batch) * max(sizes[i] for i in batch)
        assert len(batch) == 1 or (len(batch) <= BATCH and padded <= BATCH * USUAL)
    if max(sizes) <= USUAL:
        assert all(len(batch) == BATCH for batch in batches[1:])


@given(st.lists(st.lists(st.integers(1, 90), max_size=50), min_size=1, max_size=5).filter(any), st.integers(0, 20))
def test_pad_makes_multiples_of_16(rows: list[list[int]], room: int) -> None:
    longest = max(map(len, rows))
    most = longest + room
    ids, mask = pad(rows, most)
    assert ids.shape == mask.shape == (len(rows), min(-(-longest // 16) * 16, most))
    for row, mine, real in zip(rows, ids.tolist(), mask.tolist(), strict=True):
        assert mine == row + [0] * (len(mine) - len(row))
        assert real == [1] * len(row) + [0] * (len(mine) - len(row))


@pytest.mark.parametrize(
    "chosen", [*KINDS, StatisticSettings("griffin")], ids=lambda chosen: f"{chosen.kind} {chosen.mode}"
)
def test_what_is_no_number_is_recorded_as_none(chosen: StatisticSettings) -> None:
    """Not as shares that are all alike: those of one text are NaN, the others as they were, and a build refuses."""
    runs, texts = recorder("Llama", chosen), ["w4 w5 w6", "w7 w8"]
    clean = all_shares(runs, texts)[0]
    assert np.isfinite(clean).all()
    weights: Any = runs.model.get_input_embeddings().weight
    with torch.no_grad():
        weights[8] = torch.nan
    found = all_shares(runs, texts)[0]
    assert found[0] == pytest.approx(clean[0])
    assert np.isnan(found[1]).all()
    with pytest.raises(BadShard, match="not all finite numbers"):
        list(Careful.of(runs, None).shares(texts))
    list(Careful.of(runs, None).shares(texts[:1]))
