"""The questions of a dataset: those of the domain, and new ones that a language model writes after a few of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from fspo.errors import ConfigError, DataError
from fspo.judging.attributes import words
from fspo.llm.batching import ask_in_pieces, mark_unusable
from fspo.llm.types import CompletionRequest, LanguageModel, Message
from fspo.preferences.wording import wording
from fspo.progress import Progress
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Domain, Question
from fspo.synthesis.model_texts import fault, items_of
from fspo.synthesis.similarity import Overlaps

__all__ = ["AT_ONCE", "EXAMPLES", "TOKENS", "Questions", "check_questions", "make_questions", "seeds_used"]

Item = TypeVar("Item")

EXAMPLES = 4
AT_ONCE = 6
"""New questions per request."""
TOKENS = 40
"""Tokens that one new question may take."""
_LEAST, _MOST = 3, 45
"""Words of a question."""


@dataclass
class Questions:
    """All questions, and what was not used and why."""

    items: list[Question] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


def check_questions(config: SynthesisConfig, domain: Domain) -> None:
    """Check that there are questions to train on and others to hold out, before any model is asked.

    Raises:
        ConfigError: the configuration wants more works than the domain has.
        DataError: all questions are about one work, which can't be in two parts.
    """
    works = {seed.unit for seed in domain.seeds if seed.title}
    if config.works is not None and config.works > len(works):
        raise ConfigError(
            f"synthesis.works is {config.works}, and the domain '{domain.name}' has {len(works)}; "
            + (f"set it to at most {len(works)}." if works else "leave it out.")
        )
    known = Questions()
    seeds = _seeds(config, domain, Overlaps(config.near_duplicate, size=2), known)
    grows = _grows(config, domain) and len(known.items) < config.questions
    if len({question.unit for question in known.items}) < 2 and not grows:
        raise DataError(
            f"The domain '{domain.name}' has {len(seeds)} questions, which are all held out together, so none is left "
            "to train on; add works or questions."
        )


def seeds_used(config: SynthesisConfig, domain: Domain) -> int:
    """How many of the domain's own questions become questions of the dataset."""
    used = Questions()
    _seeds(config, domain, Overlaps(config.near_duplicate, size=2), used)
    return len(used.items)


def make_questions(config: SynthesisConfig, domain: Domain, llm: LanguageModel, progress: Progress) -> Questions:
    """As many questions as wanted, or as many as there can be.

    Raises:
        ModelError: the model failed.
    """
    result, known = Questions(), Overlaps(config.near_duplicate, size=2)
    seeds = _seeds(config, domain, known, result)
    if len(result.items) < config.questions and _grows(config, domain):
        _augment(config, domain, seeds, llm, known, result, progress)
    return result


def _grows(config: SynthesisConfig, domain: Domain) -> bool:
    """Whether new questions may be written: not where people wrote the responses."""
    return config.augment and not domain.written


def _seeds(config: SynthesisConfig, domain: Domain, known: Overlaps, result: Questions) -> list[Question]:
    """The seeds without near-duplicates of other topics' seeds; the first of them are taken over, topic by topic."""
    rng = random.Random(f"{config.seed}/seeds")
    kept: list[Question] = []
    works = any(seed.title for seed in domain.seeds)
    texts: set[str] = set()
    for seed in domain.seeds:
        if wording(seed.text) in texts:
            result.rejected["duplicate seed"] += 1
            continue
        texts.add(wording(seed.text))
        # Phrasings of one pattern on many works are alike on purpose, and written responses are not to be lost.
        if not works and not domain.written and not known.add(seed.text):
            result.rejected["near-duplicate seed"] += 1
            continue
        kept.append(seed)
    taken = (_by_work if works else _by_topic)(config, kept, rng)[: config.questions]
    if works:  # a new question may be like none of them
        for seed in taken:
            known.add(seed.text)
    result.items += taken
    return kept


def _by_topic(config: SynthesisConfig, seeds: Iterable[Question], rng: random.Random) -> list[Question]:
    """Topics take turns."""
    topics: dict[str, list[Question]] = {}
    for seed in seeds:
        topics.setdefault(seed.topic, []).append(seed)
    for own in topics.values():
        rng.shuffle(own)
    return list(_in_turns(list(topics.values())))


