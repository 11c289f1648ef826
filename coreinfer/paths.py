"""Where the embedded default lies, in a checkout and in an installed package alike."""

from pathlib import Path

ARTIFACTS = Path(__file__).resolve().parent.parent / "artifacts"
DEMO_LM = ARTIFACTS / "demo" / "lm"
DEMO_CLUSTERS = ARTIFACTS / "demo" / "clusters"
DEMO_PASSAGES = ARTIFACTS / "demo" / "passages.jsonl"


def in_words(error: BaseException) -> str:
    """The first line of another library's error, for use inside one of ours."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(". ")[:300]
