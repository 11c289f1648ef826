"""How messages are worded: numbers with their nouns, how long things take, long texts cut, facts by dotted names."""

from collections.abc import Sequence
from typing import Any


def counted(number: int, noun: str) -> str:
    """``1 cluster``, ``2,000 clusters``."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def lasting(seconds: float) -> str:
    """At the precision that an estimate has: ``40 s``, ``25 min``, ``3 h``, ``4 days``."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= (2 if unit == "days" else 1.5) * size:
            return f"{round(seconds / size):,} {unit}"
    return f"{max(1, round(seconds))} s"


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
