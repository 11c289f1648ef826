"""Where the embedded default lies, in a checkout and in an installed package alike."""

from pathlib import Path

ARTIFACTS = Path(__file__).resolve().parent.parent / "artifacts"
DEMO_LM = ARTIFACTS / "demo" / "lm"
DEMO_CLUSTERS = ARTIFACTS / "demo" / "clusters"
DEMO_PASSAGES = ARTIFACTS / "demo" / "passages.jsonl"
DEMO_OUTSIDE = DEMO_PASSAGES.with_name("outside.jsonl")
