"""The report of a run."""

from typing import Any

from coreinfer.evaluate.rows import Row
from coreinfer.evaluate.scoring import Results


def report(rows: list[Row], results: Results, facts: dict[str, Any]) -> str:
    """A page without pictures yet."""
    return f"<!doctype html><title>coreinfer evaluate</title><p>{len(rows)} rows of {len(results.texts)} texts</p>"
