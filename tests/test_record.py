"""Recorded statistics: shards against one pass, batches against text by text, all against brute force in float64."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import BOS, FAMILIES, LAYERS, PAD, VOCAB, WIDTH, build, down_modules
from families import one_thread as one_thread
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_statistic import slow_core
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

from coreinfer.neurons import FIXED_POINT, share
from coreinfer.settings import StatisticSettings
from pipeline import embed
from pipeline.embed import write_passages
from pipeline.record import BATCH, Recorder, Statistics, pad, record
from pipeline.sources import Passage

Floats = NDArray[np.float64]
KINDS = [StatisticSettings(), StatisticSettings("count", 0.3), StatisticSettings("count", 0.5, "positive")]
LONGEST = 40


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


def recorder(name: str, chosen: StatisticSettings = KINDS[0], longest: int = LONGEST) -> Recorder:
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
    monkeypatch.setattr(embed, "WINDOW", 9)  # several windows, none of them whole batches
    ids, runs, ticks = some_ids(BATCH + 8), recorder(name, chosen), list[int]()
    labels = np.arange(len(ids)) % 4 - 1  # -1 is held out
    labels[9:18] = -1  # a window without any
    got = record(write(tmp_path / "p.parquet", [as_text(row) for row in ids]), labels, 4, runs, ticks.append)
    for cluster in range(4):
        mine = [row for row, label in zip(ids, labels, strict=True) if label == cluster]
        assert got.passages[cluster] == len(mine)
        assert got.tokens[cluster] == sum(map(len, mine))
        slow = sum((slow_shares(runs.model, name, row, chosen) for row in mine), np.zeros((LAYERS, WIDTH)))
        assert got.sums[cluster] / FIXED_POINT == pytest.approx(slow, rel=1e-3, abs=1e-6)
    assert got.sums.dtype == np.int64
    assert not got.sums[3].any()  # no passage has that label
    assert sum(ticks) == (labels >= 0).sum()


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


@given(st.lists(st.lists(st.integers(1, 90), max_size=50), min_size=1, max_size=5).filter(any))
def test_pad_makes_multiples_of_16(rows: list[list[int]]) -> None:
    ids, mask = pad(rows)
    longest = max(map(len, rows))
    assert ids.shape == mask.shape == (len(rows), -(-longest // 16) * 16)
    for row, mine, real in zip(rows, ids.tolist(), mask.tolist(), strict=True):
        assert mine == row + [0] * (len(mine) - len(row))
        assert real == [1] * len(row) + [0] * (len(mine) - len(row))


Batch = tuple[NDArray[np.int64], Floats, NDArray[np.int64]]


def batch(passages: list[tuple[int, int]]) -> Batch:
    """Clusters, shares and tokens of (cluster, seed) passages."""
    shares = [share(np.random.default_rng(seed).random((2, 7)) ** 6) for _, seed in passages]
    clusters, tokens = zip(*((c, 1 + seed % 50) for c, seed in passages), strict=True)
    return np.array(clusters), np.array(shares), np.array(tokens)


def summed(passages: list[tuple[int, int]], clusters: int, pieces: list[int]) -> Statistics:
    """Added in batches that end at ``pieces``."""
    out, edges = Statistics.zeros(clusters, 2, 7), sorted({0, *pieces, len(passages)})
    for start, stop in pairwise(edges):
        out.add(*batch(passages[start:stop]))
    return out


def same(a: Statistics, b: Statistics) -> bool:
    pairs = ((a.sums, b.sums), (a.passages, b.passages), (a.tokens, b.tokens))
    return all(x.dtype == y.dtype == np.int64 and x.tobytes() == y.tobytes() for x, y in pairs)


corpora = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**31)), min_size=1, max_size=20)


@given(corpora, st.data())
@settings(deadline=None)
def test_any_sharding_merges_to_one_pass_bit_for_bit(passages: list[tuple[int, int]], data: st.DataObject) -> None:
    one_pass = summed(passages, 4, [])
    where = data.draw(st.lists(st.integers(0, 3), min_size=len(passages), max_size=len(passages)))
    pieces = data.draw(st.lists(st.integers(1, len(passages))))
    shards = []
    for shard in data.draw(st.permutations(range(4))):
        mine = [p for p, at in zip(passages, where, strict=True) if at == shard]
        mine = data.draw(st.permutations(mine))
        shards.append(summed(mine, 4, [p for p in pieces if p < len(mine)]) if mine else Statistics.zeros(4, 2, 7))
    left = shards[0].merged(shards[1]).merged(shards[2]).merged(shards[3])
    right = shards[0].merged(shards[1].merged(shards[3].merged(shards[2])))
    assert same(left, one_pass)
    assert same(right, one_pass)
    assert one_pass.passages.sum() == len(passages)
    assert one_pass.tokens.sum() == sum(1 + seed % 50 for _, seed in passages)


@given(corpora, st.lists(st.integers(0, 3), min_size=4, max_size=4))
@settings(deadline=None)
def test_grouping_is_adding(passages: list[tuple[int, int]], groups: list[int]) -> None:
    coarse = summed(passages, 4, []).grouped(np.array(groups))
    assert same(coarse, summed([(groups[c], seed) for c, seed in passages], max(groups) + 1, []))


def test_zeros_are_apart() -> None:
    made = Statistics.zeros(2, 1, 3)
    made.add(np.array([1]), np.full((1, 1, 3), 1 / 3), np.array([5]))
    assert made.passages.tolist() == [0, 1]
    assert made.tokens.tolist() == [0, 5]
    assert made.sums[0].tolist() == [[0, 0, 0]]
