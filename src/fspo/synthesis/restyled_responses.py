"""Restyled responses: texts sampled, cleaned, and changed by rule so that attributes vary independently.

For small models, which can't be steered to forms: half of a question's texts are steered to praise and half to
criticism, each with an opening to go on from, and fixed rules give them the forms wanted.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby, tee

from fspo.llm.batching import ask_all, mark_unusable
from fspo.llm.types import Completion, LanguageModel, Message, title_of
from fspo.progress import Progress
from fspo.synthesis.cleaning import Cleaned, clean
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Domain, Persona, Question
from fspo.synthesis.domain_files import StylesFile
from fspo.synthesis.responses import Response, Responses, Sample, refuse_poor
from fspo.synthesis.restyling import RESTYLED, Restyled, restyle
from fspo.synthesis.similarity import jaccard, shingles
from fspo.synthesis.templates import Template

__all__ = ["made_of_one_text", "plan_samples", "restyled_responses"]

_OPENINGS_EACH = 3
"""Openings drawn for one persona on one question: they share everything the model reads before."""
_RETRIES = 3
_DESIGNS = 40
"""Designs of a question's styles to choose the least correlated one from."""
_SIDES = ("positive", "negative")
_NAMES = {1: "positive", 0: "unclear", -1: "negative"}


@dataclass(frozen=True)
class _Base:
    sample: Sample
    cleaned: Cleaned


def restyled_responses(
    config: SynthesisConfig, domain: Domain, questions: Sequence[Question], llm: LanguageModel, progress: Progress
) -> Responses:
    """Sample texts for every question, clean them, and restyle what is usable.

    Raises:
        DataError: fewer than three questions got two responses.
        ModelError: the model failed.
    """
    result = Responses(asked=len(questions) * config.restyling.samples)
    restyling = _Restyling(config, domain, llm, result)
    plan, asked = tee(sample for question in questions for sample in plan_samples(config, domain, question))
    with progress.task("Sampling texts", total=result.asked) as task:
        completions = ask_all(llm, (sample.request for sample in asked), config.batch, task)
        sampled = zip(plan, completions, strict=True)
        for question, own in groupby(sampled, key=lambda one: one[0].question):
            restyling.fill(question, restyling.bases(own))
    refuse_poor(result, len(questions))
    return result


def made_of_one_text(a: Response, b: Response) -> bool:
    """Whether two responses were made from one sampled text; they differ in style only."""
    return bool(a.made.get("sample")) and a.made.get("sample") == b.made.get("sample")


