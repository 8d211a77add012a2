"""Which of two responses each user prefers, pair by pair."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from fspo.judging.judge import Judge, LabelledBy
from fspo.preferences.types import Preference, User
from fspo.progress import Progress, Silent
from fspo.synthesis.restyled.config import RestyledConfig
from fspo.synthesis.restyled.responses import Response
from fspo.synthesis.similarity import jaccard, shingles

__all__ = ["Labels", "allowed_pairs", "label_all"]

Pair = tuple[Response, Response]


@dataclass
class Labels:
    """The labelled pairs, and what the judge left undecided."""

    preferences: list[Preference] = field(default_factory=list)
    ties: int = 0
    """Pairs that were judged a tie and dropped; another pair was drawn for each, while there was one."""


def allowed_pairs(responses: Sequence[Response], config: RestyledConfig) -> list[Pair]:
    """The pairs of responses to one question that may be put before a user.

    Two responses from different samples must not be near-duplicates. Two from one sample share their wording on purpose
    and differ in style; they are allowed if the configuration says so.
    """
    runs = {response.id: shingles(response.text) for response in responses}
    return [
        (a, b)
        for a, b in combinations(responses, 2)
        if (config.same_text_pairs if a.sample == b.sample else jaccard(runs[a.id], runs[b.id]) < config.near_duplicate)
    ]


def label_all(
    config: RestyledConfig,
    users: Sequence[User],
    responses: Mapping[str, Sequence[Response]],
    judge: Judge,
    progress: Progress | None = None,
) -> Labels:
    """For every user and question, draw pairs until `config.pairs` of them are decided or none is left.

    Args:
        config: how many pairs, and which.
        users: whom to label for.
        responses: question id -> responses to it.
        judge: whose word it is.
        progress: shows how far it is.
    """
    result = Labels()
    pairs = {question: allowed_pairs(own, config) for question, own in responses.items()}
    with (progress or Silent()).task("Labelling pairs", total=len(users)) as task:
        for user in users:
            for question, own in pairs.items():
                _label(config, user, question, own, judge, result)
            task.advance(note=f"{len(result.preferences)} preferences")
    return result


def _label(
    config: RestyledConfig, user: User, question: str, pairs: Sequence[Pair], judge: Judge, result: Labels
) -> None:
    rng = random.Random(f"{config.seed}/labels/{user.id}/{question}")
    decided = 0
    for drawn in rng.sample(pairs, len(pairs)):
        if decided == config.pairs:
            return
        a, b = drawn if rng.random() < 0.5 else drawn[::-1]
        verdict = judge.compare(user, a.prompt, a.text, b.text)
        if verdict == "tie":
            result.ties += 1
            continue
        decided += 1
        result.preferences.append(_preference(config, user, *((a, b) if verdict == "first" else (b, a))))


def _preference(config: RestyledConfig, user: User, chosen: Response, rejected: Response) -> Preference:
    source = {
        "domain": config.domain,
        "judge": LabelledBy.MEASURED.value,
        "same_text": chosen.sample == rejected.sample,
        "chosen": chosen.provenance(),
        "rejected": rejected.provenance(),
    }
    return Preference(user.id, chosen.prompt, chosen.text, rejected.text, chosen.question, source)
