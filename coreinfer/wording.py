"""How messages are worded: numbers with their nouns, and long texts cut short."""


def counted(number: int, noun: str) -> str:
    """``1 cluster``, ``2,000 clusters``."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def shortened(text: str, most: int) -> str:
    """A text in one line of at most ``most`` letters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
