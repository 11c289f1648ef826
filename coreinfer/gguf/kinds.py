"""Kinds of weights, and what one takes in a file; nothing heavy is imported here."""

from typing import Literal

Kind = Literal["f32", "bf16", "q8_0", "q4_0"]
BLOCK = 32  # numbers that share a scale in q8_0 and q4_0
QUANTISED = {"q8_0": BLOCK + 2, "q4_0": BLOCK // 2 + 2}  # bytes of a block: its numbers and a float16 scale
BYTES = {"f32": 4.0, "bf16": 2.0} | {kind: size / BLOCK for kind, size in QUANTISED.items()}  # of a matrix's weight