def plan_samples(config: SynthesisConfig, domain: Domain, question: Question) -> list[Sample]:
    """The texts to be sampled for a question: half of them from positive personas, half from negative ones."""
    rng = random.Random(f"{config.seed}/samples/{question.id}")
    count = config.restyling.samples
    drawn = [
        pair
        for side, half in zip(_SIDES, (count - count // 2, count // 2), strict=True)
        for pair in _steerings(domain, question, side, half, rng)
    ]
    return [
        Sample(
            f"{question.id}#{number}",
            question,
            persona.name,
            config.request(
                Message("system", _filled(persona.system, question)),
                Message("user", question.text),
                prefix=opening,
                max_tokens=config.max_tokens,
                seed=rng.randrange(2**31),
            ),
            persona.sentiment,
        )
        for number, (persona, opening) in enumerate(drawn)
    ]


def _steerings(
    domain: Domain, question: Question, side: str, count: int, rng: random.Random
) -> list[tuple[Persona, str]]:
    drawn: list[tuple[Persona, str]] = []
    while len(drawn) < count:
        personas = [persona for persona in domain.personas if persona.sentiment == side]
        rng.shuffle(personas)
        for persona in personas:
            openings = rng.sample(persona.openings, min(_OPENINGS_EACH, len(persona.openings)))
            drawn += [(persona, _filled(opening, question)) for opening in openings]
    return drawn[:count]


def _filled(template: Template, question: Question) -> str:
    return template.fill(kind=question.kind, title=question.title)


@dataclass
class _Restyling:
    """The responses as they come about, question by question."""

    config: SynthesisConfig
    domain: Domain
    llm: LanguageModel
    result: Responses
    seen: set[str] = field(default_factory=set)
    """The texts of all responses."""

    @property
    def styles(self) -> StylesFile:
        assert self.domain.styles is not None  # checked with the domain
        return self.domain.styles

    def bases(self, sampled: Iterable[tuple[Sample, Completion]]) -> list[_Base]:
        """The cleaned texts of a question that are clearly of one sentiment, without near-duplicates."""
        config, rejected = self.config, self.result.rejected
        bases: list[_Base] = []
        for sample, completion in sampled:
            if completion.missing:
                rejected[completion.missing] += 1
                mark_unusable(self.llm, sample.request)
                continue
            cleaned = clean(
                completion.after(sample.request.prefix),
                sample.question.title,
                frozenset(self.styles.topic),
                min_words=config.min_words,
                max_words=config.restyling.max_words,
            )
            if not isinstance(cleaned, Cleaned):
                rejected[cleaned.reason] += 1
                continue
            score = cleaned.sentiment
            side = 0 if abs(score) < config.restyling.clear_sentiment else (1 if score > 0 else -1)
            came_out = self.result.steering.setdefault(sample.sentiment, {})
            came_out[_NAMES[side]] = came_out.get(_NAMES[side], 0) + 1
            runs = shingles(cleaned.text)
            if any(jaccard(runs, shingles(base.cleaned.text)) >= config.near_duplicate for base in bases):
                rejected["near-duplicate"] += 1
            elif not side:
                rejected["no clear sentiment"] += 1
            else:
                bases.append(_Base(sample, cleaned))
        return bases

    def fill(self, question: Question, bases: Sequence[_Base]) -> None:
        """Make the responses to a question, each from the text used least so far that has the making of its style."""
        rng = random.Random(f"{self.config.seed}/restyling/{question.id}")
        used: Counter[str] = Counter()
        weighed = frozenset(self.domain.attributes(self.config.attributes))
        for number, style in enumerate(_plan(self.config, rng)):
            wanted = {name: sign for name, sign in style.items() if name in RESTYLED and name in weighed}
            for base in sorted(bases, key=lambda base: (used[base.sample.id], rng.random())):
                restyled = self._try(base, wanted, style["sentiment"], rng)
                if restyled is not None and restyled.text not in self.seen:
                    used[base.sample.id] += 1
                    self.seen.add(restyled.text)
                    model = title_of(self.llm)
                    self.result.items.append(_response(f"{question.id}:{number}", base, style, restyled, model))
                    break

    def _try(self, base: _Base, wanted: Mapping[str, int], side: int, rng: random.Random) -> Restyled | None:
        sentences, question = base.cleaned.sentences, base.sample.question
        tries = (restyle(sentences, wanted, side, question, self.styles, self.config, rng) for _ in range(_RETRIES))
        return next((restyled for restyled in tries if restyled is not None), None)


def _plan(config: SynthesisConfig, rng: random.Random) -> list[dict[str, int]]:
    """The style of each response: every attribute half up, half down, and as little tied to the others as can be."""
    names = [*dict.fromkeys(("sentiment", *RESTYLED))]
    best = min((_columns(len(names), config.responses, rng) for _ in range(_DESIGNS)), key=_tied)
    return [dict(zip(names, row, strict=True)) for row in zip(*best, strict=True)]


def _columns(count: int, rows: int, rng: random.Random) -> list[list[int]]:
    columns = []
    for _ in range(count):
        column = [1, -1] * (rows // 2) + [rng.choice((1, -1))] * (rows % 2)
        rng.shuffle(column)
        columns.append(column)
    return columns


def _tied(columns: Sequence[Sequence[int]]) -> int:
    return sum(sum(x * y for x, y in zip(a, b, strict=True)) ** 2 for a, b in combinations(columns, 2))


def _response(id: str, base: _Base, style: Mapping[str, int], restyled: Restyled, model: str) -> Response:
    sample = base.sample
    made = {
        "sample": sample.id,
        "opening": sample.request.prefix,
        "steered_to": sample.sentiment,
        "measured": round(base.cleaned.sentiment, 4),
        "style": dict(style),
        "restyle": list(restyled.steps),
        "cuts": list(base.cleaned.cuts),
    }
    return Response(id, sample.question.id, restyled.text, sample.steered, model, made)
