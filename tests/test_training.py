"""Core-mask-aware training: the mask against a transcription and against ``slim``; a few steps on a tiny model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import one_thread as one_thread
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from coreinfer import CoreInferError, load_model
from coreinfer.models import find_mlps
from coreinfer.neurons import top
from coreinfer.slimming import slim
from training import core_mask, train_lm
from training.core_mask import CoreMask, core_masked
from training.tokens import END, load_tokenizer, read_texts, token_row, train_tokenizer
from training.train_lm import RATE, WARMUP, held_out_loss, loss_of, main, make_model, optimizer_of, rate_at, train

Floats = NDArray[np.float32]
VOCABULARY, WIDTH, LAYERS, CONTEXT = 64, 40, 2, 32
SENTENCES = ["The river carries water to the sea.", "A wheel turns; the engine drives it.", "Zwölf Boxkämpfer 東京 🍕"]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Training sets the precision of products for the whole process."""
    before = torch.get_float32_matmul_precision()
    torch.manual_seed(0)
    yield
    torch.set_float32_matmul_precision(before)


def tiny() -> LlamaForCausalLM:
    return make_model(VOCABULARY, 24, LAYERS, 3, WIDTH, CONTEXT)


def some_ids(batch: int, length: int = CONTEXT) -> Tensor:
    return torch.randint(2, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Floats, Floats, list[int], list[int]]:
    """Activations (B, T, F), column energies (F,), split and kept (B,); small whole numbers, so that sums are exact."""
    batch, length, width = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 9))
    a = draw(arrays(np.float32, (batch, length, width), elements=st.sampled_from([-3.0, -1.0, 0.0, 1.0, 2.0])))
    column = draw(arrays(np.float32, width, elements=st.sampled_from([0.5, 1.0, 2.0])))
    split = draw(st.lists(st.integers(0, length + 2), min_size=batch, max_size=batch))
    return a, column, split, draw(st.lists(st.integers(0, width), min_size=batch, max_size=batch))


@given(cases())
@settings(deadline=None)
def test_core_masked_is_its_transcription(case: tuple[Floats, Floats, list[int], list[int]]) -> None:
    a, column, split, kept = case
    where = torch.tensor(split), torch.tensor(kept)
    got = core_masked(torch.from_numpy(a), torch.from_numpy(column), *where).numpy()
    for row, out, s, k in zip(a, got, split, kept, strict=True):
        energy = [sum(float(x) ** 2 for x in row[:s, i]) * float(column[i]) for i in range(len(column))]
        core = sorted(range(len(column)), key=lambda i, energy=energy: (-energy[i], i))[:k]  # type: ignore[misc]
        slow = row.copy()
        for at in range(s, len(row)):
            slow[at] = [x if i in core else 0 for i, x in enumerate(row[at])]
        assert out.tolist() == slow.tolist()
        if s >= len(row):
            assert out.tolist() == row.tolist()


def test_gradients_pass_what_is_kept_alone() -> None:
    a = torch.tensor([[[3.0, 1.0], [5.0, 7.0]]], requires_grad=True)
    core_masked(a, torch.ones(2), torch.tensor([1]), torch.tensor([1])).sum().backward()  # type: ignore[no-untyped-call]
    assert a.grad is not None
    assert a.grad.tolist() == [[[1, 1], [1, 0]]]


@torch.no_grad()
def test_keep_1_is_dense_and_removing_restores() -> None:
    model, ids = tiny(), some_ids(2)
    dense = model(input_ids=ids).logits
    mask = CoreMask(model)
    assert torch.equal(model(input_ids=ids).logits, dense)  # neither drawn nor fixed yet
    mask.fix(2, 8, 1.0, "cpu")
    assert torch.equal(model(input_ids=ids).logits, dense)
    mask.fix(2, 8, 0.2, "cpu")
    masked = model(input_ids=ids).logits
    assert torch.equal(masked[:, :8], dense[:, :8])
    assert not torch.allclose(masked[:, 8:], dense[:, 8:])
    mask.remove()
    assert torch.equal(model(input_ids=ids).logits, dense)


@torch.no_grad()
@pytest.mark.parametrize("keep", [0.15, 0.4, 0.7])
def test_the_training_mask_is_slim_on_the_prompts_top_energies(keep: float) -> None:
    model, ids, prompt = tiny(), some_ids(3), 12
    for parameter in model.parameters():  # large enough that the MLPs matter
        parameter.copy_(0.3 * torch.randn_like(parameter))
    mask = CoreMask(model)
    mask.fix(3, prompt, keep, "cpu")
    masked = model(input_ids=ids, use_cache=False).logits
    mask.remove()
    for row, logits in zip(ids, masked, strict=True):
        seen: list[Tensor] = []
        hooks = [
            mlp.down.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0][0]))
            for mlp in find_mlps(model)
        ]
        model(input_ids=row[None, :prompt])
        for hook in hooks:
            hook.remove()
        downs: list[Any] = [mlp.down for mlp in find_mlps(model)]
        energy = [(a**2).sum(0) * (down.weight**2).sum(0) for a, down in zip(seen, downs, strict=True)]
        neurons = top(torch.stack(energy).numpy(), np.full(LAYERS, round(keep * WIDTH)))
        with slim(model, neurons, prompt_tokens=prompt):
            first = model(input_ids=row[None, :prompt], use_cache=True)
            rest = model(input_ids=row[None, prompt:], past_key_values=first.past_key_values)
        slow = torch.cat([first.logits[0], rest.logits[0]])
        a, b = (cross_entropy(x[:-1], row[1:]) for x in (logits, slow))
        assert float(a) == pytest.approx(float(b), abs=1e-5)
        assert torch.allclose(logits, slow, atol=1e-4)


