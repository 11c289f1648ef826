"""lm-evaluation-harness on a local task of 200 items, with coreinfer's model type. `make test-runtimes` runs it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import in_new_process
from conftest import demo_texts
from transformers import AutoTokenizer

from coreinfer import Engine
from coreinfer.evaluate import Plan, Rungs, Text, measure
from coreinfer.paths import DEMO_CLUSTERS, DEMO_LM

lm_eval = pytest.importorskip("lm_eval")
ITEMS, CONTEXT, REST = 200, 24, 12
TASK = """
task: demo_continuations
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{context}}"
doc_to_target: "{{continuation}}"
target_delimiter: ""
metric_list:
- {metric: perplexity, aggregation: perplexity, higher_is_better: false}
- {metric: acc, aggregation: mean, higher_is_better: true}
"""
GENERATES = """
task: demo_generations
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: generate_until
doc_to_text: "{{context}}"
doc_to_target: "{{continuation}}"
generation_kwargs: {until: ["."], max_gen_toks: 16, do_sample: false}
metric_list:
- {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture(scope="module")
def items() -> list[dict[str, Any]]:
    """Passages in two, where the harness's way to split tokens finds the same two."""
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO_LM)
    out = list[dict[str, Any]]()
    for text in demo_texts(1000, 400):
        ids = tokenizer(text)["input_ids"][: CONTEXT + REST]
        parts = (ids[:CONTEXT], ids[CONTEXT:])
        context, rest = (str(tokenizer.decode(part, skip_special_tokens=True)) for part in parts)
        together = tokenizer(context + rest)["input_ids"]
        bare = context == context.strip() and rest == rest.rstrip()  # the harness moves or drops other spaces
        if bare and len(ids) == CONTEXT + REST and together == ids and tokenizer(context)["input_ids"] == ids[:CONTEXT]:
            out.append({"context": context, "continuation": rest, "ids": ids})
    assert len(out) >= ITEMS
    return out[:ITEMS]


@pytest.fixture(scope="module")
def tasks(items: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    at = tmp_path_factory.mktemp("tasks")
    lines = [json.dumps({name: item[name] for name in ("context", "continuation")}) + "\n" for item in items]
    (at / "items.jsonl").write_text("".join(lines), "utf-8")
    (at / "few.jsonl").write_text("".join(lines[:6]), "utf-8")
    (at / "task.yaml").write_text(TASK % (at / "items.jsonl"), "utf-8")
    (at / "generates.yaml").write_text(GENERATES % (at / "few.jsonl"), "utf-8")
    return at


def run(tasks: Path, task: str, monkeypatch: pytest.MonkeyPatch, **args: Any) -> Any:
    from lm_eval.tasks import TaskManager

    import coreinfer.lm_eval.model  # noqa: F401

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tasks / "cache"))
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    return lm_eval.simple_evaluate(
        model="coreinfer", model_args={"dtype": "float32", **args}, tasks=[task], task_manager=manager,
        log_samples=True, bootstrap_iters=0,
    )  # fmt: skip


def losses(found: Any) -> Any:
    """Log-likelihoods by item."""
    rows = sorted(found["samples"]["demo_continuations"], key=lambda row: row["doc_id"])
    return np.array([float(row["filtered_resps"][0][0]) for row in rows])


def test_sparse_differs_from_dense_and_all_neurons_do_not(
    tasks: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dense, few, every = (
        run(tasks, "demo_continuations", monkeypatch, **how)
        for how in ({"policy": "dense"}, {"policy": "similarity", "keep": 0.1}, {"keep": 1.0})
    )
    scores = [one["results"]["demo_continuations"]["perplexity,none"] for one in (dense, few, every)]
    assert len(losses(dense)) == ITEMS
    assert np.allclose(losses(every), losses(dense), atol=1e-3)
    assert (np.abs(losses(few) - losses(dense)) > 0.01).mean() > 0.9  # no item ran dense unseen
    assert scores[1] > 1.2 * scores[0]
    assert scores[2] == pytest.approx(scores[0], rel=1e-4)
    ours = _evaluated(items)
    theirs = [-losses(one).mean() / REST for one in (dense, few)]
    with capsys.disabled():
        said = ", ".join(f"{a:.6f} / {b:.6f}" for a, b in zip(ours, theirs, strict=True))
        print(f"\nperplexities {scores}; NLL, ours / the harness's, dense and keep 0.1: {said}")
    assert math.isclose(ours[0], theirs[0], abs_tol=1e-3)
    assert math.isclose(ours[1], theirs[1], abs_tol=1e-3)


def _evaluated(items: list[dict[str, Any]]) -> tuple[float, float]:
    """NLL per token by our own evaluation, dense and at keep 0.1 by similarity."""
    engine, plan = Engine.load(DEMO_CLUSTERS, dtype="float32"), Plan((0.1,), (CONTEXT,), REST, ("similarity",))
    texts = [Text(str(at), np.array(item["ids"], np.int32)) for at, item in enumerate(items)]
    found = measure(engine, texts, plan, Rungs(engine, ("similarity", "oracle")))
    at = found.rungs.index((0.1, "similarity"))
    return float(found.nll[0].mean()), float((found.nll[0] + found.numbers[0, at, :, 0]).mean())


def test_generations(tasks: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine.load(DEMO_CLUSTERS, dtype="float32")
    found = run(tasks, "demo_generations", monkeypatch, policy="similarity", keep=0.2)
    rows = sorted(found["samples"]["demo_generations"], key=lambda row: row["doc_id"])
    for row, item in zip(rows, items, strict=False):
        made = engine.generate(item["context"], "similarity", 0.2, 16).text
        assert row["filtered_resps"][0] == made.split(".")[0]


def test_rolling_and_empty_contexts() -> None:
    """Texts without a context begin at end-of-text; a text longer than the context is scored in windows."""
    from lm_eval.api.instance import Instance

    from coreinfer.lm_eval.model import CoreInferLM

    made = CoreInferLM(policy="dense", dtype="float32")
    text = demo_texts(1, 400)[0]
    [whole] = made.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    [(same, _)] = made.loglikelihood([Instance("loglikelihood", {}, ("", text), 0)])
    bare = made.tok_encode(text, add_special_tokens=False)
    assert whole == pytest.approx(made.scorer.score([made.eot_token_id], bare)[0], abs=1e-3)
    assert same < 0
    [long] = made.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text * 8,), 0)])
    assert long < whole


def test_the_command_line(tasks: Path) -> None:
    code = "import runpy, sys; sys.argv[0] = 'lm_eval'; runpy.run_module('coreinfer.lm_eval', run_name='__main__')"
    said = in_new_process(
        code, "run", "--model", "coreinfer", "--model_args", "policy=similarity,keep=0.2",
        "--tasks", "demo_generations", "--include_path", tasks, "--limit", "1",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "demo_generations" in said.out
    said = in_new_process(
        code, "run", "--model", "coreinfer", "--model_args", "artifact=nowhere", "--tasks", "demo_generations",
        "--include_path", tasks,
    )  # fmt: skip
    assert said.code == 2
    assert "no artifact at nowhere" in said.err
    assert "Traceback" not in said.err
