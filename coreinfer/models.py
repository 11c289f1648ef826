"""The only file that knows model families: where the neurons of a causal language model are, and how to load one.

An MLP is found by structure: a module whose own children are the input projections and the output projection of one of
the layouts below, with widths that fit together, one in every decoder layer. Then one MLP of each kind is run, in full
and sliced (``coreinfer.separable``). What does not fit is refused by name (mixtures of experts, for one).
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, get_args
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from coreinfer.errors import CoreInferError, in_words
from coreinfer.hub import model_place
from coreinfer.memory.linear import weights_of
from coreinfer.mlp import FUSED, Mlp, full, shape_of
from coreinfer.quantised.conversion import HEAD_BITS, narrowed, quantise_modules
from coreinfer.quantised.linear import bits_of
from coreinfer.separable import is_separable, kind
from coreinfer.settings import QUANTISED, Dtype, check_device, one_of

# (input projections, output projection). Two inputs: gate and up. One: fc1, or gate and up fused.
LAYOUTS = (
    (("gate_proj", "up_proj"), "down_proj"),  # Llama, Mistral, Qwen2, Qwen3, Gemma 2 and 3
    ((FUSED,), "down_proj"),  # Phi-3
    (("fc1",), "fc2"),  # OPT, Phi
    (("dense_h_to_4h",), "dense_4h_to_h"),  # GPT-NeoX, Falcon
    (("c_fc",), "c_proj"),  # GPT-2 (Conv1D: weights stored transposed)
)
_TRIED: WeakKeyDictionary[nn.Module, list[Mlp]] = WeakKeyDictionary()  # by decoder: found, and seen to be separable


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """The stack of layers, which every forward of the model goes through."""
    return cast(nn.Module, model.get_decoder() if hasattr(model, "get_decoder") else model)  # type: ignore[no-untyped-call]


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder's layers, in order: the modules that their number alone names, as in ``layers.3``."""
    paths = [(path.split("."), module) for path, module in decoder_of(model).named_modules()]
    return [module for parts, module in paths if parts[-1].isdecimal() and sum(map(str.isdecimal, parts)) == 1]


def _as_mlp(owner: nn.Module, hidden: int) -> Mlp | None:
    """``owner`` as an Mlp if its children are those of a layout and their shapes fit; else None."""
    children = {name: full(child) for name, child in owner.named_children()}
    for inputs, output in LAYOUTS:
        if output not in children or any(name not in children for name in inputs):
            continue
        shapes = [shape_of(children[name]) for name in (*inputs, output)]
        if shapes[-1] is None:
            continue
        width = shapes[-1][1]
        made = 2 * width if inputs == (FUSED,) else width
        if shapes[-1] == (hidden, width) and all(s == (made, hidden) for s in shapes[:-1]):
            return Mlp(owner, inputs, output, width, {name: children[name] for name in (*inputs, output)})
    return None


def _layer_of(path: str) -> int:
    """The layer that a module's path within the decoder names first: 3 for ``layers.3.mlp``; -1 if it names none."""
    return next((int(part) for part in path.split(".") if part.isdecimal()), -1)


def structure(model: PreTrainedModel) -> list[Mlp]:
    """The MLP of each decoder layer, in order, by names and shapes alone; the weights need not be there.

    Raises:
        CoreInferError: not one understood MLP in each layer, or layers of unequal width.
    """
    config, decoder = model.config.get_text_config(), decoder_of(model)
    layers = config.num_hidden_layers
    modules = list(decoder.named_modules())
    found = [(path, mlp) for path, module in modules if (mlp := _as_mlp(module, config.hidden_size)) is not None]
    experts = any(path.endswith(".experts") for path, _ in modules)  # a shared expert looks like an MLP
    mlps = [mlp for _, mlp in found]
    one_each = [_layer_of(path) for path, _ in found] == list(range(layers))
    if experts or not one_each or len({(mlp.width, mlp.names) for mlp in mlps}) != 1:
        raise CoreInferError(
            f"the MLPs of {type(model).__name__} are not understood: found {len(found)} of a known layout in {layers} "
            f"layers{' beside experts' if experts else ''}; give a dense decoder such as OPT, Llama, Mistral, Qwen2, "
            "Qwen3, Gemma, Phi-3, GPT-NeoX, GPT-2 or Falcon (mixtures of experts are not supported)"
        )
    return mlps


def find_mlps(model: PreTrainedModel) -> list[Mlp]:
    """The MLP of each decoder layer, in order; the full ones, also inside a slim context.

    Raises:
        CoreInferError: what ``structure`` raises, or neurons that depend on each other.
    """
    mlps, decoder = structure(model), decoder_of(model)
    if _TRIED.get(decoder) != mlps:
        _try_out(model, mlps)
        _TRIED[decoder] = mlps
    return mlps


def _try_out(model: PreTrainedModel, mlps: list[Mlp]) -> None:
    """Run one MLP of each kind, and refuse the model if its neurons are not computed apart from each other."""
    for mlp in {kind(mlp): mlp for mlp in mlps}.values():
        if not is_separable(mlp):
            raise CoreInferError(
                f"the MLPs of {type(model).__name__} are not understood: {type(mlp.owner).__name__} computes something "
                "else with some of its neurons gone (it may normalise or select among them); give a model whose "
                "neurons are independent, such as Llama or OPT"
            )


_CHECKPOINT = "_coreinfer_fingerprint"  # where a quantised model keeps that of what it was quantised from


