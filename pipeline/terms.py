"""What a cluster is about, in words: class-based TF-IDF over a bounded sample of its passages."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.passages import read_windows

PER_CLUSTER = 64  # passages a cluster read for its terms at most: vocabulary and memory stay bounded
WORD = r"(?u)(?<![\w'\u2019])[^\W\d_]{3,}(?![\w'\u2019])"  # no part of "don't"
COMMON = 6  # a word that fills as many passages as six clusters hold (`said`, `answer`) is form, and names none of them
ADDRESS = re.compile(r"\S+://\S+|\bwww\.\S+")


def sample_texts(passages: Path, labels: NDArray[np.int64], clusters: int, seed: int = 0) -> list[list[str]]:
    """Up to ``PER_CLUSTER`` random texts of each cluster, in the corpus's order."""
    chosen = _sample(labels, seed)
    out: list[list[str]] = [[] for _ in range(clusters)]
    for start, texts in read_windows(passages):
        for i in np.flatnonzero(chosen[start : start + len(texts)]):
            out[labels[start + i]].append(texts[i])
    return out


def _sample(labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Which passages (n,) are among their cluster's first ``PER_CLUSTER`` of a shuffled corpus; held-out ones never."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    place = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])  # within its cluster
    chosen = np.zeros(len(labels), bool)
    chosen[order[place < PER_CLUSTER]] = True
    return chosen & (labels >= 0)


def _plain(text: str) -> str:
    return ADDRESS.sub(" ", text).lower()


def top_terms(texts: list[list[str]], count: int = 8) -> list[list[str]]:
    """c-TF-IDF (Grootendorst 2022, eq. 1): tf in the class * log(1 + mean words a class / words' total frequency).

    A cluster whose passages hold no word of three letters gets no terms.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    common = 1.0 if sum(map(len, texts)) < 100 else COMMON / max(len(texts), COMMON**2)
    vectorizer = CountVectorizer(stop_words="english", token_pattern=WORD, max_df=common, preprocessor=_plain)
    try:
        # Each passage counts a word once: a name repeated in one dialogue is no topic.
        frequencies = vectorizer.set_params(binary=True).fit_transform([t for group in texts for t in group])
    except ValueError:  # nothing but stop words in the whole corpus
        return [[] for _ in texts]
    edges = np.cumsum([0, *(len(group) for group in texts)])
    classes = np.stack([np.asarray(frequencies[a:b].sum(0)).ravel() for a, b in pairwise(edges)])
    inverse = np.log1p(classes.sum() / len(texts) / classes.sum(0))
    scores = classes / np.maximum(classes.sum(1, keepdims=True), 1) * inverse
    names = vectorizer.get_feature_names_out()
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return [[str(names[i]) for i in row if score[i] > 0] for row, score in zip(order, scores, strict=True)]
