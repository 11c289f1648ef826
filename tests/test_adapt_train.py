"""Training: losses fall, reports are of the formula, priors are mean shares, adapters merge."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from adapting import CONTEXT, WIDTH, Hashing, loaded, small
from adapting import asked as asked
from adapting import place as place
from safetensors.torch import load_file

from coreinfer.capture import Capture, valid_tokens
from coreinfer.errors import CoreInferError
from coreinfer.settings import StatisticSettings
from pipeline.adapt import lora, topics
from pipeline.adapt.corpus import read_corpus
from pipeline.adapt.packing import pack
from pipeline.adapt.report import HeldOut, measure
from pipeline.adapt.run import adapt, train
from pipeline.adapt.settings import AdaptSettings, MaskSettings, PriorSettings
from pipeline.adapt.topics import Topics
from pipeline.adapt.trainer import Trainer


def trainer_of(asked: AdaptSettings) -> Trainer:
    """A trainer without anything around it."""
    base = loaded(Path(asked.model))
    corpus = read_corpus(asked.source, None, base.tokenizer, CONTEXT, 0)
    found = topics.make_topics(corpus.texts, corpus.row, base.tokenizer, Hashing().embed, None, asked.priors, 0)[0]
    return Trainer(base.model, corpus.row, found, asked.with_context(CONTEXT))


def test_a_few_steps_lower_the_loss(asked: AdaptSettings) -> None:
    trainer = trainer_of(replace(asked, train=replace(asked.train, steps=25)))
    losses = [float(trainer.advance()[0]) for _ in range(25)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1


@torch.no_grad()
def test_priors_approach_the_recorded_mean_shares(place: Path, asked: AdaptSettings) -> None:
    base = loaded(place / "llama")
    rng = np.random.default_rng(0)
    ids = [[0, *rng.integers(low, low + 40, CONTEXT - 1)] for low in [10] * 6 + [500] * 6]
    cluster = torch.tensor([0] * 6 + [1] * 6 + [0])
    one_hot = Topics(cluster.expand(3, -1)[..., None].contiguous(), torch.ones(3, 13, 1), 2)
    masks = MaskSettings(share=1e-12, at_text=1.0, unmasked=0.0)  # none is masked; windows are whole texts
    wanted = replace(asked, masks=masks, train=replace(asked.train, micro=4), priors=PriorSettings(rate=0.02))
    row = pack(np.array(text, np.int32) for text in [*ids, ids[0]])
    trainer = Trainer(base.model, row, one_hot, wanted.with_context(CONTEXT))
    texts = torch.tensor(ids)
    with Capture(base.model, StatisticSettings("energy")) as capture:
        capture.expect(valid_tokens(texts, None, 0))
        base.model(input_ids=texts, use_cache=False)
        shares = capture.shares()
    columns = trainer.columns()
    for step in range(150):
        batch = trainer.batches.at(step)
        used = trainer._loss(batch.ids, batch.plan, trainer.priors.shares, columns, None)[1]
        trainer.priors.learn(used, batch.mixture, batch.learned)
    for number in (0, 1):
        recorded = shares[(cluster[:12] == number).numpy()].mean(0)
        known = trainer.priors.shares[:, number].numpy()
        assert np.allclose(known.sum(-1), 1, atol=1e-3)
        assert np.abs(known - recorded).mean() < 0.1 * np.abs(1 / WIDTH - recorded).mean()


def test_reports_are_of_the_formula(asked: AdaptSettings) -> None:
    trainer = trainer_of(asked)
    rows = [[0, *range(10 + i, 10 + i + size)] for i, size in enumerate((60, 50, 9))]
    mixture = torch.tensor([[0, 1]] * 3), torch.tensor([[0.9, 0.1]] * 3)
    held = HeldOut(pack(np.array(ids, np.int32) for ids in rows), 30, mixture, trainer.batches.topics.count, CONTEXT)
    assert held.texts.shape == (2, 61)  # the third is no longer than a prompt
    first = measure(trainer, held)
    assert first.similarity is None
    trainer.step = 1
    made = measure(trainer, held)
    assert made.similarity == {"0.4": first.continued, "0.2": first.continued}  # uniform priors rank nothing
    with torch.no_grad():
        logits = trainer.model(input_ids=held.texts.clamp_min(0)[:, :-1]).logits.log_softmax(-1)
    slow = [-float(logits[b, t - 1, ids[t]]) for b, ids in enumerate(rows[:2]) for t in range(30, len(ids))]
    assert made.continued == pytest.approx(np.mean(slow), abs=1e-5)
    assert made.stability["0.2"] != pytest.approx(made.continued, abs=1e-4)
    assert "at keep 0.2" in made.sentence()


def test_distilling_nothing_but_the_original_moves_nothing(asked: AdaptSettings) -> None:
    for rank in (0, 2):
        changed = replace(asked.train, distill=1.0, lora=rank)
        trainer = trainer_of(replace(asked, train=changed, masks=MaskSettings(share=0.0)))
        assert trainer.advance().abs().max() < 1e-6  # loss and gradients
        all_masked = MaskSettings(share=1.0, least=0.1, most=0.1, stability=1.0, hybrid=0.0, unmasked=0.0)
        trainer = trainer_of(replace(asked, train=changed, masks=all_masked))
        assert trainer.advance()[0] > 1e-6


def test_adapters_change_what_they_are_on_and_nothing_else(place: Path, asked: AdaptSettings, tmp_path: Path) -> None:
    report = adapt(replace(asked, train=replace(asked.train, lora=2, steps=3)), tmp_path / "out")
    before, after = (load_file(at / "model.safetensors") for at in (place / "llama", tmp_path / "out"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj" in name}
    assert 0 < report.parameters < sum(x.numel() for x in before.values()) / 4
    assert {x.dtype for x in after.values()} == {x.dtype for x in before.values()}


def test_lora_without_peft_is_one_line(asked: AdaptSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(CoreInferError, match=r"pip install 'coreinfer\[adapt\]'"):
        adapt(replace(asked, train=replace(asked.train, lora=2)), tmp_path / "out")


def test_a_failed_training_leaves_no_hook(place: Path, asked: AdaptSettings, tmp_path: Path) -> None:
    base = loaded(place / "llama")
    with torch.no_grad():
        next(base.model.parameters()).fill_(float("nan"))
    with pytest.raises(CoreInferError, match="the loss of step 1 is nan"):
        train(asked, base, tmp_path / "out")
    assert not any(module._forward_pre_hooks for module in base.model.modules())


def test_without_masks_it_trains_plainly_and_embeds_nothing(place: Path, tmp_path: Path) -> None:
    """The loss is Transformers' own, and an embedder that is not there is not missed."""
    asked = small(place / "corpus.jsonl", place / "llama", steps=2, micro=4)
    asked = replace(asked, masks=MaskSettings(share=0.0), embedder=str(tmp_path / "none"))
    reports = train(asked, loaded(place / "llama"), tmp_path / "out").reports
    assert [report["similarity"] for report in reports] == [None, None]
    trainer = trainer_of(asked)
    ids = trainer.batches.at(0).ids
    own = loaded(place / "llama").model(input_ids=ids, labels=ids).loss
    assert trainer.advance()[0].item() == pytest.approx(own.item(), rel=1e-5)
