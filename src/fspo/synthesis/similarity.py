"""How alike two texts are in their wording."""

from __future__ import annotations

from fspo.judging.attributes import plain_text, words

__all__ = ["jaccard", "shingles"]


def shingles(text: str, size: int = 3) -> frozenset[tuple[str, ...]]:
    """The runs of `size` words in the wording, in lower case; a shorter text is one run."""
    tokens = [word.lower() for word in words(plain_text(text))]
    if len(tokens) <= size:
        return frozenset([tuple(tokens)]) if tokens else frozenset()
    return frozenset(tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1))


def jaccard(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    """Shared runs over all runs, 0 to 1."""
    return len(a & b) / len(a | b) if a or b else 1.0
