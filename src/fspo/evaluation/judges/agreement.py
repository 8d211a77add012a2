"""How far two judges agree on the same comparisons: the share, and what is left of it beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import TypeVar

from fspo.evaluation.scoring.eval_episodes import Item
from fspo.evaluation.statistics import Estimate, clustered_mean

__all__ = ["agreement", "cohens_kappa"]

Key = TypeVar("Key", bound=Hashable)


def cohens_kappa(first: Mapping[Key, str], second: Mapping[Key, str]) -> float | None:
    """(p - c) / (1 - c), with p the share of shared keys on which both say the same, and c what chance would give.

    c is the sum over words of the product of their shares (Cohen 1960). 1: always the same; 0: as by chance. None where
    chance alone would always agree, because both say one and the same word throughout, or no key is shared.
    """
    shared = [key for key in first if key in second]
    count = len(shared)
    if not count:
        return None
    same = sum(first[key] == second[key] for key in shared) / count
    ours, theirs = (Counter(words[key] for key in shared) for words in (first, second))
    chance = sum(ours[word] * theirs[word] for word in ours) / count**2
    return (same - chance) / (1 - chance) if chance < 1 else None


def agreement(first: Mapping[tuple[str, Item], str], second: Mapping[tuple[str, Item], str]) -> Estimate | None:
    """The share of shared comparisons on which both say the same, clustered by user; None without any.

    A comparison's key is what was judged, and its item.
    """
    shared = [key for key in first if key in second]
    if not shared:
        return None
    return clustered_mean([float(first[key] == second[key]) for key in shared], [item[0] for _, item in shared])
