"""SynPO: a model makes its own questions and improves its own answers (arXiv 2410.06961).

Two tools are trained from the same weights as the policy, by likelihood. The generator writes a question that has given
words; it learns from the training questions, whose words it is given with one of another question. The improver
rewrites an answer to a question; it learns from the policy's own answers to the training questions, given the user's
shots, to write the chosen responses. In each round:

1. the improver is trained from the round's policy,
2. the generator writes new questions,
3. the policy answers these, and the improver rewrites the answers,
4. SimPO prefers the rewritten answer to the first one.

The paper has no users, and a question is the whole prompt. Here everything but the generator sees the user's shots. The
improver reads a conversation: the question, the first answer, and the request to improve it. Keywords are words of at
least four letters; the paper takes those of its seed prompts too, but the sizes and the learning rates are ours.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from fspo.errors import DataError
from fspo.methods.method import Method
from fspo.methods.round_settings import RoundSettings, in_rounds
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Episode, Preference, Turn
from fspo.preferences.wording import wording

if TYPE_CHECKING:
    from fspo.methods.one_round import Pairs, Round

__all__ = ["ROWS", "SynpoSettings", "improving", "keywords_of", "writing"]

_WORD = re.compile(r"[^\W\d_]{4,}")
_IMPROVE = "Improve your answer."
_AROUND = 32
"""More tokens than stand around the request to improve an answer."""


class SynpoSettings(RoundSettings):
    """Settings of SynPO."""

    generator_steps: int = Field(default=40, ge=1, description="Steps of the training of the question generator, once.")
    improver_steps: int = Field(
        default=40, ge=1, description="Steps of the training of the response improver, in each round."
    )
    keywords: int = Field(
        default=2, ge=1, description="Words of a question that the generator is given, beside one of another question."
    )
    question_tokens: int = Field(default=48, ge=1, description="Maximum length of a generated question, in tokens.")

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all trainings."""
        return self.generator_steps + self.rounds * (self.improver_steps + self.steps)

    @property
    def room(self) -> int:
        """Tokens of a first answer, of the request, and of the rewritten answer."""
        return 2 * self.max_new_tokens + _AROUND


def keywords_of(text: str) -> list[str]:
    """The words of at least four letters, in lower case, each once."""
    return list(dict.fromkeys(word.lower() for word in _WORD.findall(text)))


def writing(words: Sequence[str]) -> str:
    """What the generator is asked."""
    return f"Write a question. Use these words: {', '.join(words)}."


def improving(query: Preference, answer: str) -> tuple[Turn, ...]:
    """What the improver is asked: the question, the first answer, and to improve it."""
    return (*query.messages, Turn("assistant", answer), Turn("user", _IMPROVE))


def _synthetic(one: Round) -> Pairs:
    """Rewritten answers to new questions against the policy's first answers."""
    from fspo.methods.one_round import Pairs
    from fspo.modeling.answering import Prompt

    config: SynpoSettings = one.config
    questions = _questions(one.dataset)  # first, since data without any are an error
    drawn = one.draw()
    first = one.own_answers(drawn, name="answers-to-improve")
    lessons = Pairs.of(
        replace(
            episode,
            queries=tuple(
                Preference.after(query.user, improving(query, reply.text), query.chosen, reply.text)
                for query, (reply,) in zip(episode.queries, replies, strict=True)
                if reply.text.strip()
            ),
        )
        for episode, replies in first
    )
    if not lessons.count:
        return lessons
    improver = one.train("improver", lessons.episodes, config.improver_steps)
    asked = list(_asked(one, drawn, questions))
    answered = [
        (episode, [reply.text for (reply,) in replies]) for episode, replies in one.own_answers(asked) if replies
    ]
    prompts = {
        f"{place}.{number}": Prompt(improving(query, text), episode.shots)
        for place, (episode, texts) in enumerate(answered)
        for number, (query, text) in enumerate(zip(episode.queries, texts, strict=True))
        if text.strip()
    }
    better = one.answers(prompts, name="improvements", model=improver)
    return Pairs.of(
        replace(
            episode,
            queries=tuple(
                replace(query, chosen=better[key].text if (key := f"{place}.{number}") in better else "", rejected=text)
                for number, (query, text) in enumerate(zip(episode.queries, texts, strict=True))
            ),
        )
        for place, (episode, texts) in enumerate(answered)
    )


def _asked(one: Round, drawn: Sequence[Episode], questions: Sequence[str]) -> Iterator[Episode]:
    """The episodes with a new question in the place of each query; what repeats a shot's question is left out."""
    from fspo.modeling.answering import Prompt

    config: SynpoSettings = one.config
    generator = one.train_once("generator", list(_lessons(one, questions)), config.generator_steps, context="none")
    rng = random.Random(f"{one.seed('keywords')}")
    prompts = {
        f"{place}.{number}": Prompt(writing(_drawn_words(questions, rng, config.keywords)))
        for place, episode in enumerate(drawn)
        for number in range(len(episode.queries))
    }
    new = one.answers(prompts, name="questions", model=generator, context="none", max_new_tokens=config.question_tokens)
    for place, episode in enumerate(drawn):
        shown = {wording(shot.prompt) for shot in episode.shots}
        texts = [" ".join(new[f"{place}.{number}"].text.split()) for number in range(len(episode.queries))]
        yield replace(
            episode,
            queries=tuple(
                Preference(episode.user, text, "", "", source={"question": "generated"})
                for text in texts
                if text and wording(text) not in shown
            ),
        )


def _lessons(one: Round, questions: Sequence[str]) -> Iterator[Episode]:
    """What the generator learns: a question from words of it and one of another question."""
    config: SynpoSettings = one.config
    rng = random.Random(f"{config.seed} questions")
    for _ in range(config.generator_steps * config.users_per_step):
        rows = []
        for question in rng.sample(questions, min(config.queries, len(questions))):
            words = _some(keywords_of(question), config.keywords, rng) + _some(
                keywords_of(rng.choice(questions)), 1, rng
            )
            rows.append(Preference("", writing(sorted(words, key=lambda _: rng.random())), question, question))
        yield Episode("", (), tuple(rows))


def _drawn_words(questions: Sequence[str], rng: random.Random, count: int) -> list[str]:
    """Words of different questions, so that they ask for a new one."""
    return [word for _ in range(count + 1) for word in _some(keywords_of(rng.choice(questions)), 1, rng)]


def _some(words: Sequence[str], count: int, rng: random.Random) -> list[str]:
    return rng.sample(list(words), min(count, len(words)))


def _questions(dataset: PreferenceDataset) -> list[str]:
    """The training questions that are one message and have a keyword, each once.

    Raises:
        DataError: there is none.
    """
    found = {row.question_key: row.prompt for row in dataset if not row.turns and keywords_of(row.prompt)}
    if not found:
        raise DataError(
            "No question of the training part is a single message with a word of four letters, so the question "
            "generator of synpo has nothing to learn from; leave synpo out."
        )
    return list(found.values())


ROWS = (
    Method(
        "synpo",
        "SynPO",
        "shots",
        ("simpo",),
        None,
        "start",
        "New questions by a generator of its own, and answers that an improver of its own rewrites, given the shots.",
        {"beta": 2.0, "gamma": 0.5},
        settings=SynpoSettings,
        train=in_rounds(_synthetic),
    ),
)
