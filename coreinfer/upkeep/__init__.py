"""Artifacts as things to look after: is one whole and true, and what sets two apart."""
