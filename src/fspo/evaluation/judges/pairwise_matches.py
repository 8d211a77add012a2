"""Every method's answer against every other's to the same prompt, where judging is free; for one ranking of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

from fspo.evaluation.config import BASE, Sampling
from fspo.evaluation.judges.win_rates import Answer, AnswerKey, JudgedAnswer, decide
from fspo.evaluation.scoring.eval_episodes import Item
from fspo.evaluation.statistics.ranking import Game
from fspo.judging.judge import Judge, TextUtility, can_judge
from fspo.judging.verdicts import SCORES
from fspo.preferences.types import User

__all__ = ["all_games", "games_over_base"]


def all_games(
    judge: Judge | None,
    users: Mapping[str, User],
    answers: Mapping[AnswerKey, Sequence[Answer]],
    judgements: Mapping[AnswerKey, Sequence[JudgedAnswer]],
    samplings: Mapping[str, Sampling],
    won: Mapping[str, Mapping[Item, float]],
    baseline: str = BASE,
) -> list[Game]:
    """All pairs of methods on all items that both answered, after the floors; each by its headline sampling.

    Only a judge that measures is asked: its verdict is the same in either order and costs nothing. For any other judge
    there are the games against the base model that it has judged already: `won` is method -> item -> 1 for a win, 0.5
    for a tie, else 0. `judgements` know which answers fall below a floor, and `samplings` are by method.
    """
    if not isinstance(judge, TextUtility):
        return games_over_base(won, baseline)
    broken: dict[tuple[str, str], tuple[str, ...]] = {}
    texts: dict[str, dict[str, Answer]] = defaultdict(dict)
    drawn: dict[str, Sampling] = {baseline: "plain", **samplings}
    for name, sampling in drawn.items():
        for answer in answers.get((name, sampling), ()):
            texts[answer.item][name] = answer
        for row in judgements.get((name, sampling), ()):
            broken[name, row.answer.item] = row.broken
            broken[baseline, row.answer.item] = row.base_broken
    found = []
    for item, row_of in texts.items():
        for first, second in combinations(row_of, 2):
            one, other = row_of[first], row_of[second]
            if not can_judge(judge, users[one.user], one.prompt):
                continue
            preferred = judge.compare(users[one.user], one.prompt, one.text, other.text)
            preferred = decide(preferred, broken.get((first, item), ()), broken.get((second, item), ()))
            found.append(Game(one.user, first, second, SCORES[preferred]))
    return found


def games_over_base(scores: Mapping[str, Mapping[Item, float]], baseline: str = BASE) -> list[Game]:
    """Each method's answers against the base model's: method -> (user, item) -> 1 for a win, 0.5 for a tie, else 0."""
    return [
        Game(user, name, baseline, score)
        for name, row in scores.items()
        for (user, _), score in row.items()
        if name != baseline
    ]
