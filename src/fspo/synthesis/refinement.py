"""Iterative persona refinement: a description is extended until it decides the pairs that it left open.

For a pair that the judge can't decide from the description, one side is picked at random and a sentence is added that
makes a later judge pick the same (FSPO, arXiv 2502.19312, section 5). The pairs are all labelled again afterwards.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fspo.judging.attributes import sentences
from fspo.judging.verdicts import Comparison
from fspo.llm.batching import ask_all, mark_unusable
from fspo.llm.types import Completion, CompletionRequest, LanguageModel, Message
from fspo.preferences.types import User
from fspo.progress import Task
from fspo.synthesis.config import Refinement, SynthesisConfig
from fspo.synthesis.domain import Domain
from fspo.synthesis.judges import Judging
from fspo.synthesis.model_texts import fault, tidied
from fspo.synthesis.pairs import Pair

__all__ = ["SENTENCE_TOKENS", "Refined", "refine", "steps_of"]

SENTENCE_TOKENS = 60
_MOST_WORDS = 60


@dataclass
class Refined:
    """What refinement made of the users.

    `users` have their final descriptions, in order; `added` is user -> the sentences added; `open` counts the pairs
    that were left open in each round; `rejected` is reason -> sentences not used.
    """

    users: list[User]
    added: dict[str, list[str]] = field(default_factory=dict)
    open: list[int] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


def steps_of(refinement: Refinement) -> int:
    """Steps of a user's round, for progress: the pairs, and the sentence."""
    return refinement.pairs + 1


def refine(
    config: SynthesisConfig,
    refinement: Refinement,
    domain: Domain,
    users: Sequence[User],
    pairs: Callable[[User, int, int], list[Pair]],
    judging: Judging,
    llm: LanguageModel,
    task: Task,
) -> Refined:
    """Extend the users' descriptions, all users of a round side by side.

    `pairs` gives (user, round, count) -> pairs of theirs. `task` is advanced by `steps_of` for each user and round;
    rounds that need not be are skipped.

    Raises:
        ModelError: a model failed.
    """
    people = {user.id: user for user in users}
    result = Refined([], {user.id: [] for user in users})
    active = list(people)
    for turn in range(refinement.rounds):
        opened = _open_pairs(people, active, pairs, judging, turn, refinement.pairs, task)
        result.open.append(sum(map(len, opened.values())))
        settled = sum(not pairs for pairs in opened.values())
        task.skip(settled * ((refinement.rounds - turn) * steps_of(refinement) - refinement.pairs))
        active = [id for id, found in opened.items() if found]
        chosen = [(people[id], _picked(config, id, turn, opened[id][0])) for id in active]
        requests = (_request(domain, config, user, pair) for user, pair in chosen)
        answers = ask_all(llm, requests, config.batch, task)
        for (user, pair), completion in zip(chosen, answers, strict=True):
            sentence, why = _sentence(completion, user.description, domain.file.language)
            if why:
                result.rejected[why] += 1
                mark_unusable(llm, _request(domain, config, user, pair))
                continue
            people[user.id] = replace(user, description=f"{user.description} {sentence}".strip())
            result.added[user.id].append(sentence)
    result.users = list(people.values())
    return result


def _open_pairs(
    people: dict[str, User],
    active: Sequence[str],
    pairs: Callable[[User, int, int], list[Pair]],
    judging: Judging,
    turn: int,
    count: int,
    task: Task,
) -> dict[str, list[Pair]]:
    """User -> the pairs that the description does not decide."""
    asked = [(id, pair) for id in active for pair in pairs(people[id], turn, count)]
    task.skip(len(active) * count - len(asked))  # a user may have fewer pairs than wanted
    comparisons = (Comparison(people[id], p.question.text, p.a.text, p.b.text) for id, p in asked)
    opened: dict[str, list[Pair]] = {id: [] for id in active}
    for (id, pair), judgement in zip(asked, judging(comparisons, task), strict=True):
        if judgement.reason in ("unclear", "inconsistent"):
            opened[id].append(pair)
    return opened


def _picked(config: SynthesisConfig, user: str, turn: int, pair: Pair) -> Pair:
    """The pair with the response first that is to be preferred from now on."""
    if random.Random(f"{config.seed}/refinement/{user}/{turn}/side").random() < 0.5:
        return pair
    return replace(pair, a=pair.b, b=pair.a)


def _request(domain: Domain, config: SynthesisConfig, user: User, pair: Pair) -> CompletionRequest:
    said = {"description": user.description, "question": pair.question.text}
    text = domain.prompts["append"].ask({**said, "chosen": pair.a.text, "rejected": pair.b.text})
    return CompletionRequest((Message("user", text),), max_tokens=SENTENCE_TOKENS, temperature=0.7, seed=config.seed)


def _sentence(completion: Completion, description: str, language: str) -> tuple[str, str]:
    """The one sentence of an answer, or why it can't be used."""
    if completion.missing:
        return "", completion.missing
    text = " ".join(tidied(completion).split()).strip("\"' ")
    why = fault(text, min_words=3, language=language)
    if why:
        return "", why
    sentence = sentences(text)[0]
    if len(sentence.split()) > _MOST_WORDS:
        return "", "rambling"
    if sentence in description:
        return "", "said before"
    return sentence if sentence[-1] in ".!?" else f"{sentence}.", ""
