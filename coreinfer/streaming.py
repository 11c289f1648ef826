"""One continuation, token by token: what an Engine's caller may ask ``generate`` for, and text for another thread."""

from typing import Any

from transformers import TextIteratorStreamer

from coreinfer.errors import CoreInferError

SEVERAL = ("num_beams", "num_return_sequences")
GREEDY = {"do_sample": False, **dict.fromkeys(SEVERAL, 1)}  # unless the caller says otherwise, whatever the model's own
OURS = ("inputs", "input_ids", "inputs_embeds", "attention_mask", "past_key_values", "return_dict_in_generate")


def check_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options for ``generate``, greedy where they do not say.

    Raises:
        CoreInferError: an option that an Engine cannot stream, or sets itself.
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
    return options if config is not None else {**GREEDY, **options}


class Stream(TextIteratorStreamer):
    """Text for a reader on another thread; once the reader is gone, the next token ends the generation."""

    reader_gone = False

    def put(self, value: Any) -> None:
        if self.reader_gone:
            raise BrokenPipeError
        super().put(value)  # type: ignore[no-untyped-call]
