"""What a synthesis will ask, before anything is asked: requests and tokens of each stage.

Tokens are estimated at four characters each, from the domain's own seeds, users and prompts. Answers count as long as
they may be, but for the judge's, which are one short JSON object. Every description is taken to stay open through all
rounds of refinement. What may be asked again is told apart: new questions, where most of the first were
near-duplicates, and all about users who are made again.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Domain
from fspo.synthesis.pairs import held_out_units
from fspo.synthesis.questions import AT_ONCE, EXAMPLES, TOKENS, seeds_used
from fspo.synthesis.refinement import SENTENCE_TOKENS
from fspo.synthesis.responses import VIEW_TOKENS
from fspo.synthesis.templates import Template
from fspo.synthesis.user_slots import UserSlot, make_user, slots_of, split_users
from fspo.synthesis.users import PORTRAIT_TOKENS, varies

__all__ = ["RequestEstimate", "Stage", "estimate"]

_CHARACTERS = 4
"""Of a token, in English."""
_FRAME = 8
"""Tokens of a chat around its messages."""
_CHOICE = 10
"""Tokens of {"preferred": "A"} with its end."""
_SAMPLE = 50
_OWN = frozenset({"about", "topic", "number", "kind", "title"})
"""Variables of the prompts that hold the domain's own words, which are not quoted."""


@dataclass(frozen=True)
class Stage:
    """What one stage asks.

    Tokens are those of all prompts, and of all answers at most.
    """

    name: str
    requests: int
    prompt_tokens: int
    answer_tokens: int
    of_users: bool = False
    """Whether a user who is made again goes through it again."""


@dataclass(frozen=True)
class RequestEstimate:
    """What a synthesis asks, and gets."""

    stages: tuple[Stage, ...]
    again: tuple[Stage, ...]
    """What may be asked besides, at most; how much of it depends on the answers."""
    users: int
    preferences: int
    """At most: pairs left undecided are none."""

    @property
    def total(self) -> Stage:
        """Of all stages."""
        return _sum("all", self.stages)

    @property
    def responses(self) -> Stage:
        """Of the responses alone, which others may write."""
        return _sum("responses", (row for row in self.stages if row.name == "responses"))

    @property
    def most(self) -> Stage:
        """Of all stages, and of what may be asked again."""
        return _sum("all, at most", (*self.stages, *self.again))


def estimate(config: SynthesisConfig, domain: Domain) -> RequestEstimate:
    """Requests and tokens of all stages that ask a language model; written responses ask none.

    Raises:
        ConfigError: more users are asked for than the domain has.
    """
    places = slots_of(config, domain)
    used = seeds_used(config, domain)
    new = config.questions - used if config.augment and domain.file.responses != "written" else 0
    pairs = _all_pairs(config, places, used + new)
    question = _mean(len(seed.text) for seed in domain.seeds)
    description = _mean(len(make_user(config, domain, place).description) for place in places[:_SAMPLE])
    rows = _writing(config, domain, question, used + new, new)
    if config.portraits:
        asked = _prompt(domain, "portrait", description)
        rows.append(_stage("portraits", len(places), asked, PORTRAIT_TOKENS, of_users=True))
        description = PORTRAIT_TOKENS * _CHARACTERS
    if config.judge == "llm":
        rows += _judging(config, domain, description, question + 2 * _response(config, domain), len(places), pairs)
    stages = tuple(row for row in rows if row.requests)
    return RequestEstimate(stages, _again(config, domain, stages), len(places), pairs)