def fingerprint(model: nn.Module) -> str:
    """A hash of the weights that does not depend on the dtype they were loaded in: sha256 over each parameter's name,
    shape and 1,024 evenly spaced elements rounded to bfloat16. It tells models and fine-tunes apart in milliseconds;
    it is no signature against an adversary. A quantised model's is that of the weights it was quantised from.
    """
    if (known := model.__dict__.get(_CHECKPOINT)) is not None:
        return str(known)
    digest = hashlib.sha256()
    for name, weight in weights_of(model):
        count = weight.numel()
        picks = torch.linspace(0, max(count - 1, 0), min(1024, count), dtype=torch.float64).long().to(weight.device)
        some = weight[torch.unravel_index(picks, weight.shape)] if weight.ndim else weight
        sample = some.to("cpu", torch.bfloat16).view(torch.int16)
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(sample.numpy().astype("<i2").tobytes())
    return digest.hexdigest()


def default_dtype(device: str) -> torch.dtype:
    """bfloat16 on a GPU and on CPUs with instructions for it, float32 elsewhere."""
    has_bf16 = device != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.bfloat16 if has_bf16 else torch.float32


def dtype_of(dtype: str, device: str) -> torch.dtype:
    """The dtype that ``auto``, ``float32`` or ``bfloat16`` means on a device.

    Raises:
        CoreInferError: another word.
    """
    choices = {"auto": default_dtype(device), "float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in choices:
        raise CoreInferError(f"dtype is {dtype!r}: choose one of {', '.join(choices)}")
    return choices[dtype]


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Whatever fails inside becomes one line about this model; parsers of damaged files raise anything."""
    try:
        yield
    except CoreInferError:
        raise
    except Exception as error:  # struct.error, AttributeError, SafetensorError, …
        raise CoreInferError(
            f"cannot load the language model {name!r}: {in_words(error)}; give a Hub name, a folder with safetensors "
            "weights, or a .gguf file (which needs `pip install coreinfer[gguf]`)"
        ) from error


def load_model(
    name: str = "demo", dtype: str = "auto", device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal LM and its tokenizer by Hub name, folder or GGUF file, in eval mode. Only safetensors and GGUF are read.

    Raises:
        CoreInferError: not found, damaged, not a causal LM, with another's tokenizer, or its weights are pickles or not
            the config's.
    """
    one_of("dtype", dtype, get_args(Dtype))
    kind, where = "auto" if dtype in QUANTISED else dtype_of(dtype, device), model_place(name)
    with loading(name):
        if where.endswith(".gguf"):
            from transformers import GgufConfig

            where, file = str(Path(where).parent), {"gguf_file": Path(where).name}
            how: dict[str, Any] = {
                **file,
                "quantization_config": GgufConfig(dequantize=True),
            }  # linear layers, not blocks
        else:
            file, how = {}, {"use_safetensors": True}
        tokenizer = AutoTokenizer.from_pretrained(where, **file)
        loaded: Any = AutoModelForCausalLM.from_pretrained(where, dtype=kind, output_loading_info=True, **how)
        model, report = loaded
        if report["missing_keys"]:  # transformers would leave them random
            raise ValueError(f"it holds no weights for {min(report['missing_keys'])}")
        check_vocabulary(model, tokenizer)
        model = model if dtype in QUANTISED else model.to(device)
    model.eval()
    return (quantise(model, dtype, device) if dtype in QUANTISED else model), tokenizer


def quantise(model: PreTrainedModel, dtype: str, device: str) -> PreTrainedModel:
    """Make the linear weights of ``model`` int8 or int4, in place, and move it to ``device``; what is left is
    ``default_dtype``. Its fingerprint stays that of what it was: quantised is a way to load a checkpoint.

    Raises:
        CoreInferError: a model that is quantised already, or has linear modules of a kind of its own.
    """
    made: Any = model
    head, place = made.get_output_embeddings(), decoder_of(model)
    if bits_of(model) is not None:
        raise CoreInferError("the model is quantised already: load its checkpoint anew")
    if type(head) is not nn.Linear:
        raise CoreInferError(f"a head of the type {type(head).__name__} is not quantised: give float32 or bfloat16")
    check_device(device)
    before, downs = fingerprint(model), {mlp.down for mlp in find_mlps(model)}
    names = {path for path, module in place.named_modules() if module in downs}
    del downs, _TRIED[place]  # both hold weights that are to go
    quantise_modules(place, names, QUANTISED[dtype], device)
    made.set_output_embeddings(narrowed(head, HEAD_BITS, device))
    made.to(device)
    for parameter in model.parameters():  # not the model's ``to``: it would round the tables of positions as well
        parameter.data = parameter.data.to(default_dtype(device), copy=True)  # or the file would stay in memory for it
    model.__dict__[_CHECKPOINT] = before
    return model


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer whose vocabulary is larger than the model's; tokens added to it beyond that may stay unused.

    Gemma 3's text models are of that kind: their tokenizer knows a picture's token, which they do not.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.vocab_size > rows:
        raise ValueError(f"its tokenizer knows {tokenizer.vocab_size} tokens and the model {rows}: one is another's")


def bos_of(model: PreTrainedModel) -> int | None:
    """The beginning-of-text token, where the model has one."""
    bos = model.config.get_text_config().bos_token_id
    return bos if isinstance(bos, int) else None


def context_length(model: PreTrainedModel) -> int:
    """How many tokens the model can attend to."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", 1 << 30))
