"""How alike two texts are in their wording."""

from __future__ import annotations

from fspo.judging.attributes import plain_text, words
from fspo.preferences.wording import wording

__all__ = ["Overlaps", "jaccard", "shingles"]


def shingles(text: str, size: int = 3) -> frozenset[tuple[str, ...]]:
    """The runs of `size` words in the wording, whatever its case and Unicode form; a shorter text is one run."""
    tokens = words(wording(plain_text(text)))
    if len(tokens) <= size:
        return frozenset([tuple(tokens)]) if tokens else frozenset()
    return frozenset(tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1))


def jaccard(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    """Shared runs over all runs, 0 to 1."""
    return len(a & b) / len(a | b) if a or b else 1.0


class Overlaps:
    """Texts none of which is a near-duplicate of another: word runs that overlap (Jaccard) by `most` or more."""

    def __init__(self, most: float, size: int = 3) -> None:
        """Begin without texts; `size` is the length of the word runs compared."""
        self._most, self._size = most, size
        self._runs: list[frozenset[tuple[str, ...]]] = []
        self._holding: dict[tuple[str, ...], list[int]] = {}

    def add(self, text: str) -> bool:
        """Take a text in, unless it is a near-duplicate of one before; says whether it was taken."""
        runs = shingles(text, self._size)
        # Only texts that share a run can overlap.
        near = {place for run in runs for place in self._holding.get(run, ())}
        if not runs or any(jaccard(runs, self._runs[place]) >= self._most for place in near):
            return False
        for run in runs:
            self._holding.setdefault(run, []).append(len(self._runs))
        self._runs.append(runs)
        return True
