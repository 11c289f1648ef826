"""Prompts from arguments, files and stdin, and what each model sees of them."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors
from transformers import AutoTokenizer

from coreinfer.errors import CoreInferError
from coreinfer.paths import DEMO_LM
from coreinfer.prompts import Prompt, encode, is_prompt, next_turns, read_prompts, render, words_of

TURNS = [{"role": "user", "content": "A table for two"}, {"role": "assistant", "content": "When?"}]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Templated:
    """A tokenizer with a chat template; it refuses the role `tool`, as templates do."""

    chat_template = "{{ a template }}"

    def apply_chat_template(self, turns: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        assert add_generation_prompt
        if any(turn["role"] == "tool" for turn in turns):
            raise ValueError("Conversation roles must alternate\nand more of it")
        return "".join(f"<{turn['role']}>{turn['content']}</>" for turn in turns) + "<assistant>"


def test_the_embedder_reads_contents_alone() -> None:
    assert words_of("  A table, please. ") == "  A table, please. "
    assert words_of(TURNS) == "A table for two\nWhen?"
    assert words_of(tuple(TURNS)) == "A table for two\nWhen?"
    assert words_of([{"role": "user", "content": ""}, *TURNS]) == "\nA table for two\nWhen?"


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "empty"), (" \n\t", "empty"), ([], "empty"), ([{"role": "user", "content": " "}], "empty"),
        ("a \udcff b", "UTF-8"), ([{"role": "user", "content": "\ud83d"}], "UTF-8"),
        (5, "give a text"), (None, "give a text"), (b"bytes", "give a text"), ({"role": "user"}, "give a text"),
        (["words"], "give a text"), ([{"role": "user"}], "give a text"), ([{"content": "hi"}], "give a text"),
        ([{"role": "user", "content": 5}], "give a text"), ([{"role": None, "content": "hi"}], "give a text"),
    ],
)  # fmt: skip
def test_what_is_no_prompt_is_refused(prompt: Any, said: str) -> None:
    with pytest.raises(CoreInferError, match=said):
        words_of(prompt)


@given(st.text().filter(str.strip))
def test_any_text_is_a_prompt(text: str) -> None:
    assert is_prompt(text)
    assert words_of(text) == text
    assert words_of([{"role": "user", "content": text}]) == text


@pytest.mark.parametrize("template", [None, ""])
def test_without_a_template_turns_are_named(template: str | None) -> None:
    plain = SimpleNamespace(chat_template=template)
    assert render(plain, TURNS) == "User: A table for two Assistant: When? Assistant:"
    assert render(SimpleNamespace(), TURNS[:1]) == "User: A table for two Assistant:"


def test_without_a_template_the_next_turn_ends_an_answer() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    wanted = (" System:", "\nSystem:", " User:", "\nUser:")
    assert next_turns(SimpleNamespace(chat_template=None), turns) == wanted
    assert next_turns(SimpleNamespace(chat_template="{{ messages }}"), turns) == ()


def test_a_template_is_used() -> None:
    assert render(Templated(), TURNS) == "<user>A table for two</><assistant>When?</><assistant>"
    assert render(Templated(), tuple(TURNS[:1])) == "<user>A table for two</><assistant>"


def test_a_template_that_refuses_is_named() -> None:
    turns = [*TURNS, {"role": "tool", "content": "42"}]
    with pytest.raises(CoreInferError, match="user, assistant, tool") as error:
        render(Templated(), turns)
    assert "Conversation roles must alternate" in str(error.value)
    assert "and more of it" not in str(error.value)


def tokenizer(template: str, adds: bool) -> Any:
    """The demo's, which puts beginning-of-text before any text or does not, and this chat template."""
    made: Any = AutoTokenizer.from_pretrained(DEMO_LM)
    if not adds:
        made.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    made.chat_template = template
    assert (made("x")["input_ids"][0] == made.bos_token_id) == adds
    return made


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("writes", [True, False])
def test_turns_begin_once(writes: bool, adds: bool) -> None:
    body = "{% for turn in messages %}{{ turn.content }} {% endfor %}"
    made = tokenizer(("{{ bos_token }}" if writes else "") + body, adds)
    ids = encode(made, TURNS)
    bare = made("A table for two When? ", add_special_tokens=False)["input_ids"]
    assert ids == ([made.bos_token_id] if writes or adds else []) + bare


