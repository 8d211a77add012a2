"""What a dataset of the recipe looks like: `checks.json`, for people and for the report.

The layout is that of `fspo.synthesis.restyled.checks` where both have a figure, and besides:

    {"counts": {"seeds": questions written by people},
     "questions": {"rejected": {reason: count}},
     "sampling": {"models": {name: responses}, "steered": {persona or view: responses}, the most frequent alone,
                  "steered_others": responses of all others},
     "diversity": see `fspo.synthesis.recipe.diversity`,
     "labels": {"undecided": {reason: count}, "order": {"agreement", "first_share", "estimated_accuracy"},
                "entropy": {"before", "after"} in nats a shared pair, "agreement_with_measures": share
                of the labels that the measured judge shares among those it decides, or null and "why"},
     "refinement": {"open": [pairs left open in each round], "sentences": added, "users": extended, "rejected"},
     "casting": {"made_anew": users, "outside": {reason: users}},
     "replies": {what was odd about a server's reply: replies}, over all calls of the run}
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from fspo.errors import DataError
from fspo.judging.attributes import words
from fspo.judging.topics import named
from fspo.preferences.types import Preference, User
from fspo.synthesis.figures import correlation, histogram
from fspo.synthesis.recipe.casting import Cast
from fspo.synthesis.recipe.config import RecipeConfig
from fspo.synthesis.recipe.disagreement import Matrix
from fspo.synthesis.recipe.diversity import diversity, sentence_embedding
from fspo.synthesis.recipe.domain import RecipeDomain
from fspo.synthesis.recipe.judges import measured_judge
from fspo.synthesis.recipe.labels import LabelCounts
from fspo.synthesis.recipe.questions import Question, Questions
from fspo.synthesis.recipe.responses import Response, Responses

__all__ = ["FORMAT", "check"]

FORMAT = 1
"""Version of the layout above."""

_MEASURED = 2000
"""Responses that attributes are measured in, at most."""
_SHOWN = 24
"""Users of the matrix that are written out, at most."""
_EXAMPLES = 12
_STEERINGS = 20
"""Personas or viewpoints whose responses are counted one by one, at most: every question has its own viewpoints."""
_COMPARED = 2000
"""Labels that are compared with the measured judge's, at most."""


def check(
    config: RecipeConfig,
    domain: RecipeDomain,
    questions: Questions,
    responses: Responses,
    cast: Cast,
    counts: LabelCounts,
    preferences: Iterable[Preference],
) -> dict[str, Any]:
    """Everything that `checks.json` holds; the preferences are gone through once."""
    rows = _sampled(preferences, random.Random(f"{config.seed}/compared"))
    attributes = named(domain.attributes() or ("sentiment", "length", "reading_grade"), domain.topics)
    texts = [r.text for r in _some(responses.items, _MEASURED, config.seed)]
    columns = {name: [attribute.measure(text) for text in texts] for name, attribute in attributes.items()}
    steered = dict(Counter(response.steered for response in responses.items).most_common(_STEERINGS))
    return {
        "format": FORMAT,
        "counts": {
            "questions": len({response.question for response in responses.items}),
            "seeds": sum(question.seed for question in questions.items),
            "responses": len(responses.items),
            "users": len(cast.users),
            "preferences": counts.decided,
            "ties": sum(counts.order.undecided.values()),
        },
        "questions": {"rejected": dict(questions.rejected.most_common())},
        "sampling": {
            "asked": responses.asked,
            "used": len(responses.items),
            "rejected": dict(responses.rejected.most_common()),
            "models": dict(Counter(response.model for response in responses.items)),
            "steered": steered,
            "steered_others": len(responses.items) - sum(steered.values()),
        },
        "attributes": {
            name: {
                "about": attributes[name].about,
                "mean": round(statistics.fmean(column), 4),
                "std": round(statistics.pstdev(column), 4),
                "histogram": histogram(column),
            }
            for name, column in columns.items()
        },
        "correlation": correlation(columns),
        "disagreement": _disagreement(cast.matrix, config.shared_pairs),
        "diversity": diversity(responses.items, config.seed, sentence_embedding if config.meaning else None),
        "labels": _labels(config, domain, questions.items, responses.items, cast, counts, rows),
        "refinement": {
            "open": cast.open,
            "sentences": sum(map(len, cast.added.values())),
            "users": sum(bool(added) for added in cast.added.values()),
            "rejected": dict(cast.rejected.most_common()),
        },
        "casting": {
            "made_anew": sum(bool(count) for count in cast.attempts.values()),
            "outside": dict(Counter(_kind(why) for why in cast.outside.values())),
        },
        "balance": {"words": round(statistics.fmean(len(words(text)) for text in texts), 2)},
        "samples": _examples(config, questions.items, responses.items),
        "sample_pairs": _example_pairs(cast.users, rows),
    }


