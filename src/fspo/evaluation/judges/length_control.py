"""Length-controlled win rates: what a method's win rate would be if its answers were as long as the baseline's.

The logistic model of AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475). For answer i of a method with d_i characters
more than the baseline's, to a prompt of difficulty g_i,

    P(win_i) = sigmoid(method + length tanh(d_i / sd(d)) + difficulty g_i)

and the length-controlled win rate is the mean of sigmoid(method + difficulty g_i). As there, the three weights are
fitted under an L1 penalty that is chosen by cross-validation. Where every item is a user of its own, that is
alpaca_eval's figure to 0.1 points (`benchmarks/length_control.py`). What is different here: folds are cut by user, so
that no user is on both sides; and the interval, clustered by user, comes from how far each user pulls the fitted rate
(the influence function; Huber 1967, Liang and Zeger 1986), not from the spread of the predictions, which leaves out
that the weights are estimates.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fspo.errors import DataError
from fspo.evaluation.statistics.intervals import MINIMUM_USERS, Estimate, Spread, clustered_mean, estimate_of, grouped

__all__ = ["ANCHOR_WEIGHT", "Judged", "LengthControlled", "difficulties", "length_controlled"]

ANCHOR_WEIGHT = 0.1
"""What an anchor counts for beside a judged answer: 0.2 over two kinds of them, in AlpacaEval 2."""

_INVERSE_PENALTIES: tuple[float, ...] = tuple(10.0 ** (-4 + 8 * step / 9) for step in range(10))
_FOLDS = 5
_NEARLY_ALL = 0.95
_TOLERANCE, _MOST_STEPS = 1e-7, 1_000
_NOTHING = 1e-12
"""Weight of a class that never occurred, which the solver needs to see."""
_CLOSE = 1e-9
_Array = NDArray[np.float64]
Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True)
class Judged:
    """One answer of a method's that was judged against the baseline's."""

    user: str
    score: float | None
    """How far it was preferred: 1 won, 0.5 tied, 0 lost, or a probability; None where the judge gave no answer."""
    length: int
    baseline_length: int
    """Both in characters."""
    difficulty: float = 0.0
    """How easily the baseline is beaten on this prompt, in log-odds (`difficulties`); 0 where nothing is known."""


@dataclass(frozen=True)
class LengthControlled:
    """A method's win rate at equal lengths."""

    win_rate: Estimate
    plain: Estimate
    """The same without length control, over the answers that the judge decided."""
    method: float
    length: float
    """What the judge gives for length: log-odds for each unit of tanh; positive where longer answers win."""
    difficulty: float
    inverse_penalty: float
    """C of the L1 penalty that cross-validation chose."""
    shorter: float
    """The share of decided answers that are shorter than the baseline's."""
    longer: float
    """The share of those that are longer; what is left to 1 is as long."""

    @property
    def note(self) -> str:
        """Why the figure should not be trusted, or has no interval; empty where nothing speaks against it."""
        for share, how in ((self.longer, "longer"), (self.shorter, "shorter")):
            if share > _NEARLY_ALL:
                return (
                    f"the answers are nearly always {how} than the baseline's ({share:.0%}), so a win rate at "
                    "equal lengths is extrapolated"
                )
        if self.empty:
            return (
                "too few answers were decided: the L1 penalty removed every coefficient, so the length-controlled win "
                "rate is undefined"
            )
        return self.win_rate.note

    @property
    def empty(self) -> bool:
        """Whether the penalty took every coefficient away, and the figure is 50% though the judge said otherwise."""
        return self.method == self.length == self.difficulty == 0.0 and self.plain.value != 0.5

    def to_json(self) -> dict[str, Any]:
        """All fields by name, and the note."""
        return vars(self) | {
            "win_rate": self.win_rate.to_json(),
            "plain": self.plain.to_json(),
            "note": self.note,
        }


