"""Texts sampled from a language model by persona steering, kept line by line so that a killed run goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fspo.errors import ConfigError
from fspo.files import append_jsonl, read_jsonl
from fspo.identity import digest
from fspo.llm.types import Completion, CompletionRequest, LanguageModel, Message, identity_of
from fspo.progress import Progress, Silent
from fspo.synthesis.restyled.config import RestyledConfig
from fspo.synthesis.restyled.domain import Domain, Persona, Side, Work

__all__ = ["Question", "Sample", "plan_questions", "plan_samples", "sample_all"]

_OPENINGS_EACH = 3
"""Openings drawn for one persona on one question: they share everything the model reads before."""


@dataclass(frozen=True)
class Question:
    """One question about one work."""

    id: str
    work: Work
    prompt: str


@dataclass(frozen=True)
class Sample:
    """One text to be sampled: for which question, by which persona, with which opening."""

    id: str
    question: Question
    persona: Persona
    opening: str
    request: CompletionRequest

    @property
    def steered_to(self) -> Side:
        """The sentiment that the persona steers to; what came out is measured."""
        return self.persona.sentiment


def plan_questions(config: RestyledConfig, domain: Domain) -> list[Question]:
    """The questions of a run, work by work; kinds take turns, phrasings differ within a work.

    Raises:
        ConfigError: more works, or more questions about each, are asked for than the domain has.
    """
    _check_supply(config, domain)
    rng = random.Random(f"{config.seed}/questions")
    kinds: dict[str, list[Work]] = {}
    for work in domain.works:
        kinds.setdefault(work.kind, []).append(work)
    for works in kinds.values():
        rng.shuffle(works)
    turns = [work for row in _rows(list(kinds.values())) for work in row][: config.titles]
    questions = []
    for work in turns:
        phrasings = list(enumerate(domain.questions))
        rng.shuffle(phrasings)
        questions += [
            Question(f"{work.id}/{number}", work, work.fill(phrasing))
            for number, phrasing in phrasings[: config.questions]
        ]
    return questions


def plan_samples(config: RestyledConfig, domain: Domain, questions: Sequence[Question]) -> list[Sample]:
    """Every text to be sampled: half of each question's from positive personas, half from negative ones."""
    samples = []
    for question in questions:
        rng = random.Random(f"{config.seed}/samples/{question.id}")
        halves = (config.samples - config.samples // 2, config.samples // 2)
        sides: tuple[Side, Side] = ("positive", "negative")
        drawn = [
            pair for side, count in zip(sides, halves, strict=True) for pair in _steerings(domain, side, count, rng)
        ]
        for number, (persona, pattern) in enumerate(drawn):
            opening = question.work.fill(pattern)
            request = CompletionRequest(
                (Message("system", question.work.fill(persona.system)), Message("user", question.prompt)),
                prefix=opening,
                max_tokens=config.max_tokens,
                temperature=config.temperature,
                top_p=config.top_p,
                seed=rng.randrange(2**31),
            )
            samples.append(Sample(f"{question.id}#{number}", question, persona, opening, request))
    return samples


def sample_all(
    samples: Sequence[Sample], llm: LanguageModel, path: Path, *, batch: int, progress: Progress | None = None
) -> dict[str, Completion]:
    """Complete every sample, going on from what `path` already holds.

    Batches are always the same, and a batch torn by a kill is sampled again as a whole, so that an interrupted run
    gives exactly what an uninterrupted one does. A request that failed is not kept: the next call asks it again.

    Returns:
        Sample id -> completion.
    """
    progress = progress or Silent()
    known = {
        str(r["key"]): Completion(r["text"], r["tokens"], r["finish_reason"], r.get("anew", False))
        for r in read_jsonl(path)
        if "key" in r and r["finish_reason"] != "failed"
    }
    completions: dict[str, Completion] = {}
    batches = list(_batches(samples, batch, identity_of(llm)))
    done = sum(len(keys) for _, keys in batches if all(key in known for key in keys))
    with progress.task("Sampling texts", total=len(samples), done=done) as task:
        for chosen, keys in batches:
            if any(key not in known for key in keys):
                for sample, key, completion in zip(
                    chosen, keys, llm.complete([sample.request for sample in chosen]), strict=True
                ):
                    if key not in known:
                        known[key] = completion
                        if completion.finish_reason != "failed":
                            append_jsonl(path, {"key": key, "sample": sample.id, **asdict(completion)})
                task.advance(len(chosen))
            completions.update((sample.id, known[key]) for sample, key in zip(chosen, keys, strict=True))
    return completions


def _check_supply(config: RestyledConfig, domain: Domain) -> None:
    for setting, wanted, there in (
        ("titles", config.titles, len(domain.works)),
        ("questions", config.questions, len(domain.questions)),
    ):
        if wanted > there:
            raise ConfigError(
                f"synthesis.{setting} is {wanted}, and the domain '{domain.name}' has {there}; set it to at most "
                f"{there}."
            )


def _rows(columns: Sequence[Sequence[Work]]) -> Iterator[list[Work]]:
    for place in range(max(map(len, columns))):
        yield [column[place] for column in columns if place < len(column)]


def _steerings(domain: Domain, side: Side, count: int, rng: random.Random) -> list[tuple[Persona, str]]:
    drawn: list[tuple[Persona, str]] = []
    while len(drawn) < count:
        personas = list(domain.steered(side))
        rng.shuffle(personas)
        for persona in personas:
            drawn += [
                (persona, opening)
                for opening in rng.sample(persona.openings, min(_OPENINGS_EACH, len(persona.openings)))
            ]
    return drawn[:count]


def _batches(samples: Sequence[Sample], size: int, model: Any) -> Iterator[tuple[Sequence[Sample], list[str]]]:
    """Samples in batches with their keys; a key stands for the whole batch, since that decides the rounding too."""
    for start in range(0, len(samples), size):
        chosen = samples[start : start + size]
        whole = digest([model, [asdict(sample.request) for sample in chosen]], 24)
        yield chosen, [f"{whole}/{place}" for place in range(len(chosen))]
