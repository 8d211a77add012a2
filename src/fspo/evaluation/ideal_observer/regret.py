"""What a user loses by a method's choices, where the user's true reward is known, in units of that reward."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from fspo.evaluation.metrics.table import Column, Table
from fspo.evaluation.scoring.eval_episodes import Item, Trial
from fspo.judging.judge import TextUtility
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import User

__all__ = ["Gaps", "Regrets", "pair_regrets"]

Gaps = Mapping[Item, float]
"""How much more a user likes the chosen response of a query than the rejected one; below 0 where the label is wrong."""


def pair_regrets(right: Mapping[Item, float], gaps: Gaps) -> Table:
    """What is lost where the reward picks the worse response of a pair; a tie loses half of it.

    `regret` is in units of utility, `regret_share` the same over the mean gap: 0 is the best choice every time, 0.5 a
    coin, 1 the worst. Mistakes on close pairs weigh less in it than in accuracy.

    Args:
        right: item -> 1 where the chosen response is ranked higher, 0 where the rejected one is, 0.5 for neither.
        gaps: the true differences.
    """
    lost = {
        item: abs(gap) * (1 - share if gap > 0 else share)
        for item, share in right.items()
        if (gap := gaps.get(item)) is not None
    }
    widest = max((abs(gaps[item]) for item in lost), default=0.0)
    mean = math.fsum(abs(gaps[item]) for item in lost) / len(lost) if lost else 0.0
    if not mean:
        return {}
    return {
        "regret": Column(lost, bounds=(0.0, widest), most=mean),
        "regret_share": Column(
            {item: value / mean for item, value in lost.items()}, bounds=(0.0, widest / mean), most=1.0
        ),
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

    def answers(self, drawn: Iterable[tuple[Item, str, str]], suffix: str) -> Table:
        """Utility of answers, and what they fall short of the best response that the data hold to the same prompt.

        An answer better than all of these has a regret below 0. `drawn`: item, prompt and answer.
        """
        liked, lost = {}, {}
        for item, prompt, text in drawn:
            user = self._users[item[0]]
            liked[item] = self._of(user, text, prompt)
            lost[item] = max(self._of(user, other, prompt) for other in self._responses[prompt]) - liked[item]
        return {
            f"answer_utility/{suffix}": Column(liked, bounds=None),
            f"answer_regret/{suffix}": Column(lost, bounds=None),
        }

    def _of(self, user: User, text: str, prompt: str) -> float:
        return self._judge.utility(user, text, prompt)
