"""One ranking of all methods from pairwise judgements: Bradley-Terry strengths with intervals over users.

The chance that method i is preferred to method j is 1 / (1 + exp(s_j - s_i)) (Bradley and Terry 1952); a tie counts as
half a win for each. Intervals and ranks come from resampling whole users, since a user's judgements are alike.
Percentiles of so few draws of users are too narrow; they are taken as far out as a t interval would be (the expanded
percentiles of Hesterberg 2015), for ranks as for strengths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, logit, ndtr, stdtrit

from fspo.errors import DataError
from fspo.evaluation.statistics.intervals import score_interval, users_needed

__all__ = ["MINIMUM_USERS_RANKED", "Game", "Ranking", "Standing", "bradley_terry"]

MINIMUM_USERS_RANKED = 8
"""With fewer users there are too few different resamples for a ranking's intervals."""

_DRAWS = 1000
_MOST_STEPS = 60
_CLOSE = 1e-9
_EQUAL = 1e-6
"""Strengths that differ by less are equal: what is left of fitting them."""
_HALF_DRAW = 0.25
_Matrix = NDArray[np.float64]
_Limits = tuple[float | None, float | None, int | None, int | None]


@dataclass(frozen=True)
class Game:
    """One judgement of a user's between two methods' answers: `score` is 1 where the first won, 0.5 for a tie, or 0."""

    user: str
    first: str
    second: str
    score: float


@dataclass(frozen=True)
class Standing:
    """Where a method stands; the limits are None where there are too few users for any."""

    method: str
    strength: float
    """Log-odds, of which only differences mean something: 0 is the mean of all methods, or the anchor."""
    low: float | None
    high: float | None
    rank: int
    """1 for the strongest; equals share the better rank."""
    best_rank: int | None
    worst_rank: int | None
    """The 95% limits of the rank; among equals it may be any of theirs."""


@dataclass(frozen=True)
class Ranking:
    """All methods, the strongest first."""

    standings: tuple[Standing, ...]
    users: int
    games: int
    shortage: str
    """Why there are no intervals, in words; empty where there are."""
    unbounded: bool
    """Some methods never lost to any of the others, so that no finite strength fits best: each pair of methods that
    met was given half a draw more, and how far apart the strengths are says little."""


def bradley_terry(games: Iterable[Game], *, anchor: str | None = None, draws: int = _DRAWS, seed: int = 0) -> Ranking:
    """Rank all methods that occur in `games`; `anchor` is the method whose strength is 0 (None: the mean of all).

    Raises:
        DataError: no games, a score outside 0 to 1, an anchor that never played, or methods that no chain of games
            connects.
    """
    games = list(games)
    methods = _methods(games, anchor)
    users = sorted({game.user for game in games})
    won = _won(games, methods, users)
    total = won.sum(axis=0)
    _connected(total, methods)
    met = (total + total.T > 0).astype(float)
    strengths = _anchored(_strengths(total[None], met)[0], methods, anchor)
    limits: list[_Limits] = [(None, None, None, None)] * len(methods)
    shortage = users_needed(len(users), MINIMUM_USERS_RANKED) if len(users) < MINIMUM_USERS_RANKED else ""
    if not shortage:
        weights = np.random.default_rng(seed).multinomial(len(users), np.full(len(users), 1 / len(users)), size=draws)
        sampled = _anchored(_strengths(np.tensordot(weights, won, axes=1), met), methods, anchor)
        limits = _limits(strengths, sampled, len(users))
        if anchor is not None:
            place = methods.index(anchor)
            limits[place] = (0.0, 0.0, *limits[place][2:])
    standings = [
        Standing(name, float(strength), low, high, int(rank), best, worst)
        for name, strength, rank, (low, high, best, worst) in zip(
            methods, strengths, _ranks(strengths[None])[0][0], limits, strict=True
        )
    ]
    ranked = tuple(sorted(standings, key=lambda standing: standing.rank))
    return Ranking(ranked, len(users), len(games), shortage, bool(not _bounded(total[None])[0]))


def _methods(games: Sequence[Game], anchor: str | None) -> list[str]:
    if not games:
        raise DataError("There are no games to rank methods by; judge at least two methods against each other.")
    for game in games:
        if not 0 <= game.score <= 1 or game.first == game.second:
            raise DataError(
                f"A game of user {game.user!r} between {game.first!r} and {game.second!r} has the score {game.score}; "
                "two different methods and a score from 0 to 1 are needed."
            )
    methods = list(dict.fromkeys(name for game in games for name in (game.first, game.second)))
    if anchor is not None and anchor not in methods:
        raise DataError(f"{anchor!r} played no game and can't be the anchor; take one of {', '.join(methods)}.")
    return methods


