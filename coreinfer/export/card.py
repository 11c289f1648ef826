"""The card of an export: from what it was made, how large it is, what it costs, and how its runtime loads it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import coreinfer
from coreinfer.artifact import Artifact
from coreinfer.export.choosing import Chosen
from coreinfer.gguf.kinds import BYTES
from coreinfer.wording import cell

LOADING = {
    "transformers": 'AutoModelForCausalLM.from_pretrained("FOLDER")  # transformers',
    "safetensors": 'safetensors.safe_open("FOLDER/model.safetensors", "pt")  # tensors; layers are of unequal width',
    "gguf": 'llama_cpp.Llama("FOLDER/model.gguf")  # or: llama-cli -m FOLDER/model.gguf',
    "onnx": 'onnxruntime.InferenceSession("FOLDER/model.onnx")  # input_ids, attention_mask, past_key_values.N.key …',
}


@dataclass(frozen=True)
class About:
    """What all models of an export come from. ``digest``: sha256 of the artifact's manifest, if there is one."""

    model: str
    weights: str
    digest: str | None
    curve: tuple[dict[str, float], ...] = ()

    @classmethod
    def of(cls, artifact: Artifact, model: str) -> "About":
        curve = tuple(artifact.calibration.get("curve", ()))
        return cls(model, artifact.manifest.model.weights, artifact.digest, curve)


@dataclass(frozen=True)
class Sizes:
    """Bytes of weights: as written, of the dense model in the same form, and ``ideal``: dense less the dropped neurons'
    share of the MLPs. ``added``: zero neurons.
    """

    written: int
    dense: int
    ideal: int
    added: int


def ideal_size(dense: int, mlp_weights: int, keep: float, kind: str) -> int:
    """Bytes of the dense model without the dropped neurons' weights."""
    return math.ceil(dense - (1 - keep) * mlp_weights * BYTES[kind])


def loss_in_words(curve: tuple[dict[str, float], ...], keep: float) -> str:
    """What the artifact's calibration says of a keep."""
    if keep >= 1:
        return "none: every neuron is kept"
    if not curve:
        return "not measured"
    keeps = [row["keep"] for row in curve]
    rise, high = (
        float(np.interp(keep, [*keeps, 1.0], [*(row[x] for row in curve), 0.0])) for x in ("rise", "rise_high")
    )
    where = "" if any(abs(keep - each) < 1e-9 for each in keeps) else ", between measured keeps"
    if keep < keeps[0]:
        return f"more than {rise:.3f} nats per token, which keep {keeps[0]:g} costs, the lowest that was measured"
    return f"{rise:.3f} nats per token, at most {high:.3f} (95%){where}"


def card(chosen: Chosen, about: About, target: str, kind: str, sizes: Sizes, is_uniform: bool) -> str:
    """README.md of one model."""
    neurons, facts = chosen.neurons, []
    facts.append(("model", f"`{cell(about.model)}`, weights {about.weights[:16]}…"))
    facts.append(("artifact", f"manifest sha256 {about.digest}" if about.digest else "none: the set came from a file"))
    facts.append(("neurons", cell(chosen.why)))
    if chosen.terms:
        facts.append(("terms", cell(", ".join(chosen.terms))))
    budgets = "the same in each layer" if is_uniform else ", ".join(map(str, neurons.per_layer))
    total = neurons.width * len(neurons.layers)
    facts.append(("keep", f"{chosen.keep:g}: {sum(neurons.per_layer):,} of {total:,} neurons; by layer {budgets}"))
    if sizes.added:
        facts.append(("zero neurons", f"{sizes.added:,}, since the format wants other widths"))
    share, ideal = sizes.written / sizes.dense, sizes.ideal / sizes.dense
    facts.append(("bytes", f"{sizes.written:,} of the dense model's {sizes.dense:,} ({share:.1%}; ideal {ideal:.1%})"))
    loss = "not measured for uniform budgets" if is_uniform else loss_in_words(about.curve, chosen.keep)
    facts.append(("loss", loss))
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts)
    return f"""---
{_front(about.model)}tags:
- coreinfer
---
# {cell(about.model)} on {sum(neurons.per_layer) / total:.0%} of its MLP neurons

A language model with only some of its neurons, for {target} ({kind}), made by coreinfer {coreinfer.__version__}.

```python
{LOADING[target]}
```

| | |
|---|---|
{rows}

A loss is the rise of NLL that the artifact's calibration measured for each prompt's own neurons, with the prompt run
dense. This model has one set for every text, and runs prompts on it as well: far from its topic it loses more.
"""


def _front(model: str) -> str:
    """The Hub's name of the dense model, where it is one."""
    is_hub = model.count("/") == 1 and not Path(model).exists() and not model.startswith((".", "/", "~"))
    return f"base_model: {model}\n" if is_hub else ""


def facts_of(chosen: Chosen, sizes: Sizes, place: Path) -> dict[str, Any]:
    """The same for machines."""
    return {
        "name": chosen.name, "cluster": chosen.cluster, "keep": chosen.keep, "terms": list(chosen.terms),
        "neurons_per_layer": chosen.neurons.per_layer, "bytes": sizes.written, "dense_bytes": sizes.dense,
        "ideal_bytes": sizes.ideal, "zero_neurons": sizes.added, "place": str(place),
    }  # fmt: skip
