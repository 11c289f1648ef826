"""One set, four runtimes, the same 64 tokens: 20 prompts over 5 clusters of the demo. `make test-runtimes` runs it."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import demo_texts, run_cli
from onnx_greedy import Onnx
from transformers import AutoModelForCausalLM, AutoTokenizer

from coreinfer import Engine
from coreinfer.artifact import Artifact
from coreinfer.decode.families import read_network
from coreinfer.decode.reference import step
from coreinfer.models import load_model
from coreinfer.paths import DEMO_CLUSTERS, DEMO_LM
from coreinfer.threads import running_on

llama_cpp = pytest.importorskip("llama_cpp")
CLUSTERS, EACH, NEW, KEEP = 5, 4, 64, 0.4
EXACT = [("transformers", "f32"), ("onnx", "f32"), ("gguf", "f32")]
ROUNDED = [("transformers", "bf16"), ("gguf", "bf16"), ("gguf", "q8_0"), ("gguf", "q4_0")]
Texts = dict[int, list[list[int]]]  # token ids by cluster


@pytest.fixture(scope="module")
def prompts() -> Texts:
    """Beginnings of passages, by the clusters that match most of them."""
    engine = Engine.load(DEMO_CLUSTERS)
    texts = demo_texts(240, 80)
    found = [match.cluster for match in engine.match(texts)]
    most = [cluster for cluster, count in Counter(found).most_common() if count >= EACH][:CLUSTERS]
    assert len(most) == CLUSTERS
    tokenizer = AutoTokenizer.from_pretrained(DEMO_LM)
    return {
        cluster: [tokenizer(text)["input_ids"] for text, at in zip(texts, found, strict=True) if at == cluster][:EACH]
        for cluster in most
    }


@pytest.fixture(scope="module")
def exports(prompts: Texts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All clusters' models in each form."""
    place = tmp_path_factory.mktemp("exports")
    clusters = [word for cluster in prompts for word in ("--cluster", cluster)]
    for target, kind in EXACT + ROUNDED:
        made = run_cli("export", "--to", target, "--weights", kind, *clusters, "--keep", KEEP,
                       "--output", place / f"{target}-{kind}", "-q")  # fmt: skip
        assert made.code == 0, made.err
    return place


@pytest.fixture(scope="module")
def wanted(prompts: Texts) -> Texts:
    """What the naive reference says, one step after another from the prompt's first token on, all on the set."""
    model, _ = load_model("demo", "float32")
    network, opened = read_network(model, bundle=False), Artifact.load(DEMO_CLUSTERS)
    out: Texts = {}
    for cluster, texts in prompts.items():
        kept = [torch.from_numpy(ids).long() for ids in opened.core(opened.prior(cluster), KEEP).layers]
        out[cluster] = [_reference(network, kept, ids) for ids in texts]
    return out


@torch.no_grad()
def _reference(network: Any, kept: list[torch.Tensor], ids: list[int]) -> list[int]:
    made, shape = list(ids), (len(network.layers), len(ids) + NEW, network.kv_heads, network.head_dim)
    keys, values = torch.zeros(shape), torch.zeros(shape)
    for position in range(len(ids) + NEW - 1):
        logits = step(network, made[position], position, keys, values, kept)
        if position + 1 >= len(ids):
            made.append(int(logits.argmax()))
    return made[len(ids) :]


def _transformers(folder: Path) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder)

    def greedy(ids: list[int], new: int) -> list[int]:
        given = torch.tensor([ids])
        how = {"do_sample": False, "min_new_tokens": new, "max_new_tokens": new, "eos_token_id": None}
        return [int(x) for x in model.generate(given, attention_mask=torch.ones_like(given), **how)[0, len(ids) :]]

    return greedy


def _llama(folder: Path, **how: Any) -> Any:
    """Prompts token by token: llama.cpp's kernels for several tokens of quantised weights crash on CPUs with AMX."""
    return llama_cpp.Llama(str(folder / "model.gguf"), n_ctx=256, n_batch=1, n_threads=1, verbose=False, **how)


