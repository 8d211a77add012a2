"""The responses to every question: a language model's, steered, tidied and without near-duplicates; or people's."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import tee
from typing import Any, Protocol, runtime_checkable

from fspo.errors import DataError
from fspo.judging.judge import constant_attributes
from fspo.judging.refusals import opens_with_refusal
from fspo.llm.batching import ask_all, mark_unusable
from fspo.llm.quoting import disarmed
from fspo.llm.types import Completion, CompletionRequest, LanguageModel, Message, title_of
from fspo.progress import Progress
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Domain, Question
from fspo.synthesis.model_texts import fault, items_of, tidied
from fspo.synthesis.similarity import Overlaps
from fspo.synthesis.written import WrittenText

__all__ = [
    "PEOPLE",
    "VIEW_TOKENS",
    "Response",
    "Responses",
    "Sample",
    "make_views",
    "refuse_poor",
    "sampled_responses",
    "written_responses",
]

PEOPLE = "people"
"""The `model` of responses that no model wrote."""

VIEW_TOKENS = 32
"""Tokens that one viewpoint may take."""

_SHOW_VARIETY = 32
"""Responses that show whether an attribute varies."""


@runtime_checkable
class _Drawing(Protocol):
    """A model that is several."""

    def member_of(self, request: CompletionRequest) -> str: ...


@dataclass(frozen=True)
class Response:
    """One response.

    Attributes:
        id: the question's id and a number.
        question: the question's id.
        text: what a user sees.
        steered: the persona, or the viewpoint, that it was steered by; empty for none.
        model: who wrote it, without addresses and folders.
        made: what else is known of how it came about; of a restyled response the text it was made from and the rules
            applied, of a written one its declared `traits`.
    """

    id: str
    question: str
    text: str
    steered: str
    model: str
    made: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Responses:
    """All usable responses, and what was not used and why."""

    items: list[Response] = field(default_factory=list)
    asked: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    steering: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of restyled responses: sentiment steered to -> sentiment that came out -> texts."""


@dataclass(frozen=True)
class Sample:
    """One text to be asked of a model.

    `steered` is the persona or the viewpoint that it is steered by, empty for none; `sentiment` is which way the
    persona steers, where that is known.
    """

    id: str
    question: Question
    steered: str
    request: CompletionRequest
    sentiment: str = ""


def make_views(
    config: SynthesisConfig, domain: Domain, questions: Sequence[Question], llm: LanguageModel, progress: Progress
) -> dict[str, list[str]]:
    """Question id -> different viewpoints from which it can be answered; none where the model listed none.

    A question whose request failed is left out.

    Raises:
        ModelError: the model failed.
    """
    template, count = domain.prompts["views"], config.views
    requests = (
        config.request(
            Message("user", template.ask({"question": q.text}, number=count, about=domain.file.about)),
            max_tokens=VIEW_TOKENS * count,
            seed=_seed(config, "views", q.id),
        )
        for q in questions
    )
    found: dict[str, list[str]] = {}
    asked, sent = tee(requests)
    with progress.task("Listing viewpoints", total=len(questions)) as task:
        answers = ask_all(llm, asked, config.batch, task)
        for question, request, completion in zip(questions, sent, answers, strict=True):
            views = _views_of(completion)[: config.views]
            if not views:
                mark_unusable(llm, request)
            if completion.finish_reason != "failed":
                found[question.id] = views
    return found


def _views_of(completion: Completion) -> list[str]:
    items = () if opens_with_refusal(completion.text) else items_of(completion)
    return list(dict.fromkeys(items))


def sampled_responses(
    config: SynthesisConfig,
    domain: Domain,
    questions: Sequence[Question],
    views: Mapping[str, Sequence[str]],
    llm: LanguageModel,
    progress: Progress,
) -> Responses:
    """Ask for every question's responses and keep what is usable.

    `views` are viewpoints on each question, where the steering is by views; `llm` may be an ensemble.

    Raises:
        DataError: fewer than three questions got two usable responses.
        ModelError: the model failed.
    """
    result = Responses(asked=len(questions) * config.responses)
    plan, asked = tee(_plan(config, domain, questions, views))
    known, current = Overlaps(config.near_duplicate), ""
    with progress.task("Sampling responses", total=result.asked) as task:
        completions = ask_all(llm, (one.request for one in asked), config.batch, task)
        for completion, one in zip(completions, plan, strict=True):
            if one.question.id != current:  # they come question by question
                known, current = Overlaps(config.near_duplicate), one.question.id
            before = len(result.items)
            _take(config, domain, one, completion, llm, known, result)
            if before < len(result.items) == _SHOW_VARIETY and config.judge == "measured":
                _say_what_is_constant(config, domain, result.items, progress)
    refuse_poor(result, len(questions))
    return result