def length_controlled(
    rows: Sequence[Judged],
    *,
    anchors: Sequence[Judged] = (),
    inverse_penalty: float | None = None,
    undecided: bool = False,
) -> LengthControlled:
    """The win rate of one method at equal lengths, with an interval clustered by user.

    Args:
        rows: the method's answers. Lengths are standardised over all of them; otherwise those without a score have no
            part, but for `undecided`.
        anchors: judged answers by which the weight of length is steadied, such as the baseline's own, told to be brief
            or verbose, against the baseline. Each counts `ANCHOR_WEIGHT`, and has no part in the method's own weight.
            Their lengths are standardised over themselves.
        inverse_penalty: C of the L1 penalty; None chooses it by cross-validation over users (over rows where there are
            fewer than five users, and the weakest where there are fewer than five rows).
        undecided: whether the mean is also over the predictions of rows without a score, as alpaca_eval's is. They are
            no evidence of their users, who are not counted for them.

    Raises:
        DataError: nothing was decided, or a score is outside 0 to 1.
    """
    decided = [row for row in rows if row.score is not None]
    plain = _plain(decided)
    data = _Data.of(anchors, ANCHOR_WEIGHT, method=0.0).joined(_Data.of(rows, 1.0, method=1.0))
    penalty = inverse_penalty if inverse_penalty is not None else _chosen(data)
    weights = _fit([data], penalty)[0]
    return LengthControlled(
        win_rate=_win_rate(rows if undecided else decided, data, weights),
        plain=plain,
        method=float(weights[0]),
        length=float(weights[1]),
        difficulty=float(weights[2]),
        inverse_penalty=penalty,
        shorter=sum(row.length < row.baseline_length for row in decided) / len(decided),
        longer=sum(row.length > row.baseline_length for row in decided) / len(decided),
    )


def difficulties(scores: Mapping[str, Mapping[Item, float]]) -> dict[str, dict[Item, float]]:
    """For each method and item, how easily the other methods beat the baseline there, in log-odds.

    (wins + 1) against (losses + 1), ties as half, so that few methods say little; 0 where no other method was judged.
    A method's own score stays out of its difficulties, or it would be explained by itself. AlpacaEval 2 fits its
    difficulties once over all methods of its leaderboard; that table only fits its own prompts.
    """
    found: dict[str, dict[Item, float]] = {}
    for name, own in scores.items():
        others = [items for other, items in scores.items() if other != name]
        found[name] = {}
        for item in own:
            won = [items[item] for items in others if item in items]
            found[name][item] = math.log((sum(won) + 1) / (len(won) - sum(won) + 1))
    return found


def _plain(decided: Sequence[Judged]) -> Estimate:
    """The win rate over the decided rows; raises DataError where there are none, or a score is outside 0 to 1."""
    if not decided:
        raise DataError(
            "No judgement decided anything, so there is no win rate; look at why the judge gave no answers."
        )
    for row in decided:
        if row.score is not None and not 0 <= row.score <= 1:
            raise DataError(f"A judgement of user {row.user!r} has the score {row.score}; it has to lie from 0 to 1.")
    return clustered_mean(*_scores(decided))


def _scores(decided: Sequence[Judged]) -> tuple[list[float], list[str]]:
    return [row.score for row in decided if row.score is not None], [row.user for row in decided]


@dataclass(frozen=True)
class _Data:
    """What the model is fitted to: features are the method, tanh of the standardised length, the difficulty."""

    features: _Array
    scores: _Array
    weights: _Array
    users: list[str]

    @classmethod
    def of(cls, rows: Sequence[Judged], weight: float, *, method: float) -> _Data:
        longer = np.array([row.length - row.baseline_length for row in rows], dtype=float)
        deviation = float(longer.std(ddof=1)) if len(rows) > 1 else 0.0
        length = np.tanh(longer / deviation) if deviation > 0 else np.zeros(len(rows))
        difficulty = np.array([row.difficulty for row in rows], dtype=float)
        features = np.column_stack([np.full(len(rows), method), length, difficulty])
        kept = [place for place, row in enumerate(rows) if row.score is not None]
        return cls(
            features[kept],
            np.array([row.score for row in rows if row.score is not None], dtype=float),
            np.full(len(kept), weight),
            [rows[place].user for place in kept],
        )

    def joined(self, other: _Data) -> _Data:
        return _Data(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.weights, other.weights]),
            self.users + other.users,
        )

    def part(self, rows: NDArray[np.int64]) -> _Data:
        return _Data(self.features[rows], self.scores[rows], self.weights[rows], [self.users[row] for row in rows])

    def loss(self, weights: _Array) -> _Array:
        """Each row's weighted log loss."""
        logits = self.features @ weights
        loss: _Array = self.weights * (np.logaddexp(0.0, logits) - self.scores * logits)
        return loss


