"""Prompts: plain texts or the turns of a conversation, from Python, files and stdin.

The language model sees turns through its tokenizer's chat template, or as ``User: … Assistant:`` where it has none. The
embedder sees the turns' contents alone, joined by newlines.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from coreinfer.errors import CoreInferError

Turn = dict[str, str]
Prompt = str | Sequence[Turn]


def words_of(prompt: Prompt) -> str:
    """What the embedder reads: the prompt, or the turns' contents joined by newlines, without any markup."""
    text = prompt if isinstance(prompt, str) else "\n".join(turn["content"] for turn in prompt)
    if not text.strip():
        raise CoreInferError("the prompt is empty: give it at least one word")
    return text


def render(tokenizer: Any, turns: Sequence[Turn]) -> str:
    """The text that the language model continues."""
    if getattr(tokenizer, "chat_template", None):
        return str(tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True))
    lines = [f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns]
    return " ".join([*lines, "Assistant:"])


def read_prompts(prompts: list[str] | None, file: Path | None) -> Iterator[str]:
    """Prompts from arguments, a file or stdin; .jsonl lines hold a `prompt`."""
    if prompts:
        yield from prompts
        return
    if file is None and sys.stdin.isatty():
        raise CoreInferError("no prompt: give one as an argument, --file FILE, or lines on stdin")
    try:
        text = file.read_text("utf-8") if file else sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        raise CoreInferError(f"cannot read {file or 'stdin'}: {error}; give a UTF-8 text file") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise CoreInferError(f"{file or 'stdin'} holds no prompt: give a prompt a line")
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)["prompt"] if file and file.suffix == ".jsonl" else line
        except (ValueError, KeyError, TypeError):
            raise CoreInferError(f"{file} line {number} is no JSON object with a `prompt`: mend it") from None