def _say_what_is_constant(
    config: SynthesisConfig, domain: Domain, found: Sequence[Response], progress: Progress
) -> None:
    """Say early what the measured judge would refuse after the last response."""
    weighed = domain.attributes(config.attributes)
    topics = {topic: own for topic, own in domain.topics.items() if f"topic.{topic}" in weighed}
    constant = constant_attributes([response.text for response in found], weighed, topics)
    if constant:
        progress.say(
            f"The same in the first {len(found)} responses: {', '.join(constant)}. Users have weights for that, and if "
            "it stays so, the measured judge refuses the responses; stop, and leave it out of the users' weights, or "
            "steer the responses so that they vary in it."
        )


def written_responses(domain: Domain, questions: Sequence[Question]) -> Responses:
    """The responses that people wrote to these questions; no model is asked."""
    own: dict[str, list[WrittenText]] = {}
    for row in domain.written:
        own.setdefault(row.question, []).append(row)
    items = [
        Response(f"{question.id}:{number}", question.id, row.text, "", PEOPLE, {"traits": dict(row.traits)})
        for question in questions
        for number, row in enumerate(own[question.text])
    ]
    return Responses(items, asked=len(items))


def _plan(
    config: SynthesisConfig, domain: Domain, questions: Sequence[Question], views: Mapping[str, Sequence[str]]
) -> Iterator[Sample]:
    for question in questions:
        rng = random.Random(f"{config.seed}/steering/{question.id}")
        steerings = _steerings(config, domain, question, views.get(question.id, ()), rng)
        for number, (steered, system) in enumerate(steerings):
            yield Sample(
                f"{question.id}:{number}",
                question,
                steered,
                config.request(
                    Message("system", system),
                    Message("user", question.text),
                    max_tokens=config.max_tokens,
                    seed=_seed(config, "response", f"{question.id}:{number}"),
                ),
            )


def _steerings(
    config: SynthesisConfig, domain: Domain, question: Question, views: Sequence[str], rng: random.Random
) -> list[tuple[str, str]]:
    """(persona or view, system prompt) of each response; each is used as often as the others."""
    about = domain.file.about
    plain = ("", domain.prompts["answer"].ask({"question": question.text}, about=about))
    pool = [plain]
    if config.steering == "persona":
        pool = [
            (persona.name, persona.system.fill(kind=question.kind, title=question.title)) for persona in domain.personas
        ]
    elif config.steering == "views" and views:
        view, shown = domain.prompts["view"], {"question": question.text}
        # The view is an instruction to follow, so it is not quoted.
        pool = [(one, view.ask(shown, view=disarmed(one), about=about)) for one in views]
    drawn: list[tuple[str, str]] = []
    while len(drawn) < config.responses:
        drawn += rng.sample(pool, len(pool))
    return drawn[: config.responses]


def _take(
    config: SynthesisConfig,
    domain: Domain,
    one: Sample,
    completion: Completion,
    llm: LanguageModel,
    known: Overlaps,
    result: Responses,
) -> None:
    if completion.missing:
        result.rejected[completion.missing] += 1
        mark_unusable(llm, one.request)
        return
    text = tidied(completion)
    why = fault(text, min_words=config.min_words, language=domain.file.language)
    if why is not None:
        mark_unusable(llm, one.request)
    elif not known.add(text):
        why = "near-duplicate"
    if why is not None:
        result.rejected[why] += 1
        return
    model = llm.member_of(one.request) if isinstance(llm, _Drawing) else title_of(llm)
    result.items.append(Response(one.id, one.question.id, text, one.steered, model))


def refuse_poor(responses: Responses, questions: int) -> None:
    """Refuse too few usable responses.

    Raises:
        DataError: fewer than three questions, or than a third of them, got two.
    """
    counts = Counter(response.question for response in responses.items)
    answered = sum(count >= 2 for count in counts.values())
    if answered < max(3, questions // 3):
        worst = ", ".join(f"{reason} ({count})" for reason, count in responses.rejected.most_common(3))
        raise DataError(
            f"Only {answered} of {questions} questions got two usable responses; texts were rejected for: "
            f"{worst or 'none'}. Raise synthesis.responses or synthesis.max_tokens, or use a better model."
        )


def _seed(config: SynthesisConfig, *parts: str) -> int:
    return random.Random("/".join([str(config.seed), *parts])).randrange(2**31)