def _won(games: Sequence[Game], methods: Sequence[str], users: Sequence[str]) -> _Matrix:
    """[user, winner, loser]: how often, ties as half."""
    place = {name: index for index, name in enumerate(methods)}
    row = {user: index for index, user in enumerate(users)}
    won = np.zeros((len(users), len(methods), len(methods)))
    for game in games:
        one, other = place[game.first], place[game.second]
        won[row[game.user], one, other] += game.score
        won[row[game.user], other, one] += 1 - game.score
    return won


def _connected(total: _Matrix, methods: Sequence[str]) -> None:
    count, labels = connected_components(total + total.T > 0, directed=False)
    if count > 1:
        parts = (
            " and ".join(name for name, own in zip(methods, labels, strict=True) if own == part)
            for part in range(count)
        )
        raise DataError(
            f"No game connects these groups of methods, so they can't be ranked together: {' | '.join(parts)}; "
            "judge a method of each against a common one."
        )


def _bounded(totals: _Matrix) -> NDArray[np.bool_]:
    """For each matrix of wins, whether every method can be reached from every other along wins (Ford 1957)."""
    size = totals.shape[-1]
    reach = (totals > 0) | np.eye(size, dtype=bool)
    for _ in range(max(1, math.ceil(math.log2(size)))):
        reach = np.matmul(reach, reach)
    return np.asarray(reach.all(axis=(1, 2)))


def _strengths(totals: _Matrix, met: _Matrix) -> _Matrix:
    """The strengths of greatest likelihood, [draw, method], mean 0, by Newton's method for all draws at once."""
    wins = totals + np.where(_bounded(totals), 0.0, _HALF_DRAW)[:, None, None] * met
    played, size = wins + wins.transpose(0, 2, 1), totals.shape[-1]
    strengths = np.zeros(totals.shape[:2])
    diagonal = np.arange(size)
    for _ in range(_MOST_STEPS):
        chance = 1 / (1 + np.exp(strengths[:, None, :] - strengths[:, :, None]))
        gradient = (wins - played * chance).sum(axis=2)
        curvature = -played * chance * (1 - chance)
        curvature[:, diagonal, diagonal] -= curvature.sum(axis=2)
        # Adding a constant to all strengths changes nothing; adding 1 everywhere makes the matrix regular.
        step = np.linalg.solve(curvature + 1, gradient[:, :, None])[:, :, 0]
        # Far from the optimum a whole step may overshoot.
        step /= np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True))
        strengths += step - step.mean(axis=1, keepdims=True)
        if np.abs(step).max() < _CLOSE:
            break
    return strengths


def _anchored(strengths: _Matrix, methods: Sequence[str], anchor: str | None) -> _Matrix:
    return strengths if anchor is None else strengths - strengths[..., [methods.index(anchor)]]


def _limits(strengths: _Matrix, sampled: _Matrix, users: int) -> list[_Limits]:
    """Of each method: the limits of the strength and those of the rank."""
    quantile = float(stdtrit(users - 1, 0.975))
    # How far out the percentiles are taken: beyond 2.5%, the fewer users the farther.
    tail = float(ndtr(-math.sqrt(users / (users - 1)) * quantile))
    low, high = np.quantile(sampled, [tail, 1 - tail], axis=0)
    # Users who are all alike say nothing of how others would differ: the interval of a trial each, as for shares.
    for place in np.flatnonzero(np.ptp(sampled, axis=0) < _EQUAL):
        low[place], high[place] = logit(score_interval(float(expit(strengths[place])), users, quantile))
    bests, worsts = _ranks(sampled)
    best = np.quantile(bests, tail, axis=0, method="inverted_cdf")
    worst = np.quantile(worsts, 1 - tail, axis=0, method="inverted_cdf")
    return [(float(low[i]), float(high[i]), int(best[i]), int(worst[i])) for i in range(len(strengths))]


def _ranks(strengths: _Matrix) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The best and the worst rank that each may have in each draw, [draw, method]; they differ among equals."""
    above = strengths[:, None, :] - strengths[:, :, None]
    best = 1 + (above > _EQUAL).sum(axis=2)
    worst = strengths.shape[1] - (above < -_EQUAL).sum(axis=2)
    return best, worst
