"""How far two judges agree on the same comparisons: the share, and what is left of it beyond chance."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

from fspo.evaluation.scoring.eval_episodes import Item
from fspo.evaluation.statistics import Estimate, clustered_mean

__all__ = ["agreement", "cohens_kappa"]

Key = TypeVar("Key", bound=Hashable)


def cohens_kappa(first: Mapping[Key, str], second: Mapping[Key, str]) -> float | None:
    """Cohen's kappa (1960) on the shared keys: 1 where both always say the same, 0 as by chance.

    None where chance alone would always agree, because both say one and the same word throughout, or no key is shared.
    """
    from sklearn.metrics import cohen_kappa_score

    shared = [key for key in first if key in second]
    ours, theirs = [first[key] for key in shared], [second[key] for key in shared]
    return float(cohen_kappa_score(ours, theirs)) if len({*ours, *theirs}) > 1 else None


def agreement(first: Mapping[tuple[str, Item], str], second: Mapping[tuple[str, Item], str]) -> Estimate | None:
    """The share of shared comparisons on which both say the same, clustered by user; None without any.

    A comparison's key is what was judged, and its item.
    """
    shared = [key for key in first if key in second]
    if not shared:
        return None
    return clustered_mean([float(first[key] == second[key]) for key in shared], [item[0] for _, item in shared])
