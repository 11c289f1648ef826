"""One continuation, token by token: what an Engine's caller may ask ``generate`` for, and text for another thread."""

from typing import Any

import torch
from transformers import TextIteratorStreamer

from coreinfer.errors import CoreInferError

SEVERAL = ("num_beams", "num_return_sequences")
GREEDY = {"do_sample": False, **dict.fromkeys(SEVERAL, 1)}  # unless the caller says otherwise, whatever the model's own
OURS = ("inputs", "input_ids", "inputs_embeds", "attention_mask", "past_key_values", "return_dict_in_generate")


def check_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options for ``generate``, greedy where they do not say.

    Raises:
        CoreInferError: an option that an Engine cannot stream, or sets itself; or one that names no tokens.
    """
    config = options.get("generation_config")
    for name in SEVERAL:
        if (value := options.get(name, getattr(config, name, None))) not in (None, 1):
            raise CoreInferError(
                f"{name} is {value}, and an Engine streams one continuation: for more, call engine.model.generate "
                "inside `with slim(engine.model, neurons)`, with the neurons of engine.predict"
            )
    if ours := [name for name in OURS if name in options]:
        raise CoreInferError(f"{ours[0]} comes from the prompt in an Engine: leave it out, or use engine.model in slim")
    _tokens("eos_token_id", options.get("eos_token_id"))
    if len(_tokens("pad_token_id", options.get("pad_token_id"))) > 1:
        raise CoreInferError(f"pad_token_id is {options['pad_token_id']!r}: give one token, or leave it out")
    return options if config is not None else {**GREEDY, **options}


def end_tokens(options: dict[str, Any], own: Any) -> frozenset[int]:
    """The tokens that ``generate`` stops at, by its rules: what the options say (None: at none), else what their
    ``generation_config`` says, else the model's ``own``.
    """
    if "eos_token_id" in options:
        return _tokens("eos_token_id", options["eos_token_id"])
    configs = options.get("generation_config"), own
    found = (getattr(config, "eos_token_id", None) for config in configs)
    return frozenset(torch.as_tensor(next((x for x in found if x is not None), [])).flatten().tolist())


def _tokens(name: str, value: Any) -> frozenset[int]:
    """An option's ids of tokens: a number, some of them, or None."""
    try:
        ids = torch.as_tensor([] if value is None else value).flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        ids = [-1]
    if any(type(x) is not int or x < 0 for x in ids):
        raise CoreInferError(f"{name} is {value!r}: give a token's id, such as 2, or a list of ids")
    return frozenset(ids)


class Stream(TextIteratorStreamer):
    """Text for a reader on another thread; once the reader is gone, the next token ends the generation."""

    reader_gone = False

    def put(self, value: Any) -> None:
        if self.reader_gone:
            raise BrokenPipeError
        super().put(value)  # type: ignore[no-untyped-call]