def _writing(config: SynthesisConfig, domain: Domain, question: float, count: int, new: int) -> list[Stage]:
    """The stages up to the responses.

    There are `count` questions with a mean of `question` characters; a model writes `new` of them.
    """
    asked = _prompt(domain, "augment", EXAMPLES * question)
    rows = [_stage("questions", -(-new * 4 // (3 * AT_ONCE)), asked, AT_ONCE * TOKENS)]
    production = domain.file.responses
    told = _length(domain.prompts["answer"])
    if production == "restyled":
        opened = [opening for persona in domain.personas for opening in persona.openings]
        told = round(_mean(_length(persona.system) for persona in domain.personas) + _mean(map(_length, opened)))
    elif config.steering == "views" and production == "sampled":
        rows.append(_stage("viewpoints", count, _prompt(domain, "views", question), VIEW_TOKENS * config.views))
        told = _length(domain.prompts["view"]) + VIEW_TOKENS * _CHARACTERS
    elif config.steering == "persona" and production == "sampled":
        told = round(_mean(_length(persona.system) for persona in domain.personas))
    each = {"sampled": config.responses, "restyled": config.restyling.samples, "written": 0}[production]
    return [*rows, _stage("responses", count * each, _FRAME + (told + question) / _CHARACTERS, config.max_tokens)]


def _judging(
    config: SynthesisConfig, domain: Domain, description: float, shown: float, users: int, pairs: int
) -> list[Stage]:
    """The stages in which a model judges pairs and refines descriptions.

    A prompt has the characters of a `description`, and those `shown` of a question and two responses.
    """
    judged = _prompt(domain, "judge", description + shown)
    shared = 2 * users * config.shared_pairs
    rows = [_stage("shared pairs", shared, judged, _CHOICE, of_users=True)]
    if config.refinement is not None:
        rounds, added = config.refinement.rounds, SENTENCE_TOKENS * _CHARACTERS
        between = _prompt(domain, "judge", description + rounds * added / 2 + shown)
        judged = _prompt(domain, "judge", description + rounds * added + shown)
        sentence = _prompt(domain, "append", description + shown)
        asked_again = 2 * users * rounds * config.refinement.pairs
        rows += [
            _stage("refinement: pairs", asked_again, between, _CHOICE, of_users=True),
            _stage("refinement: sentences", users * rounds, sentence, SENTENCE_TOKENS, of_users=True),
            _stage("shared pairs, again", shared, judged, _CHOICE, of_users=True),
        ]
    return [*rows, _stage("labels", 2 * pairs - shared, judged, _CHOICE)]


def _response(config: SynthesisConfig, domain: Domain) -> float:
    """Characters of a response."""
    if domain.file.responses == "written":
        return _mean(len(row.text) for row in domain.written)
    return config.max_tokens * _CHARACTERS


def _prompt(domain: Domain, name: str, filled: float) -> float:
    """Tokens of a prompt of the domain that is filled with so many characters."""
    return _FRAME + (_length(domain.prompts[name]) + filled) / _CHARACTERS


def _all_pairs(config: SynthesisConfig, slots: Sequence[UserSlot], questions: int) -> int:
    """Pairs of all users, at most, where so many questions are answered."""
    if config.pairs_per_question is None:
        return len(slots) * config.pairs
    users = split_users(config, slots)
    tested, validated = held_out_units(config, questions)
    validated = validated if users["validation"] else 0  # as `pairs_of` divides them
    of_part = {"train": questions - tested - validated, "validation": validated, "test": tested}
    own = sum(len(ids) * of_part[part] for part, ids in users.items()) * config.pairs_per_question
    return own if config.by_traits else own + len(slots) * config.shared_pairs


def _again(config: SynthesisConfig, domain: Domain, stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """What comes on top where no new question can be used, and everybody is made again each time."""
    attempts = config.disagreement.attempts if config.disagreement is not None and varies(config, domain) else 0
    rows = (
        _sum("questions, again", (row for row in stages if row.name == "questions"), config.augment_rounds - 1),
        _sum("users drawn again", (row for row in stages if row.of_users), attempts),
    )
    return tuple(row for row in rows if row.requests)


def _sum(name: str, rows: Iterable[Stage], times: int = 1) -> Stage:
    rows = tuple(rows)
    return Stage(
        name,
        times * sum(row.requests for row in rows),
        times * sum(row.prompt_tokens for row in rows),
        times * sum(row.answer_tokens for row in rows),
    )


def _stage(name: str, requests: int, prompt: float, answer: int, *, of_users: bool = False) -> Stage:
    return Stage(name, requests, round(requests * prompt), requests * answer, of_users)


def _length(template: Template) -> int:
    """Characters, without what is filled in, and with the quotes around it."""
    variables = template.variables()
    return len(template.ask(dict.fromkeys(set(variables) - _OWN, ""), **dict.fromkeys(_OWN, "")))


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)
