"""``update`` end to end on real text: the statistics of old and new passages recorded together, within the bound."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import fine
from conftest import demo_texts, run_cli, tree, write_corpus
from one_pass import embed_passages, record

from coreinfer import CoreInferError, Engine
from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.upkeep.verifying import verified
from pipeline import index
from pipeline.calibrate import priors
from pipeline.data import Statistics
from pipeline.embed import open_vectors
from pipeline.holdout import hold_out
from pipeline.kmeans import nearest_of
from pipeline.passages import write_passages
from pipeline.sources import Counts, SourceSettings, read_passages
from pipeline.updating import run
from pipeline.updating.merging import bound
from pipeline.updating.run import recorder_of, update


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 passages: 20 more letters of the first, and 20 on topics of their own."""
    texts = [text[60:] for text in demo_texts(20, 360)] + demo_texts(120, 300)[100:]
    return write_corpus(tmp_path_factory.mktemp("more") / "more.jsonl", texts)


@pytest.fixture(scope="module")
def grown(artifact: Path, more: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    place, before = tmp_path_factory.mktemp("grown") / "made", tree(artifact)
    said = fine(run_cli("update", artifact, more, "--output", place, "--json"))
    assert tree(artifact) == before
    return place, said.rows[0]


def recorded(engine: Engine, corpus: Path, at: Path, held: bool) -> Statistics:
    """Sums of a corpus on the artifact's centroids; without what its build held out."""
    recorder = recorder_of(engine, 384)
    passages, vectors = at / f"{corpus.stem}.parquet", at / f"{corpus.stem}.npy"
    settings = SourceSettings(str(corpus), max_tokens=384)
    total = write_passages(read_passages(settings, recorder.lengths, Counts()), passages)
    embed_passages(passages, total, engine.embedder, vectors)
    kept = hold_out(passages, 0).kept if held else np.arange(total)
    labels = np.full(total, -1)
    labels[kept] = nearest_of(open_vectors(vectors), kept, engine.artifact.centroids)[0]
    return record(passages, labels[None], len(engine.artifact.centroids), recorder)


def test_statistics_are_those_of_all_passages_together(
    artifact: Path, corpus: Path, more: Path, grown: tuple[Path, Any], tmp_path: Path
) -> None:
    engine, made = Engine.load(artifact), Artifact.load(grown[0])
    first, second = recorded(engine, corpus, tmp_path, True), recorded(engine, more, tmp_path, False)
    assert first.passages.tolist() == engine.artifact.sizes.tolist()  # the build, again
    both = Statistics(first.sums + second.sums, first.passages + second.passages, first.tokens + second.tokens)
    assert made.sizes.tolist() == both.passages.tolist()
    assert made.tokens.tolist() == both.tokens.tolist()
    shrink = made.policy.shrink
    exact = list(priors(both, shrink))
    whole = np.maximum(next(priors(first, shrink)), exact[0])
    for cluster, wanted in enumerate(exact, start=GLOBAL):
        total = int(both.passages[cluster]) if cluster >= 0 else int(both.passages.sum())
        off = np.abs(made.prior(cluster) - wanted)
        assert (off <= bound(wanted, whole, total, shrink) + 1e-9).all()


def test_the_new_artifact_is_whole(artifact: Path, grown: tuple[Path, Any]) -> None:
    place, said = grown
    opened, _ = verified(place)
    old = Artifact.load(artifact)
    assert opened.manifest.passages == old.manifest.passages + 40 == said["passages"]
    assert opened.policy == old.policy
    (note,) = opened.calibration["updates"]
    assert note == {"dataset": note["dataset"], **said["drift"]}
    assert note["passages"] == 40
    still = opened.sizes == old.sizes
    assert np.array_equal(opened.centroids[still], old.centroids[still])
    assert (
        (opened.terms[int((opened.sizes - old.sizes).argmax())]) != old.terms[int((opened.sizes - old.sizes).argmax())]
    )
    assert Engine.load(place).predict("Every living cell is wrapped in a membrane").neurons is not None


def test_an_updated_artifact_is_updated(grown: tuple[Path, Any], more: Path, tmp_path: Path) -> None:
    """In its own place, too."""
    place = Path(shutil.copytree(grown[0], tmp_path / "made"))
    made = update(Engine.load(place), SourceSettings(str(more), limit=10), place, overwrite=True)
    opened, _ = verified(place)
    assert [note["passages"] for note in opened.calibration["updates"]] == [40, 10]
    assert opened.manifest == made.manifest
    assert made.drift.grown == pytest.approx(50 / (opened.manifest.passages - 50))


def test_no_work_is_done_twice(artifact: Path, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is written once, and all rows of each of the two artifacts are checked once."""
    done = Counter[str]()

    def counted(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def wrapped(*given: Any, **named: Any) -> Any:
            done[name] += 1
            return call(*given, **named)

        monkeypatch.setattr(owner, name, wrapped)

    for writer in ("write_neurons", "write_cluster_rows", "write_calibration", "write_index", "write_manifest"):
        counted(index, writer)
    counted(run, "check_statistics")
    update(Engine.load(artifact), SourceSettings(str(more), limit=5), tmp_path / "made")
    assert done.pop("check_statistics") == 2
    assert set(done.values()) == {1}
    assert len(done) == 5


@pytest.mark.parametrize("what", ["statistics", "embeddings"])
def test_what_is_no_number_is_not_added(
    artifact: Path, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    engine = Engine.load(artifact)
    weights: Any = engine.model.get_input_embeddings().weight
    if what == "statistics":
        weights.data.fill_(np.nan)
    else:
        monkeypatch.setattr(engine.embedder, "embed", lambda texts: np.full((len(texts), 384), np.nan, np.float32))
    with pytest.raises(
        CoreInferError, match=rf"^shard 0 \(passages 0 to 4\) .*: its {what} are not all finite"
    ) as caught:
        update(engine, SourceSettings(str(more), limit=5), tmp_path / "made")
    assert "leave those passages out; what was done is kept" in str(caught.value)
    assert ("another --dtype may help" in str(caught.value)) == (what == "statistics")
    assert not list(tmp_path.iterdir())


def test_texts_from_elsewhere_ask_for_a_rebuild(artifact: Path, tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "other.jsonl", [f"{i} {i * 7} {i * i} {i + 3} {i * 13}" for i in range(100, 140)])
    said = fine(run_cli("update", artifact, other, "-o", tmp_path / "made")).out
    assert "rebuild with build-clusters on all texts" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{artifact} {data} -o {at}/new --passage-tokens 4096", ("--passage-tokens", "4096", "512")),
        ("{artifact} {data} -o {at}/new --passage-tokens 0", ("--passage-tokens", "0")),
        ("{artifact} {at}/empty.jsonl -o {at}/new", ("empty.jsonl",)),
        ("{artifact} {data} -o {at}/taken", ("taken", "--overwrite")),
        ("{artifact} {data} -o {at}/new --model {at}/nowhere", ("nowhere",)),
        ("{at}/notes {data} -o {at}/new", ("updates", "rebuild")),
    ],
)
def test_what_cannot_be_updated_leaves_nothing(
    artifact: Path, more: Path, tmp_path: Path, arguments: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    shutil.copytree(artifact, tmp_path / "taken")
    notes = Path(shutil.copytree(artifact, tmp_path / "notes"))
    spoil(notes)
    before = tree(tmp_path)
    found = run_cli("update", *arguments.format(artifact=artifact, data=more, at=tmp_path).split(), "-q")
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert all(word in found.err for word in words), found.err
    assert tree(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


def spoil(root: Path) -> None:
    """Evidence of an update that cannot have been."""
    from coreinfer.layout import Layout
    from coreinfer.manifest import describe

    layout = Layout(root)
    found = json.loads(layout.calibration.read_text("utf-8"))
    layout.calibration.write_text(json.dumps(found | {"updates": [{"passages": 10**9}]}), "utf-8")
    made = json.loads(layout.manifest.read_text("utf-8"))
    made["files"].update(describe((layout.calibration,)))
    layout.manifest.write_text(json.dumps(made), "utf-8")
