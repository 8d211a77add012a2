"""Who labels: the language model that reads descriptions, or measured attributes, behind one way of asking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from fspo.judging.by_topic import TopicJudge
from fspo.judging.judge import AttributeJudge, Judge
from fspo.judging.pairwise import PairwiseJudge
from fspo.judging.verdicts import Comparison, Judgement
from fspo.llm.types import LanguageModel
from fspo.preferences.types import User
from fspo.progress import Task
from fspo.synthesis.recipe.config import RecipeConfig
from fspo.synthesis.recipe.domain import RecipeDomain
from fspo.synthesis.recipe.questions import Question
from fspo.synthesis.recipe.responses import Response

__all__ = ["Judging", "by_measures", "measured_judge", "pairwise_judge"]


class Judging(Protocol):
    """Judges many pairs, in order."""

    def __call__(self, comparisons: Iterable[Comparison], task: Task | None = None) -> Iterator[Judgement]:
        """What came of each; `task` is advanced by one for each."""


def pairwise_judge(config: RecipeConfig, domain: RecipeDomain, llm: LanguageModel) -> PairwiseJudge:
    """The user-aware pairwise judge with the domain's prompt."""
    template = domain.prompts["judge"]

    def prompt(user: User, question: str, first: str, second: str) -> str:
        return template.fill(description=user.description, question=question, first=first, second=second)

    return PairwiseJudge(
        llm,
        prompt,
        seed=config.seed,
        at_once=max(1, config.batch // 2),
        max_tokens=config.judge_max_tokens,
        setting="synthesis.judge_max_tokens",
    )


def by_measures(judge: Judge) -> Judging:
    """A judge of measured attributes, which is the same in both orders by construction."""

    def judging(comparisons: Iterable[Comparison], task: Task | None = None) -> Iterator[Judgement]:
        for c in comparisons:
            if task is not None:
                task.advance()
            yield Judgement.agreed(judge.compare(c.user, c.prompt, c.first, c.second))

    return judging


def measured_judge(
    config: RecipeConfig, domain: RecipeDomain, questions: Sequence[Question], responses: Sequence[Response]
) -> AttributeJudge | TopicJudge:
    """The judge of measured attributes, with scales from these responses.

    Raises:
        DataError: an attribute that users mind is the same in all responses.
    """
    minded = domain.attributes()
    vocabularies = {topic: words for topic, words in domain.topics.items() if f"topic.{topic}" in minded}
    judge = AttributeJudge.fit((r.text for r in responses), minded, config.margin, vocabularies)
    if not domain.users.topic:
        return judge
    return TopicJudge(judge, {question.text: question.topic for question in questions if question.topic})
