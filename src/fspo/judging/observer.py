"""The ideal observer: a Bayesian who knows how users of the domain judge texts, and sees the same shots as the model.

For users whose true reward is a weighting of measured attributes, its accuracy after k shots is about what
any method can hope for with k shots. It knows the family of users (the prior) and nothing else about the one at hand.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from fspo.errors import ConfigError
from fspo.identity import digest
from fspo.judging.judge import LabelledBy, TextUtility
from fspo.preferences.types import Episode, Preference, User

__all__ = [
    "Observer",
    "axis_users",
    "family_of",
    "pair_users",
    "prior_of",
    "sampled_users",
]

_MOST = 500
"""Users of a prior."""


def axis_users(attributes: Iterable[str]) -> list[User]:
    """One user for each end of each attribute, with a weight for that attribute alone."""
    return [User(f"prior:{sign:+.0f}{name}", traits={name: sign}) for name in attributes for sign in (1.0, -1.0)]


def pair_users(attributes: Iterable[str]) -> list[User]:
    """One user for every two ends of different attributes, with equal weights for both."""
    half = 1 / math.sqrt(2)
    return [
        User(f"prior:{a:+.0f}{first}{b:+.0f}{second}", traits={first: a * half, second: b * half})
        for first, second in itertools.combinations(attributes, 2)
        for a, b in itertools.product((1.0, -1.0), repeat=2)
    ]


def sampled_users(attributes: Iterable[str], count: int, seed: int) -> list[User]:
    """`count` users whose weights are uniform on the unit sphere."""
    names = list(attributes)
    generator = random.Random(seed)
    return [User(f"prior:{index}", traits=_direction(names, generator)) for index in range(count)]


def family_of(users: Iterable[User]) -> list[User]:
    """The prior for attribute users: all axis and pair users over the attributes that `users` have weights for."""
    attributes = sorted({name for user in users for name, weight in user.traits.items() if weight})
    return axis_users(attributes) + pair_users(attributes)


def prior_of(kind: str, users: Iterable[User], trained: Iterable[User], seed: int) -> tuple[str, list[User]]:
    """The kind of a prior, and its users: those who might have given the shots.

    Args:
        kind: `family` or `sampled`, over the attributes that `users` have weights for; `trained`, the users of the
            training part; `auto`, the family if it holds all of `users`, otherwise the users of the training part, if
            they have traits.
        users: those of the evaluated dataset.
        trained: those of the training part, who are different ones; at most 500 of them, drawn at random.
        seed: of the draws.
    """
    people = [user for user in users if user.traits]
    known = list({tuple(sorted(user.traits.items())): user for user in trained if user.traits}.values())
    family = family_of(people)
    if kind == "auto":
        kind = "trained" if known and not all(_belongs(user, family) for user in people) else "family"
    if kind == "trained" and known:
        if len(known) > _MOST:
            known = random.Random(f"{seed}/prior").sample(known, _MOST)
        return "trained", known
    if kind == "sampled":
        return "sampled", sampled_users(sorted({name for user in people for name in user.traits}), _MOST, seed)
    return "family", family


def _belongs(user: User, family: Iterable[User]) -> bool:
    """Whether a user of the family has weights of the same proportions."""
    length = math.hypot(*user.traits.values())
    return any(
        math.fsum(weight * other.traits.get(name, 0.0) for name, weight in user.traits.items()) > 0.999 * length
        for other in family
    )


class Observer:
    """Predicts queries by Bayes' rule from a uniform prior over P users; texts are measured once."""

    def __init__(self, prior: Sequence[User], judge: TextUtility, *, margin: float = 0.0, noise: float = 0.02) -> None:
        """Expect the users of `prior`, who judge by the utilities of `judge`.

        Args:
            prior: the users who might have given the shots, each as likely as the next.
            judge: their utilities.
            margin: utilities closer than this are a tie: a user chooses either, or, where labels were made without
                ties, gave no such shot.
            noise: the chance of a label against the user's own utilities; keeps one label from ruling a user out for
                good.

        Raises:
            ConfigError: the prior is empty, or the noise is no chance below a half.
        """
        if not prior:
            raise ConfigError(
                "The ideal observer has no users in its prior; it needs users with traits (attribute weights)."
            )
        if not 0 < noise < 0.5:
            raise ConfigError(f"The ideal observer's noise is {noise}, but it has to lie between 0 and 0.5.")
        self._prior, self._judge = prior, judge
        self._margin, self._noise = margin, noise
        self._known: dict[tuple[str, str], NDArray[np.float64]] = {}

    @property
    def identity(self) -> str:
        """The same for observers that predict alike."""
        prior = [sorted(user.traits.items()) for user in self._prior]
        return digest([prior, getattr(self._judge, "identity", None), self._margin, self._noise])

    def probabilities(self, episode: Episode, k: int) -> list[float]:
        """The posterior probability of each query's choice after the first `k` shots, or all where there are fewer."""
        weights_P = self._posterior(episode, k)
        return [float(weights_P @ self._likelihoods(q.chosen, q.rejected, q)) for q in episode.queries]

    def log_odds(self, episode: Episode, k: int, responses: Sequence[Sequence[str]] = ()) -> list[list[float]]:
        """For each query, and each two of its responses, the log-odds that the user prefers the first one.

        In nats, never beyond log((1 - noise) / noise). Two of n responses come in the order of
        `itertools.combinations`, n(n - 1)/2 in all.

        Args:
            episode: its first `k` shots are seen.
            k: shots; all where there are fewer.
            responses: for each query, the responses that are compared; by default the chosen and the rejected one.
        """
        weights_P = self._posterior(episode, k)
        compared = responses or [(query.chosen, query.rejected) for query in episode.queries]
        return [
            [
                _log_odds(float(weights_P @ self._likelihoods(first, second, query)))
                for first, second in itertools.combinations(texts, 2)
            ]
            for query, texts in zip(episode.queries, compared, strict=True)
        ]

    def correct(self, episode: Episode, k: int) -> list[float]:
        """Of each query: 1 where the chosen response was predicted, 0 where the other one was, 0.5 where neither."""
        return [
            0.5 if math.isclose(chance, 0.5, abs_tol=1e-9) else float(chance > 0.5)
            for chance in self.probabilities(episode, k)
        ]

    def _posterior(self, episode: Episode, k: int) -> NDArray[np.float64]:
        """[P]: the probability of each user after the first `k` shots."""
        logs_SP = [np.log(self._likelihoods(s.chosen, s.rejected, s, shown=True)) for s in episode.shots[:k]]
        count = len(self._prior)
        return softmax(np.sum(logs_SP, axis=0)) if logs_SP else np.full(count, 1 / count)

    def _likelihoods(
        self, better: str, worse: str, preference: Preference, *, shown: bool = False
    ) -> NDArray[np.float64]:
        """[P]: the chance that each prefers `better` to `worse` as responses to the prompt of `preference`.

        Labels that follow traits leave out what their user is undecided on; so a user who would be undecided on one
        that is `shown` did not give it. Of a query the observer may not know this much.
        """
        judge = LabelledBy.of(preference.source)
        undecided = self._noise if shown and judge is not None and judge.by_traits else 0.5
        gaps_P = self._utilities(better, preference) - self._utilities(worse, preference)
        alike_P = (np.abs(gaps_P) < self._margin) | (gaps_P == 0)
        return np.where(alike_P, undecided, np.where(gaps_P > 0, 1 - self._noise, self._noise))

    def _utilities(self, text: str, preference: Preference) -> NDArray[np.float64]:
        """[P]: the utility of `text` for each."""
        key = text, preference.prompt
        if key not in self._known:
            self._known[key] = np.array([self._judge.utility(user, *key) for user in self._prior])
        return self._known[key]


def _log_odds(chance: float) -> float:
    return math.log(chance / (1 - chance))


def _direction(names: Sequence[str], generator: random.Random) -> Mapping[str, float]:
    draws = [generator.gauss(0, 1) for _ in names]
    length = math.hypot(*draws) or 1.0
    return {name: draw / length for name, draw in zip(names, draws, strict=True)}
