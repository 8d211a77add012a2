"""The ideal observer on the items of an evaluation, at every k and under variations, and what methods lose against it.

See `fspo.judging.observer`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from fspo.evaluation.config import percent
from fspo.evaluation.context import Evaluation, OptionalMeasure
from fspo.evaluation.judges.win_rates import Answer, AnswerKey
from fspo.evaluation.metrics.rewards import Rewards, on_curve
from fspo.evaluation.metrics.table import Column, Table, estimates
from fspo.evaluation.scoring.eval_episodes import Item, Pass, Trial
from fspo.evaluation.scoring.variations import OTHER_TOPICS, wrong_labels
from fspo.judging.by_topic import OWN, TopicJudge
from fspo.judging.declared import DeclaredJudge
from fspo.judging.judge import AttributeJudge, Judge, TextUtility, can_judge
from fspo.judging.observer import Observer, prior_of
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import User

__all__ = ["Gaps", "IdealObserver", "Regrets", "pair_regrets"]

_SUREST_NOISE = 0.49


class IdealObserver(OptionalMeasure):
    """The observer's own figures, how far methods stay below it, and what their choices cost users.

    Of users whose true rewards are known; of others it adds nothing.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        """Fix whom the observer expects; nothing is computed yet."""
        super().__init__(evaluation)
        trained = evaluation.train.users.values() if evaluation.train is not None else ()
        known = _known_to(evaluation.judge, trained)
        config = evaluation.config
        self._kind, self._prior = prior_of(config.observer_prior, evaluation.dataset.users.values(), known, config.seed)

    def rewards(self, method: str, rewards: Mapping[str, Rewards]) -> Table:
        """What a method's choices cost users, and how far its headline accuracy stays below the observer's.

        At the full shot count on all items; over shot counts on those of the curve.
        """
        if self._regrets is None:
            return {}
        row, full = rewards[method], self.evaluation.config.shots
        accuracies = row.accuracies(row.headline, full)
        rungs = self.evaluation.config.rungs if row.sees_labels else (full,)
        found = pair_regrets(accuracies.of, self._regrets.gaps) | {"shortfall": self._at(full) - accuracies}
        return found | {f"shortfall@{k}": self._curve(k) - row.curve(row.headline, k) for k in rungs}

    def answers(self, key: AnswerKey, answers: Sequence[Answer]) -> Table:
        """How much users like the answers, and what these fall short of the best responses of the data."""
        judge = self.evaluation.answer_judge
        if self._regrets is None or not isinstance(judge, TextUtility) or "@" in key[1]:
            return {}
        return self._regrets.answers(judge, (((row.user, row.item), row.prompt, row.text) for row in answers), key[1])

    def files(self, rewards: Mapping[str, Rewards]) -> dict[str, dict[str, Any]]:
        """The observer's own figures, named as a method's, and whom it expects."""
        own = estimates(self._table()) if self._regrets is not None else {}
        figures = {measure: estimate.to_json() for measure, estimate in own.items()}
        return {"observer.json": figures, "details.json": {"observer_prior": self._kind}}

    @cached_property
    def _regrets(self) -> Regrets | None:
        utility = self.evaluation.utility
        return None if utility is None else Regrets(utility, self.evaluation.dataset, self.evaluation.trials)

    @cached_property
    def _predicted(self) -> dict[int, dict[Item, float]]:
        """Shot count -> item -> 1, 0.5 or 0."""
        trials, config = self.evaluation.trials, self.evaluation.config
        whole = [
            (trial, Pass("own", trial.own, config.rungs, tuple(range(len(trial.own.queries))))) for trial in trials
        ]
        return self._predict(whole, config.rungs, config.observer_noise)

    def _at(self, k: int) -> Column:
        """1, 0.5 or 0 for each item that methods are measured on at `k` shots."""
        config = self.evaluation.config
        return Column(self._predicted[k]) if k == config.shots else self._curve(k)

    def _curve(self, k: int) -> Column:
        return Column(on_curve(self._predicted[k], self.evaluation.config))

    def _table(self) -> Table:
        """The observer knows how many labels are wrong, and not which."""
        config, regrets = self.evaluation.config, self._regrets
        full, own = config.shots, self._at(config.shots)
        found = {"reward_accuracy": own} | {f"reward_accuracy@{k}": self._curve(k) for k in config.rungs}
        found |= pair_regrets(own.of, regrets.gaps) if regrets is not None else {}
        varied = [("other_topics", "", OTHER_TOPICS, config.observer_noise)]
        for share, count in config.wrong_labels.items():
            noise = min(_SUREST_NOISE, max(config.observer_noise, count / full))
            varied.append(("wrong_labels", f"/{percent(share)}%", wrong_labels(share), noise))
        for family, suffix, condition, noise in varied:
            right = Column(self._predict(self._under(condition), (full,), noise)[full])
            found |= {f"{family}_accuracy{suffix}": right, f"{family}_drop{suffix}": own - right}
        return found

    def _under(self, condition: str) -> list[tuple[Trial, Pass]]:
        return [
            (probe.trial, variation)
            for probe in self.evaluation.probes
            for variation in probe.variations(self.evaluation.config)
            if variation.condition == condition
        ]

    def _predict(
        self, shown: Sequence[tuple[Trial, Pass]], ks: Sequence[int], noise: float
    ) -> dict[int, dict[Item, float]]:
        utility = self.evaluation.utility
        assert utility is not None
        observer = Observer(self._prior, utility, margin=float(getattr(utility, "margin", 0.0)), noise=noise)
        return {
            k: {
                (trial.user, trial.item(number)): correct
                for trial, one in shown
                for number, correct in zip(one.numbers, observer.correct(one.episode, k), strict=True)
            }
            for k in ks
        }


