"""Training: losses fall, a stopped run goes on as if it had not stopped, priors are mean shares, adapters merge."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapting import CONTEXT, LAYERS, WIDTH, Hashing, learnable, loaded, small, tiny, tiny_embedder
from conftest import run_cli, tree, write_corpus
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from coreinfer.capture import Capture, valid_tokens
from coreinfer.errors import CoreInferError
from coreinfer.settings import StatisticSettings
from pipeline.adapt import lora, run, steps, topics
from pipeline.adapt.corpus import read_corpus
from pipeline.adapt.packing import pack
from pipeline.adapt.report import HeldOut, measure
from pipeline.adapt.run import adapt, train
from pipeline.adapt.settings import AdaptSettings, MaskSettings, PriorSettings
from pipeline.adapt.topics import Topics
from pipeline.adapt.trainer import Trainer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``llama`` and ``bert``, a tiny model and embedder, and ``corpus.jsonl``, texts for it."""
    at = tmp_path_factory.mktemp("adapt")
    tiny(at / "llama")
    tiny_embedder(at / "bert")
    write_corpus(at / "corpus.jsonl", learnable(90))
    return at


@pytest.fixture
def asked(place: Path, monkeypatch: pytest.MonkeyPatch) -> AdaptSettings:
    """A small training, whose embedder costs nothing."""
    monkeypatch.setattr(run, "open_embedder", lambda name, artifact, device: (Hashing(), None))
    return small(place / "corpus.jsonl", place / "llama")


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


def test_a_stopped_run_goes_on_bit_for_bit(
    place: Path, asked: AdaptSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = list[str]()
    straight = adapt(asked, tmp_path / "straight")
    advance = Trainer.advance

    def stop(self: Trainer) -> Tensor:
        if self.step == 5:
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", stop)
    with pytest.raises(KeyboardInterrupt):
        adapt(asked, tmp_path / "stopped")
    assert not (tmp_path / "stopped").exists()
    left = tmp_path / ".stopped.adapt"
    assert sorted(tree(left)) == [
        "settings.json", "step-4/state.json", "step-4/state.safetensors", "topics.safetensors",
    ]  # fmt: skip
    monkeypatch.setattr(Trainer, "advance", advance)
    for other, named in ((replace(asked.train, seed=4), "train seed 3"), (replace(asked.train, steps=7), "steps 6")):
        with pytest.raises(CoreInferError, match=f"has .*{named}, this one has"):
            adapt(replace(asked, train=other), tmp_path / "stopped")
    monkeypatch.setattr(run, "make_topics", None)  # they are stored
    resumed = adapt(replace(asked, checkpoint_every=100), tmp_path / "stopped", said.append)
    assert any("going on after step 4 of 6" in line for line in said)
    assert resumed.reports == straight.reports
    names = ["model.safetensors", "config.json", "tokenizer.json"]
    one, two = tree(tmp_path / "straight"), tree(tmp_path / "stopped")
    assert [one[name] for name in names] == [two[name] for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped", "straight"]
    with pytest.raises(CoreInferError, match="exists already"):
        adapt(asked, tmp_path / "straight")


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(
    asked: AdaptSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Trainer.advance
    monkeypatch.setattr(Trainer, "advance", lambda self: advance(self) * (float("nan") if self.step == 4 else 1))
    with pytest.raises(CoreInferError, match=r"the loss of step 4 is nan.*lower --rate from 0.003"):
        adapt(asked, tmp_path / "out")
    assert [path.name for path in (tmp_path / ".out.adapt").glob("step-*")] == ["step-2"]
    (tmp_path / ".out.adapt" / "step-2" / "state.safetensors").write_bytes(b"cut")
    with pytest.raises(CoreInferError, match=r"remove .* to begin anew"):
        adapt(asked, tmp_path / "out")


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


def test_the_command(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    corpus, sizes = place / "corpus.jsonl", ["--steps", 2, "--batch", 2, "--micro", 1, "--limit", 24]
    options = [corpus, "--model", place / "llama", *sizes, "--context", CONTEXT, "--output", output]
    bert = ["--embedder", place / "bert"]
    done = run_cli("adapt", *options, *bert, "--json")
    assert done.code == 0, done.err
    assert "step 2 of 2: train" in done.err
    assert [report["step"] for report in done.rows[0]["reports"]] == [0, 2]
    card = (output / "README.md").read_text("utf-8")
    assert "`llama`, adapted" in card
    assert "`corpus.jsonl`" in card
    assert str(place) not in card
    model, tokenizer = AutoModelForCausalLM.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    assert model.config.num_hidden_layers == LAYERS
    assert model(input_ids=torch.tensor([tokenizer("a table")["input_ids"]])).logits.isfinite().all()
    clusters = run_cli(
        "build-clusters", corpus, "--model", output, "--output", tmp_path / "clusters",
        "--clusters", 2, "--passage-tokens", CONTEXT, "--limit", 12, *bert, "--quiet",
    )  # fmt: skip
    assert clusters.code == 0, clusters.err
    again = run_cli("adapt", *options)
    assert (again.code, again.out) == (2, "")
    assert "exists already" in again.err
    shutil.rmtree(output)
    taken = run_cli("adapt", *options, "--artifact", tmp_path / "clusters", "--quiet")
    assert (taken.code, taken.err, taken.out) == (0, "", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--keep-most", "1.5"], "keep is 1.5"),
        (["--context", "100000"], "has a context of 64"),
        (["--model", "no/such"], "cannot load the language model"),
        (["--limit", "1"], "give more text"),
        (["--held-out", "none.jsonl"], "none.jsonl"),
    ],
)
def test_bad_input_is_one_line(place: Path, tmp_path: Path, options: list[str], words: str) -> None:
    given: list[Any] = [] if "--model" in options else ["--model", place / "llama"]
    found = run_cli("adapt", place / "corpus.jsonl", *given, "--output", tmp_path / "out", *options, "--quiet")
    assert (found.code, found.out) == (2, "")
    assert words in found.err
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_all_settings_can_be_stored(asked: AdaptSettings, place: Path) -> None:
    base = loaded(place / "llama")
    corpus = read_corpus(asked.source, None, base.tokenizer, CONTEXT, 0)
    found = json.loads(json.dumps(run.facts(asked, base, corpus), default=str))
    assert {"train rate", "masks least", "priors rate", "weights", "data"} <= found.keys()
    assert steps.CHECK >= 1


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
