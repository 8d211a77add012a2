"""Who labels: a language model that reads descriptions, or a judge that reads traits, behind one interface."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from fspo.errors import ConfigError, DataError
from fspo.judging.attributes import emoji_count
from fspo.judging.by_topic import TopicJudge
from fspo.judging.declared import DeclaredJudge
from fspo.judging.judge import AttributeJudge
from fspo.judging.pairwise import PairwiseJudge
from fspo.judging.trait_readers import DeclaredText, fit_readers
from fspo.judging.verdicts import Comparison, Judgement
from fspo.llm.types import LanguageModel
from fspo.preferences.types import User
from fspo.progress import Task
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Domain, Question
from fspo.synthesis.domain_files import StylesFile
from fspo.synthesis.responses import Response
from fspo.synthesis.written import values_of

__all__ = [
    "Judging",
    "TraitJudge",
    "by_traits",
    "check_judge",
    "measured_judge",
    "pairwise_judge",
    "trait_judge",
    "with_readers",
]

TraitJudge = AttributeJudge | TopicJudge | DeclaredJudge
"""A judge that reads traits, which is the same in both orders by construction."""


class Judging(Protocol):
    """Judges many pairs, in order."""

    def __call__(self, comparisons: Iterable[Comparison], task: Task | None = None) -> Iterator[Judgement]:
        """What came of each; `task` is advanced by one for each."""


def pairwise_judge(config: SynthesisConfig, domain: Domain, llm: LanguageModel) -> PairwiseJudge:
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


def by_traits(judge: TraitJudge) -> Judging:
    """A judge that reads traits, which is the same in both orders by construction."""

    def judging(comparisons: Iterable[Comparison], task: Task | None = None) -> Iterator[Judgement]:
        for c in comparisons:
            if task is not None:
                task.advance()
            yield Judgement.agreed(judge.compare(c.user, c.prompt, c.first, c.second))

    return judging


def check_judge(config: SynthesisConfig, domain: Domain) -> None:
    """Check that the judge of the configuration can judge the responses of the domain.

    Raises:
        ConfigError: it uses declared traits and there are none, or measured attributes and users weigh others.
        DataError: the domain's files alone show that a trait or an attribute that users weigh is the same in all
            responses.
    """
    declared = domain.file.responses == "written"
    if config.judge == "declared" and not declared:
        raise ConfigError(
            f"synthesis.judge is declared, and the responses of the domain '{domain.name}' declare no traits; set it "
            "to measured or llm."
        )
    if config.judge == "measured" and declared:
        raise ConfigError(
            f"synthesis.judge is measured, and the users of the domain '{domain.name}' weigh declared traits; set it "
            "to declared or llm."
        )
    if config.judge == "declared" and domain.users.directions is not None:
        _check_variety(config, domain)
    if config.judge == "measured" and domain.styles is not None and "emoji" in domain.attributes(config.attributes):
        _check_emoji(domain.styles)


def _check_emoji(styles: StylesFile) -> None:
    """Restyling removes all emoji of a text, so that only its own can be in a response."""
    listed = [sign for signs in styles.emoji.values() for sign in signs]
    if not any(map(emoji_count, (*listed, *styles.first_person, *styles.informal, *styles.formal))):
        raise DataError(
            f"styles.yaml, emoji: '{listed[0]}' and all others are not emoji, so the attribute 'emoji' is the same in "
            "all responses; list emoji, or leave the attribute out of the users' weights."
        )


def _check_variety(config: SynthesisConfig, domain: Domain) -> None:
    for name in domain.attributes(config.attributes):
        found = {text.traits[name] for text in domain.written if name in text.traits}
        if len(found) == 1:
            raise DataError(
                f"The trait '{name}' is {found.pop()!r} in all {len(domain.written):,} responses of the domain "
                f"'{domain.name}', so that no user can differ in it; leave it out of synthesis.attributes, or add "
                "responses of another value."
            )


def trait_judge(
    config: SynthesisConfig, domain: Domain, questions: Sequence[Question], responses: Sequence[Response]
) -> TraitJudge:
    """The judge by declared traits or measured attributes, with what it has to know of these responses.

    Raises:
        DataError: an attribute that users have a weight for is the same in all responses.
    """
    if domain.file.responses == "written":
        texts = {response.text: response.made["traits"] for response in responses}
        return DeclaredJudge(values_of(domain.traits), texts, config.margin)
    return measured_judge(config, domain, questions, responses)


def with_readers(judge: DeclaredJudge, responses: Sequence[Response], train: Collection[str]) -> DeclaredJudge:
    """The same judge, which also judges answers that declare no traits, by readers.

    They are fitted on the responses to the questions whose ids are in `train`, and measured on all others.
    """
    rows = [DeclaredText(one.question, one.text, one.made["traits"]) for one in responses]
    seen, unseen = ([row for row in rows if (row.question in train) == wanted] for wanted in (True, False))
    return replace(judge, answers=fit_readers(seen, unseen, judge.values, judge.margin))


def measured_judge(
    config: SynthesisConfig, domain: Domain, questions: Sequence[Question], responses: Sequence[Response]
) -> AttributeJudge | TopicJudge:
    """The judge of measured attributes, with scales from these responses.

    Raises:
        DataError: an attribute that users have a weight for is the same in all responses.
    """
    weighed = domain.attributes(config.attributes)
    vocabularies = {topic: words for topic, words in domain.topics.items() if f"topic.{topic}" in weighed}
    judge = AttributeJudge.fit((r.text for r in responses), weighed, config.margin, vocabularies)
    if not domain.users.topic:
        return judge
    return TopicJudge(judge, {question.text: question.topic for question in questions if question.topic})
