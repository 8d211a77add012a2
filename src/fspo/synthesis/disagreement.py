"""How often users disagree on the pairs they share: the matrix, and who is outside the bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fspo.judging.verdicts import Preferred
from fspo.synthesis.config import Disagreement

__all__ = ["LEAST_SHARED", "Matrix", "disagreement_of", "outside"]

LEAST_SHARED = 4
"""Pairs that two users must both decide, for their disagreement to mean anything."""

_SIGNS: dict[Preferred, int] = {"first": 1, "second": -1, "tie": 0}


@dataclass(frozen=True)
class Matrix:
    """Disagreement of every two users.

    `shares` is [users, users]: the share of the pairs both decide that they decide differently; NaN where these are too
    few.
    """

    users: tuple[str, ...]
    shares: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Over every two users; NaN where nobody shares enough."""
        off = self.shares[np.triu_indices(len(self.users), 1)]
        known = off[~np.isnan(off)]
        return float(known.mean()) if known.size else math.nan


def disagreement_of(users: Sequence[str], verdicts: Sequence[Sequence[Preferred]]) -> Matrix:
    """The matrix of users by their verdicts on the same pairs, `verdicts[user][pair]`."""
    signs = np.array([[_SIGNS[verdict] for verdict in row] for row in verdicts], dtype=np.float64)
    signs = signs.reshape(len(users), -1)
    both = np.abs(signs) @ np.abs(signs).T
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (both - signs @ signs.T) / (2 * both)
    shares[both < LEAST_SHARED] = np.nan
    np.fill_diagonal(shares, 0.0)
    return Matrix(tuple(users), shares)


def outside(matrix: Matrix, bounds: Disagreement) -> dict[str, str]:
    """User -> why they are outside the bounds: too much like an earlier user, or too unlike the others."""
    found: dict[str, str] = {}
    kept: list[int] = []
    for place, user in enumerate(matrix.users):
        near = [other for other in kept if matrix.shares[place, other] < bounds.least]
        if near:
            found[user] = f"too much like {matrix.users[near[0]]}"
            continue
        kept.append(place)
        others = np.delete(matrix.shares[place], place)
        others = others[~np.isnan(others)]
        if others.size and others.mean() > bounds.most:
            found[user] = "too unlike the others"
    return found
