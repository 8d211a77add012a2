"""The responses of every question: sampled texts cleaned, and restyled so that attributes vary independently."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

from fspo.llm.types import Completion
from fspo.synthesis.restyled.cleaning import Cleaned, clean
from fspo.synthesis.restyled.config import RestyledConfig
from fspo.synthesis.restyled.domain import Domain
from fspo.synthesis.restyled.restyling import RESTYLED, Restyled, restyle
from fspo.synthesis.restyled.samples import Question, Sample
from fspo.synthesis.similarity import jaccard, shingles

__all__ = ["Response", "Responses", "make_responses"]

_RETRIES = 3
_DESIGNS = 40
"""Designs of a question's styles to choose the least correlated one from."""


@dataclass(frozen=True)
class Response:
    """One response, with where it came from.

    Attributes:
        id: question id and place.
        question: the question's id.
        prompt: the question.
        text: what the user sees.
        sample: the sampled text it was made from.
        persona: who that was steered to answer as.
        opening: how that was made to begin.
        steered_to: the sentiment the persona steers to.
        measured: the sentiment of the cleaned sample, -1 to 1.
        style: the style wanted, attribute -> 1 or -1.
        restyle: the rules applied to the sampled text, in order.
        cuts: what cleaning cut off the sampled text.
    """

    id: str
    question: str
    prompt: str
    text: str
    sample: str
    persona: str
    opening: str
    steered_to: str
    measured: float
    style: Mapping[str, int]
    restyle: tuple[str, ...]
    cuts: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """As one line of `responses.jsonl`."""
        return asdict(self)

    def provenance(self) -> dict[str, Any]:
        """What a preference says of this side of it."""
        return {
            "response": self.id,
            "sample": self.sample,
            "persona": self.persona,
            "steered_to": self.steered_to,
            "measured": self.measured,
            "restyle": list(self.restyle),
        }


@dataclass(frozen=True)
class _Base:
    sample: Sample
    cleaned: Cleaned


@dataclass
class Responses:
    """All responses, and what was not used and why."""

    items: list[Response] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    """Reason -> sampled texts not used."""
    unfilled: int = 0
    """Responses wanted that no sampled text had the making of."""
    steering: dict[str, Counter[str]] = field(default_factory=dict)
    """Steered to -> measured as -> cleaned texts."""

    def by_question(self) -> dict[str, list[Response]]:
        """Question id -> its responses, in order."""
        groups: dict[str, list[Response]] = {}
        for response in self.items:
            groups.setdefault(response.question, []).append(response)
        return groups


def make_responses(
    config: RestyledConfig, domain: Domain, samples: Sequence[Sample], completions: Mapping[str, Completion]
) -> Responses:
    """Clean what was sampled and restyle it; a pure function of its arguments."""
    result = Responses()
    seen: set[str] = set()
    groups: dict[str, tuple[Question, list[Sample]]] = {}
    for sample in samples:
        groups.setdefault(sample.question.id, (sample.question, []))[1].append(sample)
    for question, own in groups.values():
        bases = _bases(config, domain, own, completions, result)
        _fill(config, domain, question, bases, seen, result)
    return result


def _bases(
    config: RestyledConfig,
    domain: Domain,
    samples: Iterable[Sample],
    completions: Mapping[str, Completion],
    result: Responses,
) -> list[_Base]:
    bases: list[_Base] = []
    for sample in samples:
        completion = completions[sample.id]
        if completion.missing:
            result.rejected[completion.missing] += 1
            continue
        raw = completion.after(sample.opening)
        cleaned = clean(raw, sample.question.work, domain, min_words=config.min_words, max_words=config.max_words)
        if not isinstance(cleaned, Cleaned):
            result.rejected[cleaned.reason] += 1
            continue
        side = _side(cleaned.sentiment, config.clear_sentiment)
        result.steering.setdefault(sample.steered_to, Counter())[_NAMES[side]] += 1
        runs = shingles(cleaned.text)
        if any(jaccard(runs, shingles(base.cleaned.text)) >= config.near_duplicate for base in bases):
            result.rejected["near-duplicate"] += 1
        elif not side:
            result.rejected["no clear sentiment"] += 1
        else:
            bases.append(_Base(sample, cleaned))
    return bases


def _fill(
    config: RestyledConfig,
    domain: Domain,
    question: Question,
    bases: Sequence[_Base],
    seen: set[str],
    result: Responses,
) -> None:
    rng = random.Random(f"{config.seed}/restyling/{question.id}")
    used: Counter[str] = Counter()
    for number, style in enumerate(_plan(config, rng)):
        side = style["sentiment"]
        wanted = {name: sign for name, sign in style.items() if name in RESTYLED and name in config.attributes}
        response = None
        for base in sorted(bases, key=lambda base: (used[base.sample.id], rng.random())):
            restyled = _try(config, domain, base, wanted, side, rng)
            if restyled is not None and restyled.text not in seen:
                response = _response(f"{question.id}:{number}", base, style, restyled)
                break
        if response is None:
            result.unfilled += 1
            continue
        used[response.sample] += 1
        seen.add(response.text)
        result.items.append(response)


def _try(
    config: RestyledConfig,
    domain: Domain,
    base: _Base,
    wanted: Mapping[str, int],
    side: int,
    rng: random.Random,
) -> Restyled | None:
    for _ in range(_RETRIES):
        restyled = restyle(base.cleaned.sentences, wanted, side, base.sample.question.work, domain.styles, config, rng)
        if restyled is not None:
            return restyled
    return None


def _plan(config: RestyledConfig, rng: random.Random) -> list[dict[str, int]]:
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


def _response(id: str, base: _Base, style: Mapping[str, int], restyled: Restyled) -> Response:
    sample = base.sample
    return Response(
        id=id,
        question=sample.question.id,
        prompt=sample.question.prompt,
        text=restyled.text,
        sample=sample.id,
        persona=sample.persona.name,
        opening=sample.opening,
        steered_to=sample.steered_to,
        measured=round(base.cleaned.sentiment, 4),
        style=dict(style),
        restyle=restyled.steps,
        cuts=base.cleaned.cuts,
    )


def _side(score: float, clear: float) -> int:
    return 0 if abs(score) < clear else (1 if score > 0 else -1)


_NAMES = {1: "positive", 0: "unclear", -1: "negative"}