def _known_to(judge: Judge | None, users: Iterable[User]) -> list[User]:
    """Those whose utilities the judge can tell: others may come from other data, or weigh what it was not fitted to."""
    if not isinstance(judge, AttributeJudge | TopicJudge | DeclaredJudge):
        return list(users)
    return [user for user in users if judge.knows({name.partition(OWN)[0] for name, w in user.traits.items() if w})]


Gaps = Mapping[Item, float]
"""How much more a user likes the chosen response of a query than the rejected one; below 0 where the label is wrong."""


def pair_regrets(right: Mapping[Item, float], gaps: Gaps) -> Table:
    """What is lost where the reward picks the worse response of a pair; a tie loses half of it.

    `regret` is in units of utility, `regret_share` the same over the mean gap: 0 is the best choice every time, 0.5 a
    coin, 1 the worst. Mistakes on close pairs weigh less in it than in accuracy. `right` is item -> 1 where the chosen
    response is ranked higher, 0 where the rejected one is, 0.5 for neither.
    """
    lost = {
        item: abs(gap) * (1 - share if gap > 0 else share)
        for item, share in right.items()
        if (gap := gaps.get(item)) is not None
    }
    stakes = {item: abs(gaps[item]) for item in lost}
    if not any(stakes.values()):
        return {}
    mean = math.fsum(stakes.values()) / len(stakes)
    return {
        "regret": Column(lost, bounds=(0.0, max(stakes.values())), most=mean),
        "regret_share": Column(lost, over=stakes),
    }


class Regrets:
    """The true utilities of what is chosen from, and of what is answered."""

    def __init__(self, judge: TextUtility, dataset: PreferenceDataset, trials: Iterable[Trial]) -> None:
        """Measure every query's pair; `dataset` holds the responses that answers are compared with."""
        self._judge, self._users = judge, dataset.users
        self.gaps: dict[Item, float] = {}
        for trial in trials:
            user = self._users[trial.user]
            for number, query in enumerate(trial.own.queries):
                gap = self._of(user, query.chosen, query.prompt) - self._of(user, query.rejected, query.prompt)
                self.gaps[trial.user, trial.item(number)] = gap
        self._responses: dict[str, dict[str, None]] = defaultdict(dict)
        for row in dataset:
            self._responses[row.prompt] |= dict.fromkeys((row.chosen, row.rejected))

    def answers(self, judge: TextUtility, drawn: Iterable[tuple[Item, str, str]], suffix: str) -> Table:
        """Utility of answers, and what they fall short of the best response that the data hold to the same prompt.

        An answer better than all of these has a regret below 0. Users that `judge` can't judge for are left out.
        `drawn`: item, prompt and answer.
        """
        liked, lost = {}, {}
        for item, prompt, text in drawn:
            user = self._users[item[0]]
            if not can_judge(judge, user, prompt):
                continue
            liked[item] = judge.utility(user, text, prompt)
            lost[item] = max(judge.utility(user, other, prompt) for other in self._responses[prompt]) - liked[item]
        if not liked:
            return {}
        return {
            f"answer_utility/{suffix}": Column(liked, bounds=None),
            f"answer_regret/{suffix}": Column(lost, bounds=None),
        }

    def _of(self, user: User, text: str, prompt: str) -> float:
        return self._judge.utility(user, text, prompt)
