"""The ideal observer: a Bayesian who knows how users of the domain judge texts, and sees the same shots as the model.

For users whose true reward is a weighting of measured attributes, its accuracy after k shots is about what
any method can hope for with k shots. It knows the family of users (the prior) and nothing else about the one at hand.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from fspo.errors import ConfigError
from fspo.evaluation.judges.judgement_store import TextUtility
from fspo.judging.judge import LabelledBy
from fspo.preferences.types import Episode, Preference, User

__all__ = [
    "Prediction",
    "axis_users",
    "family_of",
    "ideal_observer",
    "pair_users",
    "prior_of",
    "sampled_users",
]

_MOST = 500
"""Users of a prior."""


@dataclass(frozen=True)
class Prediction:
    """What the observer made of one query after `k` shots."""

    user: str
    item: str
    k: int
    probability: float
    """The posterior probability that the user chose what they did choose."""

    @property
    def correct(self) -> float:
        """1 where the chosen response was predicted, 0 where the other one was, 0.5 where neither was."""
        if math.isclose(self.probability, 0.5, abs_tol=1e-9):
            return 0.5
        return float(self.probability > 0.5)


def axis_users(attributes: Iterable[str]) -> list[User]:
    """Everybody who minds one attribute, in either direction."""
    return [User(f"prior:{sign:+.0f}{name}", traits={name: sign}) for name in attributes for sign in (1.0, -1.0)]


def pair_users(attributes: Iterable[str]) -> list[User]:
    """Everybody who minds two attributes equally, in any direction."""
    half = 1 / math.sqrt(2)
    return [
        User(f"prior:{a:+.0f}{first}{b:+.0f}{second}", traits={first: a * half, second: b * half})
        for first, second in itertools.combinations(attributes, 2)
        for a, b in itertools.product((1.0, -1.0), repeat=2)
    ]


def sampled_users(attributes: Iterable[str], count: int, seed: int) -> list[User]:
    """`count` users whose weights point anywhere on the sphere, evenly."""
    names = list(attributes)
    generator = random.Random(seed)
    return [User(f"prior:{index}", traits=_direction(names, generator)) for index in range(count)]


def family_of(users: Iterable[User]) -> list[User]:
    """The prior for attribute users: all axis and all pair users over the attributes that any of `users` minds."""
    attributes = sorted({name for user in users for name, weight in user.traits.items() if weight})
    return axis_users(attributes) + pair_users(attributes)


def prior_of(kind: str, users: Iterable[User], trained: Iterable[User], seed: int) -> tuple[str, list[User]]:
    """Who might have given the shots, and which kind of prior that is.

    Args:
        kind: `family` or `sampled`, over the attributes that any of `users` minds; `trained`, the users of the training
            part; `auto`, the family where it holds all of `users`, and else those of the training part, if they have
            traits.
        users: those of the evaluated dataset.
        trained: those of the training part, who are others; of more than 500 as many are drawn.
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
    """Whether somebody in the family has weights of the same proportions."""
    length = math.hypot(*user.traits.values())
    return any(
        math.fsum(weight * other.traits.get(name, 0.0) for name, weight in user.traits.items()) > 0.999 * length
        for other in family
    )


def ideal_observer(
    episodes: Sequence[tuple[str, Episode]],
    prior: Sequence[User],
    judge: TextUtility,
    ks: Sequence[int],
    *,
    margin: float = 0.0,
    noise: float = 0.02,
) -> list[Prediction]:
    """Predict every query of every episode from its first k shots, for each k of `ks`.

    Args:
        episodes: an item id for each episode, and the episode.
        prior: the users who might have given the shots, each as likely as the next.
        judge: the utilities by which such users judge.
        ks: shot counts; one above an episode's number of shots sees all of them.
        margin: utilities closer than this are a tie: a user chooses either, or, where labels were made without ties,
            gave no such shot.
        noise: the chance of a label against the user's own utilities; keeps one label from ruling a user out for good.

    Raises:
        ConfigError: the prior is empty, or the noise is no chance below a half.
    """
    if not prior:
        raise ConfigError(
            "The ideal observer has no users in its prior; it needs users with traits (attribute weights)."
        )
    if not 0 < noise < 0.5:
        raise ConfigError(f"The ideal observer's noise is {noise}, but it has to lie between 0 and 0.5.")
    utilities = _Utilities(prior, judge, margin, noise)
    return [
        prediction for item, episode in episodes for k in ks for prediction in _predict(item, episode, k, utilities)
    ]


class _Utilities:
    """How likely each of the P users of the prior is to have made a choice; texts are measured once."""

    def __init__(self, prior: Sequence[User], judge: TextUtility, margin: float, noise: float) -> None:
        self._prior, self._judge = prior, judge
        self._margin, self._noise = margin, noise
        self._known: dict[tuple[str, str], NDArray[np.float64]] = {}

    def of(self, text: str, prompt: str) -> NDArray[np.float64]:
        """[P]: the utility of `text` for each."""
        key = text, prompt
        if key not in self._known:
            self._known[key] = np.array([self._judge.utility(user, text, prompt) for user in self._prior])
        return self._known[key]

    def likelihoods(self, preference: Preference, *, shown: bool = False) -> NDArray[np.float64]:
        """[P]: the chance of this very label under each.

        Labels that follow traits leave out what their user is undecided on; so a user who would be undecided on one
        that is `shown` did not give it. Of a query the observer may not know this much.
        """
        judge = LabelledBy.of(preference.source)
        undecided = self._noise if shown and judge is not None and judge.by_traits else 0.5
        gaps_P = self.of(preference.chosen, preference.prompt) - self.of(preference.rejected, preference.prompt)
        alike_P = (np.abs(gaps_P) < self._margin) | (gaps_P == 0)
        return np.where(alike_P, undecided, np.where(gaps_P > 0, 1 - self._noise, self._noise))


def _predict(item: str, episode: Episode, k: int, utilities: _Utilities) -> list[Prediction]:
    """By Bayes' rule from a uniform prior."""
    logs_SP = [np.log(utilities.likelihoods(shot, shown=True)) for shot in episode.shots[:k]]
    predictions = []
    for index, query in enumerate(episode.queries):
        chances_P = utilities.likelihoods(query)
        weights_P = softmax(np.sum(logs_SP, axis=0)) if logs_SP else np.full(len(chances_P), 1 / len(chances_P))
        predictions.append(Prediction(episode.user, f"{item}/{index}", k, float(weights_P @ chances_P)))
    return predictions


def _direction(names: Sequence[str], generator: random.Random) -> Mapping[str, float]:
    draws = [generator.gauss(0, 1) for _ in names]
    length = math.hypot(*draws) or 1.0
    return {name: draw / length for name, draw in zip(names, draws, strict=True)}