@pytest.mark.parametrize("adds", [True, False])
def test_texts_and_turns_without_a_template_are_tokenized_as_texts(adds: bool) -> None:
    made = tokenizer("", adds)
    assert encode(made, "A table for two") == made("A table for two")["input_ids"]
    assert encode(made, TURNS) == made("User: A table for two Assistant: When? Assistant:")["input_ids"]


def test_arguments() -> None:
    assert list(read_prompts(["one", "two\nlines"], None)) == ["one", "two\nlines"]


def test_arguments_beside_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CoreInferError, match="leave out one"):
        list(read_prompts(["one"], tmp_path / "prompts.txt"))


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])  # some editors write a byte-order mark
def test_lines_of_a_file(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(start + "first\n\n  \nzwölf 東京\u2028still the second".encode())
    assert list(read_prompts(None, path)) == ["first", "zwölf 東京\u2028still the second"]
    assert list(read_prompts([], path)) == list(read_prompts(None, path))


@pytest.mark.parametrize("key", ["prompt", "text", "messages"])
@pytest.mark.parametrize("prompts", [["one", TURNS, "two\nlines \u2028"]])
def test_jsonl(tmp_path: Path, prompts: list[Prompt], key: str) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [json.dumps({"id": 1, key: prompt}, ensure_ascii=False) for prompt in prompts]
    path.write_text("\n\n".join(lines) + "\n", "utf-8")
    assert list(read_prompts(None, path)) == prompts


@pytest.mark.parametrize(
    "line",
    [
        '{"title": "no prompt"}', '{"text": 5}', '{"prompt": 5}', '{"prompt": null}', '{"prompt": [{"role": "user"}]}',
        "[1]", "5", '"a string"', "not json", '{"prompt": "cut', "[" * 100_000,
    ],
    ids=lambda line: line[:16],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'{{"prompt": "fine"}}\n{line}\n', "utf-8")
    found = read_prompts(None, path)
    assert next(found) == "fine"
    with pytest.raises(CoreInferError, match=r"prompts\.jsonl line 2"):
        next(found)


def test_a_prompt_wins_over_messages_and_those_over_a_text(tmp_path: Path) -> None:
    """A text beside turns is often the same, rendered by somebody's template."""
    rows: list[dict[str, object]] = [{"prompt": "this one"}, {"prompt": None}, {"messages": None}]
    lines = [json.dumps({"messages": TURNS, "text": "last"} | row) for row in rows]
    (path := tmp_path / "p.jsonl").write_text("\n".join(lines), "utf-8")
    assert list(read_prompts(None, path)) == ["this one", TURNS, "last"]


@pytest.mark.parametrize(
    "line", ['{"prompt": " "}', '{"prompt": []}', '{"messages": [{"role": "user", "content": ""}]}']
)
def test_an_empty_prompt_is_refused_where_it_stands(tmp_path: Path, line: str) -> None:
    (path := tmp_path / "p.jsonl").write_text(f'\n{{"prompt": "fine"}}\n{line}\n', "utf-8")
    with pytest.raises(CoreInferError, match=r"p\.jsonl line 3: the prompt is empty"):
        list(read_prompts(None, path))
    with pytest.raises(CoreInferError, match="the prompt is empty"):
        list(read_prompts(["fine", " "], None))


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('one\n\n{"prompt": "as it stands"}\n'))
    assert list(read_prompts(None, None)) == ["one", '{"prompt": "as it stands"}']


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("never read"))
    with pytest.raises(CoreInferError, match="no prompt: give one"):
        list(read_prompts(None, None))


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_nothing_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(content))
    with pytest.raises(CoreInferError, match="stdin holds no prompt"):
        list(read_prompts(None, None))
    (tmp_path / "blank.txt").write_text(content, "utf-8")
    with pytest.raises(CoreInferError, match=r"blank\.txt holds no prompt"):
        list(read_prompts(None, tmp_path / "blank.txt"))


@pytest.mark.parametrize("name", ["missing.txt", ".", "latin.txt"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "latin.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(CoreInferError, match=r"cannot read .*: give a UTF-8 text file"):
        list(read_prompts(None, tmp_path / name))


def test_stdin_that_is_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"na\xefve"), "utf-8"))
    with pytest.raises(CoreInferError, match="cannot read stdin"):
        list(read_prompts(None, None))
