"""The questions of a dataset: a domain's seeds, and new ones that a language model writes after a few of them."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fspo.judging.attributes import words
from fspo.llm.batching import ask_in_pieces, mark_unusable
from fspo.llm.types import CompletionRequest, LanguageModel, Message
from fspo.preferences.wording import wording
from fspo.progress import Progress
from fspo.synthesis.recipe.config import RecipeConfig
from fspo.synthesis.recipe.domain import RecipeDomain, Seed
from fspo.synthesis.recipe.texts import fault, items_of
from fspo.synthesis.similarity import Overlaps

__all__ = ["AT_ONCE", "EXAMPLES", "TOKENS", "Question", "Questions", "make_questions"]

EXAMPLES = 4
AT_ONCE = 6
"""New questions asked for in one request."""
TOKENS = 40
"""Tokens that one new question may take."""
_LEAST, _MOST = 3, 45
"""Words of a question."""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: a short name, unique in the dataset.
        text: what is asked.
        topic: what it is about, where the domain says so.
        unit: what is held out together.
        seed: whether people wrote it, and no model.
        kind: of the work it is about, if any.
        title: of that work.
    """

    id: str
    text: str
    topic: str
    unit: str
    seed: bool
    kind: str = ""
    title: str = ""

    def record(self) -> dict[str, Any]:
        """As one line of `questions.jsonl`."""
        return asdict(self)


@dataclass
class Questions:
    """All questions, and what was not used and why."""

    items: list[Question] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


def make_questions(config: RecipeConfig, domain: RecipeDomain, llm: LanguageModel, progress: Progress) -> Questions:
    """As many questions as wanted, or as many as there can be.

    Raises:
        ModelError: the model failed.
    """
    result, known = Questions(), Overlaps(config.near_duplicate, size=2)
    seeds = _seeds(config, domain, known, result)
    if len(result.items) < config.questions and config.augment:
        _augment(config, domain, seeds, llm, known, result, progress)
    return result


def _seeds(config: RecipeConfig, domain: RecipeDomain, known: Overlaps, result: Questions) -> list[Seed]:
    """The seeds without near-duplicates of other topics' seeds; the first of them are taken over, topic by topic."""
    rng = random.Random(f"{config.seed}/seeds")
    kept: list[Seed] = []
    topics: dict[str, list[Seed]] = {}
    works = any(seed.title for seed in domain.seeds)
    texts: set[str] = set()
    for seed in domain.seeds:
        if wording(seed.text) in texts:
            result.rejected["duplicate seed"] += 1
            continue
        texts.add(wording(seed.text))
        # Phrasings of one pattern on many works are alike on purpose.
        if not works and not known.add(seed.text):
            result.rejected["near-duplicate seed"] += 1
            continue
        kept.append(seed)
        topics.setdefault(seed.topic, []).append(seed)
    if not works:  # works keep their order, which changes the title before it changes the phrasing
        for own in topics.values():
            rng.shuffle(own)
        taken = [seed for row in _rows(list(topics.values())) for seed in row]
    else:
        taken = kept
    if works:  # a new question may be like none of them
        for seed in taken[: config.questions]:
            known.add(seed.text)
    result.items += [_question(seed.text, seed.topic, seed, True) for seed in taken[: config.questions]]
    return kept


def _augment(
    config: RecipeConfig,
    domain: RecipeDomain,
    seeds: Sequence[Seed],
    llm: LanguageModel,
    known: Overlaps,
    result: Questions,
    progress: Progress,
) -> None:
    topics = list(dict.fromkeys(seed.topic for seed in seeds))
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
                            _take(text, topic, domain.file.language, known, result)
                found = len(result.items) - before
                task.skip(found) if all(completion.kept for completion in piece) else task.advance(found)
    if len(result.items) < config.questions:
        progress.say(
            f"{len(result.items)} of {config.questions} questions were found in {config.augment_rounds} rounds; the "
            "other texts were near-duplicates or no questions. Raise synthesis.augment_rounds, or write more seeds."
        )


def _request(
    config: RecipeConfig, domain: RecipeDomain, topic: str, seeds: Sequence[Seed], rng: random.Random
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
    return CompletionRequest(
        (Message("user", text),),
        max_tokens=TOKENS * AT_ONCE,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=rng.randrange(2**31),
    )


def _take(text: str, topic: str, language: str, known: Overlaps, result: Questions) -> None:
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
        result.items.append(_question(text, topic, None, False))


def _question(text: str, topic: str, seed: Seed | None, by_people: bool) -> Question:
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    id = f"{_slug(topic)}/{digest}" if topic else digest
    unit = seed.unit if seed is not None else text
    kind, title = (seed.kind, seed.title) if seed is not None else ("", "")
    return Question(id, text, topic, unit, by_people, kind, title)


def _slug(topic: str) -> str:
    return "-".join(words(topic.lower())) or "topic"


def _rows(columns: Sequence[Sequence[Seed]]) -> Iterable[list[Seed]]:
    for place in range(max(map(len, columns), default=0)):
        yield [column[place] for column in columns if place < len(column)]
