"""The real embedder, and embeddings in files."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from one_pass import embed_passages

from coreinfer.embedder import RECENCY, Embedder, unit
from coreinfer.errors import CoreInferError
from coreinfer.hub import DEFAULT
from pipeline import passages
from pipeline.embed import open_vectors
from pipeline.passages import Passage, write_passages

TEXTS = [
    "A table for two at the Italian restaurant, please.",
    "The mitochondrion is where a cell makes its energy.",
    "?",
    "Bake the bread for forty minutes. " * 12,
    "Compile the program, then link it against the library.",
    "Ein Tisch für zwei Personen, bitte. 東京の天気は？ 🍕",
    "The ship left the harbour before dawn and sailed to the south. " * 5,
]
WORDS = ["water", "stone", "river", "house", "green", "music", "paper", "light"]  # one token each


@pytest.fixture(scope="module")
def exact() -> Embedder:
    return Embedder(dtype="float32")


@pytest.fixture(scope="module")
def rough() -> Embedder:
    return Embedder(dtype="bfloat16")


def long_text(count: int, seed: int = 0) -> str:
    """``count`` words of one token each."""
    return " ".join(np.random.default_rng(seed).choice(WORDS, count).tolist())


@pytest.mark.parametrize(("kind", "close"), [("exact", 1e-5), ("rough", 1e-2)])
def test_unit_rows_that_do_not_depend_on_their_order(kind: str, close: float, request: pytest.FixtureRequest) -> None:
    embedder: Embedder = request.getfixturevalue(kind)
    texts = [*TEXTS, long_text(300)]
    vectors = embedder.embed(texts)
    assert vectors.shape == (len(texts), embedder.dimension) == (len(texts), 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    order = np.random.default_rng(0).permutation(len(texts))
    assert embedder.embed([texts[i] for i in order]) == pytest.approx(vectors[order], abs=close)
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    assert alone == pytest.approx(vectors, abs=close)


def test_bfloat16_is_near_float32(exact: Embedder, rough: Embedder) -> None:
    assert (exact.dtype, rough.dtype) == ("float32", "bfloat16")
    assert np.einsum("nd,nd->n", exact.embed(TEXTS), rough.embed(TEXTS)).min() > 0.999
    assert exact.identity.weights == rough.identity.weights
    assert exact.identity.id == DEFAULT


def test_near_in_meaning_is_near_in_space(exact: Embedder) -> None:
    table, other, same = exact.embed([TEXTS[0], TEXTS[4], "Could we book a restaurant table for two people?"])
    assert table @ same > table @ other + 0.3


@pytest.mark.parametrize("count", [1, 253, 254, 255, 508, 509, 1000])
def test_windows_cover_a_text_of_any_length(exact: Embedder, count: int) -> None:
    text, room = long_text(count), exact.window - 2
    pieces = exact.windows([text])[0]
    assert " ".join(pieces) == text
    assert [len(piece.split()) for piece in pieces] == [room] * (count // room) + [count % room] * (count % room > 0)
    if count <= room:
        assert pieces == [text]


def test_windows_lose_no_letter(exact: Embedder) -> None:
    text = " ".join(np.random.default_rng(1).choice(["Zürich's", "pneumonoultra-microscopic", "東京", "…", "a"], 700))
    pieces = exact.windows([text])[0]
    assert len(pieces) > 2
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_a_long_text_is_the_weighted_mean_of_its_windows(exact: Embedder) -> None:
    text = long_text(600)
    pieces = exact.windows([text])[0]
    assert len(pieces) == 3
    slow = np.zeros(384)
    for i, vector in enumerate(exact.embed(pieces)):
        slow += RECENCY ** (len(pieces) - 1 - i) * vector.astype(np.float64)
    slow /= np.sqrt((slow**2).sum())
    assert exact.embed([text])[0] == pytest.approx(slow, abs=1e-5)
    beside = exact.embed(["water", text, "stone"])
    assert beside[1] == pytest.approx(slow, abs=1e-5)
    assert beside[[0, 2]] == pytest.approx(exact.embed(["water", "stone"]), abs=1e-5)


def test_unit_is_exact_and_bears_zeros() -> None:
    vectors: NDArray[np.float32] = np.array([[3, 4], [0, 0], [1e-3, 0]], np.float32)
    assert unit(vectors) == pytest.approx(np.array([[0.6, 0.8], [0, 0], [1, 0]]))
    assert unit(vectors).dtype == np.float32


def test_embeddings_round_trip(exact: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "WINDOW", 3)
    path, out, ticks = tmp_path / "passages.parquet", tmp_path / "embeddings.npy", list[int]()
    write_passages((Passage(i, text, "here") for i, text in enumerate(TEXTS)), path)
    embed_passages(path, len(TEXTS), exact, out, ticks.append)
    made = open_vectors(out)
    assert isinstance(made, np.memmap)
    assert made.dtype == np.float32
    assert not made.flags.writeable
    assert made == pytest.approx(exact.embed(TEXTS), abs=1e-5)
    assert np.load(out).tobytes() == made.tobytes()
    assert sum(ticks) == len(TEXTS)


def test_an_unknown_embedder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CoreInferError, match="nobody/no-embedder"):
        Embedder("nobody/no-embedder")
    (tmp_path / "config.json").write_text("{}", "utf-8")
    with pytest.raises(CoreInferError, match="sentence-transformers name or folder"):
        Embedder(str(tmp_path))
