"""What a model computes besides its weights: its tokenizer's and its configuration's part of the identity, as one hash.

The same model from a Hub folder and from a GGUF file must have one hash, and the two store tokenizers differently and
numbers in other precisions. So the tokenizer is tried rather than read, and numbers count to six digits.
"""

import hashlib
import json
import re
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coreinfer.manifest import ModelIdentity
from coreinfer.models import fingerprint
from coreinfer.quantised.linear import named_dtype

# Names of configuration fields that change the function; what else there is belongs to training or to bookkeeping.
FIELDS = re.compile(
    r"num_hidden_layers|sliding_window|layer_types|alibi|use_bidirectional_attention|new_decoder_architecture"
    r"|num_.*heads?|head_dim|multi_query|.*parallel.*|(.*_)?act|.*activation.*|.*eps(ilon)?|.*norm_before|.*softcapping"
    r"|rope.*|.*rotary.*|.*theta|.*multiplier|.*scal(e|ing|ar).*"
)
WORDS = 8192  # how many of a vocabulary's tokens are tokenized again, evenly spaced
PROBE = "Ärger, ÉTÉ &  two\tblanks\n\nnaïve x²=3.14159;  1234567 don't 東京の天気 Москва 🍕 def f(x):\n    return x"


def plain(value: Any) -> Any:
    """A value of a configuration as JSON has it: numbers to six digits, what is not set left out."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in sorted(value.items()) if one is not None}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return f"{value:.6g}" if isinstance(value, int | float) and not isinstance(value, bool) else value


def digest(*parts: Any) -> str:
    """sha256 of the parts as canonical JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def config_facts(config: Any) -> dict[str, Any]:
    """The fields of a configuration that change what the model computes; what is off counts as left out."""
    found = config.get_text_config().to_dict()
    return {
        name: plain(value) for name, value in found.items() if FIELDS.fullmatch(name) and value not in (None, False)
    }


def tokenizer_facts(tokenizer: Any) -> list[Any]:
    """The vocabulary, and what the tokenizer makes of its own tokens' texts and of one that is hard."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    some = vocabulary[:: max(1, len(vocabulary) // WORDS)]
    texts = [PROBE, *(tokenizer.convert_tokens_to_string([word]) for word, _ in some)]
    return [vocabulary, tokenizer(texts, verbose=False)["input_ids"]]


def setup_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """The hash of all that decides a language model's statistics and texts besides its weights."""
    return digest(config_facts(model.config), tokenizer_facts(tokenizer))


def identity(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, longest: int) -> ModelIdentity:
    """What the manifest stores of a language model, and what a later run must equal."""
    return ModelIdentity(name, fingerprint(model), setup_of(model, tokenizer), named_dtype(model), longest)
