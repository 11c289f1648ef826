"""Passes, a merge and a dry run as a user types them: what they say, and what --log, --stats and --json hold."""

import json
from pathlib import Path

import pytest
from breaking import sentences, shop_for
from command_line import fine
from conftest import run_cli, write_corpus
from refusing import refused


def test_passes_and_their_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    missing_parts_are_found_early(at / "w", at / "new", monkeypatch)


def missing_parts_are_found_early(work: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the corpus is read or a model loaded, in the words of the merge that finds them late."""

    def fail(*_: object) -> None:
        raise AssertionError("the corpus is read")

    monkeypatch.setattr("pipeline.corpus.read_passages", fail)
    (sums,) = (work / "record").glob("sums-*")
    for path, words in (
        (work / "embed" / "0000001.npy", f"embeddings of 1 of 2 shards are missing in {work / 'embed'} (1): run the"),
        (sums, f"recorded sums of 2 of 2 shards are missing in {work / 'record'} (0, 1): run the same command"),
        (work / "record", "recorded sums of 2 of 2 shards are missing"), (work / "build.json", "holds no build"),
    ):  # fmt: skip
        path.rename(work / "aside")
        refused(run_cli("merge", work, "-o", output, "-q"), words)
        (work / "aside").rename(path)
    with pytest.raises(AssertionError, match="the corpus is read"):
        run_cli("merge", work, "-o", output, "-q")
