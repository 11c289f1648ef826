"""Texts to rows, windows and draws: nothing is lost, reordered, or drawn differently the second time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapting import CONTEXT, Hashing, small
from corpora import jsonl
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from coreinfer import neurons
from coreinfer.errors import CoreInferError
from coreinfer.paths import DEMO_LM
from pipeline.adapt.corpus import encode, read_corpus
from pipeline.adapt.draws import Batches, draw
from pipeline.adapt.packing import begins, cut, pack
from pipeline.adapt.settings import MaskSettings, PriorSettings
from pipeline.adapt.topics import PREFIX, SHORT, WHOLE, Topics, make_topics, near
from pipeline.sources import SourceSettings

some_texts = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=9)


@given(some_texts)
def test_packing_loses_and_reorders_nothing(texts: list[list[int]]) -> None:
    row = pack(np.array(ids, np.int32) for ids in texts)
    assert [row.text(i) for i in range(row.texts)] == texts
    assert row.ids.tolist() == [i for ids in texts for i in ids]
    assert row.ids.dtype == torch.int32


@given(some_texts, st.data())
@settings(deadline=None)
def test_windows_say_where_each_token_is_from(texts: list[list[int]], data: st.DataObject) -> None:
    row = pack(np.array(ids, np.int32) for ids in texts)
    if len(row.ids) < 2:
        return
    context = data.draw(st.integers(1, len(row.ids) - 1))
    begin = data.draw(st.lists(st.integers(0, len(row.ids) - context - 1), min_size=1, max_size=3))
    segments = data.draw(st.integers(1, 5))
    windows = cut(row, torch.tensor(begin), context, segments)
    owner = [i for i, ids in enumerate(texts) for _ in ids]
    for b, start in enumerate(begin):
        assert windows.ids[b].tolist() == row.ids[start : start + context + 1].tolist()
        for t in range(context):
            text = owner[start + t]
            number = text - owner[start]
            first = max(owner.index(text), start)  # of a text that began before, the window's start
            assert windows.segment[b, t] == min(number, segments - 1)
            assert windows.place[b, t] == start + t - first
            if number < segments:
                assert windows.text[b, number] == text


def test_half_of_the_windows_begin_with_a_text() -> None:
    row = pack(np.arange(10, dtype=np.int32) for _ in range(20))
    starts: Any = row.starts.numpy()
    found = begins(starts, 30, 0.5, 4000, np.random.default_rng(0))
    assert (int(found.min()), int(found.max())) == (0, 200 - 31)
    assert (found % 10 == 0).float().mean().item() == pytest.approx(0.5 + 0.5 * 0.1, abs=0.03)
    assert (begins(starts, 30, 1.0, 500, np.random.default_rng(0)) % 10 == 0).all()


def test_draws_stay_within_their_bounds() -> None:
    wanted = MaskSettings()
    made = draw(np.random.default_rng(0), wanted, 0.3, 4000, 10)
    prompts = made.prompt[:, :-1].double()
    assert (int(prompts.min()), int(prompts.max())) == (8, 200)
    assert prompts.log().mean().item() == pytest.approx(np.log(8 * 200) / 2, abs=0.03)
    assert int(made.prompt[:, -1].min()) > 1 << 20  # what is too many for a window runs dense
    assert made.masked.float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert made.whole.float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert (float(made.keep.min()), float(made.keep.max())) == pytest.approx((0.08, 0.55), abs=0.001)
    assert (made.n0 == 0).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert made.n0.isinf().float().mean().item() == pytest.approx(0.45, abs=0.03)
    hybrid = made.n0[(made.n0 > 0) & ~made.n0.isinf()]
    assert (float(hybrid.min()), float(hybrid.max())) == pytest.approx((32, 1024), rel=0.01)


def some_batches(**masks: Any) -> Batches:
    row = pack(np.arange(2, 2 + 20, dtype=np.int32) for _ in range(30))
    topics = Topics(torch.randint(0, 5, (3, 30, 2)), torch.full((3, 30, 2), 0.5), 5)
    asked = small(Path("x"), Path("y"))
    object.__setattr__(asked, "masks", MaskSettings(**masks))
    return Batches(row, topics, asked, 100, 2)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    torch.manual_seed(0)
    first, second = some_batches(), some_batches()
    second = Batches(first.row, first.topics, first.settings, 100, 2)
    second.at(1)
    for a, b in ((first.at(5), second.at(5)),):
        assert torch.equal(a.ids, b.ids)
        assert all(torch.equal(x, y) for x, y in zip(a.plan, b.plan, strict=True))
    assert not torch.equal(first.at(5).ids, first.at(6).ids)
    parts = first.at(5).parts(2)
    assert torch.equal(torch.cat([part.ids for part in parts]), first.at(5).ids)
    assert torch.equal(torch.cat([part.plan.dense for part in parts]), first.at(5).plan.dense)


def test_plans_follow_their_draws() -> None:
    batch = some_batches(share=1.0).at(0)
    assert ((batch.plan.kept >= 8) & (batch.plan.kept <= 55)).all()
    assert not (batch.plan.prompt & ~batch.plan.counted).any()
    assert not (batch.plan.counted & (batch.ids[:, None, :-1] == 2)).any()
    assert (batch.plan.counted.sum(1) <= 1).all()
    assert not batch.learned[:, -1].any()
    assert torch.equal(batch.learned[:, :-1], batch.plan.counted.sum(-1)[:, :-1] >= 8)
    assert some_batches(share=1.0, unmasked=0.5).at(2).plan.dense.all()  # of 6 steps, the first 3
    assert not some_batches(share=1.0, unmasked=0.5).at(3).plan.dense.all()
    assert some_batches(share=0.0).at(3).plan.dense.all()


def test_topics_are_mixtures_of_the_nearest_clusters() -> None:
    rng, asked = np.random.default_rng(0), PriorSettings(mixture=2, clusters=3)
    centroids, vectors = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=(7, 8)).astype(np.float32)
    clusters, weights = near(vectors, centroids, asked)
    for vector, found, weight in zip(vectors, clusters.numpy(), weights.numpy(), strict=True):
        similar = centroids @ vector
        best = np.argsort(-similar)[:2]
        assert found.tolist() == best.tolist()
        assert np.allclose(weight, neurons.mixture_weights(similar[best], asked.sharpness), atol=1e-6)


def test_views_are_of_beginnings_and_whole_texts() -> None:
    tokenizer, embed = AutoTokenizer.from_pretrained(DEMO_LM), Hashing().embed
    texts = [f"text {i} " + "and so on " * 40 for i in range(9)]
    row, asked = pack(encode(texts, tokenizer)), PriorSettings(clusters=4, mixture=2)
    topics, centroids = make_topics(texts, row, tokenizer, embed, None, asked, 0)
    for view, tokens in ((SHORT, 16), (PREFIX, 64), (WHOLE, None)):
        read = texts if tokens is None else [str(tokenizer.decode(row.text(i)[1:tokens])) for i in range(9)]
        clusters, weights = near(embed(read), centroids, asked)
        assert torch.equal(topics.clusters[view], clusters)
        mixed = topics.mixture(torch.full((1, 9), view), torch.arange(9)[None])[0]
        assert torch.equal(mixed, torch.zeros(9, len(centroids)).scatter_(1, clusters, weights))
    given_centroids = make_topics(texts, row, tokenizer, embed, centroids[:2], asked, 0)[1]
    assert np.array_equal(given_centroids, centroids[:2])


def test_a_corpus_is_split_by_record(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_LM)
    texts = [f"Sentence {i} of a text. " * (1 + i % 30) for i in range(400)] + ["Sentence 7 of a text. " * 8] * 3
    source = SourceSettings(str(jsonl(tmp_path / "all.jsonl", *({"text": text} for text in texts))))
    corpus = read_corpus(source, None, tokenizer, CONTEXT, 0)
    assert 1 <= corpus.held.texts <= 80
    assert not set(corpus.texts) & set(corpus.held_texts)
    words = " ".join(corpus.texts + corpus.held_texts).split()
    assert sorted(words) == sorted(" ".join(texts).split())
    assert max(len(corpus.row.text(i)) for i in range(corpus.row.texts)) <= CONTEXT
    assert all(corpus.row.text(i)[0] == tokenizer.bos_token_id for i in range(corpus.row.texts))
    for i, text in enumerate(corpus.texts):
        assert tokenizer.decode(corpus.row.text(i)[1:]) == text
    again = read_corpus(source, None, tokenizer, CONTEXT, 0)
    other = read_corpus(source, None, tokenizer, CONTEXT, 1)
    assert again.row.digest() == corpus.row.digest() != other.row.digest()
    assert other.held_texts == corpus.held_texts
    held = jsonl(tmp_path / "held.jsonl", {"text": texts[0]}, {"text": "Something else entirely."})
    asked = read_corpus(source, str(held), tokenizer, CONTEXT, 0)
    assert (asked.held.texts, asked.duplicates) == (2, 1)
    assert texts[0].strip() not in asked.texts
    with pytest.raises(CoreInferError, match="a window takes"):
        read_corpus(SourceSettings(str(held)), None, tokenizer, CONTEXT, 0)


def test_a_tokenizers_beginning_is_added_where_it_leaves_it_out() -> None:
    class Plain:
        bos_token_id: int | None = 1

        def __call__(self, texts: list[str], **_: Any) -> dict[str, Any]:
            return {"input_ids": [[5, len(text)] for text in texts]}

    made: Any = Plain()
    assert [ids.tolist() for ids in encode(["ab", "c"], made)] == [[1, 5, 2], [1, 5, 1]]
    made.bos_token_id = None
    assert json.dumps([ids.tolist() for ids in encode(["ab"], made)]) == "[[5, 2]]"
