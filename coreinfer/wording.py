"""How messages are worded: numbers with their nouns, long texts cut short, nested facts by dotted names, tables."""

from collections.abc import Sequence
from typing import Any


def counted(number: int, noun: str) -> str:
    """``1 cluster``, ``2,000 clusters``."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def shortened(text: str, most: int) -> str:
    """A text in one line of at most ``most`` letters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def cell(text: str) -> str:
    """A text that breaks no table of Markdown."""
    return " ".join(text.replace("|", "¦").replace("`", "'").split())


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, its head first."""
    head, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rest])


def flat(facts: dict[str, Any], head: str = "") -> dict[str, Any]:
    """Nested facts by dotted names."""
    out: dict[str, Any] = {}
    for name, value in facts.items():
        out |= flat(value, f"{head}{name}.") if isinstance(value, dict) else {f"{head}{name}": value}
    return out