def _fit(parts: Sequence[_Data], inverse_penalty: float) -> _Array:
    """For each part, the weights w that minimise sum(loss) + |w| / C.

    One fit with columns of its own for each part solves them all: a call of scikit-learn takes longer than its solver.
    """
    # Imported here, as below: it takes a second, which commands that fit nothing should not wait for.
    from scipy.linalg import block_diag
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    slopes = [part.features.T @ (part.weights * (part.scores - 0.5)) for part in parts]
    if np.abs(slopes).max() * inverse_penalty <= 1:  # at 0, no coefficient gains more than its penalty costs
        return np.zeros_like(slopes)
    model = LogisticRegression(
        l1_ratio=1.0,
        C=inverse_penalty,
        solver="liblinear",
        fit_intercept=False,
        tol=_TOLERANCE,
        max_iter=_MOST_STEPS,
        random_state=0,
    )
    # A score between 0 and 1 is partly a win and partly a loss.
    features = np.tile(block_diag(*(part.features for part in parts)), (2, 1))
    won = [part.weights * part.scores for part in parts]
    lost = [part.weights * (1 - part.scores) for part in parts]
    classes = np.repeat([1, 0], len(features) // 2)
    with warnings.catch_warnings():
        # Where length says the same as the method, the last digits don't converge, and the note tells that the figure
        # is extrapolated.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, classes, sample_weight=np.maximum(np.concatenate(won + lost), _NOTHING))
    weights: _Array = model.coef_.reshape(len(parts), -1)
    return weights


def _chosen(data: _Data) -> float:
    """C of the penalty whose fits best predict held-out users; the strongest of equals."""
    if len(data.users) < _FOLDS:
        return _INVERSE_PENALTIES[-1]
    kept, held_out = _folds(data)
    losses = {
        penalty: np.mean(
            [part.loss(weights).mean() for part, weights in zip(held_out, _fit(kept, penalty), strict=True)]
        )
        for penalty in _INVERSE_PENALTIES
    }
    return min(_INVERSE_PENALTIES, key=losses.__getitem__)


def _folds(data: _Data) -> tuple[list[_Data], list[_Data]]:
    """Five parts to fit and five to predict: whole users, or single rows where there are too few users."""
    from sklearn.model_selection import GroupKFold

    numbers = {user: number for number, user in enumerate(dict.fromkeys(data.users))}
    groups = [numbers[user] for user in data.users] if len(numbers) >= _FOLDS else list(range(len(data.users)))
    folds = list(GroupKFold(_FOLDS).split(data.users, groups=groups))
    return [data.part(kept) for kept, _ in folds], [data.part(out) for _, out in folds]


def _win_rate(rows: Sequence[Judged], data: _Data, weights: _Array) -> Estimate:
    """The mean prediction for `rows` at equal lengths, and how it varies with the users who were drawn.

    A user moves the mean by their own predictions, and by moving the weights: by H^-1 times their summed scores
    (y - p) x, where H is the curvature of the loss. The penalty is left out of that, so that a weight which it holds at
    zero still has its doubt.
    """
    level = np.array([[1.0, 0.0, row.difficulty] for row in rows])
    predicted = expit(level @ weights)
    value, count = float(predicted.mean()), len(rows)
    decided = [row for row in rows if row.score is not None]
    users = list(dict.fromkeys(row.user for row in decided))
    if len(users) < MINIMUM_USERS:
        return Estimate(value, None, None, len(users), count)
    chance = expit(data.features @ weights)
    slope = (level * (predicted * (1 - predicted))[:, None]).sum(axis=0)
    curvature = data.features.T @ (data.features * (data.weights * chance * (1 - chance))[:, None])
    pull = (data.features * (data.weights * (data.scores - chance))[:, None]) @ (
        np.linalg.pinv(curvature, hermitian=True) @ slope
    )
    moved = dict.fromkeys(users, 0.0)
    for user, amount in [
        *zip((row.user for row in rows), predicted - value, strict=True),
        *zip(data.users, pull, strict=True),
    ]:
        if user in moved:
            moved[user] += float(amount)
    drift = math.fsum(moved.values()) / len(users)
    spread = Spread.of([amount - drift for amount in moved.values()], count)
    # Where all users agree, their number is all that the interval can rest on.
    means = [math.fsum(scores) / len(scores) for scores in grouped(*_scores(decided)).values()]
    most = len(users) if max(means) - min(means) < _CLOSE else len(decided)
    return estimate_of(value, spread, users=len(users), items=count, most_trials=most)