def _llama_greedy(folder: Path) -> Any:
    llama = _llama(folder)

    def greedy(ids: list[int], new: int) -> list[int]:
        made = llama.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0, reset=True)
        return [token for token, _ in zip(made, range(new), strict=False)]

    return greedy


def _greedy(target: str, folder: Path) -> Any:
    if target == "onnx":
        return Onnx(folder / "model.onnx").greedy
    return (_transformers if target == "transformers" else _llama_greedy)(folder)


@pytest.mark.parametrize(("target", "kind"), EXACT)
def test_the_same_tokens(target: str, kind: str, prompts: Texts, exports: Path, wanted: Texts) -> None:
    assert sum(map(len, wanted.values())) == CLUSTERS * EACH
    assert len({tuple(text) for texts in wanted.values() for text in texts}) == CLUSTERS * EACH
    for cluster, texts in prompts.items():
        greedy = _greedy(target, exports / f"{target}-{kind}" / f"cluster-{cluster}")
        assert [greedy(ids, NEW) for ids in texts] == wanted[cluster]


def _log_probabilities(target: str, folder: Path) -> Any:
    """Of a text's next tokens, (T, V)."""
    if target == "transformers":
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        return lambda ids: model(torch.tensor([ids])).logits[0].float().log_softmax(-1).detach().numpy()
    llama = _llama(folder, logits_all=True)

    def run(ids: list[int]) -> Any:
        llama.reset()
        llama.eval(ids)
        return torch.from_numpy(np.array(llama.scores[: len(ids)])).log_softmax(-1).numpy()

    return run


# (target, kind) -> the least share of tokens that are the float32 model's, and the most KL to it, nats per token.
DIVERGENCE = {
    ("transformers", "bf16"): (0.98, 5e-4), ("gguf", "bf16"): (0.99, 1e-4), ("gguf", "q8_0"): (0.97, 2e-3),
    ("gguf", "q4_0"): (0.9, 0.1),
}  # fmt: skip


@pytest.mark.parametrize(("target", "kind"), ROUNDED)
def test_how_far_rounded_weights_diverge(
    target: str, kind: str, prompts: Texts, exports: Path, wanted: Texts, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the reference's own texts: each token is what the rounded model, too, would have said, nearly always."""
    same, apart = list[float](), list[float]()
    for cluster, texts in prompts.items():
        exact = _log_probabilities("transformers", exports / "transformers-f32" / f"cluster-{cluster}")
        rounded = _log_probabilities(target, exports / f"{target}-{kind}" / f"cluster-{cluster}")
        for ids, made in zip(texts, wanted[cluster], strict=True):
            p, q = (run([*ids, *made])[len(ids) - 1 : -1] for run in (exact, rounded))
            assert p.argmax(-1).tolist() == made
            same += (q.argmax(-1) == np.array(made)).tolist()
            apart += (np.exp(p) * (p - q)).sum(-1).tolist()
    with capsys.disabled():
        print(f"\n{target} {kind}: {np.mean(same):.4f} of tokens the same, KL {np.mean(apart):.2e}")
    least, most = DIVERGENCE[target, kind]
    assert np.mean(same) >= least
    assert np.mean(apart) <= most


def test_bytes_over_the_ideal(exports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights and all that lies beside them; the demo's layers keep equal numbers, so nothing is filled up."""
    for target, kind in EXACT + ROUNDED:
        place = exports / f"{target}-{kind}"
        index = json.loads((place / "models.json").read_text("utf-8"))
        assert len(index["models"]) == CLUSTERS
        said = (place / index["models"][0]["folder"] / "README.md").read_text("utf-8")
        [line] = [line for line in said.splitlines() if line.startswith("| bytes")]
        with capsys.disabled():
            print(f"\n{target} {kind}: {line}")
        written, ideal = (float(number) for number in re.findall(r"([\d.]+)%", line))
        assert written <= ideal + 0.1


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with running_on(1):
        yield
