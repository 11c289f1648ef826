"""``coreinfer.apply``: a Transformers model's own ``generate`` on each prompt's neurons."""

from threading import Thread
from typing import Any

import pytest
import torch
from conftest import demo_texts
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import coreinfer
from coreinfer import CoreInferError, Engine, load_model
from coreinfer.applying import last
from coreinfer.grouping import joined
from coreinfer.neurons import NeuronSet
from coreinfer.paths import DEMO_CLUSTERS, DEMO_LM
from coreinfer.slimming import slim

NEW, KEEP = 10, 0.15
HOW: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(DEMO_LM, padding_side="left")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(DEMO_CLUSTERS, dtype="float32")


def plain() -> Any:
    return AutoModelForCausalLM.from_pretrained(DEMO_LM, dtype=torch.float32)


def ids_of(tokenizer: Any, text: str) -> torch.Tensor:
    ids: torch.Tensor = tokenizer(text, return_tensors="pt")["input_ids"]
    return ids


def wanted(model: Any, neurons: NeuronSet | None, **inputs: torch.Tensor) -> list[list[int]]:
    with slim(model, neurons) as slimmed:  # type: ignore[arg-type]
        made: list[list[int]] = slimmed.generate(**inputs, **HOW).tolist()  # type: ignore[operator]
    return made


@pytest.mark.parametrize("policy", ["similarity", "stability"])
def test_generate_runs_on_the_prompts_neurons(policy: Any, tokenizer: Any, engine: Engine) -> None:
    model, text = plain(), demo_texts(1, 90)[0]
    dense = model.generate(ids_of(tokenizer, text), **HOW)
    assert coreinfer.apply(model, DEMO_CLUSTERS, policy=policy, keep=KEEP) is model
    found = model.generate(ids_of(tokenizer, text), **HOW)
    predicted = engine.predict(text, policy, KEEP)
    assert last(model)[0].neurons == predicted.neurons
    assert found.tolist() == wanted(plain(), predicted.neurons, input_ids=ids_of(tokenizer, text))
    assert found.tolist() != dense.tolist()
    model.coreinfer.remove()
    assert model.generate(ids_of(tokenizer, text), **HOW).tolist() == dense.tolist()


def test_a_batch_runs_on_the_union(tokenizer: Any, engine: Engine) -> None:
    model, texts = plain(), demo_texts(40, 90)[::20]
    coreinfer.apply(model, DEMO_CLUSTERS, tokenizer, policy="stability", keep=KEEP)
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    assert (inputs["attention_mask"] == 0).any()
    found = model.generate(**inputs, **HOW)
    union = joined([engine.predict(text, "stability", KEEP).neurons for text in texts])
    assert found.tolist() == wanted(plain(), union, **inputs)


def test_pipelines(tokenizer: Any, engine: Engine) -> None:
    model, text = plain(), demo_texts(1, 90)[0]
    coreinfer.apply(model, DEMO_CLUSTERS, tokenizer, policy="similarity", keep=KEEP)
    said = pipeline("text-generation", model=model, tokenizer=tokenizer)(text, return_full_text=False, **HOW)
    neurons = engine.predict(text, "similarity", KEEP).neurons
    made = wanted(plain(), neurons, input_ids=ids_of(tokenizer, text))[0]
    assert said[0]["generated_text"] == tokenizer.decode(made, skip_special_tokens=True)[len(text) :]
    assert model.coreinfer.last[0].neurons == neurons


def test_peft(tokenizer: Any, engine: Engine) -> None:
    """An adapter on attention leaves the base's neurons; one on the MLPs is merged first."""
    from peft import IA3Config, LoraConfig, get_peft_model

    torch.manual_seed(0)
    ids, text = ids_of(tokenizer, demo_texts(1, 90)[0]), demo_texts(1, 90)[0]
    model: Any = get_peft_model(plain(), LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    model.eval()
    dense = model.generate(input_ids=ids, **HOW).tolist()
    coreinfer.apply(model, DEMO_CLUSTERS, tokenizer, policy="similarity", keep=KEEP)
    found = model.generate(input_ids=ids, **HOW).tolist()
    assert found != dense
    [made] = last(model)
    assert made.neurons == engine.predict(text, "similarity", KEEP).neurons
    merged = model.merge_and_unload()
    merged.coreinfer.remove()
    assert wanted(merged, made.neurons, input_ids=ids) == found

    wide: Any = get_peft_model(plain(), LoraConfig(target_modules=["up_proj"], init_lora_weights=False))
    scaled: Any = get_peft_model(plain(), IA3Config(target_modules=["down_proj"], feedforward_modules=["down_proj"]))
    for adapted in (wide, scaled):
        with pytest.raises(CoreInferError, match="there is an adapter on the MLP"):
            coreinfer.apply(adapted, DEMO_CLUSTERS, tokenizer)
    one = wide.merge_and_unload()
    with pytest.raises(CoreInferError, match="other weights"):
        coreinfer.apply(one, DEMO_CLUSTERS, tokenizer)
    coreinfer.apply(one, DEMO_CLUSTERS, tokenizer, policy="similarity", keep=KEEP, tuned=True)
    assert one.generate(input_ids=ids, **HOW).shape[1] == ids.shape[1] + NEW


def test_quantised(tokenizer: Any) -> None:
    model, _ = load_model("demo", "int8")
    coreinfer.apply(model, DEMO_CLUSTERS, tokenizer, policy="similarity", keep=KEEP)
    ids = ids_of(tokenizer, demo_texts(1, 90)[0])
    made: Any = model.generate(ids, **HOW)
    assert made.shape[1] == ids.shape[1] + NEW
    assert last(model)[0].keep == KEEP


def test_two_threads(tokenizer: Any) -> None:
    """Never dense unseen: the second one waits, or is told that the first is at it."""
    model, said = plain(), dict[int, Any]()
    coreinfer.apply(model, DEMO_CLUSTERS, tokenizer, policy="similarity", keep=KEEP)
    ids = ids_of(tokenizer, demo_texts(1, 90)[0])
    wanted = model.generate(ids, **HOW).tolist()

    def work(number: int) -> None:
        try:
            said[number] = model.generate(ids, **HOW).tolist()
        except CoreInferError as error:
            said[number] = str(error)

    threads = [Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one == wanted or "generating" in one for one in said.values())
    assert wanted in said.values()


def test_what_is_refused(tokenizer: Any) -> None:
    model = plain()
    with pytest.raises(CoreInferError, match="keep is 2"):
        coreinfer.apply(model, DEMO_CLUSTERS, tokenizer, keep=2)
    coreinfer.apply(model, DEMO_CLUSTERS, tokenizer)
    with pytest.raises(CoreInferError, match="generate got none: give input_ids"):
        model.generate(inputs_embeds=torch.zeros(1, 3, 320))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    model.coreinfer.remove()
    with pytest.raises(CoreInferError, match="has the same shape but other weights"):
        coreinfer.apply(model, DEMO_CLUSTERS, tokenizer)