def test_draws_stay_within_their_bounds() -> None:
    mask = CoreMask(tiny())
    mask.draw(4000, 512, 0.7, "cpu")
    assert mask.split is not None
    assert mask.kept is not None
    masked = mask.split < 512
    assert masked.float().mean().item() == pytest.approx(0.7, abs=0.05)
    assert (int(mask.split[masked].min()), int(mask.split[masked].max())) == (core_mask.EARLIEST, core_mask.LATEST - 1)
    assert int(mask.kept.min()) == int(core_mask.LEAST * WIDTH)
    assert int(mask.kept.max()) <= core_mask.MOST * WIDTH
    mask.draw(50, 8, 1.0, "cpu")  # a context shorter than the earliest split
    assert set(mask.split.tolist()) == {7}
    mask.draw(50, 8, 0.0, "cpu")
    assert set(mask.split.tolist()) == {8}


def test_rates_rise_stay_and_fall() -> None:
    rates = [rate_at(step, 10_000) for step in range(10_000)]
    assert rates[0] == pytest.approx(RATE / WARMUP)
    assert rates[WARMUP - 1 : 3000] == pytest.approx([RATE] * (3000 - WARMUP + 1))
    assert rates[:WARMUP] == sorted(rates[:WARMUP])
    assert rates[3000:] == sorted(rates[3000:], reverse=True)
    assert rates[6500] == pytest.approx(RATE / 2)
    assert rates[-1] == pytest.approx(train_lm.LAST * RATE)


def test_norms_do_not_decay() -> None:
    model = tiny()
    matrices, vectors = optimizer_of(model).param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert len(vectors["params"]) == 2 * LAYERS + 1
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


def test_held_out_loss_is_the_mean_over_whole_windows() -> None:
    model, row = tiny(), some_ids(1, 3 * CONTEXT + 9)[0].int()
    mask = CoreMask(model)
    got = held_out_loss(model, mask, row, CONTEXT, 1.0)
    mask.remove()
    starts = (0, CONTEXT, 2 * CONTEXT)
    slow = [loss_of(model, row[None, at : at + CONTEXT + 1].long()).item() for at in starts]
    assert got == pytest.approx(sum(slow) / 3, abs=1e-3)


def test_a_few_steps_lower_the_loss(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(train_lm, "WARMUP", 5)
    row = torch.arange(2, 14, dtype=torch.int32).repeat(40)
    model = tiny()
    losses = train(model, row, row[:200], steps=40, batch=8, share=0.7, report=20)
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_tokenizer_round_trips() -> None:
    made = train_tokenizer(SENTENCES * 5, 300)
    assert 256 < len(made) <= 300

    @given(st.text())
    @settings(max_examples=50, deadline=None)
    def any_text(text: str) -> None:
        ids = made(text)["input_ids"]
        assert ids[0] == made.bos_token_id == made.convert_tokens_to_ids(END) == 0
        assert 0 not in ids[1:]
        assert made.decode(ids[1:]) == text

    any_text()


def test_a_row_holds_every_text_once() -> None:
    made = train_tokenizer(SENTENCES, 300)
    row = token_row(SENTENCES, made)
    assert row.dtype == torch.int32
    assert row.tolist() == [i for text in SENTENCES for i in made(text)["input_ids"]]
    shuffled = [token_row(SENTENCES * 4, made, seed).tolist() for seed in (3, 3, 4)]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    assert sorted(shuffled[0]) == sorted(row.tolist() * 4)


def test_the_command_makes_a_model_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, output = tmp_path / "corpus.jsonl", tmp_path / "lm"
    texts = [f"{sentence} Number {i}." for i in range(20) for sentence in SENTENCES]
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    assert read_texts(str(corpus)) == texts
    small: dict[str, Any] = {"vocabulary": 300, "hidden": 24, "layers": LAYERS, "heads": 3, "width": WIDTH}
    small |= {"context": CONTEXT, "batch": 2, "steps": 2, "report": 1, "device": "cpu"}
    main(str(corpus), str(corpus), output, **small)
    assert "step 2 of 2" in capsys.readouterr().out
    model, tokenizer = load_model(str(output), "float32")
    assert [mlp.width for mlp in find_mlps(model)] == [WIDTH] * LAYERS
    again = train_tokenizer(texts, 300)
    for text in SENTENCES:
        ids = tokenizer(text)["input_ids"]
        assert ids == again(text)["input_ids"] == load_tokenizer(str(output))(text)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert model(input_ids=torch.tensor([ids])).logits.shape == (1, len(ids), len(tokenizer))
    with pytest.raises(CoreInferError, match="exists already"):
        main(str(corpus), str(corpus), output, **small)
    with pytest.raises(CoreInferError, match="less than one context"):
        main(str(corpus), str(corpus), tmp_path / "other", **{**small, "context": 100_000})
    assert not (tmp_path / "other").exists()
