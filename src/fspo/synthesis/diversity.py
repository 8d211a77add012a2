"""How alike the responses to one question are: the less, the more there is to choose between."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fspo.errors import FspoError
from fspo.synthesis.responses import Response
from fspo.synthesis.similarity import jaccard, shingles

__all__ = ["Embed", "diversity", "sentence_embedding"]

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> [texts, d], vectors of length 1."""

_QUESTIONS = 60
"""Questions that the mean is taken over, at most."""


def diversity(responses: Sequence[Response], seed: int, embed: Callable[[], Embed] | None = None) -> dict[str, Any]:
    """Mean similarity of two responses to one question, as the paper measures it (FSPO, section 5).

    `seed` draws the questions looked at. Without `embed`, the overlap of words alone is measured.

    Returns:
        `mean_similarity`, the mean cosine of sentence embeddings (null without one, with `why` where it can't be had);
        `mean_overlap`, Jaccard of word triples; and how many `questions` they are over.
    """
    groups: dict[str, list[str]] = {}
    for response in responses:
        groups.setdefault(response.question, []).append(response.text)
    eligible = [texts for texts in groups.values() if len(texts) >= 2]
    chosen = random.Random(f"{seed}/diversity").sample(eligible, min(len(eligible), _QUESTIONS))
    found: dict[str, Any] = {"questions": len(chosen), "mean_overlap": _mean([_overlap(texts) for texts in chosen])}
    found["mean_similarity"] = None
    try:
        if embed is not None:
            vectors = embed()
            found["mean_similarity"] = _mean([_cosine(vectors(texts)) for texts in chosen])
    except FspoError as error:
        found["why"] = str(error)
    return found


def sentence_embedding() -> Embed:
    """The sentence embedder that comes as a Python package.

    Raises:
        ModelError: it can't be obtained.
    """
    from fspo.modeling.sentences import SentenceEmbedder

    embedder = SentenceEmbedder.load()
    return lambda texts: embedder.embed(texts).numpy()


def _cosine(vectors: NDArray[np.float32]) -> float:
    products = vectors @ vectors.T
    return float(products[np.triu_indices(len(vectors), 1)].mean())


def _overlap(texts: Sequence[str]) -> float:
    runs = [shingles(text) for text in texts]
    return statistics.fmean(jaccard(a, b) for a, b in combinations(runs, 2))


def _mean(figures: Sequence[float]) -> float:
    return round(statistics.fmean(figures), 4) if figures else 0.0
