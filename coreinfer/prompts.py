"""Prompts: plain texts or the turns of a conversation, from Python, files and stdin.

The language model sees turns through its tokenizer's chat template, or as ``User: … Assistant:`` where it has none. The
embedder sees the turns' contents alone, joined by newlines.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from coreinfer.errors import CoreInferError, in_words

Turn = dict[str, str]
Prompt = str | Sequence[Turn]
KEYS = ("prompt", "messages", "text")  # where a JSON line may hold a prompt: the first that is there
SURROGATE = re.compile(r"[\ud800-\udfff]")  # how Python carries bytes that are no UTF-8


def words_of(prompt: Prompt) -> str:
    """What the embedder reads: the prompt, or the turns' contents joined by newlines, without any markup."""
    if not is_prompt(prompt):
        raise CoreInferError(f"the prompt is {str(prompt)[:80]!r}: give a text, or turns with `role` and `content`")
    text = prompt if isinstance(prompt, str) else "\n".join(turn["content"] for turn in prompt)
    if not text.strip():
        raise CoreInferError(f"the prompt is empty ({text[:20]!r}): give it at least one word")
    if SURROGATE.search(text):
        raise CoreInferError(f"the prompt {text[:40]!r} holds bytes that are not UTF-8: give it as UTF-8")
    return text


def words_of_tokens(tokenizer: Any, rows: Any) -> list[str]:
    """What the embedder reads of rows of token ids; it refuses a text without a word, so that is "?"."""
    texts: list[str] = tokenizer.batch_decode(rows, skip_special_tokens=True)
    return [text if text.strip() else "?" for text in texts]


def is_prompt(value: Any) -> bool:
    """Whether a value has the form of a prompt: a text, or dicts with a text under `role` and `content` each."""
    if isinstance(value, str):
        return True
    return isinstance(value, list | tuple) and all(
        isinstance(turn, dict) and all(isinstance(turn.get(key), str) for key in ("role", "content")) for turn in value
    )


def render(tokenizer: Any, turns: Sequence[Turn]) -> str:
    """The text that the language model continues."""
    if getattr(tokenizer, "chat_template", None):
        try:
            return str(tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True))
        except Exception as error:  # templates are programs: they raise what they like
            roles = ", ".join(turn["role"] for turn in turns)
            raise CoreInferError(
                f"the model's chat template refuses turns by {roles} ({in_words(error)}): change their roles or order"
            ) from error
    lines = [f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns]
    return " ".join([*lines, "Assistant:"])


def next_turns(tokenizer: Any, turns: Sequence[Turn]) -> tuple[str, ...]:
    """How the turn after the one that is asked for would begin, which a model without a chat template writes itself."""
    if getattr(tokenizer, "chat_template", None):
        return ()
    roles = sorted({"user", *(turn["role"] for turn in turns)})
    return tuple(f"{space}{role.capitalize()}:" for role in roles for space in " \n")


def encode(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids (P,) of a prompt; turns through the chat template, which may write beginning-of-text itself: once.

    Raises:
        CoreInferError: no prompt, or turns that the template refuses.
    """
    words_of(prompt)
    if isinstance(prompt, str) or not getattr(tokenizer, "chat_template", None):
        text = prompt if isinstance(prompt, str) else render(tokenizer, prompt)
        return list(tokenizer(text, verbose=False)["input_ids"])
    ids = list(tokenizer(render(tokenizer, prompt), add_special_tokens=False, verbose=False)["input_ids"])
    first = list(tokenizer("", verbose=False)["input_ids"])[:1]  # what the tokenizer puts before any text
    adds = first == [tokenizer.bos_token_id] and ids[:1] != first
    return first + ids if adds else ids


def read_prompts(prompts: list[str] | None, file: Path | None) -> Iterator[Prompt]:
    """Prompts from arguments, a file or stdin; .jsonl lines hold a `prompt`, `messages` or `text`, a text or turns.

    Raises:
        CoreInferError: none, one that is empty or not UTF-8, or a line that holds none.
    """
    if prompts and file:
        raise CoreInferError(f"prompts were given as arguments and by --file {file}: leave out one of them")
    if prompts:
        for prompt in prompts:
            words_of(prompt)
            yield prompt
        return
    if file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise CoreInferError("no prompt: give one as an argument, --file FILE, or lines on stdin")
    try:
        text = file.read_text("utf-8-sig") if file else sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        raise CoreInferError(f"cannot read {file or 'stdin'} ({error}): give a UTF-8 text file") from error
    if not text.strip():
        raise CoreInferError(f"{file or 'stdin'} holds no prompt: give a prompt a line, or as an argument")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{file or 'stdin'} line {number}"
            found = _in_json(line, where) if file and file.suffix == ".jsonl" else line
            try:
                words_of(found)
            except CoreInferError as error:
                raise CoreInferError(f"{where}: {error}") from error
            yield found


def _in_json(line: str, where: str) -> Prompt:
    prompt: Any = None
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        row = json.loads(line)
        prompt = next((found for key in KEYS if (found := row.get(key)) is not None), None)
    if prompt is None or not is_prompt(prompt):
        raise CoreInferError(
            f"{where} is no JSON object with a `prompt`, `messages` or `text`, a text or turns: mend {line[:40]!r}"
        )
    return cast(Prompt, prompt)