def _labels(
    config: RecipeConfig,
    domain: RecipeDomain,
    questions: Sequence[Question],
    responses: Sequence[Response],
    cast: Cast,
    counts: LabelCounts,
    rows: Sequence[Preference],
) -> dict[str, Any]:
    order, per_user = counts.order, list(counts.per_user.values())
    found: dict[str, Any] = {
        "tie_share": round(1 - counts.decided / max(1, counts.asked), 4),
        "undecided": dict(order.undecided.most_common()),
        "per_user": {
            "least": min(per_user),
            "mean": round(statistics.fmean(per_user), 1),
            "most": max(per_user),
        },
        "entropy": {"before": _figure(cast.entropy[0]), "after": _figure(cast.entropy[1])},
    }
    if config.judge == "measured":
        return found | {"consistency": 1.0}  # antisymmetric by construction
    return found | {
        "consistency": _figure(order.agreement),
        "order": {
            "agreement": _figure(order.agreement),
            "first_share": _figure(order.first_share),
            "estimated_accuracy": _figure(order.accuracy),
        },
        **_agreement(config, domain, questions, responses, cast.users, rows),
    }


def _agreement(
    config: RecipeConfig,
    domain: RecipeDomain,
    questions: Sequence[Question],
    responses: Sequence[Response],
    users: Sequence[User],
    rows: Sequence[Preference],
) -> dict[str, Any]:
    """Share of the labels that the measured judge shares, where it decides; or why there is none."""
    name = "agreement_with_measures"
    people = {user.id: user for user in users if user.traits}
    if not people:
        return {name: None, "why": "No user has weights."}
    try:
        judge = measured_judge(config, domain, questions, responses)
    except DataError as error:  # an attribute that does not vary
        return {name: None, "why": str(error)}
    verdicts = [
        judge.compare(people[row.user], row.prompt, row.chosen, row.rejected) for row in rows if row.user in people
    ]
    decided = [verdict == "first" for verdict in verdicts if verdict != "tie"]
    if not decided:
        return {name: None, "why": "The measured judge decides none of the labelled pairs."}
    return {name: round(sum(decided) / len(decided), 4)}


def _disagreement(matrix: Matrix | None, pairs: int) -> dict[str, Any]:
    if matrix is None:
        return {}
    step = max(1, math.ceil(len(matrix.users) / _SHOWN))
    shown = range(0, len(matrix.users), step)
    return {
        "users": [matrix.users[place] for place in shown],
        "matrix": [[_figure(matrix.shares[i, j]) or 0.0 for j in shown] for i in shown],
        "pairs": pairs,
        "mean": _figure(matrix.mean),
    }


def _examples(
    config: RecipeConfig, questions: Sequence[Question], responses: Sequence[Response]
) -> list[dict[str, Any]]:
    prompts = {question.id: question.text for question in questions}
    return [
        {
            "prompt": prompts[r.question],
            "response": r.text,
            "steered_to": r.steered or "nothing",
            "measured": r.model,
            "restyle": [],  # samples of both recipes have the same keys
        }
        for r in _some(responses, _EXAMPLES, config.seed)
    ]


def _example_pairs(users: Sequence[User], rows: Sequence[Preference]) -> list[dict[str, str]]:
    people = {user.id: user for user in users}
    return [
        {
            "user": row.user,
            "description": people[row.user].description,
            "prompt": row.prompt,
            "chosen": row.chosen,
            "rejected": row.rejected,
        }
        for row in rows[:_EXAMPLES]
    ]


def _sampled(rows: Iterable[Preference], rng: random.Random) -> list[Preference]:
    """Some rows of many, each as likely as the others, in one pass (reservoir sampling)."""
    kept: list[Preference] = []
    for place, row in enumerate(rows):
        if place < _COMPARED:
            kept.append(row)
        elif (at := rng.randrange(place + 1)) < _COMPARED:
            kept[at] = row
    rng.shuffle(kept)
    return kept


def _some(items: Sequence[Response], count: int, seed: int) -> list[Response]:
    return random.Random(f"{seed}/measured").sample(list(items), min(len(items), count))


def _kind(why: str) -> str:
    return "too much like another" if why.startswith("too much like") else why


def _figure(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)
