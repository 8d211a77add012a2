"""Which question to ask a person next: the one whose answer says most about what they like.

A question shows two responses to a prompt, and the person names the better one. We don't know the person, but some
plausible users, and of each the chance that they prefer the first response. The answers so far say how likely the
person is to be each of them. The next question is the one that the plausible users disagree on most: by the expected
gain of information about who the person is (Lindley 1956; BALD, arXiv 1112.5745), or by the variance of the chances.

The chances come from the utilities of users with declared traits (`declared_chances`).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, softmax

from fspo.errors import ConfigError
from fspo.judging.judge import TextUtility
from fspo.preferences.response_pair import ResponsePair
from fspo.preferences.types import User

__all__ = [
    "Belief",
    "Strategy",
    "choose_question",
    "declared_chances",
    "information_gains",
    "variances",
]

Strategy = Literal["information", "variance", "random"]
Floats = NDArray[np.float64]

_SUREST = 1e-6
"""No answer is ruled out: a person may err, and a model too."""


class Belief:
    """How likely a person is to be each of U plausible users, after some answers to Q questions.

    Attributes:
        chances: [U, Q], the chance that each user prefers the first response to each question.
        weights: [U], the probability that the person is each of them.
    """

    def __init__(self, chances: Floats, weights: Floats | None = None) -> None:
        """Begin with `weights`; by default every user is as likely as the next.

        Raises:
            ConfigError: there is no user or no question, or a chance is none.
        """
        if chances.ndim != 2 or not chances.size or not ((chances >= 0) & (chances <= 1)).all():
            raise ConfigError(
                "A belief needs at least one plausible user and one question, with a chance from 0 to 1 for each pair."
            )
        self.chances = np.clip(chances, _SUREST, 1 - _SUREST)
        self.weights = np.full(len(chances), 1 / len(chances)) if weights is None else weights / weights.sum()

    def answered(self, question: int, *, second: bool) -> Belief:
        """The belief after the person has answered a question, by Bayes' rule."""
        chances_U = self.chances[:, question]
        logs_U = np.log(self.weights + np.finfo(float).tiny) + np.log(1 - chances_U if second else chances_U)
        return Belief(self.chances, softmax(logs_U))

    @property
    def expected(self) -> Floats:
        """[Q]: the chance that the person prefers the first response to each question."""
        return np.asarray(self.weights @ self.chances)


def information_gains(belief: Belief) -> Floats:
    """[Q]: how much an answer to each question tells of who the person is, in nats; 0 to log 2.

    The mutual information of answer and user, H(sum_u w_u p_uq) - sum_u w_u H(p_uq) (Lindley 1956).
    """
    gains: Floats = _entropy(belief.expected) - belief.weights @ _entropy(belief.chances)
    return gains


def variances(belief: Belief) -> Floats:
    """[Q]: the variance over the plausible users of the chance that they prefer the first response."""
    return np.asarray(belief.weights @ (belief.chances - belief.expected) ** 2)


def choose_question(
    belief: Belief, asked: Collection[int], strategy: Strategy = "information", *, seed: int = 0
) -> int | None:
    """The number of the question to ask next, not one that was asked; None if all were. The seed decides among equals.

    Raises:
        ConfigError: the strategy is unknown.
    """
    if strategy not in get_args(Strategy):
        raise ConfigError(f"Questions are chosen by {', '.join(get_args(Strategy))}, not by '{strategy}'.")
    left = [number for number in range(belief.chances.shape[1]) if number not in asked]
    if not left:
        return None
    random.Random(f"{seed}/{len(asked)}/question").shuffle(left)
    if strategy == "random":
        return left[0]
    worth = information_gains(belief) if strategy == "information" else variances(belief)
    return max(left, key=lambda number: round(float(worth[number]), 9))


def declared_chances(
    users: Sequence[User],
    judge: TextUtility,
    questions: Sequence[ResponsePair],
    *,
    margin: float = 0.0,
    noise: float = 0.05,
) -> Floats:
    """[U, Q]: the chances of users with weights for traits that the judge knows.

    Utilities closer than the margin leave a user undecided. `noise` is the chance of an answer against the user's own
    utilities.
    """
    gaps = [
        [judge.utility(user, one.first, one.prompt) - judge.utility(user, one.second, one.prompt) for one in questions]
        for user in users
    ]
    gaps_UQ = np.array(gaps, dtype=np.float64).reshape(len(users), len(questions))
    undecided_UQ = (np.abs(gaps_UQ) < margin) | (gaps_UQ == 0)
    return np.where(undecided_UQ, 0.5, np.where(gaps_UQ > 0, 1 - noise, noise))


def _entropy(chances: Floats) -> Floats:
    """In nats, of a choice with each of these chances."""
    return np.asarray(entr(chances) + entr(1 - chances))
