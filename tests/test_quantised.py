"""Quantised weights: what is stored, what it stands for, and how far that is from what it was made of."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import demo_texts, run_cli
from families import FAMILIES, build, tokens, twice
from families import one_thread as one_thread
from hypothesis import given, settings
from hypothesis import strategies as st
from quantising import both, dense_equal, known, narrow
from quantising import float32_around as float32_around
from slow_truths import logits
from small_models import save_llama
from torch import Tensor, nn

from coreinfer import CoreInferError
from coreinfer.mlp import down_rows
from coreinfer.models import find_mlps, fingerprint, load_model, quantise
from coreinfer.quantised import conversion
from coreinfer.quantised.linear import QuantisedLinear, bits_of, named_dtype
from coreinfer.quantised.packed import GROUP, Packed, joined, quantised, stacked

seeds = st.integers(0, 1 << 31)
scales = st.sampled_from([1e-30, 1e-6, 1.0, 1e4, 1e30])


def rows(seed: int, m: int, n: int, scale: float = 1.0) -> Tensor:
    """Random rows, some of zeros, some with one weight far larger than the rest."""
    rng = torch.Generator().manual_seed(seed)
    w = torch.randn(m, n, generator=rng) * scale
    w[torch.rand(m, generator=rng) < 0.1] = 0
    w[torch.rand(m, n, generator=rng) < 0.005] *= 30
    return w


def by_hand(packed: Packed) -> Tensor:
    """What is stored, read weight by weight as its docstring says, float64."""
    data, out = packed.data.numpy(), np.empty(packed.shape)
    for row, column in np.ndindex(*packed.shape):
        group, place = divmod(column, GROUP)
        if packed.bits == 8:
            out[row, column] = float(data[row, column]) * float(packed.scales[row])
        else:
            word = int(data[row, group * 16 + place % 16]) & 0xFFFF
            stored = word >> (4 * (place // 16)) & 15
            out[row, column] = (stored - 8) * float(packed.scales[row, group])
    return torch.from_numpy(out)


@given(seed=seeds, m=st.integers(1, 4), groups=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_what_is_stored_is_read_as_it_says(seed: int, m: int, groups: int) -> None:
    for bits in (8, 4):
        made = quantised(rows(seed, m, groups * GROUP), bits)
        assert made.shape == (m, groups * GROUP)
        assert torch.equal(made.dequantised(), by_hand(made).float())


@given(seed=seeds, m=st.integers(1, 6), n=st.integers(1, 150), scale=scales)
@settings(max_examples=40, deadline=None)
def test_8_bits_are_off_by_half_a_step(seed: int, m: int, n: int, scale: float) -> None:
    w = rows(seed, m, n, scale)
    made = quantised(w, 8)
    assert torch.all((made.dequantised() - w).abs() <= made.scales[:, None] * 0.50001)
    assert int(made.data.min()) >= -127


@given(seed=seeds, m=st.integers(1, 6), groups=st.integers(1, 3), scale=scales)
@settings(max_examples=40, deadline=None)
def test_4_bits_are_off_by_half_a_step_within_the_grid(seed: int, m: int, groups: int, scale: float) -> None:
    """A weight beyond the grid takes its end; a group's largest is nearly exact."""
    w = rows(seed, m, groups * GROUP, scale)
    made = quantised(w, 4)
    steps = made.scales.float().repeat_interleave(GROUP, 1)
    found, grid = made.dequantised(), torch.nan_to_num(w / steps)
    inside = (grid >= -8.5) & (grid <= 7.5)
    assert torch.all((found - w).abs()[inside] <= steps.abs()[inside] * 0.50001)
    ends = torch.where(grid < 0, -8.0, 7.0) * steps
    assert torch.equal(found[~inside], ends[~inside])
    assert torch.all((found - w).abs() <= steps.abs() * 1.04)  # beyond 7.5 reach those alone that are nearly as large
    largest, exact = (x.view(m, groups, GROUP).abs().amax(2) for x in (found, w))
    assert torch.allclose(largest, exact, rtol=4e-3, atol=0)  # a bfloat16 scale


