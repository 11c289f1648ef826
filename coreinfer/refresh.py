"""PURE: when a set is chosen again while a text grows.

A refresh runs the whole text so far dense, as a prompt: its statistic, its match and its key-value cache are then what
they would be had the user written it. A set that n tokens chose knows little more after n + 32 if n is large, so
``auto`` waits until the text has doubled: the dense tokens of all refreshes together are fewer than twice the text's.
"""

from typing import Any

from coreinfer.errors import CoreInferError

Refresh = int | str | None  # after so many tokens; "auto"; never
AUTO = "auto"
LEAST = 16  # tokens that a set serves under auto, however short the prompt is
# Options of ``generate`` that look at a generation as a whole, which a refresh cuts into parts.
WHOLE = (
    "stopping_criteria", "stop_strings", "min_new_tokens", "min_length", "max_time", "max_length", "assistant_model",
    "prompt_lookup_num_tokens", "generation_config",
)  # fmt: skip


def parse_refresh(text: str | int | None) -> Refresh:
    """``auto`` or a number of tokens, as a user writes it.

    Raises:
        CoreInferError: neither, or fewer than 2: the first token after a refresh is predicted dense in any case.
    """
    if text is None or text == AUTO:
        return text
    try:
        every = int(text)
    except ValueError:
        every = 0
    if every < 2:
        raise CoreInferError(f"refresh is {text!r}: give {AUTO}, or a number of tokens, 2 at least, such as 32")
    return every


def when(refresh: Refresh) -> str:
    """A refresh in words."""
    return "when the text has doubled" if refresh == AUTO else f"after every {refresh} tokens"


def serves(refresh: Refresh, known: int) -> int | None:
    """How many new tokens a set chosen from ``known`` tokens serves; None: all that come."""
    if refresh is None:
        return None
    return max(LEAST, known) if isinstance(refresh, str) else refresh


def blocks(refresh: Refresh, prompt_tokens: int, continuation_tokens: int) -> list[tuple[int, int]]:
    """(tokens known, tokens served) of each set that a continuation meets."""
    out, known, end = list[tuple[int, int]](), prompt_tokens, prompt_tokens + continuation_tokens
    while known < end:
        length = min(serves(refresh, known) or end, end - known)
        out.append((known, length))
        known += length
    return out


def check_with_refresh(options: dict[str, Any]) -> None:
    """Refuse options of ``generate`` that a refresh would cut in parts."""
    if found := [name for name in WHOLE if options.get(name) is not None]:
        raise CoreInferError(f"{found[0]} looks at a generation as a whole, a refresh cuts it: leave out one of them")
