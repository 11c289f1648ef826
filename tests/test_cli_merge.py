"""Passes, a merge and a dry run as a user types them: what they say, and what --log, --stats and --json hold."""

import json
from pathlib import Path

from breaking import sentences, shop_for
from command_line import fine
from conftest import run_cli, write_corpus


def test_passes_and_their_merge(tmp_path: Path) -> None:
    at = shop_for(tmp_path)
    corpus = write_corpus(at / "corpus.jsonl", sentences(530))
    models = ("--model", at / "llama", "--embedder", at / "bert")
    build = ("build-clusters", corpus, *models, "-c", 2, "--statistic", "energy", "--passage-tokens", 32)
    log, stats = at / "log.jsonl", at / "stats.json"
    foretold = fine(run_cli(*build, "--dry-run", "--stats", stats, "--log", log))
    assert (foretold.out, json.loads(stats.read_text())["source"]["passages"]) == ("", 530)
    assert json.loads(log.read_text().splitlines()[-1])["what"] == "job ended"
    for only in ("embed", "record"):
        (row,) = fine(run_cli(*build, "--work", at / "w", "--pass", only, "--stats", stats, "--json")).rows
        assert (row["pass"], row["done"], row["stages"][only]["done"]) == (only, 2, 2)
        assert json.loads(stats.read_text()) == row
        assert row["stages"][only]["speed"]["share"] > 0
        assert list(row["seconds"])[-1] == "measure the limit"
    merged = fine(run_cli("merge", at / "w", "-o", at / "made", "--stats", stats, "--json", "--log", log))
    (row,) = merged.rows
    assert json.loads(stats.read_text()) == row
    assert (row["clusters"], row["stages"]["record"]["tokens"]) == (2, row["tokens"])
    assert f"next: coreinfer predict --artifact {at / 'made'}" not in merged.err
    assert '"job ended"' in log.read_text().splitlines()[-1]
    unasked = fine(run_cli(*build, "-o", at / "alone", "--limit", 100))
    assert "100 passages" in unasked.err
    assert "measure the limit" not in unasked.err  # after so few seconds
    again = fine(run_cli("merge", at / "w", "-o", at / "made", "--overwrite"))
    assert f"next: coreinfer predict --artifact {at / 'made'}" in again.err