@given(seed=seeds, bits=st.sampled_from([8, 4]))
@settings(max_examples=15, deadline=None)
def test_what_is_on_the_grid_comes_back(seed: int, bits: int) -> None:
    """Quantising what quantised weights stand for changes nothing more."""
    once = quantised(rows(seed, 5, 2 * GROUP), bits).dequantised()
    assert torch.allclose(quantised(once, bits).dequantised(), once, rtol=1e-6 if bits == 8 else 1e-2, atol=0)


@given(seed=seeds, bits=st.sampled_from([8, 4]), ids=st.lists(st.integers(0, 8), max_size=6))
@settings(max_examples=20, deadline=None)
def test_rows_are_quantised_by_themselves(seed: int, bits: int, ids: list[int]) -> None:
    """So slicing and quantising commute, whatever pieces a matrix is quantised in."""
    w, some = rows(seed, 9, 2 * GROUP), torch.tensor(ids, dtype=torch.long)
    whole = quantised(w, bits)
    for part, like in ((whole[some], w[some]), (whole[2:5], w[2:5]), (joined([whole[:4], whole[4:]]), w)):
        if len(like):
            again = quantised(like, bits)
            assert torch.equal(part.data, again.data)
            assert torch.equal(part.scales, again.scales)
            assert torch.equal(part.dequantised(), again.dequantised())
    assert torch.equal(whole.columns(GROUP, 2 * GROUP).dequantised(), whole.dequantised()[:, GROUP:])
    both_sides = stacked([whole, whole])
    assert both_sides.shape == (9, 2, 2 * GROUP)
    assert torch.equal(both_sides[:, 1].dequantised(), whole.dequantised())