def _by_work(config: SynthesisConfig, seeds: Iterable[Question], rng: random.Random) -> list[Question]:
    """One question on each work, kinds taking turns, before a second one on any."""
    kinds: dict[str, dict[str, list[Question]]] = {}
    for seed in seeds:
        kinds.setdefault(seed.kind, {}).setdefault(seed.unit, []).append(seed)
    columns = [list(units.values()) for units in kinds.values()]
    for own in columns:
        rng.shuffle(own)
    units = list(_in_turns(columns))
    return list(_in_turns(units[: config.works]))


def _augment(
    config: SynthesisConfig,
    domain: Domain,
    seeds: Sequence[Question],
    llm: LanguageModel,
    known: Overlaps,
    result: Questions,
    progress: Progress,
) -> None:
    topics, kinds = list(dict.fromkeys(seed.topic for seed in seeds)), _kinds(seeds)
    with progress.task("Writing questions", total=config.questions - len(result.items)) as task:
        for turn in range(config.augment_rounds):
            missing = config.questions - len(result.items)
            if missing <= 0:
                return
            rng = random.Random(f"{config.seed}/augment/{turn}")
            # A third more than is missing, since some will be near-duplicates.
            count = -(-missing * 4 // (3 * AT_ONCE))
            asked = [topics[(turn + place) % len(topics)] for place in range(count)]
            requests = [_request(config, domain, topic, seeds, rng) for topic in asked]
            answered = iter(zip(asked, requests, strict=True))
            for piece in ask_in_pieces(llm, requests, config.batch):
                before = len(result.items)
                for completion, (topic, request) in zip(piece, answered, strict=False):
                    items = items_of(completion)
                    if completion.missing:
                        result.rejected[f"questions: {completion.missing}"] += 1
                    if not items:
                        mark_unusable(llm, request)
                    for text in items:
                        if len(result.items) < config.questions:
                            _take(text, topic, kinds[topic], domain.file.language, known, result)
                found = len(result.items) - before
                task.skip(found) if all(completion.kept for completion in piece) else task.advance(found)
    if len(result.items) < config.questions:
        progress.say(
            f"{len(result.items)} of {config.questions} questions were found in {config.augment_rounds} rounds; the "
            "other texts were near-duplicates or no questions. Raise synthesis.augment_rounds, or write more seeds."
        )


def _request(
    config: SynthesisConfig, domain: Domain, topic: str, seeds: Sequence[Question], rng: random.Random
) -> CompletionRequest:
    own = [seed.text for seed in seeds if seed.topic == topic]
    examples = rng.sample(own, min(EXAMPLES, len(own)))
    listed = "\n".join(f"- {' '.join(example.split())}" for example in examples)
    text = domain.prompts["augment"].ask(
        {"examples": f"\n{listed}\n"},
        about=domain.file.about,
        topic=f"Topic: {topic}" if topic else "",
        number=AT_ONCE,
    )
    return config.request(Message("user", text), max_tokens=TOKENS * AT_ONCE, seed=rng.randrange(2**31))


def _kinds(seeds: Iterable[Question]) -> dict[str, str]:
    """Topic -> the kind of work that all its questions are about; empty where they are about several, or none."""
    found: dict[str, set[str]] = {}
    for seed in seeds:
        found.setdefault(seed.topic, set()).add(seed.kind)
    return {topic: kinds.pop() if len(kinds) == 1 else "" for topic, kinds in found.items()}


def _take(text: str, topic: str, kind: str, language: str, known: Overlaps, result: Questions) -> None:
    count = len(words(text))
    why = fault(text, min_words=1, language=language)
    if why is not None:
        result.rejected[f"question: {why}"] += 1
    elif not _LEAST <= count <= _MOST:
        result.rejected["question too short or too long"] += 1
    elif not text.isprintable():
        result.rejected["question with control characters"] += 1
    elif not known.add(text):
        result.rejected["near-duplicate question"] += 1
    else:
        result.items.append(Question.of(text, topic, kind, seed=False))


def _in_turns(columns: Sequence[Sequence[Item]]) -> Iterable[Item]:
    """The first of each column, then the second of each, and so on."""
    most = max(map(len, columns), default=0)
    return chain.from_iterable([column[at] for column in columns if at < len(column)] for at in range(most))