@both
def test_a_matrix_in_pieces(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    w, bits = rows(0, 40, GROUP), int(dtype[3:])
    whole = quantised(w, bits)
    monkeypatch.setattr("coreinfer.quantised.packed.PIECE", 7 * GROUP)
    assert torch.equal(quantised(w, bits).data, whole.data)


def test_bytes() -> None:
    w = torch.ones(3, 128)
    assert quantised(w, 8).nbytes == 3 * 128 + 3 * 4
    assert quantised(w, 4).nbytes == 3 * 64 + 3 * 2 * 2
    assert quantised(w, 4).numel() == 3 * 128


@pytest.mark.parametrize("by_input", [False, True])
@both
def test_a_module_computes_with_what_is_stored(dtype: str, by_input: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 and bfloat16, whole and in pieces; only its bias follows a change of dtype."""
    torch.manual_seed(0)
    plain, x = nn.Linear(128, 320), torch.randn(2, 3, 128)
    module = conversion.narrowed(plain, int(dtype[3:]), "cpu", by_input)
    weight = module.packed.dequantised()
    wanted = x @ (weight if by_input else weight.T) + plain.bias
    assert (module.in_features, module.out_features) == (128, 320)
    for piece in (1 << 30, 1):
        monkeypatch.setattr("coreinfer.quantised.linear.PIECE", piece)
        assert torch.allclose(module(x), wanted, atol=1e-4)
    module.to(torch.bfloat16)
    assert torch.equal(module.packed.dequantised(), weight)
    assert module.bias is not None
    assert module.bias.dtype is torch.bfloat16
    assert (module(x.bfloat16()).float() - wanted).abs().max() < 0.03 * wanted.abs().max()


@known
@both
def test_a_model_computes_with_what_is_stored(name: str, dtype: str) -> None:
    model, ids = narrow(name, dtype), tokens(1, 20)
    assert torch.allclose(logits(model, ids), logits(dense_equal(name, model), ids), atol=2e-5)
    assert named_dtype(model) == dtype
    kinds = {type(module) for module in model.modules()}
    assert QuantisedLinear in kinds
    assert nn.Linear not in kinds
    before = build(name, twice(FAMILIES[name]))
    assert fingerprint(model) == fingerprint(before)  # quantised is a way to load a checkpoint
    mlp = find_mlps(model)[1]
    assert isinstance(mlp.down, QuantisedLinear)
    off = down_rows(mlp) - down_rows(find_mlps(before)[1])  # by neuron: a neuron's scales are its own
    assert 0 < off.abs().max() < (0.01 if dtype == "int8" else 0.15)


def test_dense_weights_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Llama")
    alive = [weakref.ref(x.weight) for x in model.modules() if isinstance(x, nn.Linear)]
    left, one = list[int](), conversion.narrowed

    def counted(module: nn.Linear, *args: Any, **kwargs: Any) -> QuantisedLinear:
        left.append(sum(ref() is not None for ref in alive))
        return one(module, *args, **kwargs)

    monkeypatch.setattr(conversion, "narrowed", counted)
    quantise(model, "int8", "cpu")
    assert left == list(range(len(alive), 1, -1))  # the head, which is the last, is quantised after all of these


def test_the_demo_says_nearly_the_same() -> None:
    """Over hundreds of tokens of text. What is chosen of nearly equally likely tokens may differ."""
    plain, tokenizer = load_model("demo", "float32")
    ids = [torch.tensor([tokenizer(text)["input_ids"]]) for text in demo_texts(40, 600)[::10]]
    wanted = [logits(plain, one)[0] for one in ids]
    for dtype, agreed, off in (("int8", 0.96, 0.003), ("int4", 0.8, 0.1)):
        model = load_model("demo", dtype)[0]
        assert fingerprint(model) == fingerprint(plain)
        found = [logits(model, one)[0].float() for one in ids]
        same = torch.cat([a.argmax(-1) == b.argmax(-1) for a, b in zip(found, wanted, strict=True)])
        apart = torch.cat(
            [
                (b.softmax(-1) * (b.log_softmax(-1) - a.log_softmax(-1))).sum(-1)
                for a, b in zip(found, wanted, strict=True)
            ]
        )
        assert float(same.float().mean()) > agreed
        assert float(apart.mean()) < off


def refused(name: str, dtype: str, **changes: Any) -> str:
    with pytest.raises(CoreInferError) as refusal:
        quantise(build(name, changes.get("config")), dtype, "cpu")
    return str(refusal.value)


def test_what_cannot_be_quantised() -> None:
    assert "h.0.attn.c_attn is a Conv1D, which is not quantised: give the dtype float32" in refused("GPT2", "int8")
    assert "is a FalconLinear, which is not quantised" in refused("Falcon", "int8")
    assert "layers.0.self_attn.q_proj: int4 quantises 64 weights together, which do not divide rows of 32" in refused(
        "Llama", "int4"
    )
    model: Any = build("Llama")
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight[3, 4] = torch.inf
    with pytest.raises(
        CoreInferError, match=r"layers\.1\.self_attn\.v_proj: the model holds weights that are infinite"
    ):
        quantise(model, "int8", "cpu")
    with pytest.raises(CoreInferError, match="quantised already"):
        quantise(narrow("Llama", "int8"), "int4", "cpu")


def test_a_quantised_model_is_neither_saved_nor_trained(tmp_path: Path) -> None:
    from pipeline.adapt.run import Base, train
    from pipeline.adapt.settings import AdaptSettings
    from pipeline.sources import SourceSettings

    model = narrow("Llama", "int4")
    with pytest.raises(CoreInferError, match="a quantised model is not saved: keep its checkpoint"):
        model.save_pretrained(tmp_path / "saved")
    settings: Any = AdaptSettings(SourceSettings("x"), "x", None)
    base: Any = Base("x", model, None, torch.float32)  # type: ignore[arg-type]
    with pytest.raises(CoreInferError, match="a model in int4 cannot be trained: load it in float32 or bfloat16"):
        train(settings, base, tmp_path / "trained")
    assert bits_of(model) == 4


def test_by_the_command_line(tmp_path: Path, corpus: Path) -> None:
    small = save_llama(tmp_path / "small", layers=2, width=48, context=64)
    for arguments, said in (
        (("generate", "--dtype", "int3", "x"), "--dtype is 'int3': choose one of auto, float32, bfloat16, int8, int4"),
        (("adapt", corpus, "--output", tmp_path / "y", "--dtype", "int8"), "the dtype is 'int8': choose one of auto"),
        (("bench", "--model", small, "--dtype", "int4", "--context", "64", "--prompt-tokens", "4", "-n", "2"),
         "int4 quantises 64 weights together, which do not divide rows of 32: give int8"),
    ):  # fmt: skip
        result = run_cli(*arguments)
        assert (result.code, said in result.err) == (2, True), result.err
